"""Quantizes with transformers: transformers quantizes a model while it loads the model, and then saves the result."""

from __future__ import annotations

from typing import Any

from quantizers.checkpoint.files import make_plain, sort_metadata
from quantizers.protocol import Job
from quantpress.evaluation.engines.strict import strict_loading


def quantize_while_loading(job: Job, quantization_config: Any, dtype: str) -> None:
    """Loads ``job.source`` with ``quantization_config``, a config object of transformers, and saves the result in
    ``job.out``.

    ``dtype`` names the type of the unquantized tensors. The quantized linears also compute in this type.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job.threads)
    with strict_loading():
        model = AutoModelForCausalLM.from_pretrained(
            str(job.source),
            quantization_config=quantization_config,
            dtype=getattr(torch, dtype),
            device_map={"": "cuda:0" if job.device == "cuda" else "cpu"},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    model.save_pretrained(str(job.out), **({"max_shard_size": job.split_above} if job.split_above else {}))
    for file in job.out.glob("*.safetensors"):
        sort_metadata(file)
    make_plain(job, dtype)
