"""How far a published variant may be from the unquantized model: a limit on the variant's mean KL divergence.

The catalog can set a limit. Otherwise the format's quantizer gives the limit. For example, the limits of GGUF variants
are in quantizers/gguf/limits.py.
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
    """The largest mean KL divergence with which a variant is published, in nats per token.

    ``changed`` says why the limit is not the default. It is None for a default limit.
    """

    max_divergence: float
    changed: str | None = None


def limit_of(variant: Variant, changes: Mapping[str, GateLine]) -> Limit | None:
    """Returns the limit of a variant of one model, or None if there is no limit.

    ``changes`` maps a variant's name to the limit that the catalog sets for this model.
    """
    default, change = traits_of(quantizer_of(variant)).limits.get(variant.name), changes.get(variant.name)
    if change is None:
        return None if default is None else Limit(default)
    instead = "where there is none by default" if default is None else f"not {default:g}"
    return Limit(
        change.max_divergence,
        f"the limit of its mean KLD is {change.max_divergence:g} for this model, {instead}: {change.reason}",
    )
