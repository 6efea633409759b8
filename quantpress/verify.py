"""Verifies a published repo: a fresh download by the real client, hashed against its manifest, loaded, and made to
speak."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quantizers import quantizer
from quantpress.child import run_child
from quantpress.errors import ChildFailed
from quantpress.evaluation.generate import Generation, GenerationJob
from quantpress.evaluation.sample import PROMPT, TOKENS, speaks
from quantpress.files import sha256_of
from quantpress.hub import explained
from quantpress.manifest import MANIFEST_FILE, Entry, File, parse_manifest

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
    """What became of a revision's files, and of those of its variants that were loaded."""

    files: list[Checked] = field(default_factory=list)
    variants: list[Spoken] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in one line each."""
        files = [f"{file.path} {file.problem}" for file in self.files if file.problem]
        return files + [f"{spoken.variant} {spoken.problem}" for spoken in self.variants if spoken.problem]


@dataclass(frozen=True)
class Loader:
    """How variants are loaded: on what device, by how many threads, and which ones (None: all of the branch)."""

    device: Literal["cpu", "cuda"]
    threads: int
    only: Collection[str] | None = None

    def wants(self, variant: str) -> bool:
        return self.only is None or variant in self.only


def verify(api: HfApi, repo_id: str, revision: str, loader: Loader) -> Verification:
    """Downloads every file that the revision's manifest lists, compares size and SHA-256, and lets the engine of the
    format load each published variant of the branch, as it was downloaded, and continue a prompt.

    A variant with a wrong file is not loaded. Raises :class:`~quantpress.errors.QuantpressError` if the repo or its
    manifest cannot be read. The download goes to an empty temporary cache, so that what is checked is what the Hub
    serves now, all of one commit.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory(prefix="quantpress-verify-") as scratch:
        with explained(api.endpoint, f"verifying {repo_id}@{revision}"):

            def download(path: str, at: str) -> Path:
                return Path(api.hf_hub_download(repo_id, path, revision=at, cache_dir=Path(scratch) / "cache"))

            manifest_file = download(MANIFEST_FILE, revision)
            manifest = parse_manifest(manifest_file.read_bytes(), f"{repo_id}@{revision}")
            # The client's cache names a snapshot's folder after its commit.
            folder, commit = manifest_file.parent, manifest_file.parent.name
            branch = revision if any(entry.branch == revision for entry in manifest.entries) else "main"
            entries = manifest.published(branch)
            checked = []
            for file in [*(file for entry in entries for file in entry.artifact.files), *manifest.shared]:
                try:
                    checked.append(_check(file, download(file.path, commit)))
                except RemoteEntryNotFoundError:
                    checked.append(Checked(file.path, file.size, "listed in the manifest, missing in the repo"))
        wrong = {file.path for file in checked if file.problem}
        sound = [entry for entry in entries if wrong.isdisjoint(file.path for file in entry.artifact.files)]
        spoken = [
            _speak(entry, folder, loader, Path(scratch) / f"speak-{position}")
            for position, entry in enumerate(sound)
            if loader.wants(entry.variant)
        ]
        return Verification(checked, spoken)


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
    job = GenerationJob(
        engine=engine,
        model=folder / entry.artifact.files[0].path if engine == "llama.cpp" else folder,
        prompt=PROMPT,
        tokens=TOKENS,
        threads=loader.threads,
        device=loader.device,
    )
    try:
        text = run_child("quantpress.evaluation.generate", job, Generation, scratch).text
    except ChildFailed as error:
        return Spoken(entry.variant, "", f"does not load and generate: {error}")
    if speaks(entry.evaluation.sample) and not speaks(text):
        return Spoken(entry.variant, text, f"writes {text[:40]!r}, which is no text")
    return Spoken(entry.variant, text, "")
