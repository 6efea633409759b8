"""Verifies a published repo: a fresh download by the real client, hashed against its manifest."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.files import sha256_of
from quantpress.hub import explained
from quantpress.manifest import MANIFEST_FILE, File, parse_manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Checked:
    """One file of a published revision; ``problem`` is empty where it is what the manifest says."""

    path: str
    size: int
    problem: str


def verify(api: HfApi, repo_id: str, revision: str) -> list[Checked]:
    """Downloads every file that the revision's manifest lists and compares size and SHA-256.

    Raises :class:`~quantpress.errors.QuantpressError` if the repo or its manifest cannot be read. The download
    goes to an empty temporary cache, so that what is checked is what the Hub serves now.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with (
        tempfile.TemporaryDirectory(prefix="quantpress-verify-") as cache,
        explained(api.endpoint, f"verifying {repo_id}@{revision}"),
    ):

        def download(path: str) -> Path:
            return Path(api.hf_hub_download(repo_id, path, revision=revision, cache_dir=cache))

        manifest = parse_manifest(download(MANIFEST_FILE).read_bytes(), f"{repo_id}@{revision}")
        branch = revision if any(entry.branch == revision for entry in manifest.entries) else "main"
        listed = [file for entry in manifest.published(branch) for file in entry.artifact.files]
        checked = []
        for file in [*listed, *manifest.shared]:
            try:
                checked.append(_check(file, download(file.path)))
            except RemoteEntryNotFoundError:
                checked.append(Checked(file.path, file.size, "listed in the manifest, missing in the repo"))
    return checked


def _check(file: File, local: Path) -> Checked:
    size = local.stat().st_size
    if size != file.size:
        return Checked(file.path, file.size, f"has {size} bytes, the manifest says {file.size}")
    digest = sha256_of(local)
    if digest != file.sha256:
        return Checked(file.path, file.size, f"has SHA-256 {digest}, the manifest says {file.sha256}")
    return Checked(file.path, file.size, "")
