"""Lists the rungs (variants) of the GGUF format, smallest first. For each rung, the list says how llama-quantize makes
the rung and which models can have it. A ladder is a named list of rungs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quantpress.errors import BadInput
from quantpress.hints import hint
from quantpress.source.config import values_of

#: A model's kind, which depends on its matrices: ``dense``, ``experts`` (a mixture of experts) or ``ternary`` (BitNet).
Kind = Literal["dense", "experts", "ternary"]

_KEEP_ENDS = ("--token-embedding-type", "q8_0", "--output-tensor-type", "q8_0")
#: These options give the type MXFP4 to all matrices of all layers. Tensors that llama-quantize never quantizes (norms,
#: routers) stay as they are.
_LAYERS_TO_MXFP4 = ("--tensor-type", r"^blk\.=mxfp4")


@dataclass(frozen=True)
class Rung:
    """``type`` and ``options`` are arguments for llama-quantize. ``kinds`` are the kinds of models that can have the
    rung. ``nominal_bits`` is the number of bits per weight that the rung's name promises.
    """

    name: str
    type: str
    nominal_bits: float
    options: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ("dense", "experts", "ternary")

    @property
    def plain(self) -> bool:
        """Whether llama-quantize makes the rung from a type alone, without options."""
        return not self.options


#: The numbers are bits per weight of Llama 3.1 8B. They come from the tables of llama.cpp's tools/quantize/README.md.
#: These tables lack Q4_0, Q4_1, Q5_0, Q5_1, TQ1_0, TQ2_0 and MXFP4_MOE. The bits of these seven types come from the
#: block sizes in ggml-common.h. The bits of rungs with options are computed for the same model. In this model, the
#: embeddings are 6.54 % of the weights, and the output is 6.54 % too.
_RUNGS = (
    Rung("TQ1_0", "TQ1_0", 1.69, kinds=("ternary",)),
    Rung("IQ1_S", "IQ1_S", 2.00),
    Rung("TQ2_0", "TQ2_0", 2.06, kinds=("ternary",)),
    Rung("IQ1_M", "IQ1_M", 2.15),
    Rung("IQ2_XXS", "IQ2_XXS", 2.38),
    Rung("IQ2_XS", "IQ2_XS", 2.59),
    Rung("IQ2_S", "IQ2_S", 2.74),
    Rung("IQ2_M", "IQ2_M", 2.93),
    Rung("Q2_K_S", "Q2_K_S", 2.97),
    Rung("Q2_K", "Q2_K", 3.16),
    Rung("IQ3_XXS", "IQ3_XXS", 3.25),
    Rung("IQ3_XS", "IQ3_XS", 3.50),
    Rung("Q3_K_S", "Q3_K_S", 3.64),
    Rung("IQ3_S", "IQ3_S", 3.66),
    Rung("Q2_K_L", "Q2_K", 3.67, _KEEP_ENDS),
    Rung("IQ3_M", "IQ3_M", 3.76),
    Rung("Q3_K_M", "Q3_K_M", 4.00),
    Rung("MXFP4_MOE", "MXFP4_MOE", 4.25, kinds=("experts",)),
    Rung("Q3_K_L", "Q3_K_L", 4.30),
    Rung("IQ4_XS", "IQ4_XS", 4.46),
    Rung("Q4_0", "Q4_0", 4.50),
    Rung("Q4_K_S", "Q4_K_S", 4.67),
    Rung("IQ4_NL", "IQ4_NL", 4.68),
    Rung("Q3_K_XL", "Q3_K_L", 4.76, _KEEP_ENDS),
    Rung("MXFP4", "MXFP4_MOE", 4.81, _LAYERS_TO_MXFP4, kinds=("dense",)),
    Rung("Q4_K_M", "Q4_K_M", 4.89),
    Rung("Q4_1", "Q4_1", 5.00),
    Rung("Q4_K_L", "Q4_K_M", 5.28, _KEEP_ENDS),
    Rung("Q5_0", "Q5_0", 5.50),
    Rung("Q5_K_S", "Q5_K_S", 5.57),
    Rung("Q5_K_M", "Q5_K_M", 5.70),
    Rung("Q5_1", "Q5_1", 6.00),
    Rung("Q5_K_L", "Q5_K_M", 6.02, _KEEP_ENDS),
    Rung("Q6_K", "Q6_K", 6.56),
    Rung("Q6_K_L", "Q6_K", 6.81, _KEEP_ENDS),
    Rung("Q8_0", "Q8_0", 8.50),
    Rung("BF16", "BF16", 16.00),
    Rung("F16", "F16", 16.00),
)
RUNGS = {rung.name: rung for rung in _RUNGS}
NOMINAL_BITS = {rung.name: rung.nominal_bits for rung in _RUNGS}

#: The rung that clients (llama.cpp's ``-hf``, LM Studio) load if the user names no rung.
CLIENTS_DEFAULT = "Q4_K_M"


def _named(names: str) -> list[str]:
    """Returns the rungs that ``names`` lists, in the order of :data:`RUNGS`."""
    wanted = set(names.split())
    return [name for name in RUNGS if name in wanted]


#: The twelve types that TheBloke published for every model.
THEBLOKE = _named("Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_0 Q4_K_S Q4_K_M Q5_0 Q5_K_S Q5_K_M Q6_K Q8_0")
#: TheBloke's types, and two newer types that do better than others of their size.
DEFAULT = _named("IQ3_M IQ4_XS " + " ".join(THEBLOKE))
#: The rungs that bartowski publishes for models of up to some 10 B weights.
BARTOWSKI = _named(
    "IQ2_M Q2_K Q2_K_L IQ3_XXS IQ3_XS Q3_K_S IQ3_M Q3_K_M Q3_K_L Q3_K_XL IQ4_XS Q4_0 IQ4_NL Q4_K_S Q4_K_M Q4_1 "
    "Q4_K_L Q5_K_S Q5_K_M Q5_K_L Q6_K Q6_K_L Q8_0 BF16"
)
#: The rungs that llama-quantize refuses to make without an importance matrix.
IMATRIX_ONLY = _named("IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M Q2_K_S IQ3_XXS IQ3_XS")
#: A few rungs, spread over the sizes from IQ3_M to Q8_0.
SMALL = _named("IQ3_M IQ4_XS Q4_K_M Q5_K_M Q6_K Q8_0")

LADDERS = {
    "default": DEFAULT,
    "full": list(RUNGS),
    "thebloke": THEBLOKE,
    "bartowski": BARTOWSKI,
    "imatrix-only": IMATRIX_ONLY,
    "small": SMALL,
}

#: Keys of config.json that say how many experts a layer has. Different architectures use different keys.
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def kind_of(config: Mapping[str, Any]) -> Kind:
    """Finds out a model's kind from its config.json.

    The number of experts can be in any part of config.json. In a multimodal model, the number is in the text part. In
    DBRX, it is in the part for the feed-forward layers.
    """
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    if str(config.get("model_type", "")).lower().startswith("bitnet") or method == "bitnet":
        return "ternary"
    counts = [count for key in _EXPERT_KEYS for said in values_of(config, key) for count in _each(said)]
    return "experts" if any(isinstance(count, int) and count > 1 for count in counts) else "dense"


def _each(said: Any) -> list[Any]:
    """Returns ``said`` as a list of counts. ``said`` is one count, or a list with a count for each layer or part."""
    return said if isinstance(said, list) else [said]


def unsuited(name: str, config: Mapping[str, Any]) -> str | None:
    """Returns why a model with this config.json cannot have the rung ``name``, or None if the model can have it."""
    kind, kinds = kind_of(config), RUNGS[name].kinds
    if kind in kinds:
        return None
    meant = {"dense": "dense models", "experts": "mixtures of experts", "ternary": "BitNet's ternary models"}
    return f"{name} is for {' and '.join(meant[each] for each in kinds)} only"


def rungs_for(config: Mapping[str, Any], names: Iterable[str] = RUNGS) -> list[str]:
    """Returns the rungs among ``names`` that a model with this config.json can have, in the order of ``names``."""
    return [name for name in names if unsuited(name, config) is None]


def check_rung(name: str) -> None:
    """Raises :class:`BadInput` if ``name`` is not a rung. The message names the nearest rung."""
    if name not in RUNGS:
        raise BadInput(f"unknown GGUF variant {name!r}: {hint(name, RUNGS)}")
