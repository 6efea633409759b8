"""The shelf: what a target repo already holds, as read back from the manifests on its branches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import Refused, Unreadable
from quantpress.hub.client import explained
from quantpress.record.manifest import MANIFEST_FILE, Alias, Entry, Manifest, parse_manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi


#: The file name endings of model weights, no matter which program wrote them.
_WEIGHTS = (".gguf", ".ggml", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".tflite")


@dataclass(frozen=True)
class Shelf:
    """The content of one target repo.

    ``heads`` maps a branch to its commit sha. ``manifests`` maps a branch to its manifest. ``foreign`` are the branches
    that hold weights but no manifest.
    """

    repo_id: str
    heads: dict[str, str]
    manifests: dict[str, Manifest]
    foreign: frozenset[str] = frozenset()

    def require_ours(self, branch: str) -> None:
        """Raises :class:`Refused` if ``branch`` holds weights that quantpress did not make, because quantpress must not
        replace them."""
        if branch in self.foreign:
            where, remedy = self.repo_id, "rename it or set another namespace"
            if branch != "main":
                where, remedy = f"branch {branch} of {self.repo_id}", "delete the branch or leave the variant out"
            raise Refused(f"{where} was not made by quantpress (it holds weights and no {MANIFEST_FILE}): {remedy}")

    def entry(self, variant: str, branch: str) -> Entry | None:
        """Returns a variant's entry from ``branch``, the branch that holds the variant's files, or None if there is
        none.

        If ``branch`` is not ``main``, the manifest of ``main`` is not trusted about a published variant. Only the
        branch's own manifest was written in the same commit as the files.

        If ``branch`` does not list the variant, the entry of ``main`` counts unless it says ``published``. The reason
        is that a withheld variant has no files, and therefore no branch. If the variant was published before it was
        withheld or retracted, its branch exists, and the branch's own manifest has the new status.
        """
        own = self.manifests.get(branch)
        found = own.entry(variant) if own else None
        if found is None and (main := self.manifests.get("main")):
            listed = main.entry(variant)
            found = listed if listed and listed.status != "published" else None
        return found

    def entries(self) -> list[Entry]:
        """Returns the entry of every variant, read from the branch that holds the variant's files.

        If ``main`` lists the variant, ``main`` says which branch this is. Otherwise another branch's manifest says it.
        """
        branches: dict[str, str] = {}
        for name in sorted(self.manifests, key=lambda name: name != "main"):
            for entry in self.manifests[name].entries:
                branches.setdefault(entry.variant, entry.branch)
        found = [self.entry(variant, branch) for variant, branch in branches.items()]
        return [entry for entry in found if entry is not None]

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of ``main``. If a run died before ``main`` had a manifest, the manifest of another branch."""
        return self.manifests.get("main") or next(iter(self.manifests.values()), None)

    def holds(self, entry: Entry) -> bool:
        """Whether the repo already has an equal entry: the same recipe, protocol and status.

        A retracted entry with the same recipe also counts as equal, because a retraction is final for a recipe. A run
        that was at work when the variant was retracted must not undo the retraction.
        """
        own = self.entry(entry.variant, entry.branch)
        if own is None or own.fingerprint != entry.fingerprint:
            return False
        return own.status == "retracted" or (own.evaluation.protocol, own.status) == (
            entry.evaluation.protocol,
            entry.status,
        )

    def source_files(self, sha: str) -> dict[str, str]:
        """Returns a dict from file to hash for the source's commit ``sha``. The dict is empty if no manifest records
        this commit."""
        manifests = self.manifests.values()
        records = [record for each in manifests for record in (each.source, *(state.source for state in each.earlier))]
        return next((record.files for record in records if record.sha == sha), {})

    def alias(self, variant: str) -> Alias | None:
        """Returns the alias that ``main`` lists for a variant, or None if there is none."""
        main = self.manifests.get("main")
        return next((alias for alias in main.aliases if alias.variant == variant), None) if main else None


def read_shelf(api: HfApi, repo_id: str) -> Shelf:
    """Reads a repo's branches and their manifests. If the repo does not exist, the shelf is empty.

    Raises :class:`Unreadable` if a manifest is invalid or the token has no access to it. Raises
    :class:`~quantpress.errors.QuantpressError` if the Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    with explained(api.endpoint, f"reading {repo_id}"):
        try:
            refs = api.list_repo_refs(repo_id)
        except RepositoryNotFoundError:
            return Shelf(repo_id, {}, {})
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    found = {name: read_manifest(api, repo_id, commit, f"{repo_id}@{name}") for name, commit in heads.items()}
    manifests = {name: manifest for name, manifest in found.items() if manifest is not None}
    foreign = [name for name in heads.keys() - manifests if _holds_weights(api, repo_id, heads[name])]
    return Shelf(repo_id, heads, manifests, frozenset(foreign))


def _holds_weights(api: HfApi, repo_id: str, revision: str) -> bool:
    with explained(api.endpoint, f"listing {repo_id}"):
        return any(path.lower().endswith(_WEIGHTS) for path in api.list_repo_files(repo_id, revision=revision))


def read_manifest(api: HfApi, repo_id: str, revision: str, where: str) -> Manifest | None:
    """Returns the manifest at one revision of a repo, or None if there is none.

    ``where`` names the revision in errors. Raises the same errors as :func:`read_shelf`.
    """
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

    with explained(api.endpoint, f"reading {where}"):
        try:
            path = api.hf_hub_download(repo_id, MANIFEST_FILE, revision=revision)
        except RemoteEntryNotFoundError:
            return None
        except GatedRepoError:
            raise Unreadable(f"{where} is gated and closed to this token: give one that may write to it") from None
    return parse_manifest(Path(path).read_bytes(), where)
