"""Verifies a published repo.

huggingface_hub, the client that users have, downloads the repo again. The files are hashed and compared with the
manifest or with the Hub's listing. The variants are loaded. A variant that wrote text when it was
measured must write text again. Clients that choose a file by a
tag must find the right file.

If a repo has no manifest, another program made the repo. Then files are compared with the Hub's listing only, and
models are loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers import quantizer
from quantizers.traits import traits_of
from quantpress.errors import QuantpressError
from quantpress.evaluation.sample import speaks
from quantpress.files import sha256_of
from quantpress.hub.client import explained
from quantpress.hub.limits import HUB_FILES
from quantpress.machine.scratch import scratch
from quantpress.machine.workspace import require_disk
from quantpress.record.clients import Resolved, is_model, resolve_by_registry, resolve_by_rules
from quantpress.record.manifest import MANIFEST_FILE, Entry, Manifest, parse_manifest
from quantpress.record.sums import SUMS_FILE, difference
from quantpress.record.verification import Verification, VerifiedFile
from quantpress.verify.download import FreshCopy
from quantpress.verify.loading import Loader, Model, load

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def verify(api: HfApi, repo_id: str, revision: str, loader: Loader, home: Path) -> Verification:
    """Downloads the files of a revision, compares them, and loads the models.

    If the manifest lists a file, the file's size and SHA-256 are compared with the manifest. Any other file (the model
    card, SHA256SUMS, the manifest itself) is compared with the hash that the Hub lists. Then the format's engine loads
    the downloaded files of each published variant of the branch, and continues a prompt. A variant with a wrong file is
    not loaded. ``loader`` can limit the variants (see :class:`Loader`). On ``main`` of a GGUF repo, the function also
    checks which file llama.cpp and Ollama choose when they are given a variant's name, and which file they choose when
    they are given no name.

    If the repo has no manifest, every file is compared with the hash that the Hub lists, and every model is loaded. All
    files come from one commit. They go to an empty cache under ``home``, so each file is what the Hub serves now.
    Raises :class:`QuantpressError` if the repo or its manifest cannot be read, or if ``home`` has too little room.
    """
    with scratch(home, "verify") as folder:
        with explained(api.endpoint, f"verifying {repo_id}@{revision}"):
            copy = FreshCopy.of(api, repo_id, revision, folder / "cache")
            if MANIFEST_FILE in copy.listed:
                found, models = _check_own(copy, revision, loader, home)
            else:
                found, models = _check_foreign(copy, home)
        wanted = [model for model in models if loader.wants(model.name)]
        spoken = [load(model, loader, folder / f"speak-{number}") for number, model in enumerate(wanted)]
        return replace(found, variants=spoken)


def _check_own(copy: FreshCopy, revision: str, loader: Loader, home: Path) -> tuple[Verification, list[Model]]:
    """Checks the files of a repo with a manifest. Returns the result, and the variants to load.

    The variants to load are those that ``loader`` wants and whose files are all sound.
    """
    manifest = _manifest_of(copy, revision)
    branch = _branch(manifest, revision, copy.listed)
    entries = manifest.published(branch)
    old = {file.path for entry in entries if not loader.wants(entry.variant) for file in entry.artifact.files}
    require_disk(home, sum(file.size for path, file in copy.listed.items() if not (path in old and file.lfs)))
    files = [*((entry.variant, file) for entry in entries for file in entry.artifact.files)]
    files += [("", file) for file in manifest.shared]
    checked = [replace(copy.check(file, fetched_before=file.path in old), variant=name) for name, file in files]
    sound = {file.path: file.sha256 for (_, file), each in zip(files, checked, strict=True) if not each.problem}
    checked += _check_beside(copy, {file.path for _, file in files}, sound)
    whole = [entry for entry in entries if all(file.path in sound for file in entry.artifact.files)]
    resolved = _by_rules(entries, list(copy.listed)) if branch == "main" else []
    if revision == "main":  # the Hub answers Ollama only about the newest commit of main
        resolved += _by_registry(copy.api, copy.repo_id, whole)
    found = Verification(checked, [], resolved, copy.commit, problem="" if entries else _elsewhere(manifest))
    return found, [_model_of(entry, copy) for entry in whole if loader.wants(entry.variant)]


def _manifest_of(copy: FreshCopy, revision: str) -> Manifest:
    """Downloads the manifest and returns it, even if its hash differs from the hash that the Hub lists.

    Raises :class:`QuantpressError` if the manifest cannot be read.
    """
    where, problem = f"{copy.repo_id}@{revision}", copy.check_listed(MANIFEST_FILE).problem
    try:
        return parse_manifest(copy.get(MANIFEST_FILE).read_bytes(), where)
    except QuantpressError:
        if not problem:
            raise
        raise QuantpressError(
            f"{where}: {MANIFEST_FILE} {problem}, and cannot be read: restore the file, or rename or delete the "
            "repo, then press the model again"
        ) from None


def _branch(manifest: Manifest, revision: str, there: Collection[str]) -> str:
    """Returns the branch whose files a revision holds.

    If ``revision`` is a tag or a commit, it does not name its branch. Then the manifest decides. If all published
    variants are on one branch, and the revision holds some of their files, the function returns that branch. Otherwise
    it returns ``main``.
    """
    entries = manifest.published()
    branches = {entry.branch for entry in entries}
    if revision == "main" or revision in branches:
        return revision
    shared = {file.path for file in manifest.shared}
    own = {file.path for entry in entries for file in entry.artifact.files} - shared
    return branches.pop() if len(branches) == 1 and own.intersection(there) else "main"


def _elsewhere(manifest: Manifest) -> str:
    """Returns a text that says why no variant was checked. It is empty if the manifest has no published variant."""
    branches = sorted({entry.branch for entry in manifest.published()})
    if not branches:
        return ""
    return (
        f"this revision holds no variant's files. The files are on {', '.join(branches)}: verify them with --revision "
        "BRANCH"
    )


def _check_beside(copy: FreshCopy, listed: Collection[str], sound: Mapping[str, str]) -> list[VerifiedFile]:
    """Checks the files that the manifest does not list, except those that the Hub itself adds.

    These files are the model card, the manifest, SHA256SUMS, and files that other programs added. ``listed`` are the
    paths of the files that the manifest lists. ``sound`` is a dict from path to SHA-256. It holds the sound files among
    ``listed``.
    """
    checked = {path: copy.check_listed(path) for path in sorted(copy.listed.keys() - listed - HUB_FILES)}
    sums = checked.setdefault(SUMS_FILE, VerifiedFile(SUMS_FILE, 0, "is missing in the repo"))
    if not sums.problem:
        texts = [path for path in ("README.md", MANIFEST_FILE) if path in checked and not checked[path].problem]
        known = {**sound, **{path: sha256_of(copy.get(path)) for path in texts}}
        text = copy.get(SUMS_FILE).read_text(encoding="utf-8", errors="replace")
        checked[SUMS_FILE] = replace(sums, problem=difference(text, known, copy.listed))
    return list(checked.values())


def _by_rules(entries: list[Entry], paths: list[str]) -> list[Resolved]:
    files = {entry.variant: entry.artifact.files[0].path for entry in entries if _is_one_file(entry)}
    return resolve_by_rules(files, sorted(paths)) if files else []


def _by_registry(api: HfApi, repo_id: str, entries: list[Entry]) -> list[Resolved]:
    """Returns what the Hub answers Ollama for each variant that is a single file. Ollama loads no other variants."""
    files = {entry.variant: entry.artifact.files for entry in entries if _is_one_file(entry)}
    return resolve_by_registry(api, repo_id, {name: own[0].sha256 for name, own in files.items() if len(own) == 1})


def _is_one_file(entry: Entry) -> bool:
    return traits_of(quantizer(entry.recipe.format)).is_one_file


def _model_of(entry: Entry, copy: FreshCopy) -> Model:
    chosen = quantizer(entry.recipe.format)
    path = traits_of(chosen).model_path(copy.get(MANIFEST_FILE).parent, [file.path for file in entry.artifact.files])
    return Model(entry.variant, chosen.engine, path, spoke=speaks(entry.evaluation.sample))


def _check_foreign(copy: FreshCopy, home: Path) -> tuple[Verification, list[Model]]:
    """Checks a repo that has no manifest: compares its files with the hashes that the Hub lists.

    Returns the result, and the models whose files are sound.
    """
    require_disk(home, sum(file.size for file in copy.listed.values()))
    checked = [copy.check_listed(path) for path in copy.listed]
    sound = {file.path for file in checked if not file.problem}
    models = [Model(path, "llama.cpp", copy.get(path), spoke=False) for path in sorted(sound) if is_model(path)]
    if "config.json" in sound and any("/" not in path and path.endswith(".safetensors") for path in sound):
        models.append(Model("the checkpoint", "transformers", copy.get("config.json").parent, spoke=False))
    return Verification(checked, [], [], copy.commit, "the Hub"), models
