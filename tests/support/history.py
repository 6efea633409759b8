"""What the embedded Hub's own files say of a repo's whole history."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path
from urllib.parse import unquote

from quantpress.localhub import history
from quantpress.localhub.database import reading
from quantpress.localhub.history import TreeEntry
from quantpress.localhub.repos import get_repo
from quantpress.record.manifest import MANIFEST_FILE, Manifest, parse_manifest
from quantpress.record.sums import SUMS_FILE

_WEIGHTS = (".gguf", ".safetensors")
_NAME_OF_WEIGHTS = re.compile(r"[\w.-]+\.(?:gguf|safetensors)\b")
#: The part of a card that names the source's files, not this repo's (``templates/base.md.jinja``).
_WHAT_MOVED = re.compile(r"The source has moved since\..*?To check a download", re.DOTALL)


def assert_every_revision_was_whole(root: Path, repo_id: str) -> list[Manifest]:
    """Checks every commit on every branch of a repo to which only the press wrote.

    Each stored file has the hash that the Hub keeps for it. ``SHA256SUMS`` names exactly the files that are there. The
    manifest names exactly the weights that are there. The card names all files of variants, and no weights that are
    not there.

    Returns the manifests of ``main``, oldest first.
    """
    with reading(root) as db:
        repo = get_repo(db, repo_id)
        branches = {
            ref.name: [history.read_tree(db, commit.tree) for commit in reversed(history.log(db, repo, ref.target))]
            for ref in history.list_refs(db, repo)
            if ref.kind == "branch"
        }
    manifests = {branch: _manifests_of_whole(root, repo_id, branch, trees) for branch, trees in branches.items()}
    return manifests["main"]


def _manifests_of_whole(root: Path, repo_id: str, branch: str, trees: list[dict[str, TreeEntry]]) -> list[Manifest]:
    contents = {entry.sha256: _stored(root, entry) for tree in trees for entry in tree.values()}
    manifests = []
    for tree in trees:
        if MANIFEST_FILE not in tree:
            assert set(tree) == {".gitattributes"}
            continue
        text = contents[tree[SUMS_FILE].sha256].decode()
        sums = {path: sha256 for sha256, path in (line.split("  ", 1) for line in text.splitlines())}
        there = {path: entry.sha256 for path, entry in tree.items() if path not in {".gitattributes", SUMS_FILE}}
        assert sums == there
        manifest = parse_manifest(contents[tree[MANIFEST_FILE].sha256], repo_id)
        published = {file.path for entry in manifest.published(branch) for file in entry.artifact.files}
        listed = {file.path for file in manifest.files(branch)}
        weights = {path for path in there if path.endswith(_WEIGHTS)}
        assert weights == {path for path in listed if path.endswith(_WEIGHTS)}
        card = contents[tree["README.md"].sha256].decode()
        assert all(path in card for path in published)
        invented = weights_named_on(card) - weights
        assert not invented, f"{repo_id}@{branch}: the card names {sorted(invented)}"
        manifests.append(manifest)
    return manifests


def weights_named_on(card: str) -> set[str]:
    """Returns the files with weights that a card names as the repo's own, in links, commands and hashes."""
    plain = unquote(_WHAT_MOVED.sub("", card).replace("\\", ""))  # Markdown puts a backslash before underscores
    return set(_NAME_OF_WEIGHTS.findall(plain))


def _stored(root: Path, entry: TreeEntry) -> bytes:
    content = (root / "objects" / entry.sha256[:2] / entry.sha256).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)
    return content


def assert_published_once(root: Path, repo_id: str, ladder: list[str]) -> None:
    """Checks that every variant came with one commit, alone. Afterwards it changed only once, when it was verified. No
    commit was without news."""
    manifests = assert_every_revision_was_whole(root, repo_id)
    assert len(manifests[0].entries) == 1
    for before, after in itertools.pairwise(manifests):
        news = [entry.variant for entry in after.entries if before.entry(entry.variant) is None]
        for entry in before.entries:
            later = after.entry(entry.variant)
            assert later is not None
            if entry.verified is None and later.verified is not None:
                news.append(f"{entry.variant} verified")
                later = later.model_copy(update={"verified": None})
            assert later == entry
        assert news
        assert sum("verified" not in new for new in news) <= 1
    assert sorted(entry.variant for entry in manifests[-1].entries) == sorted(ladder)
    assert {entry.status for entry in manifests[-1].entries} == {"published"}
    assert all(entry.verified for entry in manifests[-1].entries)
