"""The shelf: what is published already, read back from the manifests on the target Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import Refused, Unreadable
from quantpress.hub.client import explained
from quantpress.record.manifest import MANIFEST_FILE, Alias, Entry, Manifest, parse_manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi


#: The endings of files that hold a model's weights, whatever program made them.
_WEIGHTS = (".gguf", ".ggml", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".tflite")


@dataclass(frozen=True)
class Shelf:
    """One target repo. ``heads`` maps branch to commit sha. ``manifests`` maps branch to its manifest. ``foreign`` are
    the branches that hold weights and no manifest."""

    repo_id: str
    heads: dict[str, str]
    manifests: dict[str, Manifest]
    foreign: frozenset[str] = frozenset()

    def require_ours(self, branch: str) -> None:
        """Raises :class:`Refused` for a branch with weights that quantpress did not make: it must not replace them."""
        if branch in self.foreign:
            where, remedy = self.repo_id, "rename it or set another namespace"
            if branch != "main":
                where, remedy = f"branch {branch} of {self.repo_id}", "delete the branch or leave the variant out"
            raise Refused(f"{where} was not made by quantpress (it holds weights and no {MANIFEST_FILE}): {remedy}")

    def entry(self, variant: str, branch: str) -> Entry | None:
        """Returns a variant's entry from the branch that holds its files.

        If another branch holds the files, the entry of ``main`` is not trusted: only that branch's own manifest was
        written in the same commit as the files. A withheld variant has no files and stands on ``main`` only, unless it
        was published before. Then its branch exists, and the branch's manifest also says that the variant is withheld.
        The same goes for a retracted variant.
        """
        own = self.manifests.get(branch)
        found = own.entry(variant) if own else None
        if found is None and (main := self.manifests.get("main")):
            listed = main.entry(variant)
            found = listed if listed and listed.status != "published" else None
        return found

    def entries(self) -> list[Entry]:
        """Returns every variant's entry from the branch that holds its files. ``main`` says which branch that is, if it
        lists the variant."""
        branches: dict[str, str] = {}
        for name in sorted(self.manifests, key=lambda name: name != "main"):
            for entry in self.manifests[name].entries:
                branches.setdefault(entry.variant, entry.branch)
        found = [self.entry(variant, branch) for variant, branch in branches.items()]
        return [entry for entry in found if entry is not None]

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of ``main``, or of another branch if a press died before ``main`` had one."""
        return self.manifests.get("main") or next(iter(self.manifests.values()), None)

    def holds(self, entry: Entry) -> bool:
        """Whether the repo already has an entry like this one: with the same recipe, protocol and status.

        A retraction is final for its recipe: a press that was at work when the retraction came does not undo it.
        """
        own = self.entry(entry.variant, entry.branch)
        if own is None or own.fingerprint != entry.fingerprint:
            return False
        return own.status == "retracted" or (own.evaluation.protocol, own.status) == (
            entry.evaluation.protocol,
            entry.status,
        )

    def source_files(self, sha: str) -> dict[str, str]:
        """Returns the hashes of the source's files at an earlier commit; empty if no branch records them."""
        manifests = self.manifests.values()
        records = [record for each in manifests for record in (each.source, *(state.source for state in each.earlier))]
        return next((record.files for record in records if record.sha == sha), {})

    def alias(self, variant: str) -> Alias | None:
        """Returns the alias that ``main`` lists for a variant, if there is one."""
        main = self.manifests.get("main")
        return next((alias for alias in main.aliases if alias.variant == variant), None) if main else None


def read_shelf(api: HfApi, repo_id: str) -> Shelf:
    """Reads a repo's branches and their manifests. A repo that does not exist has none.

    Raises :class:`Unreadable` for a manifest that is invalid or closed to the token, and
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
    """Returns the manifest at one revision of a repo, if there is one. ``where`` names the revision in errors. Raises
    the same errors as :func:`read_shelf`."""
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

    with explained(api.endpoint, f"reading {where}"):
        try:
            path = api.hf_hub_download(repo_id, MANIFEST_FILE, revision=revision)
        except RemoteEntryNotFoundError:
            return None
        except GatedRepoError:
            raise Unreadable(f"{where} is gated and closed to this token: give one that may write to it") from None
    return parse_manifest(Path(path).read_bytes(), where)
