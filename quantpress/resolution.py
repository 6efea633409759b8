"""Which file of a GGUF repo a client takes for a tag, as in ``press/Model-GGUF:Q4_K_M``.

llama.cpp lists ``main`` and decides by itself; Ollama asks the Hub for the tag's manifest, and the Hub decides. Paths
are given in the order in which the Hub lists them, sorted by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
