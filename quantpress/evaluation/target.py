"""Finds the model for ``quantpress evaluate``. The user names the model by a path or by a repository on a Hub, and the
model can have any format.

huggingface_hub downloads a repository's files into its own cache. This module asks only for files at the repository's
root, and takes all of them from one commit.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.evaluation.engines.detect import engine_for
from quantpress.evaluation.windows import vocabulary
from quantpress.files import sha256_of
from quantpress.foreign_json import read_object
from quantpress.hub.client import explained
from quantpress.hub.hubs import Hubs
from quantpress.record.measurement import Engine
from quantpress.repo_id import check_repo_id
from quantpress.source.config import CONFIG_FILE
from quantpress.source.gguf import read_gguf
from quantpress.source.weight_files import weights_among

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
#: The forms of a repository: ``namespace/name``, ``namespace/name@branch`` and ``namespace/name:Q4_K_M``.
_REPO = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^:@]+))?(?::(?P<tag>[^:@]+))?")
#: The names of a checkpoint's files: configurations, tokenizer and weights. Code and pickles do not match.
_OF_CHECKPOINT = re.compile(r"[^/]+\.(?:json|safetensors|model|jinja|txt)")
_PART_OF_MODEL = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class Target:
    """A model on this disk, and the engine that loads the model.

    ``model`` is the GGUF file (the first part, if there are several) or the checkpoint folder.

    ``sha`` identifies the content of a downloaded model. It is the commit, and for a GGUF file also the file's name. If
    the user gave a path, ``sha`` is empty.
    """

    engine: Engine
    model: Path
    sha: str = ""

    def content(self) -> str:
        """Returns a text that changes if the model does: ``sha``, or if ``sha`` is empty, a hash of all files."""
        if self.sha:
            return self.sha
        files = [self.model] if self.model.is_file() else sorted(_checkpoint_files(self.model))
        lines = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def vocabulary(self) -> int:
        """Returns the number of tokens in the vocabulary, from config.json or the GGUF file's metadata.

        If the number is missing there, returns the size of the largest vocabulary in use (Gemma 3's). Raises
        :class:`BadInput` if the engine is llama.cpp and the file is not a GGUF file.
        """
        if self.engine != "llama.cpp":
            return vocabulary(read_object(self.model / CONFIG_FILE))
        try:
            tokens = read_gguf(self.model).metadata.get("tokenizer.ggml.tokens")
        except ValueError as error:
            raise BadInput(f"{self.model}: not a GGUF file ({error}): download or convert it again") from None
        return len(tokens) if tokens else vocabulary({})


def find_target(what: str, hubs: Hubs) -> Target:
    """Returns the model that ``what`` names: a path that exists, or a repository.

    A repository is looked up on the target Hub first, then on the source Hub. Raises :class:`BadInput` if ``what`` is
    neither a path nor a repository, or if it holds no model or more than one. Raises
    :class:`~quantpress.errors.QuantpressError` if a Hub cannot be reached.
    """
    if Path(what).exists():
        return local_target(Path(what))
    named = _REPO.fullmatch(what)
    if named is None:
        raise BadInput(
            f"{what}: no such file or folder, and not a repository; write namespace/name, namespace/name@branch or, "
            "for a file of a GGUF repository, namespace/name:Q4_K_M"
        )
    return _downloaded(check_repo_id(named["repo"]), named["revision"] or "main", named["tag"], hubs)


def local_target(path: Path) -> Target:
    """Returns the model at ``path``, which is a GGUF file, a checkpoint folder, or a folder with one GGUF model.

    Raises :class:`BadInput` if ``path`` is anything else.
    """
    if path.is_file() and path.suffix == ".gguf":
        return Target("llama.cpp", path)
    if (path / "config.json").is_file():
        return Target(engine_for(path), path)
    found = sorted(file.name for file in path.glob("*.gguf")) if path.is_dir() else []
    models = [name for name in found if _is_first(name)]
    if len(models) == 1:
        return Target("llama.cpp", path / models[0])
    if models:
        raise BadInput(f"{path}: {len(models)} GGUF models; give one file of {', '.join(models)}")
    raise BadInput(f"{path}: neither a .gguf file nor a folder with a config.json")


def _downloaded(repo: str, revision: str, tag: str | None, hubs: Hubs) -> Target:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    for api in (hubs.target, hubs.source):
        with explained(api.endpoint, f"looking up {repo}"):
            try:
                info = api.model_info(repo, revision=revision)
            except RevisionNotFoundError:
                raise BadInput(f"{api.endpoint}/{repo} has no revision {revision!r}") from None
            except RepositoryNotFoundError:
                continue
            names = [sibling.rfilename for sibling in info.siblings or [] if "/" not in sibling.rfilename]
            wanted = _wanted(repo, names, tag)
            commit = info.sha or revision
            small = [name for name in wanted if not name.endswith(".safetensors")]
            paths = [Path(api.hf_hub_download(repo, name, revision=commit)) for name in small]
            # The index is there now, and says which weights are read.
            weights = _weights_to_read(paths[0].parent, wanted)
            paths += [Path(api.hf_hub_download(repo, name, revision=commit)) for name in weights]
        if paths[0].suffix == ".gguf":
            return Target("llama.cpp", paths[0], f"{commit}/{wanted[0]}")
        return Target(engine_for(paths[0].parent), paths[0].parent, commit)
    places = " nor on ".join(dict.fromkeys(api.endpoint for api in (hubs.target, hubs.source)))
    raise BadInput(f"{repo} is neither a path here nor a model on {places} (or it is private and needs a token)")


def _wanted(repo: str, names: list[str], tag: str | None) -> list[str]:
    """Returns the names of the files to download: all parts of a GGUF model, or a whole checkpoint."""
    models = [name for name in names if _is_first(name)]
    if tag is None and "config.json" in names:
        return sorted(name for name in names if _OF_CHECKPOINT.fullmatch(name))
    if tag is not None:
        boundary = re.compile(rf"(?<![A-Za-z0-9]){re.escape(tag)}[.-]", re.IGNORECASE)
        models = [name for name in models if boundary.search(name)]
    if len(models) == 1:
        return [models[0], *(name for name in sorted(names) if _same_model(name, models[0]))]
    if not models:
        raise BadInput(f"{repo}: no GGUF file for {tag!r}" if tag else f"{repo}: neither a config.json nor a GGUF file")
    raise BadInput(f"{repo}: {len(models)} GGUF models; name one, as in {repo}:Q4_K_M; there are {', '.join(models)}")


def _weights_to_read(folder: Path, names: list[str]) -> list[str]:
    """Returns the files with the weights of a checkpoint with files ``names``, whose other files are in ``folder``.

    If transformers would find none, returns all safetensors files, because other engines use other names.
    """
    found = weights_among(names, folder)
    return [name for name in names if name.endswith(".safetensors") and not (found and found.leaves_out(name))]


def _is_first(name: str) -> bool:
    """Whether a file holds a GGUF model or the first part of a model. An imatrix or a projector is not a model."""
    part = _PART_OF_MODEL.search(name)
    beside = "imatrix" in name.lower() or "mmproj" in name.lower()
    return name.endswith(".gguf") and not beside and (part is None or int(part[1]) == 1)


def _same_model(name: str, first: str) -> bool:
    """Whether the file ``name`` is a later part of the model whose first part is the file ``first``."""
    return (
        name != first
        and bool(_PART_OF_MODEL.search(first))
        and _PART_OF_MODEL.sub("", name) == _PART_OF_MODEL.sub("", first)
    )


def _checkpoint_files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_file() and _OF_CHECKPOINT.fullmatch(file.name)]
