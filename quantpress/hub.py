"""The Hub client: the unmodified huggingface_hub, pointed at an endpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError
from quantpress.settings import HUGGING_FACE

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def hub_client(endpoint: str) -> HfApi:
    """A client for ``endpoint``, with the token that ``hf auth login`` stored or ``HF_TOKEN`` holds.

    Only huggingface.co negotiates Xet; to any other Hub files travel as LFS, which the client must be told
    before it is first imported (its constants are read from the environment then).
    """
    if endpoint != HUGGING_FACE:
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="quantpress")


def explain_hub_error(error: Exception, endpoint: str, what: str) -> QuantpressError:
    """One line for a failed request: what was asked of which Hub, and what it answered."""
    answer = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return QuantpressError(f"{what}: {endpoint} answered: {answer}")
