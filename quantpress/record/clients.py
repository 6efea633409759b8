"""Which file of a GGUF repo a client takes for a tag, as in ``press/Model-GGUF:Q4_K_M``.

llama.cpp lists ``main`` and decides by itself; Ollama asks the Hub for the tag's manifest, and the Hub decides. Paths
are given in the order in which the Hub lists them, sorted by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: What llama.cpp takes where no tag is given (``find_best_model`` of common/download.cpp): the first that is there.
_PREFERRED = ("Q4_K_M", "Q8_0")
#: Parts of a file's name that say that it is no model but goes with one (``gguf_filename_is_model``, same file).
_BESIDE_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
#: ``get_gguf_split_info``, same file: only the first part of a split file is taken.
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
#: llama.cpp fetches nothing else of a repo that has it at its root (``common_download_get_hf_plan``).
_PRESET = "preset.ini"

#: The tag that Ollama asks for where none is given.
LATEST = "latest"
#: The answers of a Hub that wants to know first who asks, which Ollama tells it by a key of its own.
_WHO_ASKS = (401, 403)
_OK = 200
_REGISTRY = "the Hub for Ollama"


@dataclass(frozen=True)
class Resolved:
    """What a client takes for a tag: ``path`` is a file's name, or its digest.

    ``problem`` is empty where it is the file that is meant; ``note`` is for what is no fault of the repo's.
    """

    client: str
    tag: str
    path: str
    problem: str = ""
    note: str = ""


def is_part(path: str) -> bool:
    """Whether this is one file of several that a model was split into."""
    part = _PART.search(path)
    return part is not None and int(part[2]) > 1


def is_model(path: str) -> bool:
    """Whether llama.cpp sees a model file in this path, or its first part."""
    name = path.rpartition("/")[2]
    part = _PART.search(name)
    first = part is None or int(part[2]) < 2 or int(part[1]) == 1
    return name.endswith(".gguf") and first and not any(word in name for word in _BESIDE_MODELS)


def llama_cpp_takes(paths: Sequence[str], tag: str | None) -> str | None:
    """The file that ``llama-cli -hf REPO[:TAG]`` loads; None where it finds none.

    The tag is a regular expression there, sought anywhere in the path: ``F16`` finds ``Model-BF16.gguf`` too.
    """
    if _PRESET in paths:
        return None
    models = [path for path in paths if is_model(path)]
    for wanted in _PREFERRED if tag is None else (re.escape(tag),):
        pattern = re.compile(f"{wanted}[.-]", re.IGNORECASE)
        for path in models:
            if pattern.search(path):
                return path
    return next(iter(models), None) if tag is None else None


def ollama_takes(paths: Iterable[str], tag: str) -> str | None:
    """The file that the Hub gives Ollama for a tag; None where it finds none.

    A tag is a quantization's whole name, in upper or lower case, or a file's name
    (https://huggingface.co/docs/hub/ollama). ``latest`` is Q4_K_M; what the Hub calls a reasonable choice where there
    is none is not documented, and here it is llama.cpp's.
    """
    models = [path for path in paths if is_model(path)]
    if tag.lower() == LATEST:
        return llama_cpp_takes(models, None)
    for path in models:
        if path.rpartition("/")[2].lower() in (tag.lower(), f"{tag.lower()}.gguf"):
            return path
    pattern = re.compile(f"(?<![A-Za-z0-9]){re.escape(tag)}[.-]", re.IGNORECASE)
    return next((path for path in models if pattern.search(path.rpartition("/")[2])), None)


def resolve_by_rules(variants: Mapping[str, str], paths: Sequence[str]) -> list[Resolved]:
    """What both clients take for each variant and where none is named. ``variants`` maps a variant to its file (the
    first of several), ``paths`` are all files of ``main``."""
    found = []
    for tag, path in variants.items():
        taken = llama_cpp_takes(paths, tag)
        shadow = next((name for name, own in variants.items() if own == taken and name != tag), "")
        if taken != path and shadow.endswith(tag):
            note = f"takes {taken} for {tag}: it finds the tag at the end of {shadow}; name the file with -hff {path}"
            found.append(Resolved("llama.cpp", tag, taken or "", note=note))
        else:
            found.append(_judged("llama.cpp", tag, taken, {path}))
        found.append(_judged("Ollama", tag, ollama_takes(paths, tag), {path}))
    default = {variants[_PREFERRED[0]]} if _PREFERRED[0] in variants else set(variants.values())
    found.append(_judged("llama.cpp", "no tag", llama_cpp_takes(paths, None), default))
    return [*found, _judged("Ollama", LATEST, ollama_takes(paths, LATEST), default)]


def _judged(client: str, tag: str, taken: str | None, meant: set[str]) -> Resolved:
    if taken in meant:
        return Resolved(client, tag, taken or "")
    wanted = min(meant) if len(meant) == 1 else "one of the variants"
    return Resolved(client, tag, taken or "", f"takes {taken or 'no file'} for {tag}, not {wanted}")


def resolve_by_registry(api: HfApi, repo_id: str, variants: Mapping[str, str]) -> list[Resolved]:
    """What the Hub itself answers Ollama for each variant; ``variants`` maps a variant to its file's SHA-256.

    A Hub that wants to know first who asks is not asked on, and a note says so.
    """
    from huggingface_hub import get_session, get_token

    found = []
    # False: no token, even where one is stored; None: the stored one.
    token = api.token if isinstance(api.token, str) else None if api.token is False else get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for tag, sha256 in variants.items():
        answer = get_session().get(
            f"{api.endpoint}/v2/{quote(repo_id)}/manifests/{quote(tag, safe='')}", headers=headers
        )
        if answer.status_code in _WHO_ASKS:
            note = f"answers {answer.status_code}: it wants Ollama's key, and what it serves was not looked at"
            return [Resolved(_REGISTRY, tag, "", note=note)]
        if answer.status_code == _OK:
            found.append(_judged(_REGISTRY, tag, _model_digest(answer.content), {f"sha256:{sha256}"}))
        else:
            found.append(Resolved(_REGISTRY, tag, "", f"answers {answer.status_code} for {tag}"))
    return found


def _model_digest(manifest: bytes) -> str | None:
    """The digest of the layer that is the model; None where this is no manifest."""
    try:
        layers = {layer["mediaType"]: layer["digest"] for layer in json.loads(manifest)["layers"]}
    except (ValueError, TypeError, KeyError):
        return None
    digest = layers.get("application/vnd.ollama.image.model")
    return digest if isinstance(digest, str) else None
