"""Makes the projector of a model that reads images or sound. The projector is a separate file. All rungs (GGUF
variants) of the model share it.

The converter's own registry decides which architectures have a projector.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Literal

from quantizers.gguf.convert import convert_projector, last_words
from quantizers.gguf.unquantized import file_stem
from quantpress.errors import ChildFailed, Refused
from quantpress.files import write_text
from quantpress.foreign_json import read_object
from quantpress.record.base import Record
from quantpress.source.config import CONFIG_FILE, ModelConfig, model_config
from quantpress.source.gguf import read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp

#: The converter has a table of the architectures whose projector it converts. These are the file in llama.cpp's source
#: tree that holds the table, and the table's name in that file.
_REGISTRY, _TABLE = Path("conversion/__init__.py"), "MMPROJ_MODEL_MAP"
#: The metadata keys that say what a projector reads (gguf-py/gguf/constants.py, ``Keys.Clip``).
_READS: dict[str, Literal["images", "audio"]] = {
    "clip.has_vision_encoder": "images",
    "clip.has_audio_encoder": "audio",
}
#: Matches the error of a converter that failed because the machine lacks memory or disk. The model is not at fault
#: then.
_MACHINE = re.compile(r"was killed by|MemoryError|OSError|No space left")


class ProjectorReport(Record):
    """``file`` is the name of the projector's file. If it is None, ``missing`` says why there is no projector."""

    file: str | None = None
    reads: list[Literal["images", "audio"]] = []
    missing: str | None = None


def projector_file(prepared: Path, model_name: str) -> Path:
    """Returns the path of the projector's file. The file's name keeps clients from mistaking the file for a model.
    llama.cpp's ``-hf`` finds the file by this name."""
    return prepared.resolve() / f"mmproj-{file_stem(model_name)}-F16.gguf"


def projector_report(prepared: Path, model_name: str) -> ProjectorReport | None:
    """Returns the report that :func:`make_projector` wrote, or None for a model that reads text only."""
    file = _report_file(prepared, model_name)
    return ProjectorReport.model_validate_json(file.read_bytes()) if file.exists() else None


def make_projector(tools: LlamaCpp, source: Path, prepared: Path, model_name: str) -> None:
    """Makes the projector of ``source`` and a report in ``prepared``. If the model reads text only, makes neither file.

    If there is no usable projector, the report says why, and the model's rungs read text only. Raises ``ChildFailed``
    when the converter fails because memory or disk is short.
    """
    config = model_config(read_object(source / CONFIG_FILE))
    has_encoder = config.vision_config is not None or config.audio_config is not None
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
    """Returns the architectures whose projector the converter can convert. The set is empty if llama.cpp's source tree
    has no table of them.

    This function parses the table's file and does not import it, because the import would load torch.
    """
    file = tools.source / _REGISTRY
    if not file.is_file():
        return frozenset()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and statement.value and ast.unparse(statement.target) == _TABLE:
            return frozenset(ast.literal_eval(statement.value))
    return frozenset()


def _architectures(config: ModelConfig) -> set[str]:
    """Returns the architectures that the converter looks up for a model (conversion/base.py,
    ``get_model_architecture``)."""
    named = (config.architectures, config.vision_config and config.vision_config.architectures)
    return {name for architectures in named for name in (architectures or [])[:1]}


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
    """Returns the name of the first tensor that has a NaN or an infinite value, or None if all values are finite."""
    import numpy as np

    floats = (tensor for tensor in read_gguf(file).tensors if tensor.type in ("F16", "F32"))
    return next((tensor.name for tensor in floats if not np.isfinite(tensor.data).all()), None)


def _report_file(prepared: Path, model_name: str) -> Path:
    return prepared.resolve() / f"mmproj-{file_stem(model_name)}.json"
