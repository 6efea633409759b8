"""The texts that models are calibrated and measured on.

Measured: WikiText-2's raw test split where a setting gives it, else the second half of the standard
library's own documentation (``pydoc_data.topics``, some 700 kB of English). Calibrated: a file that a
setting gives, else the first half of that documentation. The documentation changes with Python's patch
version, so its hash is part of every protocol and recipe.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.files import sha256_of, write_text

WIKITEXT = "wikitext-2-raw-test"
PYDOC = "pydoc-topics"
#: SHA-256 of ``wiki.test.raw`` (1 290 590 bytes) in ggml-org/ci's wikitext-2-raw-v1.zip, the file that
#: llama.cpp's perplexity figures are made with.
WIKITEXT_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"


@dataclass(frozen=True)
class EvaluationText:
    """A UTF-8 text file: its protocol name, where it lies, and the hash of its bytes."""

    name: str
    path: Path
    sha256: str


def evaluation_text(setting: Path | None, folder: Path) -> EvaluationText:
    """The text to measure on; the offline text is written into ``folder``.

    Raises :class:`BadInput` when ``setting`` names no readable UTF-8 text.
    """
    if setting is None:
        return _written(folder / f"{PYDOC}.evaluation.txt", pydoc_halves()[1])
    digest = _checked_sha256(setting, "evaluation")
    name = WIKITEXT if digest == WIKITEXT_SHA256 else f"custom-{digest[:8]}"
    return EvaluationText(name, setting.resolve(), digest)


def calibration_text(setting: Path | None, folder: Path) -> EvaluationText:
    """The text to calibrate on; the offline text is written into ``folder``.

    Raises :class:`BadInput` as :func:`evaluation_text` does, and for a text that models are measured on.
    """
    if setting is None:
        return _written(folder / f"{PYDOC}.calibration.txt", pydoc_halves()[0])
    digest = _checked_sha256(setting, "calibration")
    exams = {WIKITEXT_SHA256: WIKITEXT, _sha256(pydoc_halves()[1]): f"the evaluation half of {PYDOC}"}
    if digest in exams:
        raise BadInput(
            f"calibration text {setting} is {exams[digest]}, on which models are measured: give another text"
        )
    return EvaluationText(f"custom-{digest[:8]}", setting.resolve(), digest)


def pydoc_halves() -> tuple[str, str]:
    """The documentation's topics in the order of their keys, cut at the line end after the middle."""
    from pydoc_data.topics import topics

    whole = "\n\n".join(topics[key] for key in sorted(topics))
    middle = whole.index("\n", len(whole) // 2) + 1
    return whole[:middle], whole[middle:]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _written(path: Path, text: str) -> EvaluationText:
    digest = _sha256(text)
    if not path.exists() or sha256_of(path) != digest:
        write_text(path, text)
    return EvaluationText(PYDOC, path.resolve(), digest)


def _checked_sha256(path: Path, purpose: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{purpose} text {path} cannot be read: {error.strerror or error}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{purpose} text {path} is not UTF-8 at byte {error.start}: convert it") from None
    if not text.strip():
        raise BadInput(f"{purpose} text {path} is empty: give a text file")
    return hashlib.sha256(data).hexdigest()
