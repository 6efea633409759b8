"""The two Hubs of a press. Each has its own name, so that code cannot confuse them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantpress.hub.client import hub_client

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from quantpress.settings import Settings


@dataclass(frozen=True)
class Hubs:
    """``source`` holds the unquantized models. The press publishes on ``target``."""

    source: HfApi
    target: HfApi


def hubs(settings: Settings) -> Hubs:
    """Returns both Hubs, as the settings name them."""
    return Hubs(source_hub(settings), target_hub(settings))


def source_hub(settings: Settings) -> HfApi:
    """Returns the Hub that holds the unquantized models."""
    return hub_client(settings.source_endpoint, settings.patience)


def target_hub(settings: Settings) -> HfApi:
    """Returns the Hub on which to publish."""
    return hub_client(settings.target_endpoint, settings.patience)
