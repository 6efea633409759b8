"""Finds out which file of a GGUF repo a client loads for a tag, such as ``Q4_K_M`` in ``press/Model-GGUF:Q4_K_M``.

llama.cpp lists the files of ``main`` and chooses one itself. Ollama asks the Hub for the tag's manifest, so the Hub
chooses. The functions here expect paths sorted by name, which is the order in which the Hub lists them.
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

#: Without a tag, llama.cpp takes the first of these tags that the repo has (``find_best_model`` of
#: common/download.cpp).
_PREFERRED = ("Q4_K_M", "Q8_0")
#: A file with one of these words in its name is not a model. It belongs to a model (``gguf_filename_is_model``, same
#: file).
_BESIDE_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
#: Matches the end of a split file's name. llama.cpp takes only the first part of a split file (``get_gguf_split_info``,
#: same file).
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
#: If a repo has this file at its root, llama.cpp fetches nothing else (``common_download_get_hf_plan``).
_PRESET = "preset.ini"

#: The tag that Ollama asks for if the user gives none.
LATEST = "latest"
#: A Hub answers with one of these status codes if it first wants to know who asks. Ollama then proves its identity with
#: its own key.
_WHO_ASKS = (401, 403)
_OK = 200
_REGISTRY = "the Hub for Ollama"


@dataclass(frozen=True)
class Resolved:
    """The file that a client loads for a tag. ``path`` is the file's name or its digest.

    ``problem`` says why this is not the intended file; it is empty if the file is right. ``note`` is a remark about
    something that is not the repo's fault.
    """

    client: str
    tag: str
    path: str
    problem: str = ""
    note: str = ""


def is_part(path: str) -> bool:
    """Whether this file is one of several parts of a split model."""
    part = _PART.search(path)
    return part is not None and int(part[2]) > 1


def is_model(path: str) -> bool:
    """Whether llama.cpp treats this path as a model: as a whole model file, or as the first part of a split one."""
    name = path.rpartition("/")[2]
    part = _PART.search(name)
    first = part is None or int(part[2]) < 2 or int(part[1]) == 1
    return name.endswith(".gguf") and first and not any(word in name for word in _BESIDE_MODELS)


def findable(stem: str, tags: Iterable[str]) -> str:
    """Returns ``stem``, changed so that clients find no tag in it and take a file that begins with it for a model.

    A model's name can contain a tag, as in ``tiny-Q4_K_M-merge``. Then every file ``tiny-Q4_K_M-merge-TAG.gguf`` would
    answer to ``Q4_K_M``. So hyphens split the tag: ``tiny-Q4-K-M-merge``. Words of files that belong to a model are
    changed too: ``i-matrix``, ``mtp_``.
    """
    longest_first = sorted({*tags, *_PREFERRED}, key=len, reverse=True)
    tag = re.compile(f"(?:{'|'.join(map(re.escape, longest_first))})(?=[.-])", re.IGNORECASE)
    while found := tag.search(f"{stem}-"):
        stem = stem[: found.start()] + _split(found[0]) + stem[found.end() :]
    for word in _BESIDE_MODELS:
        apart = f"{word[:-1]}_" if word.endswith("-") else f"{word[0]}-{word[1:]}"
        stem = f"{stem}-".replace(word, apart).removesuffix("-")
    return stem


def _split(tag: str) -> str:
    """Returns a tag with hyphens for its underscores. In a tag without underscores, a hyphen comes before the first
    digit."""
    return tag.replace("_", "-") if "_" in tag else re.sub(r"(?=\d)", "-", tag, count=1)


def llama_cpp_takes(paths: Sequence[str], tag: str | None) -> str | None:
    """Returns the file that ``llama-cli -hf REPO[:TAG]`` loads, or None if llama.cpp finds none.

    llama.cpp uses the tag as a regular expression and searches for it anywhere in the path. So ``F16`` finds
    ``Model-BF16.gguf`` too. Upper and lower case do not matter.
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
    """Returns the file that the Hub gives Ollama for a tag, or None if the Hub finds none.

    A tag is a quantization's whole name, in upper or lower case, or a file's name
    (https://huggingface.co/docs/hub/ollama). ``latest`` stands for Q4_K_M. If there is no Q4_K_M, the Hub makes a
    "reasonable choice" that it does not document. In this case, this function returns the file that llama.cpp would
    choose.
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
    """Returns the files that llama.cpp and Ollama load, by their rules: for each variant's tag, and without a tag.

    ``variants`` maps a variant to its file; if the file is split, to its first part. ``paths`` are all files of
    ``main``.
    """
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
    """Asks the Hub which file Ollama gets for each variant. ``variants`` maps a variant to the SHA-256 of its file.

    If the Hub first wants to know who asks, this function stops asking and returns only a note that says so.
    """
    from huggingface_hub import get_session, get_token

    found = []
    # ``api.token`` is False if no token may be sent, even if one is stored. It is None if the stored token is to be
    # sent.
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
    """Returns the digest of the layer that holds the model, or None if ``manifest`` is not a manifest or has no such
    layer."""
    try:
        layers = {layer["mediaType"]: layer["digest"] for layer in json.loads(manifest)["layers"]}
    except (ValueError, TypeError, KeyError):
        return None
    digest = layers.get("application/vnd.ollama.image.model")
    return digest if isinstance(digest, str) else None
