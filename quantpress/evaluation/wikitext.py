"""WikiText-2, fetched once from the source Hub into the home folder: models are calibrated on its training split and
measured on its test split.

It is never part of the project: its authors are Wikipedia's, its licences CC BY-SA 3.0 and GFDL. It comes from the
dataset that llama.cpp's own script takes it from (scripts/get-wikitext-2.sh), and is known by its hash.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quantpress.errors import QuantpressError
from quantpress.files import place, sha256_of
from quantpress.hub import explained, hub_client
from quantpress.scratch import scratch
from quantpress.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATASET = "ggml-org/ci"
ARCHIVE = "wikitext-2-raw-v1.zip"
#: SHA-256 of the archive of 4 721 645 bytes: in the list of checksums of the Hub's own script for the dataset
#: ``wikitext`` (dataset_infos.json, wikitext-2-raw-v1), and the same wherever llama.cpp's figures are reproduced.
ARCHIVE_SHA256 = "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"
#: SHA-256 of its ``wiki.test.raw`` (1 290 590 bytes), the file that llama.cpp's perplexity figures are made with.
TEST_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
_WHAT = f"fetching {ARCHIVE} of the dataset {DATASET}"


def fetch_wikitext(hub: HfApi, home: Path) -> Path | None:
    """The archive in the home folder's ``texts``: as it lies there, or downloaded and checked.

    None where the Hub has no such dataset. Raises :class:`QuantpressError` where the Hub does not answer, or gives
    another file.
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
                f"(SHA-256 {digest}, not {ARCHIVE_SHA256}): give wiki.test.raw with QUANTPRESS_EVALUATION_TEXT"
            )
        place(downloaded, folder / ARCHIVE)
    return archive_in(folder)


def fetch_if_reachable(settings: Settings, report: Callable[[str], None]) -> None:
    """As :func:`fetch_wikitext`, for work that can do without a Hub: it is asked once, and ``report`` is told why the
    offline text is used."""
    try:
        fetch_wikitext(hub_client(settings.source_endpoint, patience=0), settings.home)
    except QuantpressError as error:
        report(f"{error}; Python's documentation stands in for it, and its figures are not WikiText's")


def archive_in(folder: Path) -> Path | None:
    """The archive in ``folder``, if it lies there undamaged."""
    archive = folder / ARCHIVE
    return archive if archive.is_file() and sha256_of(archive) == ARCHIVE_SHA256 else None


def read_split(archive: Path, split: Literal["train", "test"]) -> str:
    """A split's text, as it is."""
    with zipfile.ZipFile(archive) as opened:
        return opened.read(f"wikitext-2-raw/wiki.{split}.raw").decode("utf-8")


def _is_there(hub: HfApi) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    with explained(hub.endpoint, _WHAT):
        try:
            return hub.file_exists(DATASET, ARCHIVE, repo_type="dataset")
        except HfHubHTTPError as error:
            # A Hub that knows nothing of datasets says so without the codes that the client looks for.
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            return False
