"""Asks ``llama-quantize --dry-run`` which type llama-quantize would choose for every tensor of a model."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from math import prod
from pathlib import Path

from quantizers.gguf.ladder import Rung
from quantizers.gguf.llama_quantize import arguments
from quantpress.errors import QuantpressError, Refused
from quantpress.machine.child import child_environment
from quantpress.toolchain.llama_cpp import LlamaCpp

_MIB = 1 << 20
_TENSOR = re.compile(
    r"\[ *(?P<number>\d+)/ *(?P<count>\d+)\] (?P<name>\S+) +- "
    r"\[ *(?P<shape>\d+, *\d+, *\d+, *\d+)\], type = +(?P<source>\w+), "
    r"size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((?P<target>\w+)\))?"
)
_TENSOR_BEGINS = re.compile(r"\[ *\d+/ *\d+\] ")
_SIZE = re.compile(r"llama_model_quantize_impl: quant size += +([\d.]+) MiB \([\d.]+ BPW\)")
_FALLBACKS = re.compile(r"WARNING: (\d+) of \d+ tensor\(s\) required fallback quantization")
_NEEDS_IMATRIX = "will require an imatrix"
_FAILED = re.compile(r"failed to quantize: (.+)")


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor with its type before quantization (``source``) and after it (``target``). ``shape`` has four numbers,
    the row's width first, as in GGUF. Types are ggml's names in capitals (``Q4_K``)."""

    name: str
    shape: tuple[int, int, int, int]
    source: str
    target: str

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class DryRun:
    """What llama-quantize says in a dry run for one rung (one GGUF variant).

    ``tensors`` are in the order in which llama-quantize writes them. Each type has a block size, and a tensor's width
    must be a multiple of the block size. ``fallbacks`` counts the tensors that got another type than the rung's,
    because their width is not a multiple of the block size of the rung's type. ``needs_imatrix`` is true if
    llama-quantize says that the rung will require an imatrix.
    """

    tensors: tuple[PlannedTensor, ...]
    fallbacks: int
    needs_imatrix: bool


def dry_run(tools: LlamaCpp, model: Path, imatrix: Path | None, rung: Rung) -> DryRun:
    """Asks llama-quantize how it would make ``rung`` from ``model``. ``imatrix`` must lie in the folder of ``model``.

    Raises :class:`Refused`, with llama-quantize's reason, when llama-quantize cannot make the rung. Raises
    :class:`QuantpressError` when this module does not understand the answer.
    """
    command = [str(tools.quantize), "--dry-run", *arguments(rung, imatrix), model.name, rung.type]
    done = subprocess.run(
        command,
        cwd=model.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(),
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        failed = _FAILED.search(said)
        reason = failed[1] if failed else f"exit code {done.returncode}: {said.strip()[-200:]}"
        raise Refused(f"llama-quantize makes no {rung.name} of {model.name}: {reason}")
    return parse(said)


def parse(said: str) -> DryRun:
    """Reads the output of a dry run. Raises :class:`QuantpressError` if a tensor or the total size is missing or
    wrong."""
    tensors: list[PlannedTensor] = []
    for line in said.splitlines():
        if not _TENSOR_BEGINS.match(line):
            continue
        found = _TENSOR.fullmatch(line.rstrip())
        if found is None or int(found["number"]) != len(tensors) + 1:
            raise _unknown(f"line {line.strip()[:120]!r}")
        width, rows, matrices, more = (int(number) for number in found["shape"].split(","))
        source = found["source"].upper()
        target = (found["target"] or source).upper()
        tensors.append(PlannedTensor(found["name"], (width, rows, matrices, more), source, target))
        count = int(found["count"])
    sizes = _SIZE.findall(said)
    if not tensors or len(tensors) != count or len(sizes) != 1:
        raise _unknown(f"{len(tensors)} tensors and {len(sizes)} sums")
    told, summed = float(sizes[0]), sum(data_bytes(tensor, tensor.target) for tensor in tensors) / _MIB
    # llama-quantize prints the total size with two decimals, so it can be off by 0.005 MiB.
    if abs(told - summed) > 0.00501:
        raise _unknown(f"a sum of {told} MiB where the tensors have {summed:.2f} MiB")
    fallbacks = _FALLBACKS.search(said)
    return DryRun(tuple(tensors), int(fallbacks[1]) if fallbacks else 0, _NEEDS_IMATRIX in said)


def data_bytes(tensor: PlannedTensor, type_name: str) -> int:
    """Returns how many bytes a tensor takes in a type. Raises :class:`QuantpressError` if the gguf package does not
    know the type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    except KeyError:
        raise _unknown(f"tensor type {type_name!r}") from None
    return int(tensor.elements // block * block_bytes)


def _unknown(what: str) -> QuantpressError:
    return QuantpressError(
        f"the answer of llama-quantize --dry-run is not understood ({what}): is this llama.cpp much newer than the "
        "pinned one? Unset QUANTPRESS_LLAMA_CPP to use that"
    )
