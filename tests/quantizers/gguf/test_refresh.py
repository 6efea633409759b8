"""A rung's source changed, but its weights did not. New metadata gives the same file as a press of the new commit.
If the converter would make other tensors, the child says so and makes no file. (A rung is one GGUF variant.)"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantizers import quantizer
from quantizers.gguf.convert import convert
from quantizers.gguf.refresh import other_tensors
from quantizers.protocol import CalibrationText, Job, Result
from quantpress.files import sha256_of
from quantpress.machine.child import run_child
from quantpress.source.gguf import read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow

#: One rung that depends on the imatrix, and one whose matrices are those of the unquantized file.
RUNGS = ("Q4_K_M", "F16")
TEMPLATE = b"{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 2048,
}


def job_of(source: Path, folder: Path, text: Path, rung: str, **changes: object) -> Job:
    config = json.loads((source / "config.json").read_bytes())
    return Job(
        step="quantize",
        variant=quantizer("gguf").variant(rung, config),
        model_name="Tiny",
        source=source,
        prepared=folder / "prepared",
        out=folder / rung,
        calibration=CalibrationText(name="english", path=text, sha256=sha256_of(text), samples=2, length=128),
        threads=2,
        device="cpu",
    ).model_copy(update=changes)


def prepare(source: Path, folder: Path, text: Path, published: Path | None = None) -> None:
    """Prepares ``folder`` in a child, as a press does. ``published`` holds an imatrix to keep."""
    job = job_of(source, folder, text, RUNGS[0], step="prepare", published=published)
    run_child("quantizers.job", job, Result, folder / "job")


def press(source: Path, folder: Path, text: Path) -> Path:
    """Makes the rungs, each in a folder of its name in ``folder``. Returns ``folder``."""
    prepare(source, folder, text)
    for rung in RUNGS:
        (folder / rung).mkdir()
        quantizer("gguf").quantize(job_of(source, folder, text, rung))
    return folder


def refresh(source: Path, folder: Path, text: Path, pressed: Path, rung: str) -> tuple[str | None, list[Path]]:
    """Gives a rung of ``pressed`` the metadata of ``source``, in a child as a press does.

    Returns the obstacle that the child names, or None, and the files that it makes.
    """
    out = folder / f"refreshed-{rung}"
    job = job_of(source, folder, text, rung, step="refresh", published=pressed / rung, out=out)
    result = run_child("quantizers.job", job, Result, folder / f"refresh-{rung}")
    return result.obstacle, list(out.iterdir())


def change(file: Path, **values: Any) -> None:
    found = json.loads(file.read_bytes()) if file.exists() else {}
    file.write_text(json.dumps(found | values, indent=2))


@pytest.fixture(scope="module")
def published(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source at the published commit. Its chat template is in a file of its own."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("published") / "source"))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "chat_template.jinja").write_text(tokenizer.pop("chat_template"))
    del tokenizer["eos_token"]  # otherwise the converter does not read the number in config.json
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2))
    change(folder / "special_tokens_map.json", eos_token="<|im_end|>")
    return folder


@pytest.fixture(scope="module")
def pressed(llama_cpp: LlamaCpp, published: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return press(published, tmp_path_factory.mktemp("pressed"), english)


@pytest.fixture
def source(published: Path, tmp_path: Path) -> Path:
    """The source's next commit, which the test still has to change."""
    return Path(shutil.copytree(published, tmp_path / "source"))


def new_sampling(source: Path) -> None:
    change(source / "generation_config.json", temperature=0.6, top_p=0.9, top_k=40, eos_token_id=[2, 0])


def new_special_tokens(source: Path) -> None:
    change(source / "special_tokens_map.json", eos_token="<|endoftext|>", pad_token="<|im_end|>")


def new_template_file(source: Path) -> None:
    (source / "chat_template.jinja").write_bytes(TEMPLATE)


def new_end_of_text(source: Path) -> None:
    change(source / "config.json", eos_token_id=0)


def longer_context(source: Path) -> None:
    change(source / "config.json", max_position_embeddings=16384)


@pytest.mark.parametrize(
    "moved",
    [
        # config.json and special_tokens_map.json both name the end of a text, and special_tokens_map.json comes first.
        {new_special_tokens: ("tokenizer.ggml.eos_token_id", 2)},
        {
            new_sampling: ("general.sampling.temp", pytest.approx(0.6)),
            new_template_file: ("tokenizer.chat_template", TEMPLATE),
            new_end_of_text: ("tokenizer.ggml.eos_token_id", 0),
            longer_context: ("llama.context_length", 16384),
        },
    ],
    ids=["special tokens", "all else"],
)
def test_new_metadata_gives_the_file_that_a_press_gives(
    source: Path,
    pressed: Path,
    english: Path,
    tmp_path: Path,
    moved: dict[Callable[[Path], None], tuple[str, object]],
) -> None:
    for move in moved:
        move(source)
    anew = press(source, tmp_path / "anew", english)

    for rung in RUNGS:
        obstacle, (file,) = refresh(source, anew, english, pressed, rung)
        assert obstacle is None
        metadata = read_gguf(file).metadata
        for key, expected in moved.values():
            assert metadata[key] == expected
        assert sha256_of(file) == sha256_of(anew / rung / f"Tiny-{rung}.gguf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": LLAMA_3}, "rope_freqs.weight is new"),
        # Queries and keys keep their number of rows, but the converter lays the rows out by heads.
        (
            {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 192},
            "llama.attention.head_count was 9 and is 3",
        ),
    ],
)
def test_a_source_that_holds_other_tensors_now_is_no_new_metadata(
    source: Path, pressed: Path, english: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    change(source / "config.json", **changes)
    prepare(source, tmp_path / "now", english, pressed / "prepared")

    assert refresh(source, tmp_path / "now", english, pressed, "Q4_K_M") == (said, [])


def test_factors_of_the_rope_are_compared_by_value(llama_cpp: LlamaCpp, source: Path, tmp_path: Path) -> None:
    change(source / "config.json", rope_scaling=LLAMA_3)
    convert(llama_cpp, source, "Tiny", "F16", tmp_path / "before.gguf")
    change(source / "config.json", rope_scaling=LLAMA_3 | {"factor": 32.0})
    convert(llama_cpp, source, "Tiny", "F16", tmp_path / "after.gguf")

    before, after = tmp_path / "before.gguf", tmp_path / "after.gguf"
    assert other_tensors(after, before) == "rope_freqs.weight has other values"
    assert other_tensors(before, before) is None
