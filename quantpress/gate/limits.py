"""How far from the unquantized model a variant may be: its format's limit on the mean KL divergence, or the catalog's.

The formats' limits are data of their quantizers: GGUF's are in quantizers/gguf/limits.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantizers import quantizer_of
from quantizers.protocol import Variant
from quantizers.traits import traits_of
from quantpress.catalog.schema import GateLine


@dataclass(frozen=True)
class Limit:
    """The largest mean KL divergence with which a variant is published; ``changed`` says why it is not the default."""

    max_divergence: float
    changed: str | None = None


def limit_of(variant: Variant, changes: Mapping[str, GateLine]) -> Limit | None:
    """The limit of a variant for one model, whose catalog line may change it; None where there is none."""
    default, change = traits_of(quantizer_of(variant)).limits.get(variant.name), changes.get(variant.name)
    if change is None:
        return None if default is None else Limit(default)
    instead = "where there is none by default" if default is None else f"not {default:g}"
    return Limit(
        change.max_divergence,
        f"the limit of its mean KLD is {change.max_divergence:g} for this model, {instead}: {change.reason}",
    )
