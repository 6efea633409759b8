"""WikiText-2, fetched once from the source Hub into the home folder: models are calibrated on its training split and
measured on its test split.

The project does not carry the text: its authors are Wikipedia's, its licences CC BY-SA 3.0 and GFDL. It comes from the
dataset that llama.cpp's own script uses (scripts/get-wikitext-2.sh), and is recognized by its hash.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quantpress.errors import QuantpressError
from quantpress.files import place, sha256_of
from quantpress.hub.client import explained, hub_client
from quantpress.machine.scratch import scratch
from quantpress.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATASET = "ggml-org/ci"
ARCHIVE = "wikitext-2-raw-v1.zip"
#: SHA-256 of the archive of 4 721 645 bytes. It stands in the list of checksums of the Hub's own script for the dataset
#: ``wikitext`` (dataset_infos.json, wikitext-2-raw-v1), and is the same wherever llama.cpp's figures are reproduced.
ARCHIVE_SHA256 = "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"
#: SHA-256 of its ``wiki.test.raw`` (1 290 590 bytes), the file that llama.cpp's perplexity figures are made with.
TEST_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
_WHAT = f"fetching {ARCHIVE} of the dataset {DATASET}"
_REMEDY = "name texts of your own, or pydoc-topics, as QUANTPRESS_EVALUATION_TEXT and as the catalog's calibration text"


def fetch_wikitext(hub: HfApi, home: Path) -> Path | None:
    """Returns the archive in the home folder's ``texts``. If it is not there yet, it is downloaded and checked.

    Returns None if the Hub says that it has no such dataset, or no such file in it. Raises :class:`QuantpressError` if
    the Hub does not answer, answers anything else, or sends another file: these are no reasons to use another text.
    """
    folder = home / "texts"
    archive = archive_in(folder)
    if archive is not None or not _is_there(hub):
        return archive
    with scratch(home, "wikitext") as place_of_work:
        with explained(hub.endpoint, _WHAT):
            downloaded = Path(hub.hf_hub_download(DATASET, ARCHIVE, repo_type="dataset", local_dir=place_of_work))
        if (digest := sha256_of(downloaded)) != ARCHIVE_SHA256:
            raise QuantpressError(
                f"{ARCHIVE} of the dataset {DATASET} on {hub.endpoint} is not the archive that models are measured on "
                f"(SHA-256 {digest}, not {ARCHIVE_SHA256}): {_REMEDY}"
            )
        place(downloaded, folder / ARCHIVE)
    return folder / ARCHIVE


def fetch_if_reachable(settings: Settings, report: Callable[[str], None]) -> Path | None:
    """Does what :func:`fetch_wikitext` does, for work that needs no Hub.

    The Hub is asked once. If the archive is not available, ``report`` is told why the offline text is used instead.
    """
    from quantpress.hub.patience import Patience, be_patient

    hub = hub_client(settings.source_endpoint)
    be_patient(Patience(seconds=0, told=0))
    try:
        archive = fetch_wikitext(hub, settings.home)
        why = f"{settings.source_endpoint} does not have {ARCHIVE} of the dataset {DATASET}"
    except QuantpressError as error:
        archive, why = None, str(error)
    if archive is None:
        report(f"{why}; the offline text stands in for it")
    return archive


def archive_in(folder: Path) -> Path | None:
    """Returns the archive in ``folder`` if it is there and undamaged."""
    archive = folder / ARCHIVE
    return archive if archive.is_file() and sha256_of(archive) == ARCHIVE_SHA256 else None


def read_split(archive: Path, split: Literal["train", "test"]) -> str:
    """Returns a split's text, unchanged, from an archive that was checked."""
    with zipfile.ZipFile(archive) as opened:
        return opened.read(f"wikitext-2-raw/wiki.{split}.raw").decode("utf-8")


def _is_there(hub: HfApi) -> bool:
    """Whether the Hub has the archive. The client's own ``file_exists`` says no if the token is refused (401)."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

    with explained(hub.endpoint, _WHAT):
        try:
            hub.get_hf_file_metadata(url=hf_hub_url(DATASET, ARCHIVE, repo_type="dataset", endpoint=hub.endpoint))
        except (RemoteEntryNotFoundError, RepositoryNotFoundError) as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True
