"""The texts that models are calibrated and measured on.

If no setting names a text, quantpress uses WikiText-2 (quantpress.evaluation.wikitext). Models are calibrated on the
training split of WikiText-2 and measured on its test split. Both splits are the same on every machine. If the source
Hub has no WikiText-2, quantpress uses the two halves of the offline text instead. The offline text is the standard
library's own documentation (``pydoc_data.topics``, some 700 kB of English). It changes with Python's patch version.
Every protocol and recipe records the hash of its text.

SmolLM2, quantized by GPTQ and calibrated on the offline text, had a mean KLD of 0.33 on WikiText-2 and of 0.35 on
news articles. If the model was calibrated on prose of Wikipedia instead, its mean KLDs were 0.22 and 0.21
(docs/benchmarks.md, "What to calibrate on").
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
#: The name of the offline text in records. If a setting has this value, the offline text is used even if WikiText-2 is
#: available.
PYDOC = "pydoc-topics"
#: The least number of characters in a passage of the training split, and the number of passages in the calibration
#: text. A passage has about two windows of 512 tokens, so all passages have about a thousand windows. The default
#: calibration reads 64 windows.
_PASSAGE, _PASSAGES = 4000, 512
_GOLDEN_SECTION = 0.6180339887


@dataclass(frozen=True)
class EvaluationText:
    """A text file in UTF-8. ``name`` is its name in protocols and recipes. ``sha256`` is the hash of its bytes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Texts:
    """The text that a model is calibrated on, and the text that it is measured on."""

    calibration: EvaluationText
    evaluation: EvaluationText


def find_texts(calibration: str | None, settings: Settings, fetch: Callable[[], Path | None]) -> Texts:
    """Returns the text that the catalog's ``calibration`` names, and the evaluation text that ``settings`` names.

    ``fetch`` returns the archive of WikiText-2, or None. It is called only if one of the two texts is not named. Raises
    :class:`BadInput` if both texts are the same, and the errors of :func:`calibration_text` and
    :func:`evaluation_text`.
    """
    evaluation, named = settings.evaluation_text, Path(calibration) if calibration else None
    archive = fetch() if named is None or evaluation is None else None
    folder = settings.home / "texts"
    found = Texts(calibration_text(named, folder, archive), evaluation_text(evaluation, folder, archive))
    if found.calibration.sha256 == found.evaluation.sha256:
        raise BadInput(f"calibration text {calibration} is what models are measured on: give another text")
    return found


def evaluation_text(setting: Path | None, folder: Path, archive: Path | None = None) -> EvaluationText:
    """Returns the text on which models are measured. ``archive`` is the archive of WikiText-2, or None.

    If the text is WikiText-2 or the offline text, the function writes it into ``folder``. Raises :class:`BadInput` if
    ``setting`` names a file that is empty or is not a readable UTF-8 text.
    """
    if setting is None and archive is not None:
        return _written(folder, WIKITEXT, "evaluation", read_split(archive, "test"))
    if setting is None or setting == Path(PYDOC):
        return _written(folder, PYDOC, "evaluation", pydoc_halves()[1])
    digest = _checked_sha256(setting, "evaluation")
    name = WIKITEXT if digest == TEST_SHA256 else f"custom-{digest[:8]}"
    return EvaluationText(name, setting.resolve(), digest)


def calibration_text(setting: Path | None, folder: Path, archive: Path | None = None) -> EvaluationText:
    """Returns the text on which models are calibrated. The arguments are the same as for :func:`evaluation_text`.

    Raises the errors of :func:`evaluation_text`. Also raises :class:`BadInput` if ``setting`` names WikiText-2's test
    split or the second half of the offline text, because models are measured on these two.
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
    """Returns the halves of the offline text: all topics, sorted by key, cut at the first line end after the middle."""
    from pydoc_data.topics import topics

    whole = "\n\n".join(topics[key] for key in sorted(topics))
    middle = whole.index("\n", len(whole) // 2) + 1
    return whole[:middle], whole[middle:]


def spread(text: str) -> str:
    """Returns passages of a long text in a new order.

    For every n, the first n passages are spread evenly over the text.

    llama-imatrix reads only the start of a text, as much as its options say. In the original order, it would read only
    the first articles. Steps of the golden section leave the most even gaps (Knuth, The Art of Computer Programming,
    volume 3, 6.4, theorem S).
    """
    passages = _passages(text)
    step_to = sorted(range(len(passages)), key=lambda step: step * _GOLDEN_SECTION % 1)
    by_step = sorted(range(len(passages)), key=step_to.__getitem__)
    return "".join(passages[place] for place in by_step[:_PASSAGES])


def _passages(text: str) -> list[str]:
    """Cuts the text into passages. Each passage ends with the first line end after ``_PASSAGE`` characters."""
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
