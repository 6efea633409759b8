"""Verifies a published repo: a fresh download by the real client, hashed against its manifest, loaded, made to speak,
and found by the clients that choose a file by a tag.

A repo without a manifest, which some other program made, is hashed against what the Hub says of it, and loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quantizers import quantizer
from quantpress.child import run_child
from quantpress.errors import ChildFailed
from quantpress.evaluation.generate import Generation, GenerationJob
from quantpress.evaluation.record import Engine
from quantpress.evaluation.sample import PROMPT, TOKENS, speaks
from quantpress.files import git_sha1_of, sha256_of, stays_within
from quantpress.hub import explained
from quantpress.manifest import MANIFEST_FILE, Entry, File, VerificationRecord, parse_manifest
from quantpress.resolution import Resolved, is_model, resolve_by_registry, resolve_by_rules
from quantpress.toolchain.llama_cpp import planned_version

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Checked:
    """One file of a published revision; ``problem`` is empty where it is what the manifest says."""

    path: str
    size: int
    problem: str


@dataclass(frozen=True)
class Spoken:
    """What a variant wrote when it was loaded from the download; ``problem`` is empty where it wrote text."""

    variant: str
    text: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """What became of a revision's files, of those of its variants that were loaded, and of the tags that clients ask
    for. ``commit`` is the one that was read, ``reference`` what the files were compared with."""

    files: list[Checked] = field(default_factory=list)
    variants: list[Spoken] = field(default_factory=list)
    resolved: list[Resolved] = field(default_factory=list)
    commit: str = ""
    reference: str = "the manifest"

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in one line each."""
        files = [f"{file.path} {file.problem}" for file in self.files if file.problem]
        spoken = [f"{spoken.variant} {spoken.problem}" for spoken in self.variants if spoken.problem]
        return files + spoken + [f"{each.client} {each.problem}" for each in self.resolved if each.problem]

    def record(self) -> VerificationRecord:
        """What the manifest keeps of it."""
        return VerificationRecord(
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            commit=self.commit,
            files=len(self.files),
            bytes=sum(file.size for file in self.files),
            loaded=[spoken.variant for spoken in self.variants],
            resolved=[f"{each.client} {each.tag}: {each.path}" for each in self.resolved],
            notes=[f"{each.client} {each.note}" for each in self.resolved if each.note],
            versions={"huggingface_hub": metadata.version("huggingface_hub"), "llama.cpp": planned_version()},
            problems=self.problems,
        )


@dataclass(frozen=True)
class Loader:
    """How variants are loaded: on what device, by how many threads, and which ones (None: all of the branch).

    What lies in LFS and belongs to other variants was downloaded when they were published: of it the Hub's listing is
    compared.
    """

    device: Literal["cpu", "cuda"]
    threads: int
    only: Collection[str] | None = None

    def wants(self, variant: str) -> bool:
        return self.only is None or variant in self.only


