"""How far a variant may be from the unquantized model: a limit on its mean KL divergence.

The limit comes from the format, or from the catalog. The formats' limits are data of their quantizers: the limits of
GGUF are in quantizers/gguf/limits.py.
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
    """The largest mean KL divergence of a variant that is published.

    ``changed`` says why it is not the default. None for a default.
    """

    max_divergence: float
    changed: str | None = None


def limit_of(variant: Variant, changes: Mapping[str, GateLine]) -> Limit | None:
    """Returns the limit of a variant for one model. ``changes`` are the catalog's limits. None if there is no limit."""
    default, change = traits_of(quantizer_of(variant)).limits.get(variant.name), changes.get(variant.name)
    if change is None:
        return None if default is None else Limit(default)
    instead = "where there is none by default" if default is None else f"not {default:g}"
    return Limit(
        change.max_divergence,
        f"the limit of its mean KLD is {change.max_divergence:g} for this model, {instead}: {change.reason}",
    )
