"""What is published already, read back from the manifests on the target Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import Refused, Unreadable
from quantpress.hub.client import explained
from quantpress.record.manifest import MANIFEST_FILE, Alias, Entry, Manifest, parse_manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi


#: What files with a model's weights end with, whoever made them.
_WEIGHTS = (".gguf", ".ggml", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".tflite")


@dataclass(frozen=True)
class Shelf:
    """One target repo. ``heads`` maps branch to commit sha; ``manifests`` maps branch to its manifest; ``foreign`` are
    the branches that hold weights and no manifest."""

    repo_id: str
    heads: dict[str, str]
    manifests: dict[str, Manifest]
    foreign: frozenset[str] = frozenset()

    def require_ours(self, branch: str) -> None:
        """Raises :class:`Refused` for a branch whose weights somebody else put there: they would be replaced."""
        if branch in self.foreign:
            where, remedy = self.repo_id, "rename it or set another namespace"
            if branch != "main":
                where, remedy = f"branch {branch} of {self.repo_id}", "delete the branch or leave the variant out"
            raise Refused(f"{where} was not made by quantpress (it holds weights and no {MANIFEST_FILE}): {remedy}")

    def entry(self, variant: str, branch: str) -> Entry | None:
        """A variant's entry, from the branch on which its files are.

        An entry of ``main`` for a variant on another branch is not trusted: the branch's own manifest was
        written in the same commit as the files. A withheld variant has no files and stands on ``main`` only, unless
        it was published before: then its branch is there and says so too, as it does of a retracted one.
        """
        own = self.manifests.get(branch)
        found = own.entry(variant) if own else None
        if found is None and (main := self.manifests.get("main")):
            listed = main.entry(variant)
            found = listed if listed and listed.status != "published" else None
        return found

    def entries(self) -> list[Entry]:
        """Every variant's entry, from the branch on which its files are; ``main`` says which that is, as far as it
        lists the variant."""
        branches: dict[str, str] = {}
        for name in sorted(self.manifests, key=lambda name: name != "main"):
            for entry in self.manifests[name].entries:
                branches.setdefault(entry.variant, entry.branch)
        found = [self.entry(variant, branch) for variant, branch in branches.items()]
        return [entry for entry in found if entry is not None]

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of ``main``; where a press died before the first one was there, that of a branch."""
        return self.manifests.get("main") or next(iter(self.manifests.values()), None)

    def holds(self, entry: Entry) -> bool:
        """Whether the repo says of a variant what ``entry`` does already: the same recipe, protocol and status.

        A retraction says all there is to say of its recipe: a press that was at work when it came does not undo it.
        """
        own = self.entry(entry.variant, entry.branch)
        if own is None or own.fingerprint != entry.fingerprint:
            return False
        return own.status == "retracted" or (own.evaluation.protocol, own.status) == (
            entry.evaluation.protocol,
            entry.status,
        )

    def source_files(self, sha: str) -> dict[str, str]:
        """The hashes of the source's files at an earlier commit, as far as a branch tells of it."""
        manifests = self.manifests.values()
        records = [record for each in manifests for record in (each.source, *(state.source for state in each.earlier))]
        return next((record.files for record in records if record.sha == sha), {})

    def alias(self, variant: str) -> Alias | None:
        """The alias that ``main`` lists for a variant."""
        main = self.manifests.get("main")
        return next((alias for alias in main.aliases if alias.variant == variant), None) if main else None


def read_shelf(api: HfApi, repo_id: str) -> Shelf:
    """Reads a repo's branches and their manifests. A repo that does not exist has none.

    Raises :class:`Unreadable` where a manifest is none or closed to the token, and
    :class:`~quantpress.errors.QuantpressError` when the Hub cannot be reached.
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
    """The manifest at one revision of a repo, if there is one; ``where`` names it in errors, of which there are those
    of :func:`read_shelf`."""
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

    with explained(api.endpoint, f"reading {where}"):
        try:
            path = api.hf_hub_download(repo_id, MANIFEST_FILE, revision=revision)
        except RemoteEntryNotFoundError:
            return None
        except GatedRepoError:
            raise Unreadable(f"{where} is gated and closed to this token: give one that may write to it") from None
    return parse_manifest(Path(path).read_bytes(), where)
