"""Dequantizes a source in FP8 blocks to bfloat16, one tensor at a time.

A linear's weights are 8-bit floats. The tensor with the same name and the ending ``_scale_inv`` holds a factor per
block of weights. The last blocks of a row or column can be cut off (DeepSeek-V3 has widths of 576, in blocks of 128).
transformers 5.17 dequantizes only widths that the blocks divide. The result is a source like any other. Dequantizing
runs in a child process: ``python -m quantpress.source.dequantize JOB.json RESULT.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantpress.errors import QuantpressError, Refused
from quantpress.files import atomic, write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record
from quantpress.source.quantized import KEYS, Quantization, quantization_of
from quantpress.source.safetensors_header import SafetensorsTensor
from quantpress.source.weights import tensors_of

if TYPE_CHECKING:
    from torch import Tensor

_SCALE = "_scale_inv"
_CONFIG, _INDEX = "config.json", ".safetensors.index.json"
#: The types of quantized weights and of scales that this module reads. The names are those of the safetensors format.
_WEIGHTS = ("F8_E4M3", "F8_E5M2")
_SCALES = ("F32", "BF16", "F16", "F8_E8M0")


class DequantizeJob(Record):
    """The job for the child process. Reads the model in ``source`` and fills the folder ``out``."""

    source: Path
    out: Path

    @property
    def writes(self) -> list[Path]:
        """The folders in which the job writes."""
        return [self.out]


class Dequantized(Record):
    """The number of tensors that were dequantized."""

    tensors: int


def dequantize(source: Path, out: Path) -> Dequantized:
    """Fills ``out`` with the model in ``source``, whose dequantized tensors are bfloat16. All other tensors stay as
    they are, and other files become links.

    Raises :class:`Refused` if a tensor's scale is missing or does not fit, or if its type is not FP8.
    """
    config = json.loads((source / _CONFIG).read_bytes())
    quantization = quantization_of(config)
    if quantization is None or not quantization.is_fp8_blocks:
        raise QuantpressError(f"{source} is not in FP8 blocks")
    tensors = {tensor.name: tensor for tensor in tensors_of(source)}
    scales = _scales(tensors, quantization)
    out.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor for name, tensor in tensors.items() if name not in {scale.name for scale in scales.values()}}
    for file in sorted({tensor.file for tensor in kept.values()}):
        with atomic(out / file.name) as temporary:
            _write([tensor for tensor in kept.values() if tensor.file == file], scales, quantization, temporary)
    write_text(out / _CONFIG, json.dumps(_plain(config), indent=2) + "\n")
    for path in source.iterdir():
        if path.name.endswith(_INDEX):
            _write_index(path, kept, out / path.name)
        elif path.is_file() and path.name != _CONFIG and path.suffix != ".safetensors":
            (out / path.name).unlink(missing_ok=True)
            (out / path.name).symlink_to(path.resolve())
    return Dequantized(tensors=len(scales))


def _scales(tensors: Mapping[str, SafetensorsTensor], quantization: Quantization) -> dict[str, SafetensorsTensor]:
    """Returns a dict from the name of a quantized tensor to the tensor of its scales."""
    assert quantization.block is not None
    found = {}
    for tensor in tensors.values():
        scale = tensors.get(tensor.name + _SCALE)
        if scale is None and tensor.dtype not in _WEIGHTS:
            continue
        if scale is None:
            raise Refused(f"{tensor.place} has FP8 weights, and no file has its scales: ask upstream")
        if tensor.dtype not in _WEIGHTS or scale.dtype not in _SCALES:
            raise Refused(
                f"{tensor.place} is of type {tensor.dtype} with scales of type {scale.dtype}, not of FP8 blocks"
            )
        grid = tuple(-(-length // block) for length, block in zip(tensor.shape[-2:], quantization.block, strict=False))
        if len(tensor.shape) < 2 or scale.shape != (*tensor.shape[:-2], *grid):
            raise Refused(
                f"{tensor.place} has the shape {list(tensor.shape)} and scales of the shape {list(scale.shape)}, which "
                f"are not {quantization.in_words}: ask upstream"
            )
        found[tensor.name] = scale
    return found


def _write(
    tensors: list[SafetensorsTensor], scales: Mapping[str, SafetensorsTensor], how: Quantization, file: Path
) -> None:
    """Writes a safetensors file of ``tensors``, in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        size = 2 * tensor.elements if tensor.name in scales else tensor.end - tensor.begin
        dtype = "BF16" if tensor.name in scales else tensor.dtype
        entries[tensor.name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)  # the format aligns the data to 8 bytes
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors:
            scale = scales.get(tensor.name)
            stream.write(_bytes(tensor) if scale is None else _dequantized(tensor, scale, how))


def _dequantized(tensor: SafetensorsTensor, scale: SafetensorsTensor, how: Quantization) -> bytes:
    import torch

    assert how.block is not None
    rows, columns = how.block
    factors = _values(scale).float().repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    factors = factors[..., : tensor.shape[-2], : tensor.shape[-1]]
    plain = (_values(tensor).float() * factors).to(torch.bfloat16).contiguous()
    return plain.view(torch.uint8).numpy().tobytes()


def _values(tensor: SafetensorsTensor) -> Tensor:
    from safetensors import safe_open

    with safe_open(tensor.file, "pt") as file:
        values: Tensor = file.get_tensor(tensor.name)
    return values


def _bytes(tensor: SafetensorsTensor) -> bytes:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.begin)
        return stream.read(tensor.end - tensor.begin)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config without the keys that say that the weights are quantized, at any depth. The dequantized type
    replaces the declared one."""
    kept = {
        key: _plain(value) if isinstance(value, dict) else value for key, value in config.items() if key not in KEYS
    }
    return kept | {key: "bfloat16" for key in ("dtype", "torch_dtype") if isinstance(kept.get(key), str)}


def _write_index(index: Path, kept: Mapping[str, SafetensorsTensor], file: Path) -> None:
    files = {name: tensor.file.name for name, tensor in kept.items()}
    write_text(file, json.dumps({"metadata": {}, "weight_map": files}, indent=2) + "\n")


def main(job_file: Path, result_file: Path) -> None:
    job = DequantizeJob.model_validate_json(job_file.read_bytes())
    write_text(result_file, dequantize(job.source, job.out).model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
