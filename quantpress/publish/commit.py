"""Makes commits on the branches of a repo. One commit holds files, card, manifest and SHA256SUMS, and names its parent.

The parent keeps two presses apart: the Hub refuses (412) a commit whose parent is no longer the branch's head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quantpress.errors import QuantpressError
from quantpress.hub.client import explained
from quantpress.hub.limits import FILES_A_COMMIT, HUB_FILES
from quantpress.publish.gated import make_gated_like_source
from quantpress.record.manifest import SourceRecord
from quantpress.record.shelf import Shelf
from quantpress.record.sums import SUMS_FILE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Outrun(QuantpressError):
    """Another commit came first, and nothing was published. The caller reads the repo again and decides again."""


#: How often a commit is composed at most, if other commits keep coming first.
ATTEMPTS = 10


@dataclass(frozen=True)
class BranchCommit:
    """All files of one commit to one branch.

    ``uploads`` maps a path to a local file or to bytes. ``remove`` names files that are deleted if they exist. All
    other files stay as they are, because a person may have put them there. ``tag`` is the name of a tag that keeps what
    the branch holds now.
    """

    branch: str
    uploads: Mapping[str, Path | bytes]
    remove: frozenset[str] = frozenset()
    tag: str | None = None


def until_first(repo_id: str, attempt: Callable[[], T]) -> T:
    """Calls ``attempt`` and returns its result. Calls it again if another commit came first.

    ``attempt`` reads the repo, composes a commit and sends it. Raises :class:`QuantpressError` if other commits come
    first every time.
    """
    for _ in range(ATTEMPTS):
        try:
            return attempt()
        except Outrun as error:
            _log.info("%s", error)
    raise QuantpressError(f"{repo_id}: other commits came first {ATTEMPTS} times; run again when they have ended")


def ensure_repo(api: HfApi, repo_id: str, private: bool) -> dict[str, str]:
    """Makes the repo if it does not exist. Returns its branches: name to head commit sha."""
    with explained(api.endpoint, f"making {repo_id}"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        return {branch.name: branch.target_commit for branch in api.list_repo_refs(repo_id).branches}


def publish_format(
    api: HfApi, shelf: Shelf, commits: list[BranchCommit], source: SourceRecord, private: bool, message: str
) -> dict[str, str]:
    """Commits each branch of a format's repo. Returns branch to commit sha.

    Makes the repo if it does not exist, and gates it like the source. ``shelf`` is the repo as it was when the commits
    were composed. Raises :class:`Outrun` if another commit has come since then: read the repo and compose again. Raises
    :class:`~quantpress.errors.Refused` before any commit if a branch holds somebody else's weights,
    :class:`QuantpressError` if the Hub refuses.
    """
    for each in commits:
        shelf.require_ours(each.branch)
    ensure_repo(api, shelf.repo_id, private)
    make_gated_like_source(api, shelf.repo_id, source)
    return {each.branch: publish(api, shelf.repo_id, each, shelf.heads, message) for each in commits}


def publish(api: HfApi, repo_id: str, commit: BranchCommit, heads: Mapping[str, str], message: str) -> str:
    """Makes a commit and returns the branch's new head (the old one if nothing changed).

    ``heads`` are the heads of the branches before the commit was composed. A branch that did not exist starts from the
    repo's first commit. Raises :class:`Outrun` if another press was faster, :class:`QuantpressError` if the Hub
    refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    branch = commit.branch
    if len(commit.uploads) > FILES_A_COMMIT:
        _log.warning(
            "%s@%s: %d files in one commit, the Hub advises fewer than %d; a higher QUANTPRESS_SPLIT_ABOVE makes fewer",
            *(repo_id, branch, len(commit.uploads), FILES_A_COMMIT),
        )
    with explained(api.endpoint, f"publishing {repo_id}@{branch}"):
        parent = heads.get(branch) or _begin(api, repo_id, branch)
        if commit.tag:
            _tag(api, repo_id, commit.tag, parent)
        there = set(api.list_repo_files(repo_id, revision=parent))
        # A new branch starts with the files of the repo's first commit. After a squash, these are all files of main.
        begins = branch != "main" and branch not in heads
        gone = there - set(commit.uploads) - HUB_FILES if begins else there & commit.remove
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, content) for path, content in commit.uploads.items()
        ]
        operations += [CommitOperationDelete(path) for path in sorted(gone)]
        try:
            made = api.create_commit(repo_id, operations, commit_message=message, revision=branch, parent_commit=parent)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 412:
                raise
            own = _made_already(api, repo_id, commit, parent)
            if own is None:
                raise Outrun(
                    f"{repo_id}@{branch}: another commit came first; nothing was published, run again"
                ) from None
            return own
    return made.oid


def _tag(api: HfApi, repo_id: str, tag: str, commit: str) -> None:
    """Points a tag at the commit that is about to be replaced.

    An earlier press may have made the tag before it was killed or outrun, and another commit may have followed. The tag
    then moves forward to ``commit``. It never moves back. A press that would move it back has read the branch before
    the other commit came, so the Hub refuses its commit anyway.
    """
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    try:
        api.create_tag(repo_id, tag=tag, revision=commit)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != 409:
            raise
        named = next((each.target_commit for each in api.list_repo_refs(repo_id).tags if each.name == tag), None)
        if named in [each.commit_id for each in api.list_repo_commits(repo_id, revision=commit)[1:]]:
            with suppress(RevisionNotFoundError):  # another press is moving it too
                api.delete_tag(repo_id, tag=tag)
            _tag(api, repo_id, tag, commit)


def _made_already(api: HfApi, repo_id: str, commit: BranchCommit, parent: str) -> str | None:
    """Returns this commit's id on the Hub if the Hub made the commit but its answer was lost, or None.

    It is the commit on top of ``parent``, if that has the same SHA256SUMS. SHA256SUMS names the hash of every file.
    """
    history = [each.commit_id for each in api.list_repo_commits(repo_id, revision=commit.branch)]
    place = history.index(parent) if parent in history else 0
    if place == 0:
        return None
    child = history[place - 1]
    if SUMS_FILE not in commit.uploads or not api.file_exists(repo_id, SUMS_FILE, revision=child):
        return None
    found = Path(api.hf_hub_download(repo_id, SUMS_FILE, revision=child)).read_bytes()
    return child if found == commit.uploads[SUMS_FILE] else None


def _begin(api: HfApi, repo_id: str, branch: str) -> str:
    """Starts a branch at the repo's first commit, so that it holds no files of ``main``, and returns that commit.

    A commit that was composed before the branch existed must have this parent. If two presses start the same branch, or
    ``main`` of a new repo, the Hub then refuses the later commit.
    """
    first = api.list_repo_commits(repo_id)[-1].commit_id
    if branch != "main":
        api.create_branch(repo_id, branch=branch, revision=first, exist_ok=True)
    return first
