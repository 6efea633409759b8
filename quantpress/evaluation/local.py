"""Measures a checkpoint folder or a GGUF file on this machine, without publishing anything."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from quantpress.child import run_child
from quantpress.errors import BadInput
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.record import Engine, Evaluation, Protocol
from quantpress.evaluation.text import evaluation_text
from quantpress.settings import Settings

#: quant_method in config.json to the engine that loads it; transformers loads all others.
_ENGINES: dict[str, Engine] = {"exl3": "exllamav3", "exl2": "exllamav2"}


def engine_for(path: Path) -> Engine:
    """The engine that loads ``path``. Raises :class:`BadInput` for anything but a GGUF file or a checkpoint folder."""
    if path.is_file() and path.suffix == ".gguf":
        return "llama.cpp"
    if (path / "config.json").is_file():
        return _ENGINES.get(_quant_method(path / "config.json"), "transformers")
    raise BadInput(f"{path}: neither a .gguf file nor a folder with a config.json")


def _quant_method(config: Path) -> str:
    try:
        return str(json.loads(config.read_bytes())["quantization_config"]["quant_method"])
    except (ValueError, KeyError, TypeError):
        return ""


def evaluate_local(path: Path, settings: Settings) -> Evaluation:
    """Perplexity under the protocol, in a child process."""
    engine = engine_for(path)
    text = evaluation_text(settings.evaluation_text, settings.home / "texts")
    job = EvaluationJob(
        engine=engine,
        model=path.resolve(),
        protocol=Protocol(text=text.name, text_sha256=text.sha256, windows=settings.windows),
        text=text.path.resolve(),
        threads=settings.thread_count(),
        device=settings.compute_device(),
    )
    with tempfile.TemporaryDirectory(prefix="quantpress-evaluate-") as folder:
        return run_child("quantpress.evaluation.job", job, Evaluation, Path(folder))
