"""Makes every case of ``cases/*.yaml`` on CUDA in the press's child processes. Run by hand: ``pytest tests/gpu``.

The model has two layers of random weights, with widths that every format takes. The tests show whether a format works,
not how good it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.gpu import make_random
from quantizers import quantizer
from quantizers.protocol import CalibrationText, Job, Result
from quantpress.evaluation.engines.detect import engine_for
from quantpress.evaluation.generate import Generation, GenerationJob
from quantpress.evaluation.job import EvaluationJob
from quantpress.files import sha256_of
from quantpress.machine.child import run_child
from quantpress.record.measurement import Engine, Evaluation, Protocol
from quantpress.toolchain.exllama import EXLLAMAV2, EXLLAMAV3, find

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

CASES = [yaml.safe_load(file.read_text()) for file in sorted((Path(__file__).parent / "cases").glob("*.yaml"))]
#: ExLlamaV3 needs widths that 128 divides, also for keys and values. The vocabulary is larger than the tokenizer's.
SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
TOOLCHAINS = {"exl3": EXLLAMAV3, "exl2": EXLLAMAV2}


@dataclass(frozen=True)
class Base:
    """The unquantized model on the GPU: its folder, the text, and its log-probabilities."""

    model: Path
    text: Path
    logits: Path

    def measure(self, engine: Engine, model: Path, folder: Path, **options: Any) -> Evaluation:
        protocol = Protocol(text="custom", text_sha256=sha256_of(self.text), n_ctx=128, windows=6)
        job = EvaluationJob(
            engine=engine, model=model, protocol=protocol, text=self.text, threads=4, device="cuda", **options
        )
        return run_child("quantpress.evaluation.job", job, Evaluation, folder)

    def quantize(self, format_name: str, variant: str, folder: Path) -> Result:
        config = json.loads((self.model / "config.json").read_text())
        job = Job(
            step="prepare",
            variant=quantizer(format_name).variant(variant, config),
            model_name="Random",
            source=self.model,
            prepared=folder / "prepared",
            out=folder / "out",
            calibration=CalibrationText(
                name="english", path=self.text, sha256=sha256_of(self.text), samples=8, length=128
            ),
            threads=4,
            device="cuda",
        )
        run_child("quantizers.job", job, Result, folder / "prepare")
        return run_child("quantizers.job", job.model_copy(update={"step": "quantize"}), Result, folder / "job")


@pytest.fixture(scope="module")
def tokenizer(english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer that is trained here, because a GPU machine may not reach a package index to get one.

    The model's other ids get names that no text contains, so that all it generates can be read.
    """
    from tokenizers import ByteLevelBPETokenizer, Tokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train([str(english)], vocab_size=4096, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    state = json.loads(trained.to_str())
    known = state["model"]["vocab"]
    known |= {f"word{index}": index for index in range(len(known), SHAPE["vocab_size"])}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tokenizer: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    make_random(folder / "model", tokenizer, SHAPE)
    made = Base(folder / "model", english, folder / "logits.bin")
    made.measure("transformers", made.model, folder, save_logits=made.logits)
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']}-{case['variant']}")
def test_made_and_measured_on_a_gpu(case: dict[str, Any], base: Base, tmp_path: Path) -> None:
    package = TOOLCHAINS.get(case["format"])
    if package is not None and find(package) is None:
        pytest.skip(f"run `quantpress toolchain install {package.name}` first")

    result = base.quantize(case["format"], case["variant"], tmp_path)

    assert result.output is not None
    assert result.peak_device_memory_bytes is not None and result.peak_device_memory_bytes > 10_000_000
    # EXL2 chooses its mix of widths by measuring. Its case names only the types that do not depend on that mix.
    assert case["weights"].items() <= result.output.tensor_types.items()
    assert sum(result.output.tensor_types.values()) == case["total"]
    made = tmp_path / "out"
    assert result.output.files == sorted(path.name for path in made.iterdir())
    assert json.loads((made / "config.json").read_text())["quantization_config"]["quant_method"] == case["quant_method"]
    engine = engine_for(made)
    assert engine == quantizer(case["format"]).engine
    found = base.measure(engine, made, tmp_path / "measured", base_logits=base.logits)
    assert found.non_finite == 0
    assert found.divergence is not None
    assert 0 < found.divergence.mean < case["largest_divergence"]
    asked = GenerationJob(engine=engine, model=made, prompt="Once upon a time", tokens=8, threads=4, device="cuda")
    assert run_child("quantpress.evaluation.generate", asked, Generation, tmp_path / "speak").text


def test_two_formats_of_a_model_at_once_on_one_gpu(base: Base, tmp_path: Path) -> None:
    """Each format has a child of its own. Neither child waits for the other or counts the other's memory as its own."""
    jobs: list[Callable[[], Result]] = [
        lambda: base.quantize("gptq", "gptq-4bit-auto", tmp_path / "gptq"),
        lambda: base.quantize("bitsandbytes", "nf4", tmp_path / "nf4"),
    ]
    with ThreadPoolExecutor(2) as pool:
        gptq, nf4 = pool.map(lambda job: job(), jobs)

    assert gptq.output is not None and nf4.output is not None
    for folder in ("gptq", "nf4"):
        measured = base.measure("transformers", tmp_path / folder / "out", tmp_path / f"{folder}-measured")
        assert measured.non_finite == 0
