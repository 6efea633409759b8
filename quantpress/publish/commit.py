"""Makes commits on the branches of a repo. One commit holds files, card, manifest and SHA256SUMS, and names its parent.

A press is a run that makes and publishes variants. The parent protects two presses from each other: if a commit's
parent is no longer the branch's head, the Hub refuses the commit (412).
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
    """Another commit came first, so this commit was not made. The caller reads the repo again and decides again."""


#: If other commits keep coming first, a commit is composed at most this many times.
ATTEMPTS = 10


@dataclass(frozen=True)
class BranchCommit:
    """All files of one commit to one branch.

    ``uploads`` maps a path to a local file or to bytes. ``remove`` names files that are deleted if they exist. All
    other files on an existing branch stay as they are, because a person can have put them there. If ``tag`` is given,
    a tag of this name is made first and keeps what the branch holds now.
    """

    branch: str
    uploads: Mapping[str, Path | bytes]
    remove: frozenset[str] = frozenset()
    tag: str | None = None


def until_first(repo_id: str, attempt: Callable[[], T]) -> T:
    """Calls ``attempt`` and returns its result. If another commit came first, calls ``attempt`` again.

    ``attempt`` reads the repo, composes a commit and sends the commit. It raises :class:`Outrun` if another commit came
    first. Raises :class:`QuantpressError` if other commits come first every time.
    """
    for _ in range(ATTEMPTS):
        try:
            return attempt()
        except Outrun as error:
            _log.info("%s", error)
    raise QuantpressError(
        f"{repo_id}: other commits came first {ATTEMPTS} times; run again when the other runs on this repo have ended"
    )


def ensure_repo(api: HfApi, repo_id: str, private: bool) -> dict[str, str]:
    """Makes the repo if it does not exist. Returns a dict from branch to the sha of the branch's head."""
    with explained(api.endpoint, f"making {repo_id}"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        return {branch.name: branch.target_commit for branch in api.list_repo_refs(repo_id).branches}


def publish_format(
    api: HfApi, shelf: Shelf, commits: list[BranchCommit], source: SourceRecord, private: bool, message: str
) -> dict[str, str]:
    """Sends the commits to the branches of a format's repo. Returns a dict from branch to the sha of its new head.

    If the repo does not exist, makes it. If the source is gated, gates the repo too. ``shelf`` is what the repo held
    when the commits were composed. Raises :class:`Outrun` if another commit came since then. The caller must then read
    the repo and compose the commits again. Raises :class:`~quantpress.errors.Refused` before any commit if a branch
    holds somebody else's weights. Raises :class:`QuantpressError` if the Hub refuses.
    """
    for each in commits:
        shelf.require_ours(each.branch)
    ensure_repo(api, shelf.repo_id, private)
    make_gated_like_source(api, shelf.repo_id, source)
    return {each.branch: publish(api, shelf.repo_id, each, shelf.heads, message) for each in commits}


def publish(api: HfApi, repo_id: str, commit: BranchCommit, heads: Mapping[str, str], message: str) -> str:
    """Makes a commit and returns the branch's new head (or its old head if nothing changed).

    ``heads`` is a dict from branch to the branch's head. It was read before the commit was composed. If the commit's
    branch did not exist then, it starts from the repo's first commit. Raises :class:`Outrun` if another commit came
    first. Raises :class:`QuantpressError` if the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    branch = commit.branch
    if len(commit.uploads) > FILES_A_COMMIT:
        _log.warning(
            "%s@%s: this commit has %d files, but the Hub advises fewer than %d; a higher QUANTPRESS_SPLIT_ABOVE gives "
            "fewer files",
            *(repo_id, branch, len(commit.uploads), FILES_A_COMMIT),
        )
    with explained(api.endpoint, f"publishing {repo_id}@{branch}"):
        parent = heads.get(branch) or _begin(api, repo_id, branch)
        if commit.tag:
            _tag(api, repo_id, commit.tag, parent)
        there = set(api.list_repo_files(repo_id, revision=parent))
        # A new branch starts with the files of the repo's first commit. The commit that is made below removes
        # these files, except HUB_FILES and the paths that it uploads. If somebody has squashed main into one commit,
        # the first commit holds every file of main, so these files are the whole of main.
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
                raise Outrun(f"{repo_id}@{branch}: another commit came first; this commit was not made") from None
            return own
    return made.oid


def _tag(api: HfApi, repo_id: str, tag: str, commit: str) -> None:
    """Makes a tag at ``commit``, the branch's head that the next commit replaces.

    The tag can exist already, because an earlier press made the tag and then was killed or outrun. If the tag is at an
    ancestor of ``commit``, the tag moves forward to ``commit``. The tag never moves back: if it is already at a newer
    commit than ``commit``, it stays there. If it is there, another press has added to the branch, so the Hub will
    refuse the commit that this press is about to make.
    """
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    try:
        api.create_tag(repo_id, tag=tag, revision=commit)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != 409:
            raise
        named = next((each.target_commit for each in api.list_repo_refs(repo_id).tags if each.name == tag), None)
        if named in [each.commit_id for each in api.list_repo_commits(repo_id, revision=commit)[1:]]:
            with suppress(RevisionNotFoundError):  # another press has already deleted the tag, to move it too
                api.delete_tag(repo_id, tag=tag)
            _tag(api, repo_id, tag, commit)


def _made_already(api: HfApi, repo_id: str, commit: BranchCommit, parent: str) -> str | None:
    """Returns the id of this commit if the Hub made the commit but the Hub's answer was lost. Otherwise returns None.

    If the commit on top of ``parent`` has the same SHA256SUMS, it is this commit, because SHA256SUMS lists the hashes
    of the files.
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
    """Returns the sha of the repo's first commit. Starts the branch there, unless the branch is ``main``.

    A branch that starts at the first commit does not begin with the current files of ``main``. If two presses start the
    same branch, or ``main`` of a new repo, both of their commits have the first commit as parent. So the Hub refuses
    the later commit.
    """
    first = api.list_repo_commits(repo_id)[-1].commit_id
    if branch != "main":
        api.create_branch(repo_id, branch=branch, revision=first, exist_ok=True)
    return first
