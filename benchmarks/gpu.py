"""Makes and measures variants on one GPU, in the same child processes as ``quantpress run``, and prints a table.

Run it as ``python -m benchmarks.gpu MODEL --out DIR --variants gptq:gptq-4bit-auto,exl3:4.0bpw``. To choose a backend,
write ``gptq@auto-gptq:NAME``. With ``--at-once``, all variants are made at the same time, each in its own process, and
all use the first GPU. To use two GPUs, start two benchmarks, each with its own ``CUDA_VISIBLE_DEVICES`` and ``--out``.
With ``--random FOLDER``, the benchmark first makes a model of 1.07 B random weights in MODEL, with the tokenizer of
FOLDER.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantizers import quantizer
from quantizers.protocol import CalibrationText, Job, Quantizer, Result
from quantpress.errors import QuantpressError
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.text import EvaluationText, calibration_text, evaluation_text
from quantpress.machine.child import run_child
from quantpress.record.measurement import Engine, Evaluation, Protocol
from quantpress.record.recipe import fingerprint_of
from quantpress.settings import Settings

#: The shape of TinyLlama with the vocabulary and tied embeddings of SmolLM2. It has 1.07 B weights.
_RANDOM = {
    "vocab_size": 49152,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Trial:
    """A model, the texts and protocol for its variants, and the folder, device and threads to use."""

    model: Path
    out: Path
    calibration: CalibrationText
    text: EvaluationText
    protocol: Protocol
    device: Literal["cpu", "cuda"]
    threads: int

    def evaluate(self, engine: Engine, model: Path, folder: Path, **options: Any) -> Evaluation:
        job = EvaluationJob(
            engine=engine,
            model=model,
            protocol=self.protocol,
            text=self.text.path.resolve(),
            threads=self.threads,
            device=self.device,
            **options,
        )
        return run_child("quantpress.evaluation.job", job, Evaluation, folder)

    def quantize(self, chosen: Quantizer, name: str, folder: Path) -> Result:
        config = json.loads((self.model / "config.json").read_bytes())
        job = Job(
            step="prepare",
            variant=chosen.variant(name, config),
            model_name=self.model.name,
            source=self.model,
            prepared=self.out / f"{chosen.format}-prepared",
            out=folder / "files",
            calibration=self.calibration,
            threads=self.threads,
            device=self.device,
        )
        run_child("quantizers.job", job, Result, folder / "prepare")
        shutil.rmtree(job.out, ignore_errors=True)
        return run_child("quantizers.job", job.model_copy(update={"step": "quantize"}), Result, folder / "job")


def main() -> None:
    arguments = _arguments()
    if arguments.random:
        make_random(arguments.model, arguments.random, _RANDOM)
    settings = Settings(evaluation_text=arguments.text)
    calibration = calibration_text(None, arguments.out / "texts")
    text = evaluation_text(settings.evaluation_text, arguments.out / "texts")
    bench = Trial(
        model=arguments.model.resolve(),
        out=arguments.out.resolve(),
        calibration=CalibrationText(
            name=calibration.name,
            path=calibration.path.resolve(),
            sha256=calibration.sha256,
            samples=arguments.samples,
            length=512,
        ),
        text=text,
        protocol=Protocol(text=text.name, text_sha256=text.sha256, windows=arguments.windows),
        device=settings.compute_device(),
        threads=settings.thread_count(),
    )
    variants = [tuple(each.split(":", 1)) for each in arguments.variants.split(",") if each]
    logits = bench.out / f"logits-{fingerprint_of(bench.protocol.model_dump(mode='json'))[:12]}.bin"
    if not logits.exists():
        base = bench.evaluate("transformers", bench.model, bench.out / "base", save_logits=logits)
        _show(bench, "unquantized", None, base)
    started = time.monotonic()
    with ThreadPoolExecutor(len(variants) if arguments.at_once else 1) as pool:
        list(pool.map(lambda variant: _press(bench, variant[0], variant[1], logits, started), variants))


def _press(bench: Trial, format_name: str, name: str, logits: Path, started: float) -> None:
    """Makes and measures a variant, and prints its row. A failed variant prints one line, so that the others
    continue."""
    folder = bench.out / f"{format_name}-{name}"
    begun = time.monotonic() - started
    named, _, backend = format_name.partition("@")
    try:
        chosen = quantizer(named, backend or None)
        result = bench.quantize(chosen, name, folder)
        ended = time.monotonic() - started
        found = bench.evaluate(chosen.engine, folder / "files", folder / "evaluation", base_logits=logits)
    except (QuantpressError, OSError, ValueError) as error:
        print(f"{format_name}:{name} failed: {error}", flush=True)
        return
    _show(bench, f"{format_name}:{name}", result, found, {"begun": begun, "ended": ended})


def _show(
    bench: Trial,
    what: str,
    result: Result | None,
    found: Evaluation,
    times: dict[str, float] | None = None,
) -> None:
    """Prints a row of the table. Appends all its figures to ``rows.jsonl``."""
    with (bench.out / "rows.jsonl").open("a") as rows:
        row = {"what": what, "times": times, "evaluation": found.model_dump(mode="json")}
        rows.write(json.dumps(row | {"result": result.model_dump(mode="json") if result else None}) + "\n")
    divergence = found.divergence
    cells = [
        what,
        f"{result.output.bits_per_weight:.2f}" if result and result.output else "",
        f"{result.seconds:.1f}" if result else "",
        _gib(result.peak_device_memory_bytes) if result else "",
        f"{found.perplexity:.4f}",
        f"{divergence.mean:.4f}" if divergence else "",
        f"{divergence.same_top:.4f}" if divergence else "",
        f"{found.seconds:.1f}",
        _gib(found.peak_device_memory_bytes),
        f"{found.tokens_per_second:.0f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def _gib(size: int | None) -> str:
    return f"{size / 2**30:.2f}" if size is not None else ""


def make_random(folder: Path, tokenizer: Path, shape: dict[str, Any]) -> None:
    """Makes a Llama with random float16 weights in ``folder``. Does nothing if ``folder`` already has a config.json.

    ``shape`` contains values of config.json. The tokenizer is copied from the folder ``tokenizer``.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").exists():
        return
    torch.manual_seed(1)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(**shape, dtype="float16", bos_token_id=1, eos_token_id=2)).half()
    model.save_pretrained(folder)
    for path in tokenizer.glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of an unquantized model")
    parser.add_argument("--out", type=Path, required=True, help="folder for files, logs and rows.jsonl")
    parser.add_argument("--variants", required=True, metavar="FORMAT:VARIANT,...")
    parser.add_argument("--at-once", action="store_true", help="all variants at the same time")
    parser.add_argument("--random", type=Path, metavar="FOLDER", help="make MODEL first, with this folder's tokenizer")
    parser.add_argument("--text", type=Path, help="WikiText-2 raw test file; without it pydoc-topics is used")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument(
        "--samples", type=int, default=64, help="calibration windows of 512 tokens (pydoc-topics has 110)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
