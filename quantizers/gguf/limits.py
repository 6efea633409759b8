"""How far a rung may be from the unquantized model: a limit on its mean KL divergence, by the rung's name.

The limits are 1.5 to 2.2 times what llama.cpp's scoreboard measured for Llama-3-8B (tools/perplexity/README.md of
llama.cpp, revision f364eb6f; without an importance matrix if the scoreboard lists that). A rung beyond its limit is
farther from its source than people expect from its name. Small models lose more per bit. Models that were trained for
few bits lose less. So the catalog can change a limit for a model, with a reason that goes into the manifest and the
card.
"""

from __future__ import annotations

from quantizers.gguf.ladder import RUNGS

#: Mean KL divergence in nats per token, as (measured by the scoreboard, limit).
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
#: The scoreboard does not list rungs of 16 bits. They must at least not be worse than Q8_0.
_AS_Q8_0 = ("F16", "BF16")


def _limit(rung: str) -> float | None:
    found = SCOREBOARD.get("Q8_0" if rung in _AS_Q8_0 else RUNGS[rung].type)
    return found[1] if found else None


#: The limit of each rung that has one. Rungs below Q3_K_M, MXFP4 and ternary rungs have no limit: models differ too
#: much there, or there are no published figures. A rung that keeps embeddings and output at 8 bits has the limit of the
#: rung that it is based on.
LIMITS: dict[str, float] = {rung: limit for rung in RUNGS if (limit := _limit(rung)) is not None}
