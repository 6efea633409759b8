"""GPTQModel, the library behind the ``gptq`` and ``awq`` formats, on CPU and CUDA.

What it writes is made plain: the tokenizer, generation and chat files are the source's own bytes, config.json is the
source's with ``quantization_config`` added, and its log of timings is left out, so that equal jobs give equal files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from quantizers.calibration import calibration_windows
from quantizers.checkpoint import contents
from quantizers.protocol import Job, Output
from quantpress.errors import Refused
from quantpress.files import write_text

_PACKAGE = "gptqmodel"
#: Files of a checkpoint that say how to speak with the model; GPTQModel rewrites some of them.
_COMPANIONS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template*", "generation_config.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def installed_version() -> str:
    """``gptqmodel X.Y.Z``, without importing it. Raises :class:`Refused` where it is not installed."""
    try:
        return f"{_PACKAGE} {version(_PACKAGE)}"
    except PackageNotFoundError:
        raise Refused(f"{_PACKAGE} is not installed: pip install 'quantpress[gptq]'") from None


def quantize_gptq(job: Job) -> Output:
    """Makes a GPTQ checkpoint in ``job.out``."""
    _prepare_environment(job)
    from gptqmodel.quantization.config import GPTQConfig

    given = dict(job.variant.parameters)
    steps = given.pop("scale_search_steps")
    config = GPTQConfig(**given, device=job.device, offload_to_disk=False)
    with _scale_search(steps):
        return _quantize(job, config, {})


def quantize_awq(job: Job) -> Output:
    """Makes an AWQ checkpoint (GEMM layout, zero points) in ``job.out``."""
    _prepare_environment(job)
    from gptqmodel import BACKEND
    from gptqmodel.quantization.config import AWQConfig

    from quantizers.awq_search import Search, searching

    given = job.variant.parameters
    config = AWQConfig(
        bits=given["bits"],
        group_size=given["group_size"],
        sym=not given["zero_point"],
        format=given["version"],
        device=job.device,
        offload_to_disk=False,
    )
    search = Search(given["scale_search_tokens"], given["scale_search_steps"], given["clip_search_steps"])
    with searching(search):
        # Packs the same files everywhere; the other backends need CUDA.
        return _quantize(job, config, {"backend": BACKEND.AWQ_TORCH})


@contextmanager
def _scale_search(steps: int) -> Iterator[None]:
    """Within the block GPTQModel tries ``steps`` scales from a group's full range down to half of it.

    Its own 80 steps, down to a fifth of the range, take twice the time on a CPU (docs/benchmarks.md).
    """
    from gptqmodel.quantization.quantizer import Quantizer

    theirs = Quantizer.configure

    def configure(self: Any, *positional: Any, **named: Any) -> None:
        theirs(self, *positional, **{"grid": 2 * steps, "maxshrink": 0.5} | named)

    Quantizer.configure = configure
    try:
        yield
    finally:
        Quantizer.configure = theirs


def _prepare_environment(job: Job) -> None:
    """GPTQModel reads these when imported; with fewer than two workers it fails on a CPU."""
    os.environ["GPTQMODEL_CPU_WORKERS"] = str(max(2, job.threads))
    os.environ["HF_HUB_OFFLINE"] = "1"


def _quantize(job: Job, config: Any, options: dict[str, Any]) -> Output:
    import torch
    from gptqmodel import GPTQModel

    torch.set_num_threads(job.threads)
    windows = calibration_windows(job.source, job.calibration)
    source_config = json.loads((job.source / "config.json").read_bytes())
    dtype = _stored_dtype(source_config)
    model = GPTQModel.load(str(job.source), config, dtype=getattr(torch, dtype), trust_remote_code=False)
    samples = [
        {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in windows
    ]
    model.quantize(samples, batch_size=1, **options)
    model.save(str(job.out))
    _make_plain(job, source_config, dtype)
    bits = job.variant.parameters["bits"]
    source, made = contents(job.source), contents(job.out, bits)
    return Output(
        files=sorted(str(path.relative_to(job.out)) for path in job.out.rglob("*") if path.is_file()),
        bits_per_weight=made.bits / source.total_weights,
        tensor_types=made.weights,
        details={
            "weights": source.total_weights,
            "quantized_weights": made.weights.get(f"int{bits}", 0),
            "calibration_tokens": sum(map(len, windows)),
        },
    )


def _stored_dtype(config: dict[str, Any]) -> str:
    """What is not quantized stays as the source stores it; float32 becomes float16."""
    text = config.get("text_config", config)
    stored = str(text.get("dtype") or text.get("torch_dtype") or "float16")
    return stored if stored in ("float16", "bfloat16") else "float16"


def _make_plain(job: Job, source_config: dict[str, Any], dtype: str) -> None:
    written = json.loads((job.out / "config.json").read_bytes())
    (job.out / "quant_log.csv").unlink(missing_ok=True)
    for pattern in _COMPANIONS:
        for path in job.out.glob(pattern):
            path.unlink()
        for path in job.source.glob(pattern):
            shutil.copyfile(path, job.out / path.name)
    key = "torch_dtype" if "torch_dtype" in source_config else "dtype"
    merged = source_config | {key: dtype, "quantization_config": written["quantization_config"]}
    merged["tie_word_embeddings"] = written.get("tie_word_embeddings", source_config.get("tie_word_embeddings"))
    write_text(job.out / "config.json", json.dumps(merged, indent=2, sort_keys=True) + "\n")
