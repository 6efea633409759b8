"""The rungs of the GGUF ladder: names of llama-quantize's types, smallest first."""

from __future__ import annotations

from difflib import get_close_matches

from quantpress.errors import BadInput

#: The twelve types that TheBloke published for every model.
THEBLOKE = [
    "Q2_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q3_K_L",
    "Q4_0",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_0",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
]
#: Those, and two types that came later and do better at their size.
DEFAULT = [
    "Q2_K",
    "Q3_K_S",
    "IQ3_M",
    "Q3_K_M",
    "Q3_K_L",
    "IQ4_XS",
    "Q4_0",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_0",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
]
#: Bits per weight of each type on Llama 3.1 8B, from the tables of llama.cpp's tools/quantize/README.md; Q4_0 and
#: Q5_0 are not in them, theirs are the block sizes (18 and 22 bytes for 32 weights, ggml-common.h).
NOMINAL_BITS = {
    "Q2_K": 3.16,
    "Q3_K_S": 3.64,
    "IQ3_M": 3.76,
    "Q3_K_M": 4.00,
    "Q3_K_L": 4.30,
    "IQ4_XS": 4.46,
    "Q4_0": 4.50,
    "Q4_K_S": 4.67,
    "Q4_K_M": 4.89,
    "Q5_0": 5.50,
    "Q5_K_S": 5.57,
    "Q5_K_M": 5.70,
    "Q6_K": 6.56,
    "Q8_0": 8.50,
}
LADDERS = {"default": DEFAULT, "thebloke": THEBLOKE}


def check_rung(name: str) -> None:
    """Raises :class:`BadInput`, naming the nearest rung, unless ``name`` is one."""
    if name in DEFAULT:
        return
    nearest = get_close_matches(name.upper(), DEFAULT, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"use one of {', '.join(DEFAULT)}"
    raise BadInput(f"unknown GGUF variant {name!r}: {hint}")
