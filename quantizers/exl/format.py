"""The common part of the formats ``exl3`` and ``exl2``. Their variants are checkpoints with any average number of bits
per weight. Each variant has its own branch.

turboderp, who wrote both formats, uses the same names for variants and branches: ``4.0bpw``, or ``8.0bpw_H8`` if the
head (the output layer) is not stored in 6 bits.
"""

from __future__ import annotations

import re

from quantizers.checkpoint.format import CheckpointFormat
from quantizers.protocol import Parameters, Variant
from quantpress.errors import BadInput
from quantpress.record.measurement import Engine
from quantpress.toolchain.exllama import ExLlama, require

_NAME = re.compile(r"(?P<bits>\d\.\d\d?)bpw(?:_H(?P<head>\d{1,2}))?")
#: The number of bits that both converters give the head by default.
_HEAD_BITS = 6


class ExLlamaFormat(CheckpointFormat):
    """The part of :class:`quantizers.protocol.Quantizer` that is the same for both formats."""

    engine: Engine
    package: ExLlama
    #: The numbers of bits in which the format's converter can store the head.
    head_bits: tuple[int, ...]

    def ladders(self) -> dict[str, list[str]]:
        names = [f"{bits}bpw" for bits in ("2.0", "2.5", "3.0", "3.5", "4.0", "5.0", "6.0", "8.0")]
        return {"default": ["3.0bpw", "4.0bpw", "6.0bpw"], "turboderp": names}

    def default_variants(self, config: Parameters) -> list[str]:
        return self.ladders()["default"]

    def variant(self, name: str, config: Parameters) -> Variant:
        bits, head_bits = self._parsed(name)
        return Variant(
            format=self.format,
            name=name,
            branch=name,
            parameters={"bits": bits, "head_bits": head_bits},
            nominal_bits=bits,
            needs_cuda=True,
        )

    def check_name(self, name: str) -> None:
        self._parsed(name)

    def version(self) -> str:
        require(self.package)
        return self.package.version

    def tools(self) -> dict[str, str]:
        return {self.package.name: self.package.wheel.version}

    def _parsed(self, name: str) -> tuple[float, int]:
        found = _NAME.fullmatch(name)
        if found is None:
            raise BadInput(f"unknown {self.suffix} variant {name!r}: did you mean {_meant(name)!r}?")
        bits, head_bits = float(found["bits"]), int(found["head"] or _HEAD_BITS)
        if not 2 <= bits <= 8:
            raise BadInput(f"{self.suffix} variant {name!r}: bits per weight go from 2.0 to 8.0")
        if head_bits not in self.head_bits:
            known = ", ".join(map(str, self.head_bits))
            raise BadInput(f"{self.suffix} variant {name!r}: the head takes {known} bits")
        plain = f"{bits}bpw" + (f"_H{head_bits}" if head_bits != _HEAD_BITS else "")
        if name != plain:
            raise BadInput(f"{self.suffix} variant {name!r} is called {plain!r}")
        return bits, head_bits


def _meant(name: str) -> str:
    """Returns the variant that a wrong name probably means. For example, ``4bpw``, ``4_0`` and ``4.0`` all mean
    ``4.0bpw``."""
    number = re.search(r"([2-8])(?:[._](\d\d?))?", name)
    return f"{number[1]}.{number[2] or 0}bpw" if number else "4.0bpw"
