"""The texts that models are calibrated and measured on.

Where no setting gives one, they are made of two. WikiText-2 (quantpress.evaluation.wikitext) is prose: models are
measured on its test split. The standard library's own documentation (``pydoc_data.topics``, some 700 kB of English) is
technical, with code: where there is no WikiText-2, models are measured on its second half. They are calibrated on its
first half, and on as much of WikiText-2's training split: so calibrated, GPTQ of SmolLM2 loses on prose and on the
documentation little more than calibrated on that alone (mean KLD 0.228 instead of 0.217, 0.165 instead of 0.135),
where either alone loses much on the other (0.250, 0.334; docs/benchmarks.md, "What to calibrate on").

The documentation changes with Python's patch version, so its hash is part of every protocol and recipe.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.evaluation.wikitext import TEST_SHA256, archive_in, read_split
from quantpress.files import sha256_of, write_text

WIKITEXT = "wikitext-2-raw-test"
#: The documentation's name in records; as a setting it asks for that text where WikiText-2 would be to be had.
PYDOC = "pydoc-topics"
MIXED = "wikitext-2-train+pydoc-topics"
#: Characters of a passage of the mixed text: some two windows of 512 tokens.
_PASSAGE = 4000


@dataclass(frozen=True)
class EvaluationText:
    """A UTF-8 text file: its protocol name, where it lies, and the hash of its bytes."""

    name: str
    path: Path
    sha256: str


def evaluation_text(setting: Path | None, folder: Path) -> EvaluationText:
    """The text to measure on. ``folder`` holds WikiText-2 if it was fetched; the text is written there.

    Raises :class:`BadInput` when ``setting`` names no readable UTF-8 text.
    """
    if setting is None and (archive := archive_in(folder)) is not None:
        return _written(folder, WIKITEXT, "evaluation", read_split(archive, "test"))
    if setting is None or setting == Path(PYDOC):
        return _written(folder, PYDOC, "evaluation", pydoc_halves()[1])
    digest = _checked_sha256(setting, "evaluation")
    name = WIKITEXT if digest == TEST_SHA256 else f"custom-{digest[:8]}"
    return EvaluationText(name, setting.resolve(), digest)


def calibration_text(setting: Path | None, folder: Path) -> EvaluationText:
    """The text to calibrate on, as :func:`evaluation_text` finds it.

    Raises :class:`BadInput` as that does, and for a text that models are measured on.
    """
    if setting is None and (archive := archive_in(folder)) is not None:
        return _written(folder, MIXED, "calibration", mixed(pydoc_halves()[0], read_split(archive, "train")))
    if setting is None or setting == Path(PYDOC):
        return _written(folder, PYDOC, "calibration", pydoc_halves()[0])
    digest = _checked_sha256(setting, "calibration")
    exams = {TEST_SHA256: WIKITEXT, _sha256(pydoc_halves()[1]): f"the evaluation half of {PYDOC}"}
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


def mixed(whole: str, longer: str) -> str:
    """Passages of both texts by turns: all of ``whole``, and as many of ``longer``, evenly spread over it.

    By turns, because llama-imatrix reads a text from its start, and only as far as it is told.
    """
    first, second = _passages(whole), _passages(longer)
    chosen = (second[index * len(second) // len(first)] for index in range(len(first)))
    return "".join(passage for pair in zip(first, chosen, strict=True) for passage in pair)


def _passages(text: str) -> list[str]:
    """The text in pieces that end with the first line end after ``_PASSAGE`` characters."""
    passages, start = [], 0
    while start < len(text):
        end = text.find("\n", start + _PASSAGE) + 1 or len(text)
        passages.append(text[start:end])
        start = end
    return passages


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _written(folder: Path, name: str, purpose: str, text: str) -> EvaluationText:
    path, digest = folder / f"{name}.{purpose}.txt", _sha256(text)
    if not path.exists() or sha256_of(path) != digest:
        write_text(path, text)
    return EvaluationText(name, path.resolve(), digest)


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
