"""Makes the Hub's answers for Ollama. For a tag, Ollama gets the manifest of an image.

The image's layers are files of ``main``: the model, the files ``template``, ``system`` and ``params``
(https://huggingface.co/docs/hub/ollama), and the repo's licence. The manifest has the form of the Docker registry,
schema 2, with Ollama's media types.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantpress.localhub.history import TreeEntry
from quantpress.localhub.storage import ObjectStore
from quantpress.record.clients import is_model, ollama_takes

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.ollama.image."
#: Maps the names of the files that become layers to the names of the layers.
_LAYERS = {"template": "template", "system": "system", "params": "params", "LICENSE": "license"}
_QUANTIZATION = re.compile(r"[-.]([A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)(?:-\d{5}-of-\d{5})?\.gguf$")
#: A GGUF file (github.com/ggml-org/ggml/blob/master/docs/gguf.md) starts with the magic, the version and two counts of
#: 8 bytes. These take _COUNTS bytes. The keys follow. _STRING is the number of the type string.
_MAGIC, _COUNTS, _STRING = b"GGUF", 24, 8
_LONGEST_NAME = 256


def manifest(files: Mapping[str, TreeEntry], store: ObjectStore, tag: str) -> dict[str, Any] | None:
    """Returns the manifest of the image for a tag, or None if the repo has no file for the tag.

    Raises OSError if the file's object is lost.
    """
    path = ollama_takes(files, tag)
    if path is None:
        return None
    layers = _layers(files, path)
    config = _config(files[path], layers, store)
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": _CONFIG_TYPE, "digest": _digest(config), "size": len(config)},
        "layers": layers,
        # For -hf, older versions of llama.cpp read the file's name from here, because they did not yet list the tree
        # themselves.
        "ggufFile": {"rfilename": path, "size": files[path].size, "blobId": files[path].blob_id},
    }


def find_config(files: Mapping[str, TreeEntry], store: ObjectStore, digest: str) -> bytes | None:
    """Returns the image configuration with this digest, which a manifest names. Returns None if there is none.

    The configuration is made again, because it is not stored anywhere.
    """
    return next((config for config in _configs(files, store) if _digest(config) == digest), None)


def _configs(files: Mapping[str, TreeEntry], store: ObjectStore) -> Iterator[bytes]:
    for path, entry in files.items():
        if is_model(path):
            try:
                config = _config(entry, _layers(files, path), store)
            except OSError:  # a lost object costs its own image, and not the others of the repo
                continue
            yield config


def _layers(files: Mapping[str, TreeEntry], path: str) -> list[dict[str, Any]]:
    chosen = {"model": files[path]} | {layer: files[name] for name, layer in _LAYERS.items() if name in files}
    return [
        {"mediaType": f"{_LAYER}{layer}", "digest": f"sha256:{entry.sha256}", "size": entry.size}
        for layer, entry in chosen.items()
    ]


def _config(model: TreeEntry, layers: list[dict[str, Any]], store: ObjectStore) -> bytes:
    family = _architecture(store.path(model.sha256))
    named = _QUANTIZATION.search(model.path)
    config = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "file_type": named[1].upper() if named else "unknown",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    return json.dumps(config, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _architecture(file: Path) -> str:
    """Returns the value of ``general.architecture`` in a GGUF file. Converters write this key first.

    Returns ``unknown`` if the first key is a different key, or if the file is not a GGUF file.
    """
    with file.open("rb") as stream:
        if not stream.read(_COUNTS).startswith(_MAGIC):
            return "unknown"
        key = _string(stream.read(8), stream.read(len(b"general.architecture")))
        kind = int.from_bytes(stream.read(4), "little")
        if key != "general.architecture" or kind != _STRING:
            return "unknown"
        size = stream.read(8)
        return _string(size, stream.read(min(int.from_bytes(size, "little"), _LONGEST_NAME))) or "unknown"


def _string(size: bytes, content: bytes) -> str | None:
    """Decodes a GGUF string. ``size`` holds the length that the file states before the string.

    Returns None if ``content`` does not have this length or is not ASCII.
    """
    if int.from_bytes(size, "little") != len(content) or not content.isascii():
        return None
    return content.decode()
