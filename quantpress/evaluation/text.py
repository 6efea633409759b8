"""The texts that models are calibrated and measured on.

Where no setting gives one, they are those of WikiText-2 (quantpress.evaluation.wikitext): models are calibrated on its
training split and measured on its test split. Both are the same on every machine. Where the source Hub has no
WikiText-2, they are the halves of the offline text, the standard library's own documentation (``pydoc_data.topics``,
some 700 kB of English), which changes with Python's patch version. A text's hash is part of every protocol and recipe.

GPTQ of SmolLM2 calibrated on the offline text had a mean KLD of 0.33 on WikiText-2 and of 0.35 on news; it had
0.22 and 0.21 calibrated on Wikipedia's prose (docs/benchmarks.md, "What to calibrate on").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.evaluation.wikitext import TEST_SHA256, read_split
from quantpress.files import sha256_of, write_text
from quantpress.settings import Settings

WIKITEXT = "wikitext-2-raw-test"
WIKITEXT_TRAIN = "wikitext-2-raw-train"
#: The offline text's name in records; as a setting it asks for that text where WikiText-2 would be to be had.
PYDOC = "pydoc-topics"
#: Characters of a passage of the training split, some two windows of 512 tokens, and how many of them are taken: a
#: thousand windows, of which the default calibration reads 64.
_PASSAGE, _PASSAGES = 4000, 512
_GOLDEN_SECTION = 0.6180339887


@dataclass(frozen=True)
class EvaluationText:
    """A UTF-8 text file: its protocol name, where it lies, and the hash of its bytes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Texts:
    """What a model is calibrated on, and what it is measured on."""

    calibration: EvaluationText
    evaluation: EvaluationText


def find_texts(calibration: str | None, settings: Settings, fetch: Callable[[], Path | None]) -> Texts:
    """Both texts by the catalog's setting for ``calibration`` and that for evaluation. ``fetch`` gives the archive of
    WikiText-2, or none, and is called only where one of the two is not set.

    Raises :class:`BadInput` as :func:`calibration_text` and :func:`evaluation_text` do, and where both are the same.
    """
    evaluation, named = settings.evaluation_text, Path(calibration) if calibration else None
    archive = fetch() if named is None or evaluation is None else None
    folder = settings.home / "texts"
    found = Texts(calibration_text(named, folder, archive), evaluation_text(evaluation, folder, archive))
    if found.calibration.sha256 == found.evaluation.sha256:
        raise BadInput(f"calibration text {calibration} is what models are measured on: give another text")
    return found


def evaluation_text(setting: Path | None, folder: Path, archive: Path | None = None) -> EvaluationText:
    """The text to measure on; ``archive`` is that of WikiText-2, where there is one. Our own are put into ``folder``.

    Raises :class:`BadInput` when ``setting`` names no readable UTF-8 text.
    """
    if setting is None and archive is not None:
        return _written(folder, WIKITEXT, "evaluation", read_split(archive, "test"))
    if setting is None or setting == Path(PYDOC):
        return _written(folder, PYDOC, "evaluation", pydoc_halves()[1])
    digest = _checked_sha256(setting, "evaluation")
    name = WIKITEXT if digest == TEST_SHA256 else f"custom-{digest[:8]}"
    return EvaluationText(name, setting.resolve(), digest)


def calibration_text(setting: Path | None, folder: Path, archive: Path | None = None) -> EvaluationText:
    """The text to calibrate on, as :func:`evaluation_text` finds it.

    Raises :class:`BadInput` as that does, and for a text of our own that models are measured on.
    """
    if setting is None and archive is not None:
        return _written(folder, WIKITEXT_TRAIN, "calibration", spread(read_split(archive, "train")))
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


def spread(text: str) -> str:
    """Passages of a long text, of which every beginning is spread evenly over it.

    llama-imatrix reads from the start, and only as far as it is told: the first articles would be all it sees. Steps of
    the golden section leave the most even gaps (Knuth, The Art of Computer Programming, volume 3, 6.4, theorem S).
    """
    passages = _passages(text)
    step_to = sorted(range(len(passages)), key=lambda step: step * _GOLDEN_SECTION % 1)
    by_step = sorted(range(len(passages)), key=step_to.__getitem__)
    return "".join(passages[place] for place in by_step[:_PASSAGES])


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
