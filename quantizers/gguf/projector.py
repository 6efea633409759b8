"""The projector of a model that reads images or sound: a separate file beside the rungs. All rungs share it.

The converter's own registry decides which architectures have a projector.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Literal

from quantizers.gguf.convert import convert_projector, last_words
from quantizers.gguf.unquantized import checked
from quantizers.protocol import Parameters
from quantpress.errors import ChildFailed, Refused
from quantpress.files import write_text
from quantpress.record.base import Record
from quantpress.source.gguf import read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp

#: config.json's keys for an encoder, as transformers names them.
_ENCODERS = ("vision_config", "audio_config")
#: The converter's table of the architectures whose projector it converts: the file in llama.cpp's tree, and the table's
#: name in that file.
_REGISTRY, _TABLE = Path("conversion/__init__.py"), "MMPROJ_MODEL_MAP"
#: The projector's ``clip.*`` keys that say what it reads (gguf-py/gguf/constants.py, ``Keys.Clip``).
_READS: dict[str, Literal["images", "audio"]] = {
    "clip.has_vision_encoder": "images",
    "clip.has_audio_encoder": "audio",
}
#: The converter failed because the machine lacks memory or disk. That is no fault of the model.
_MACHINE = re.compile(r"was killed by|MemoryError|OSError|No space left")


class ProjectorReport(Record):
    """``file`` is the name of the projector's file. If it is None, ``missing`` says why there is no projector."""

    file: str | None = None
    reads: list[Literal["images", "audio"]] = []
    missing: str | None = None


def projector_file(prepared: Path, model_name: str) -> Path:
    """The projector's file. With this name clients do not take it for a model, and llama.cpp's ``-hf`` finds it."""
    return prepared.resolve() / f"mmproj-{checked(model_name)}-F16.gguf"


def projector_report(prepared: Path, model_name: str) -> ProjectorReport | None:
    """The report of :func:`make_projector`, or None for a model that reads text only."""
    file = _report_file(prepared, model_name)
    return ProjectorReport.model_validate_json(file.read_bytes()) if file.exists() else None


def make_projector(tools: LlamaCpp, source: Path, prepared: Path, model_name: str) -> None:
    """Makes the projector of ``source`` in ``prepared``, and a report. Makes neither for a model that reads text only.

    If the converter makes no projector, the report says why, and the model's rungs read text only. Raises
    ``ChildFailed`` when the converter fails because memory or disk is short.
    """
    config = json.loads((source / "config.json").read_bytes())
    has_encoder = any(isinstance(config.get(key), dict) for key in _ENCODERS)
    architectures = _architectures(config)
    file, report = projector_file(prepared, model_name), _report_file(prepared, model_name)
    if report.exists() or not (has_encoder or architectures & registered(tools)):
        return
    missing = None if file.exists() else _missing(tools, source, model_name, file, architectures)
    if missing is not None and not has_encoder:
        return  # other models of this architecture have a projector, but this one has none
    found = ProjectorReport(missing=missing) if missing else ProjectorReport(file=file.name, reads=_reads(file))
    write_text(report, found.model_dump_json(indent=1) + "\n")


def registered(tools: LlamaCpp) -> frozenset[str]:
    """The architectures whose projector the converter can convert. Empty if llama.cpp's tree has no such table.

    The table is read and not imported, because importing it would load torch.
    """
    file = tools.source / _REGISTRY
    if not file.is_file():
        return frozenset()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and statement.value and ast.unparse(statement.target) == _TABLE:
            return frozenset(ast.literal_eval(statement.value))
    return frozenset()


def _architectures(config: Parameters) -> set[str]:
    """The architectures that the converter looks up (conversion/base.py, ``get_model_architecture``)."""
    vision = config.get("vision_config")
    parts = (config, vision if isinstance(vision, dict) else {})
    return {str(name) for part in parts for name in (part.get("architectures") or [])[:1]}


def _missing(tools: LlamaCpp, source: Path, model_name: str, file: Path, architectures: set[str]) -> str | None:
    """Makes ``file``. Returns why it could not be made, or None if it was made."""
    try:
        convert_projector(tools, source, model_name, file)
    except Refused:
        return f"the converter of {tools.version} has none for {' or '.join(sorted(architectures))}"
    except ChildFailed as error:
        if _MACHINE.search(str(error)):
            raise
        return f"the converter of {tools.version} failed on it ({last_words(error)})"
    if broken := _not_finite(file):
        file.unlink()
        return f"{broken} has values that are not finite in float16"
    return None


def _reads(file: Path) -> list[Literal["images", "audio"]]:
    metadata = read_gguf(file).metadata
    return [kind for key, kind in _READS.items() if metadata.get(key)]


def _not_finite(file: Path) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite, or None."""
    import numpy as np

    floats = (tensor for tensor in read_gguf(file).tensors if tensor.type in ("F16", "F32"))
    return next((tensor.name for tensor in floats if not np.isfinite(tensor.data).all()), None)


def _report_file(prepared: Path, model_name: str) -> Path:
    return prepared.resolve() / f"mmproj-{checked(model_name)}.json"
