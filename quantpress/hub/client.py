"""The Hub client: the unmodified huggingface_hub, pointed at an endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError
from quantpress.settings import DEFAULT_PATIENCE, HUGGING_FACE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The query of an address: that of an upload or a download carries its signature.
_QUERY = re.compile(r"""(https?://[^\s?'"<>]*)\?[^\s'"<>]*""")


def prepare_hub_client(endpoint: str) -> None:
    """Sets what huggingface_hub reads from the environment when it is first imported.

    Only huggingface.co negotiates Xet; to any other Hub files travel as LFS.
    """
    if endpoint != HUGGING_FACE:
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def hub_client(endpoint: str, patience: float = DEFAULT_PATIENCE) -> HfApi:
    """A client for ``endpoint``, with the token that ``hf auth login`` stored or ``HF_TOKEN`` holds.

    It repeats a request that the Hub does not answer, or refuses for now, for ``patience`` seconds.
    """
    prepare_hub_client(endpoint)
    from huggingface_hub import HfApi

    from quantpress.hub.patience import Patience, be_patient

    be_patient(Patience(patience))
    return HfApi(endpoint=endpoint, library_name="quantpress")


@contextmanager
def explained(endpoint: str, what: str) -> Iterator[None]:
    """Turns a failed request into one line: what was asked of which Hub, and what it answered.

    Addresses in it lose their queries. Raises :class:`QuantpressError` for every error of the client, the connection
    and the local disk.
    """
    from huggingface_hub.errors import HfHubHTTPError

    from quantpress.hub.patience import HubFailed, http_library

    failures = (HfHubHTTPError, http_library().HTTPError, OSError, HubFailed)
    try:
        yield
    except (*failures, RuntimeError) as error:
        # The library wraps what goes wrong with a large file's upload into a RuntimeError.
        found = error.__cause__ if type(error) is RuntimeError else error
        if not isinstance(found, failures):
            raise
        said = _QUERY.sub(r"\1", str(found))
        answer = next((line.strip() for line in said.splitlines() if line.strip()), type(found).__name__)
        raise QuantpressError(f"{what} on {endpoint}: {answer}") from None
