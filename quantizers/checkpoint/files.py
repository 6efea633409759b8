"""Corrects the checkpoint that a library saved, so that equal jobs give equal files.

The tokenizer, generation and chat files become byte copies of the source's files. config.json becomes the source's
config.json, with the ``quantization_config`` and ``tie_word_embeddings`` that the library wrote and with the new dtype.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from quantizers.checkpoint.head import tied_as_stored
from quantizers.protocol import Job, Output, Parameters
from quantpress.errors import QuantpressError
from quantpress.files import write_text
from quantpress.foreign_json import read_object
from quantpress.source.config import CONFIG_FILE, model_config
from quantpress.source.safetensors import Storage, contents, sound_header

#: The companions: files of a checkpoint that say how to use the model. Libraries change some companions when they save
#: a model.
_COMPANIONS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template*", "generation_config.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def source_config(job: Job) -> dict[str, Any]:
    """Returns the content of the source's config.json."""
    return read_object(job.source / CONFIG_FILE)


def stored_dtype(config: dict[str, Any]) -> str:
    """Returns the type for tensors that are not quantized: the source's type if it is float16 or bfloat16, otherwise
    float16."""
    stored = model_config(config).text.declared_dtype or "float16"
    return stored if stored in ("float16", "bfloat16") else "float16"


def make_plain(job: Job, dtype: str) -> None:
    """Replaces the companions and config.json in ``job.out``, where a library has saved a quantized model.

    The companions become the source's. config.json becomes the source's, with the ``quantization_config`` and
    ``tie_word_embeddings`` that the library wrote. If the files hold a head that differs from the embeddings,
    config.json says that the two are not tied. ``dtype`` is the type of the unquantized tensors.
    """
    for pattern in _COMPANIONS:
        for path in job.out.glob(pattern):
            path.unlink()
        for path in job.source.glob(pattern):
            shutil.copyfile(path, job.out / path.name)
    written, config = json.loads((job.out / "config.json").read_bytes()), source_config(job)
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    merged = config | {
        key: dtype,
        "tie_word_embeddings": written.get("tie_word_embeddings", config.get("tie_word_embeddings")),
    }
    if "quantization_config" in written:
        merged["quantization_config"] = written["quantization_config"]
    merged = tied_as_stored(merged, job.out)
    write_text(job.out / "config.json", json.dumps(merged, indent=2, sort_keys=True) + "\n")


def refresh_checkpoint(job: Job) -> None:
    """Copies the published checkpoint into ``job.out``, with the companions and the config.json that the source has
    now."""
    assert job.published is not None
    for path in job.published.iterdir():
        shutil.copyfile(path, job.out / path.name)
    written = json.loads((job.out / "config.json").read_bytes())
    make_plain(job, str(written.get("torch_dtype") or written.get("dtype")))


def sort_metadata(file: Path) -> None:
    """Sorts the metadata in the header of a safetensors file, in place. safetensors writes the metadata in random
    order."""
    header = sound_header(file)
    entries = json.loads(header.text)
    entries["__metadata__"] = dict(sorted(header.metadata.items()))
    ordered = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    room = len(header.text.encode())
    if len(ordered) > room:
        raise QuantpressError(f"{file}: its header has another form than safetensors writes")
    with file.open("r+b") as stream:
        stream.seek(header.data_begin - room)
        stream.write(ordered.ljust(room))


def describe(job: Job, storage: Storage | None, details: Parameters) -> Output:
    """Describes the files in ``job.out``. Adds ``details`` to the output's details, which also hold the numbers of all
    weights and of quantized weights."""
    source, made = contents(job.source), contents(job.out, storage, job.source)
    return Output(
        files=sorted(str(path.relative_to(job.out)) for path in job.out.rglob("*") if path.is_file()),
        bits_per_weight=made.bits / source.total_weights,
        tensor_types=made.weights,
        details={
            "weights": source.total_weights,
            "quantized_weights": made.weights.get(storage.type, 0) if storage else 0,
            **details,
        },
    )
