"""Looks up and downloads the source: an upstream model repo at one commit sha."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from quantpress.errors import QuantpressError, Refused
from quantpress.files import git_sha1_of, sha256_of
from quantpress.hub.client import explained
from quantpress.record.manifest import SourceRecord
from quantpress.source.card_metadata import card_metadata
from quantpress.source.config import CONFIG_FILE
from quantpress.source.gate_fields import gate_fields
from quantpress.source.licence import is_licence, most_restrictive
from quantpress.source.safety import check_folder, check_small_files, read_index
from quantpress.source.tokenizer import chat_template_file, tokenizer_config
from quantpress.source.weight_files import require_weight_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

#: Matches the files with the licence's terms. They are put into every repo that is published, because many licences
#: require this. Ollama shows the terms.
_LICENCE_NAMES = r"(LICENSE|NOTICE|USE_POLICY)(\.txt|\.md)?"
#: Matches a name that begins with a letter or digit. It has no path separator and no control character.
_NAME = r"[A-Za-z0-9][^/\\\x00-\x1f\x7f]*"
#: Matches the files of a source that quantizers, the converter or engines read, and the files with the terms. No other
#: files are downloaded.
_WANTED = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map"
    rf"|added_tokens|vocab|modules|{_NAME}\.safetensors\.index)\.json|merges\.txt|chat_template\.(jinja|json)"
    rf"|{_NAME}\.(safetensors|model)|{_LICENCE_NAMES}"
)


#: Matches a commit of git, as SHA-1 or SHA-256.
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class SourceFile:
    """A file of the source. ``path`` is its path in the repo, and ``size`` is in bytes.

    ``sha256`` is None if the Hub does not know it. The Hub knows it for LFS files only. ``git_sha1`` is git's SHA-1 of
    the file; for an LFS file, it is the SHA-1 of the pointer. Files with equal content have an equal SHA-1. For a
    folder on this machine, ``git_sha1`` is empty.
    """

    path: str
    size: int
    sha256: str | None
    git_sha1: str


@dataclass(frozen=True)
class Source:
    """An upstream model at one commit. ``config`` is its config.json. ``files`` are the files to download."""

    record: SourceRecord
    config: dict[str, Any]
    files: tuple[SourceFile, ...]

    @property
    def weight_bytes(self) -> int:
        """The size of the weights' files, in bytes."""
        return sum(file.size for file in self.files if file.path.endswith(".safetensors"))


def look_up_source(api: HfApi, repo: str, revision: str) -> Source:
    """Looks up the upstream model at ``revision``, without downloading weights.

    Raises :class:`Refused` if quantpress cannot use the model. The plan shows the error's text as the reason. The text
    begins with ``gated``, ``not found`` and so on. Raises :class:`QuantpressError` if the Hub cannot be reached.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    endpoint = api.endpoint
    with explained(endpoint, f"looking up {repo}"):
        try:
            info = _model_info(api, repo, revision)
            files = tuple(_wanted_files(info))
            if not any(file.path == CONFIG_FILE for file in files):
                raise Refused(f"no {CONFIG_FILE}: not a transformers model")
            sizes, sha = {file.path: file.size for file in files}, info.sha or revision
            config = check_small_files(api, repo, sha, sizes)
            weights = require_weight_files(sizes, config, lambda name: read_index(api, repo, sha, name, sizes[name]))
            files = tuple(file for file in files if not weights.leaves_out(file.path))
        except GatedRepoError:
            raise Refused(f"gated: accept the terms at {endpoint}/{repo} and give a token (hf auth login)") from None
        except RevisionNotFoundError:
            raise Refused(f"not found: {repo} has no revision {revision!r}") from None
        except RepositoryNotFoundError:
            raise Refused(f"not found: {endpoint} has no model {repo} (or it is private and needs a token)") from None
    return Source(source_record(repo, info, files), config, files)


def local_source(folder: Path) -> Source:
    """Returns the model in a folder on this machine as a source. Copies nothing.

    The repo is called ``local/`` and the folder's name. A hash over the files takes the place of the commit's sha.
    Raises :class:`Refused` if quantpress cannot use the model.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise Refused(f"{folder}: no {CONFIG_FILE}: not a transformers model")
    config = check_folder(folder)
    paths = sorted(path for path in folder.iterdir() if path.is_file() and _WANTED.fullmatch(path.name))
    try:
        weights = require_weight_files([path.name for path in paths], config, lambda name: (folder / name).read_bytes())
    except Refused as refusal:
        raise Refused(f"{folder}: {refusal}") from None
    paths = [path for path in paths if not weights.leaves_out(path.name)]
    hashes = {path.name: sha256_of(path) for path in paths}
    sha = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()).hexdigest()
    name = "-".join(re.findall(r"[A-Za-z0-9]+(?:[._][A-Za-z0-9]+)*", folder.resolve().name))[:90] or "model"
    files = tuple(SourceFile(path.name, path.stat().st_size, hashes[path.name], "") for path in paths)
    return Source(SourceRecord(repo=f"local/{name}", sha=sha, files=hashes), config, files)


