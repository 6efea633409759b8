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
LADDERS = {"default": DEFAULT, "thebloke": THEBLOKE}


def check_rung(name: str) -> None:
    """Raises :class:`BadInput`, naming the nearest rung, unless ``name`` is one."""
    if name in DEFAULT:
        return
    nearest = get_close_matches(name.upper(), DEFAULT, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"use one of {', '.join(DEFAULT)}"
    raise BadInput(f"unknown GGUF variant {name!r}: {hint}")
