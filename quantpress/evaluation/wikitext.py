"""Fetches WikiText-2 once from the source Hub into the home folder.

Models are calibrated on the training split of WikiText-2 and measured on its test split. This project does not contain
the text, because Wikipedia's authors wrote it and its licences are CC BY-SA 3.0 and GFDL. The text comes from the
dataset that llama.cpp's own script uses (scripts/get-wikitext-2.sh). A hash proves that the download is the right one.
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
#: The SHA-256 of the archive, which has 4 721 645 bytes. The checksums of the Hub's own script for the dataset
#: ``wikitext`` have the same hash (dataset_infos.json, wikitext-2-raw-v1). This archive is used wherever llama.cpp's
#: figures are reproduced.
ARCHIVE_SHA256 = "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"
#: The SHA-256 of the archive's ``wiki.test.raw`` (1 290 590 bytes). llama.cpp's perplexity figures are made with this
#: file.
TEST_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
_WHAT = f"fetching {ARCHIVE} of the dataset {DATASET}"
_REMEDY = "name texts of your own, or pydoc-topics, as QUANTPRESS_EVALUATION_TEXT and as the catalog's calibration text"


def fetch_wikitext(hub: HfApi, home: Path) -> Path | None:
    """Returns the path of the archive in the home folder's ``texts``. If it is missing, it is downloaded and checked.

    Returns None if the Hub answers that it does not have the dataset or the file. Raises :class:`QuantpressError` if
    the Hub does not answer, gives another answer, or sends another file, because in these cases no other text should be
    used.
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
    """Fetches the archive as :func:`fetch_wikitext` does, but for work that can go on without a Hub.

    A request that fails is not repeated. If the archive is not available, returns None and calls ``report`` with the
    reason why the offline text (:mod:`quantpress.evaluation.text`) is used instead.
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
    """Returns the path of the archive in ``folder``, or None if it is missing or damaged."""
    archive = folder / ARCHIVE
    return archive if archive.is_file() and sha256_of(archive) == ARCHIVE_SHA256 else None


def read_split(archive: Path, split: Literal["train", "test"]) -> str:
    """Returns the unchanged text of one split. The hash of ``archive`` must have been checked before."""
    with zipfile.ZipFile(archive) as opened:
        return opened.read(f"wikitext-2-raw/wiki.{split}.raw").decode("utf-8")


def _is_there(hub: HfApi) -> bool:
    """Whether the Hub has the archive.

    huggingface_hub's own ``file_exists`` is not used, because it also returns False if the Hub refuses the token (401).
    """
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