def verify(api: HfApi, repo_id: str, revision: str, loader: Loader) -> Verification:
    """Downloads every file that the revision's manifest lists, compares size and SHA-256, and lets the engine of the
    format load each published variant of the branch, as it was downloaded, and continue a prompt. On ``main`` of a GGUF
    repo, it looks which file llama.cpp and Ollama take for each variant's name and where none is given.

    A variant with a wrong file is not loaded. Without a manifest, every file is downloaded and compared with the hash
    that the Hub lists, and every model among them loaded. Raises :class:`~quantpress.errors.QuantpressError` if the
    repo or its manifest cannot be read. The download goes to an empty temporary cache, so that what is checked is what
    the Hub serves now, all of one commit.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory(prefix="quantpress-verify-") as scratch:
        with explained(api.endpoint, f"verifying {repo_id}@{revision}"):

            def download(path: str, at: str) -> Path:
                return Path(api.hf_hub_download(repo_id, path, revision=at, cache_dir=Path(scratch) / "cache"))

            try:
                manifest_file = download(MANIFEST_FILE, revision)
            except RemoteEntryNotFoundError:
                return _verify_foreign(api, repo_id, revision, loader, Path(scratch))
            manifest = parse_manifest(manifest_file.read_bytes(), f"{repo_id}@{revision}")
            # The client's cache names a snapshot's folder after its commit.
            folder, commit = manifest_file.parent, manifest_file.parent.name
            branch = revision if any(entry.branch == revision for entry in manifest.entries) else "main"
            entries = manifest.published(branch)
            checked = []
            old = {file.path for entry in entries if not loader.wants(entry.variant) for file in entry.artifact.files}
            listed = _listed(api, repo_id, commit, old)
            for file in [*(file for entry in entries for file in entry.artifact.files), *manifest.shared]:
                if not stays_within(file.path):
                    checked.append(Checked(file.path, file.size, _UNSAFE))
                    continue
                if file.path in listed:
                    wrong_hash = "" if listed[file.path] == file.sha256 else "is listed by the Hub with another SHA-256"
                    checked.append(Checked(file.path, file.size, wrong_hash))
                    continue
                try:
                    checked.append(_check(file, download(file.path, commit)))
                except RemoteEntryNotFoundError:
                    checked.append(Checked(file.path, file.size, "listed in the manifest, missing in the repo"))
            wrong = {file.path for file in checked if file.problem}
            sound = [entry for entry in entries if wrong.isdisjoint(file.path for file in entry.artifact.files)]
            resolved = []
            if branch == "main":
                resolved = _by_rules(entries, sorted(api.list_repo_files(repo_id, revision=commit)))
            if revision == "main":  # the Hub answers Ollama for its head alone
                resolved += _by_registry(api, repo_id, sound)
        spoken = [
            _speak(entry, folder, loader, Path(scratch) / f"speak-{position}")
            for position, entry in enumerate(sound)
            if loader.wants(entry.variant)
        ]
        return Verification(checked, spoken, resolved, commit)


def _listed(api: HfApi, repo_id: str, commit: str, paths: Collection[str]) -> dict[str, str]:
    """SHA-256 by path, as the Hub lists it, of those of the files that lie in LFS."""
    from huggingface_hub.hf_api import RepoFile

    if not paths:
        return {}
    found = api.get_paths_info(repo_id, list(paths), revision=commit)
    return {file.path: file.lfs.sha256 for file in found if isinstance(file, RepoFile) and file.lfs}


def _by_rules(entries: list[Entry], paths: list[str]) -> list[Resolved]:
    files = {entry.variant: entry.artifact.files[0].path for entry in entries if _is_gguf(entry)}
    return resolve_by_rules(files, paths) if files else []


def _by_registry(api: HfApi, repo_id: str, entries: list[Entry]) -> list[Resolved]:
    """What the Hub answers for variants in one file: Ollama loads no others."""
    files = {entry.variant: entry.artifact.files for entry in entries if _is_gguf(entry)}
    return resolve_by_registry(api, repo_id, {name: own[0].sha256 for name, own in files.items() if len(own) == 1})


def _is_gguf(entry: Entry) -> bool:
    return quantizer(entry.recipe.format).engine == "llama.cpp"


def _verify_foreign(api: HfApi, repo_id: str, revision: str, loader: Loader, scratch: Path) -> Verification:
    """A repo that has no manifest: hashes as the Hub lists them, and every model loaded."""
    from huggingface_hub.hf_api import RepoFile

    commit = api.list_repo_commits(repo_id, revision=revision)[0].commit_id
    checked: list[Checked] = []
    sound: dict[str, Path] = {}
    for file in api.list_repo_tree(repo_id, recursive=True, revision=commit):
        if not isinstance(file, RepoFile):
            continue
        if not stays_within(file.path):
            checked.append(Checked(file.path, file.size, _UNSAFE))
            continue
        local = Path(api.hf_hub_download(repo_id, file.path, revision=commit, cache_dir=scratch / "cache"))
        same = sha256_of(local) == file.lfs.sha256 if file.lfs else git_sha1_of(local) == file.blob_id
        checked.append(Checked(file.path, file.size, "" if same else "is not what the Hub's hash says"))
        if same:
            sound[file.path] = local
    models: dict[str, tuple[Engine, Path]] = {
        path: ("llama.cpp", local) for path, local in sound.items() if is_model(path)
    }
    if "config.json" in sound and any("/" not in path and path.endswith(".safetensors") for path in sound):
        models["the checkpoint"] = ("transformers", sound["config.json"].parent)
    spoken = [
        _load(name, engine, model, loader, scratch / f"speak-{position}")
        for position, (name, (engine, model)) in enumerate(models.items())
        if loader.wants(name)
    ]
    return Verification(checked, spoken, [], commit, "the Hub")


_UNSAFE = "has a name that leads out of the repo's folder: it was not downloaded"


def _check(file: File, local: Path) -> Checked:
    size = local.stat().st_size
    if size != file.size:
        return Checked(file.path, file.size, f"has {size} bytes, the manifest says {file.size}")
    digest = sha256_of(local)
    if digest != file.sha256:
        return Checked(file.path, file.size, f"has SHA-256 {digest}, the manifest says {file.sha256}")
    return Checked(file.path, file.size, "")


def _speak(entry: Entry, folder: Path, loader: Loader, scratch: Path) -> Spoken:
    """Loads a downloaded variant in a child process. What it must be able to do is what the manifest says it did."""
    engine = quantizer(entry.recipe.format).engine
    model = folder / entry.artifact.files[0].path if engine == "llama.cpp" else folder
    spoken = _load(entry.variant, engine, model, loader, scratch)
    if not spoken.problem and speaks(entry.evaluation.sample) and not speaks(spoken.text):
        return Spoken(entry.variant, spoken.text, f"writes {spoken.text[:40]!r}, which is no text")
    return spoken


def _load(name: str, engine: Engine, model: Path, loader: Loader, scratch: Path) -> Spoken:
    job = GenerationJob(
        engine=engine, model=model, prompt=PROMPT, tokens=TOKENS, threads=loader.threads, device=loader.device
    )
    try:
        return Spoken(name, run_child("quantpress.evaluation.generate", job, Generation, scratch).text, "")
    except ChildFailed as error:
        return Spoken(name, "", f"does not load and generate: {error}")
