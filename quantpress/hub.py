"""The Hub client: the unmodified huggingface_hub, pointed at an endpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError
from quantpress.settings import HUGGING_FACE

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def prepare_hub_client(endpoint: str) -> None:
    """Sets what huggingface_hub reads from the environment when it is first imported.

    Only huggingface.co negotiates Xet; to any other Hub files travel as LFS.
    """
    if endpoint != HUGGING_FACE:
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def hub_client(endpoint: str) -> HfApi:
    """A client for ``endpoint``, with the token that ``hf auth login`` stored or ``HF_TOKEN`` holds."""
    prepare_hub_client(endpoint)
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="quantpress")


@contextmanager
def explained(endpoint: str, what: str) -> Iterator[None]:
    """Turns a failed request into one line: what was asked of which Hub, and what it answered.

    Raises :class:`QuantpressError` for every error of the client, the connection and the local disk.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        answer = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise QuantpressError(f"{what} on {endpoint}: {answer}") from None
