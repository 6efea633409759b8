from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.errors import BadInput
from quantpress.evaluation.text import calibration_text, evaluation_text, spread


def test_without_a_setting_the_two_halves_of_the_documentation_are_used(tmp_path: Path) -> None:
    calibration, evaluation = calibration_text(None, tmp_path), evaluation_text(None, tmp_path)

    assert calibration.name == evaluation.name == "pydoc-topics"
    assert calibration.path.parent == evaluation.path.parent == tmp_path.resolve()
    first, second = calibration.path.read_text(), evaluation.path.read_text()
    assert 200_000 < len(first) < 500_000
    assert abs(len(first) - len(second)) < 2_000
    assert first.endswith("\n")
    assert "assert_stmt" not in second
    assert evaluation.sha256 == hashlib.sha256(second.encode()).hexdigest()
    assert calibration.sha256 != evaluation.sha256


def test_a_damaged_copy_is_written_again(tmp_path: Path) -> None:
    text = evaluation_text(None, tmp_path)
    text.path.write_text("half a fi")

    assert hashlib.sha256(evaluation_text(None, tmp_path).path.read_bytes()).hexdigest() == text.sha256


def test_a_file_of_ones_own_is_named_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Call me Ishmael.\n")

    text = evaluation_text(file, tmp_path / "unused")

    digest = hashlib.sha256(b"Call me Ishmael.\n").hexdigest()
    assert (text.name, text.path, text.sha256) == (f"custom-{digest[:8]}", file.resolve(), digest)
    assert not (tmp_path / "unused").exists()
    assert calibration_text(file, tmp_path).name == text.name


def test_what_models_are_measured_on_is_refused_for_calibration(tmp_path: Path) -> None:
    exam = evaluation_text(None, tmp_path).path
    copy = tmp_path / "renamed.txt"
    copy.write_bytes(exam.read_bytes())

    with pytest.raises(BadInput, match="on which models are measured"):
        calibration_text(copy, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b" \n", "is empty"), (b"ok \xff\xfe", "is not UTF-8 at byte 3")],
)
def test_unusable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "text"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadInput, match=message):
        evaluation_text(file, tmp_path)


def numbered(passages: int) -> str:
    """Returns a text of numbered passages. Each is a line with 4,000 characters and the passage's number."""
    return "".join("x" * 4_000 + f" {number}\n" for number in range(passages))


def numbers(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines()]


@given(st.integers(0, 700))
def test_of_a_long_text_512_passages_are_spread_over_it_and_of_a_short_one_all(passages: int) -> None:
    chosen = numbers(spread(numbered(passages)))
    assert len(chosen) == len(set(chosen)) == min(passages, 512)


@pytest.mark.parametrize("passages", [2_365, 2_443, 2_664])
@pytest.mark.parametrize("read", [30, 128, 512])
def test_every_beginning_of_it_is_spread_evenly(passages: int, read: int) -> None:
    """llama-imatrix reads only ``read`` passages. Spread evenly, they would have gaps of ``passages / read``."""
    chosen = sorted(numbers(spread(numbered(passages)))[:read])
    gaps = [later - earlier for earlier, later in pairwise([0, *chosen, passages])]
    assert max(gaps) < 2 * passages / read + 1
