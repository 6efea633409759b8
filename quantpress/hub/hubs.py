"""The two Hubs that quantpress uses, under different names, so that code cannot confuse one with the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantpress.hub.client import hub_client

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from quantpress.settings import Settings


@dataclass(frozen=True)
class Hubs:
    """Clients for both Hubs. ``source`` holds the unquantized models. quantpress publishes on ``target``."""

    source: HfApi
    target: HfApi


def hubs(settings: Settings) -> Hubs:
    """Returns clients for the two Hubs that the settings name."""
    return Hubs(source_hub(settings), target_hub(settings))


def source_hub(settings: Settings) -> HfApi:
    """Returns a client for the Hub that holds the unquantized models."""
    return hub_client(settings.source_endpoint, settings.patience)


def target_hub(settings: Settings) -> HfApi:
    """Returns a client for the Hub on which quantpress publishes."""
    return hub_client(settings.target_endpoint, settings.patience)
