"""Limits how far a rung (one GGUF variant) may be from the unquantized model. Each limit is a mean KL divergence.

llama.cpp publishes a scoreboard of rungs of Llama-3-8B (tools/perplexity/README.md of llama.cpp, revision f364eb6f).
The limits are 1.5 to 2.2 times the divergences on this scoreboard. If the scoreboard has a figure without an importance
matrix for a rung, that figure counts. A rung beyond its limit is farther from its source than people expect from the
rung's name. Small models lose more when they are quantized to the same number of bits. Models that were trained for few
bits lose less. So the catalog can change a limit for a model. The catalog then gives a reason, which goes into the
manifest and the card.
"""

from __future__ import annotations

from quantizers.gguf.ladder import RUNGS

#: Maps a type to two mean KL divergences in nats per token: the scoreboard's figure, and the limit.
SCOREBOARD: dict[str, tuple[float, float]] = {
    "Q8_0": (0.001355, 0.003),
    "Q6_K": (0.005452, 0.01),
    "Q5_1": (0.018045, 0.03),
    "Q5_K_M": (0.010762, 0.02),
    "Q5_K_S": (0.016595, 0.03),
    "Q5_0": (0.022239, 0.04),
    "Q4_1": (0.071683, 0.12),
    "Q4_K_M": (0.031273, 0.05),
    "IQ4_NL": (0.035742, 0.06),
    "Q4_K_S": (0.043136, 0.07),
    "Q4_0": (0.071940, 0.12),
    "IQ4_XS": (0.036334, 0.06),
    "Q3_K_L": (0.087176, 0.14),
    "Q3_K_M": (0.101913, 0.15),
}
#: The scoreboard does not list these rungs of 16 bits. They have the limit of Q8_0, because they must not be worse.
_AS_Q8_0 = ("F16", "BF16")


def _limit(rung: str) -> float | None:
    found = SCOREBOARD.get("Q8_0" if rung in _AS_Q8_0 else RUNGS[rung].type)
    return found[1] if found else None


#: Maps a rung's name to the rung's limit. MXFP4 rungs, ternary rungs, and all rungs smaller than Q3_K_M have no limit,
#: because models differ too much at these rungs or there are no published figures. Some rungs are another rung with
#: embeddings and output kept at 8 bits. They have the limit of that other rung.
LIMITS: dict[str, float] = {rung: limit for rung in RUNGS if (limit := _limit(rung)) is not None}
