"""The source: an upstream model repo at one commit sha, looked up and fetched."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from quantpress.errors import QuantpressError, Refused
from quantpress.files import sha256_of
from quantpress.hub import explained
from quantpress.manifest import SourceRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

#: What a quantizer, the converter and an engine read of a source; nothing else is downloaded.
_WANTED = re.compile(
    r"(config|generation_config|preprocessor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|[^/]*\.safetensors\.index)\.json|merges\.txt|chat_template\.(jinja|json)|[^/]*\.(safetensors|model)"
)
#: No published config.json comes near this; a larger one is not read into memory.
_CONFIG_LIMIT = 10_000_000


@dataclass(frozen=True)
class SourceFile:
    """A file of the source: path in the repo, size in bytes, SHA-256 where the Hub knows it (LFS), and the SHA-1 that
    git has for it (of an LFS file's pointer), which is equal for equal content."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str


@dataclass(frozen=True)
class Source:
    """An upstream model at one commit. ``config`` is its config.json; ``files`` are those that are fetched."""

    record: SourceRecord
    config: dict[str, Any]
    files: tuple[SourceFile, ...]

    @property
    def weight_bytes(self) -> int:
        """Size of the safetensors files."""
        return sum(file.size for file in self.files if file.path.endswith(".safetensors"))


def look_up_source(api: HfApi, repo: str, revision: str) -> Source:
    """Reads what is upstream, without downloading weights.

    Raises :class:`Refused`, whose text is the reason in the plan (``gated``, ``not found``, …), and
    :class:`QuantpressError` when the Hub cannot be reached.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    endpoint = api.endpoint
    with explained(endpoint, f"looking up {repo}"):
        try:
            info = api.model_info(repo, revision=revision, files_metadata=True)
            files = tuple(_wanted_files(info))
            if not any(file.path == "config.json" for file in files):
                raise Refused("no config.json: not a transformers model")
            config = _read_config(api, repo, info.sha or revision)
        except GatedRepoError:
            raise Refused(f"gated: accept the terms at {endpoint}/{repo} and give a token (hf auth login)") from None
        except RevisionNotFoundError:
            raise Refused(f"not found: {repo} has no revision {revision!r}") from None
        except RepositoryNotFoundError:
            raise Refused(f"not found: {endpoint} has no model {repo} (or it is private and needs a token)") from None
    if not any(file.path.endswith(".safetensors") for file in files):
        raise Refused("no safetensors: pickle checkpoints are refused; ask upstream for safetensors")
    if "auto_map" in config:
        raise Refused("its config.json has an auto_map: code from model repositories is never run")
    return Source(_record(repo, info, files), config, files)


def _wanted_files(info: ModelInfo) -> list[SourceFile]:
    """Files at the repo's root that the press reads. A name with a folder in it never matches."""
    return [
        SourceFile(
            sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
        )
        for sibling in info.siblings or []
        if _WANTED.fullmatch(sibling.rfilename) and PurePosixPath(sibling.rfilename).name == sibling.rfilename
    ]


def _read_config(api: HfApi, repo: str, sha: str) -> dict[str, Any]:
    path = Path(api.hf_hub_download(repo, "config.json", revision=sha))
    if path.stat().st_size > _CONFIG_LIMIT:
        raise Refused(f"its config.json is larger than {_CONFIG_LIMIT} bytes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise Refused("its config.json is not JSON") from None
    if not isinstance(config, dict):
        raise Refused("its config.json is not a JSON object")
    return config


def _record(repo: str, info: ModelInfo, files: tuple[SourceFile, ...]) -> SourceRecord:
    card: dict[str, Any] = vars(info.card_data) if info.card_data else {}

    def text(key: str) -> str | None:
        value = card.get(key)
        return value if isinstance(value, str) else None

    language = card.get("language") or []
    languages = [language] if isinstance(language, str) else [item for item in language if isinstance(item, str)]
    return SourceRecord(
        repo=repo,
        sha=info.sha or "",
        license=text("license"),
        license_name=text("license_name"),
        license_link=text("license_link"),
        language=languages,
        pipeline_tag=info.pipeline_tag or text("pipeline_tag"),
        tags=[tag for tag in card.get("tags") or [] if isinstance(tag, str)],
        files={file.path: file.sha256 or file.git_sha1 for file in files},
    )


def fetch(api: HfApi, source: Source, folder: Path) -> Path:
    """Downloads the source's files into ``folder`` and checks size and SHA-256 of each weight file.

    Files that are there already are not downloaded again (the client compares their hashes). Raises
    :class:`QuantpressError` for a failed download or a file that is not what the Hub says it is.
    """
    repo = source.record.repo
    with explained(api.endpoint, f"downloading {repo}"):
        for file in source.files:
            api.hf_hub_download(repo, file.path, revision=source.record.sha, local_dir=folder)
    for file in source.files:
        local = folder / file.path
        if local.stat().st_size != file.size or (file.sha256 and sha256_of(local) != file.sha256):
            local.unlink()
            raise QuantpressError(f"{repo}: the download of {file.path} is damaged; it was removed, run again")
    return folder


def chat_template(folder: Path) -> str | None:
    """The chat template of a fetched source: ``chat_template.jinja``, or the tokenizer configuration's."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text(encoding="utf-8", errors="replace")
    configuration = folder / "tokenizer_config.json"
    if not configuration.exists():
        return None
    template = json.loads(configuration.read_text(encoding="utf-8")).get("chat_template")
    return template if isinstance(template, str) else None
