"""Quantizes with AutoAWQ: ``python -I autoawq_backend.py ORDER.json``, in the archived libraries' environment.

Written for autoawq 0.2.9 and transformers 4.51.3; imports nothing of quantpress. See quantizers/archived_formats.py
for what is ordered.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from awq import AutoAWQForCausalLM

#: Windows that pass through a layer at a time: bounds memory, changes no result.
_WINDOWS_AT_A_TIME = 8


def main(order_file: Path) -> None:
    order = json.loads(order_file.read_text(encoding="utf-8"))
    torch.set_num_threads(order["threads"])
    parameters, windows = order["parameters"], order["windows"]
    # A CPU multiplies float16 far slower than float32; what is saved is cast below.
    dtype = torch.float32 if order["device"] == "cpu" else torch.float16
    model = AutoAWQForCausalLM.from_pretrained(
        order["source"], torch_dtype=dtype, trust_remote_code=False, safetensors=True, device_map=order["device"]
    )
    model.quantize(
        None,
        quant_config={
            "zero_point": parameters["zero_point"],
            "q_group_size": parameters["group_size"],
            "w_bit": parameters["bits"],
            "version": parameters["version"].upper(),
        },
        calib_data=windows,
        max_calib_samples=len(windows),
        max_calib_seq_len=len(windows[0]),
        n_parallel_calib_samples=_WINDOWS_AT_A_TIME,
    )
    _cast(model.model, getattr(torch, order["dtype"]))
    model.save_quantized(order["out"])


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """What is not quantized as the source stores it; scales, which are buffers, stay float16."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