def _model_info(api: HfApi, repo: str, revision: str) -> ModelInfo:
    """Asks the Hub for the model.

    Raises :class:`Refused` if the card's metadata has unexpected values. The Hub client fails on these, because it
    turns the metadata into objects.
    """
    try:
        return api.model_info(repo, revision=revision, files_metadata=True)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise  # the answer is not that of a Hub
    except (TypeError, ValueError, AttributeError, KeyError):
        raise Refused("the metadata of its card is not what the Hub documents: ask upstream to mend it") from None


def _wanted_files(info: ModelInfo) -> list[SourceFile]:
    """Returns the files with names that quantpress reads, all at the repo's root. Some of the weights among them may be
    files that the loader leaves out."""
    return [
        SourceFile(
            sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
        )
        for sibling in info.siblings or []
        if _WANTED.fullmatch(sibling.rfilename) and PurePosixPath(sibling.rfilename).name == sibling.rfilename
    ]


def source_record(repo: str, info: ModelInfo, files: tuple[SourceFile, ...]) -> SourceRecord:
    """Returns the record of a source. Raises :class:`Refused` if the Hub gives no commit, or another kind of gate."""
    card: dict[str, Any] = vars(info.card_data) if info.card_data else {}
    known, said = card_metadata(card), card_metadata({"pipeline_tag": info.pipeline_tag})
    if not _COMMIT.fullmatch(str(info.sha)):
        raise Refused("the Hub names no commit of it")
    if info.gated not in (None, False, "auto", "manual"):
        raise Refused("the Hub gates it in a way that is not documented")
    return SourceRecord(
        repo=repo,
        sha=str(info.sha),
        license=most_restrictive(known.license),
        license_name=known.license_name,
        license_link=known.license_link or _licence_file(known.license, files),
        language=known.language,
        pipeline_tag=said.pipeline_tag or known.pipeline_tag,
        tags=known.tags,
        files={file.path: file.sha256 or file.git_sha1 for file in files},
        gated=info.gated or None,
        gate_fields=gate_fields(card),
    )


def _licence_file(licences: list[str], files: tuple[SourceFile, ...]) -> str | None:
    """Returns the file with the licence's text if the licence is ``other`` (the Hub has no identifier for it), else
    None."""
    return next((file.path for file in files if is_licence(file.path)), None) if "other" in licences else None


def fetch(api: HfApi, source: Source, folder: Path) -> Path:
    """Downloads the source's files into ``folder`` and checks the size and the hash of each file. Returns ``folder``.

    Files that are already in ``folder`` are not downloaded again, if they have their hashes. If a link is in the place
    of a file, the link is removed first, because a download could otherwise read or write outside ``folder`` through
    the link. Raises :class:`QuantpressError` if a download fails or a file is not what the Hub says.

    Call this function only while you hold the model's lock, because parts of downloads that killed processes left are
    removed. The Hub client gives each such part a name of its own, and never uses it again.
    """
    repo = source.record.repo
    for file in source.files:
        if (folder / file.path).is_symlink():
            (folder / file.path).unlink()
    for part in (folder / ".cache").rglob("*.incomplete"):
        part.unlink()
    with explained(api.endpoint, f"downloading {repo}"):
        for file in source.files:
            # The client takes a file of an earlier run for whole. If it is damaged, it is downloaded once more.
            if not any(_download(api, source, file, folder) for _ in range(2)):
                raise QuantpressError(f"{repo}: the download of {file.path} is damaged; it was removed, run again")
    return folder


def _download(api: HfApi, source: Source, file: SourceFile, folder: Path) -> bool:
    """Downloads a file, unless ``folder`` has it. Returns whether it is what the Hub says. If not, removes it."""
    local = Path(api.hf_hub_download(source.record.repo, file.path, revision=source.record.sha, local_dir=folder))
    if local.stat().st_size == file.size and _is_same(local, file):
        return True
    local.unlink()
    return False


def link(source: Source, folder: Path, place: Path) -> None:
    """Makes ``place`` a folder of links to the source's files in ``folder``.

    Other files in ``folder``, such as pickles or code, get no link.
    """
    if place.is_symlink():
        place.unlink()
    place.mkdir(parents=True, exist_ok=True)
    for file in source.files:
        (place / file.path).unlink(missing_ok=True)
        (place / file.path).symlink_to((folder / file.path).resolve())


def _is_same(local: Path, file: SourceFile) -> bool:
    """Whether a downloaded file has the hash that the Hub gives: the SHA-256, or else git's SHA-1 if there is one."""
    if file.sha256:
        return sha256_of(local) == file.sha256
    return not file.git_sha1 or git_sha1_of(local) == file.git_sha1


def chat_template(folder: Path) -> str | None:
    """Returns the chat template of a downloaded source, or None if there is none.

    The template is ``chat_template.jinja``, or else the template in ``tokenizer_config.json`` or
    ``chat_template.json``. Raises :class:`Refused` if one of these two files is not what its type says.
    """
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text(encoding="utf-8", errors="replace")
    named = tokenizer_config(folder).template
    return chat_template_file(folder).template if named is None else named


def licence_files(folder: Path) -> list[Path]:
    """Returns a downloaded source's licence, notices and policies. They are put into every repo that is published."""
    return sorted(path for path in folder.iterdir() if re.fullmatch(_LICENCE_NAMES, path.name))
