"""Makes clients for a Hub. They are huggingface_hub's own clients, set up for one endpoint."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError, Unreachable
from quantpress.hub.token import held_token
from quantpress.settings import DEFAULT_PATIENCE, HUGGING_FACE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: What huggingface_hub says, as a plain ValueError, if a Hub refuses a file before its bytes are sent
#: (_commit_api._upload_files). The Hub's own words follow a backtick. One file's words are enough.
_REFUSED_FILE = re.compile(r"LFS batch API returned errors:\n.*`(.+)")
#: An address with a query. If the address is for an upload or a download, the query holds a signature.
_QUERY = re.compile(r"""(https?://[^\s?'"<>]*)\?[^\s'"<>]*""")


#: The status codes that concern a whole Hub: too many requests, and a Hub that is down or behind a proxy that waits in
#: vain for it. Any other code concerns the repository that was asked for.
_OF_THE_HUB = frozenset({408, 429, 502, 503, 504})


def prepare_hub_client(endpoint: str) -> None:
    """Sets the environment variables that huggingface_hub reads when it is first imported.

    Only huggingface.co negotiates Xet, a protocol for large files. To any other Hub, files are sent as LFS.
    """
    if endpoint != HUGGING_FACE:
        os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def hub_client(endpoint: str, patience: float = DEFAULT_PATIENCE) -> HfApi:
    """Returns a client for ``endpoint``. The client uses the token from ``HF_TOKEN`` or from ``hf auth login``.

    If the Hub does not answer a request, or refuses the request for now, the client repeats the request for
    ``patience`` seconds.
    """
    prepare_hub_client(endpoint)
    from huggingface_hub import HfApi

    from quantpress.hub.patience import Patience, be_patient

    be_patient(Patience(patience))
    return HfApi(endpoint=endpoint, token=held_token(), library_name="quantpress")


@contextmanager
def explained(endpoint: str, what: str) -> Iterator[None]:
    """Turns an error in the ``with`` block into a message of one line: what was asked, of which Hub, and the answer.

    Removes the queries of addresses from the message. Raises :class:`QuantpressError` in place of every error of the
    client, the connection and the local disk. It is :class:`Unreachable` if the error concerns the whole Hub: there is
    no connection, the Hub is down, or what answers is not a Hub.
    """
    from huggingface_hub.errors import HfHubHTTPError

    from quantpress.hub.patience import HubFailed, http_library

    failures = (HfHubHTTPError, http_library().HTTPError, OSError, HubFailed)
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError):
        # The client reads JSON wherever a Hub answers with success. A proxy or a login page answers with HTML.
        raise Unreachable(
            f"{what} on {endpoint}: the answer is not JSON, so this is not a Hub (a proxy or a login page?): "
            "check the address and the network"
        ) from None
    except (*failures, RuntimeError) as error:
        # If the upload of a large file fails, huggingface_hub wraps the error in a RuntimeError.
        found = error.__cause__ if type(error) is RuntimeError else error
        if not isinstance(found, failures):
            raise
        said = _QUERY.sub(r"\1", str(found))
        answer = next((line.strip() for line in said.splitlines() if line.strip()), type(found).__name__)
        kind = Unreachable if _concerns_the_hub(found) else QuantpressError
        raise kind(f"{what} on {endpoint}: {answer}") from None
    except ValueError as error:
        refused = _REFUSED_FILE.search(str(error))
        if refused is None:
            raise
        raise QuantpressError(f"{what} on {endpoint}: {refused[1]}") from None


def _concerns_the_hub(error: Exception) -> bool:
    """Whether an error of the client concerns the whole Hub, and not only the repository that was asked for."""
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

    from quantpress.hub.patience import HubFailed, http_library

    match error:
        case HubFailed():
            return error.status is None or error.status in _OF_THE_HUB
        case FileMetadataError():
            return True  # an answer without the headers of a Hub
        case LocalEntryNotFoundError():  # no connection, or an answer about this file alone
            return not isinstance(error.__cause__, HfHubHTTPError) or _concerns_the_hub(error.__cause__)
        case HfHubHTTPError():
            return error.response.status_code in _OF_THE_HUB
    return isinstance(error, http_library().HTTPError)
