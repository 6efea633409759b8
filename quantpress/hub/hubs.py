"""The two Hubs of a press, which nobody can mistake for each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantpress.hub.client import hub_client

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from quantpress.settings import Settings


@dataclass(frozen=True)
class Hubs:
    """``source`` holds the unquantized models; on ``target`` the press publishes."""

    source: HfApi
    target: HfApi


def hubs(settings: Settings) -> Hubs:
    """Both Hubs, as the settings name them."""
    return Hubs(source_hub(settings), target_hub(settings))


def source_hub(settings: Settings) -> HfApi:
    """The Hub that holds the unquantized models."""
    return hub_client(settings.source_endpoint, settings.patience)


def target_hub(settings: Settings) -> HfApi:
    """The Hub on which to publish."""
    return hub_client(settings.target_endpoint, settings.patience)
