"""Downloads one commit of a repo again, as the Hub lists and serves the commit now, and compares the files.

huggingface_hub downloads each file into an empty cache. The Hub's listing records what was uploaded. If bytes on the
Hub's disk change, the listing does not, so the comparison shows the damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError
from quantpress.files import git_sha1_of, sha256_of, stays_within
from quantpress.hub.patience import HubFailed
from quantpress.record.manifest import File
from quantpress.record.verification import VerifiedFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_UNSAFE = "has a name that leads out of the repo's folder: it was not downloaded"
#: The status codes with which a Hub says that it has no right bytes of a file any more. The embedded Hub answers 410.
_LOST = (HTTPStatus.GONE, HTTPStatus.INTERNAL_SERVER_ERROR)
#: A file counts as damaged only if this many downloads had the wrong size. The first time, the connection can have cut
#: the file.
_ATTEMPTS = 2


class _Damaged(QuantpressError):
    """Raised if a downloaded file has another size than the Hub lists, or if the Hub cannot serve the file."""


@dataclass(frozen=True)
class FreshCopy:
    """A fresh copy of one commit, downloaded file by file.

    ``listed`` is a dict from path to the file's entry in the Hub's listing, in the order of the listing. ``cache`` is
    the folder of huggingface_hub's cache, and is empty at first.
    """

    api: HfApi
    repo_id: str
    commit: str
    listed: Mapping[str, RepoFile]
    cache: Path

    @classmethod
    def of(cls, api: HfApi, repo_id: str, revision: str, cache: Path) -> FreshCopy:
        """Looks up the commit that ``revision`` names, and lists its files. Downloads nothing yet."""
        from huggingface_hub.hf_api import RepoFile

        commit = api.model_info(repo_id, revision=revision).sha or revision
        tree = api.list_repo_tree(repo_id, recursive=True, revision=commit)
        return cls(api, repo_id, commit, {file.path: file for file in tree if isinstance(file, RepoFile)}, cache)

    def get(self, path: str) -> Path:
        """Downloads a file, unless the cache has it, and returns its path.

        All files lie in one folder, under the same paths as in the repo.
        """
        for _ in range(_ATTEMPTS):
            try:
                return Path(self.api.hf_hub_download(self.repo_id, path, revision=self.commit, cache_dir=self.cache))
            except (OSError, HubFailed) as error:
                if (status := _status(error)) in _LOST:
                    raise _Damaged(f"is not served: the Hub answers {status}, so it lost or damaged it") from None
                # huggingface_hub raises a plain OSError without an errno only if the size is wrong.
                if type(error) is not OSError or error.errno is not None:
                    raise
        raise _Damaged(f"arrives with another size than the {self.listed[path].size} bytes that it had")

    def check_listed(self, path: str) -> VerifiedFile:
        """Downloads a file and compares its hash with the hash that the Hub lists for this file."""
        file = self.listed[path]
        if not stays_within(path):
            return VerifiedFile(path, file.size, _UNSAFE)
        try:
            local = self.get(path)
        except _Damaged as error:
            return VerifiedFile(path, file.size, str(error))
        same = sha256_of(local) == file.lfs.sha256 if file.lfs else git_sha1_of(local) == file.blob_id
        return VerifiedFile(path, file.size, "" if same else "is not what the Hub's hash says")

    def check(self, file: File, *, fetched_before: bool) -> VerifiedFile:
        """Downloads a file that the manifest names, and compares the download's size and hash with the manifest.

        ``fetched_before`` says that the file was already downloaded when it was published. If this is so and the file
        is in LFS, it is not downloaded again. Then only the hash that the Hub lists is compared with the manifest.
        """
        if not stays_within(file.path):
            return VerifiedFile(file.path, file.size, _UNSAFE)
        there = self.listed.get(file.path)
        if there is None:
            return VerifiedFile(file.path, file.size, "listed in the manifest, missing in the repo")
        if fetched_before and there.lfs:
            same = there.lfs.sha256 == file.sha256
            return VerifiedFile(file.path, file.size, "" if same else "is listed by the Hub with another SHA-256")
        try:
            return VerifiedFile(file.path, file.size, _difference(file, self.get(file.path)))
        except _Damaged as error:
            return VerifiedFile(file.path, file.size, str(error))


def _status(error: Exception) -> int | None:
    """Returns the status code of the answer that made a download fail, or None if there was no answer.

    If the Hub refuses one file, the client says that it has no connection. The answer is the error's cause.
    """
    if isinstance(error, HubFailed):
        return error.status
    response = getattr(error.__cause__, "response", None)
    return None if response is None else int(response.status_code)


def _difference(file: File, local: Path) -> str:
    size = local.stat().st_size
    if size != file.size:
        return f"has {size} bytes, the manifest says {file.size}"
    digest = sha256_of(local)
    return "" if digest == file.sha256 else f"has SHA-256 {digest}, the manifest says {file.sha256}"
