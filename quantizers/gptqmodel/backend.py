"""Makes the formats ``gptq`` and ``awq`` with the library GPTQModel, on CPU and CUDA.

Equal jobs must give equal files. So this module replaces some of the files that GPTQModel writes (``make_plain``) and
removes GPTQModel's log of timings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quantizers.checkpoint.calibration import calibration_windows
from quantizers.checkpoint.files import describe, make_plain, source_config, stored_dtype
from quantizers.protocol import Job, Output
from quantpress.evaluation.engines.strict import strict_loading
from quantpress.source.safetensors import Storage

#: A quantized linear has one tensor of weights and others. These are the endings of the others' names. GPTQ's and AWQ's
#: checkpoints use the same endings.
_BESIDE = (".qzeros", ".scales", ".g_idx")


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

    from quantizers.gptqmodel.awq_search import Search, searching

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
        # AWQ_TORCH packs the same files on any device. GPTQModel's other backends need CUDA.
        return _quantize(job, config, {"backend": BACKEND.AWQ_TORCH})


@contextmanager
def _scale_search(steps: int) -> Iterator[None]:
    """Makes GPTQModel try ``steps`` scales for each group, from the group's full range down to half of it, while the
    block runs.

    GPTQModel's own search has 80 steps, down to a fifth of the range. With its own search, GPTQModel takes twice the
    time on a CPU (docs/benchmarks.md).
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
    """Sets the environment variables that GPTQModel reads when it is imported. With fewer than two workers, GPTQModel
    fails on a CPU."""
    os.environ["GPTQMODEL_CPU_WORKERS"] = str(max(2, job.threads))
    os.environ["HF_HUB_OFFLINE"] = "1"


def _quantize(job: Job, config: Any, options: dict[str, Any]) -> Output:
    import torch
    from gptqmodel import GPTQModel

    torch.set_num_threads(job.threads)
    windows = calibration_windows(job.source, job.calibration)
    dtype = stored_dtype(source_config(job))
    with strict_loading():
        model = GPTQModel.load(
            str(job.source), config, dtype=getattr(torch, dtype), trust_remote_code=False, use_safetensors=True
        )
    samples = [
        {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in windows
    ]
    model.quantize(samples, batch_size=1, **options)
    model.save(str(job.out))
    (job.out / "quant_log.csv").unlink(missing_ok=True)
    make_plain(job, dtype)
    return describe(job, packed(job), {"calibration_tokens": sum(map(len, windows))})


def packed(job: Job) -> Storage:
    """Returns how a GPTQ or AWQ checkpoint stores the quantized linears of a job. All libraries that write GPTQ or AWQ
    checkpoints store the linears in the same way."""
    bits = job.variant.parameters["bits"]
    return Storage(weights=(".qweight",), type=f"int{bits}", bits=bits, beside=_BESIDE)
