from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quantpress.errors import BadInput, QuantpressError
from quantpress.evaluation.logits import encode_rows, read_header, read_windows, token_sha256, write_logits
from quantpress.evaluation.logits_stream import figures_of

TOKENS = np.array([[1, 2, 0, 1, 2, 0], [0, 0, 1, 1, 2, 2]], dtype=np.int32)


def write(path: Path, windows: list[np.ndarray]) -> None:
    with write_logits(path, TOKENS, 3) as writer:
        for window in windows:
            writer.write_window(window.astype(np.float32))


def test_a_window_of_six_has_two_scored_positions_and_rows_of_eight_values(tmp_path: Path) -> None:
    write(tmp_path / "x", [np.zeros((2, 3)), np.ones((2, 3))])

    header = read_header(tmp_path / "x")

    assert (header.n_ctx, header.n_vocab, header.windows) == (6, 3, 2)
    assert (header.rows_per_window, header.row_values) == (2, 8)
    assert header.tokens.tolist() == TOKENS.tolist()
    assert (tmp_path / "x").stat().st_size == 8 + 3 * 4 + 12 * 4 + 2 * 2 * 8 * 2


def test_bytes_are_those_of_the_format() -> None:
    # With logits 0, -16 and -20, the floor is 16 below the top. A lower logit is stored as the floor.
    row = encode_rows(np.array([[0.0, -16.0, -20.0]], dtype=np.float32))

    log_sum = math.log(1 + math.exp(-16) + math.exp(-20))
    scale, floor = struct.unpack("<ff", row[0, :4].tobytes())
    assert scale == pytest.approx(16 / 65535)
    assert floor == pytest.approx(-16 - log_sum)
    assert row[0, 4:].tolist() == [65535, 0, 0, 0]


@settings(deadline=None)
@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(-30, 30, width=32)))
def test_what_is_written_is_read_back_within_a_step(
    tmp_path_factory: pytest.TempPathFactory, logits: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("logits") / "x"
    write(path, [logits, logits])

    expected = logits.astype(np.float64)
    expected -= np.log(np.exp(expected - expected.max(1, keepdims=True)).sum(1, keepdims=True)) + expected.max(
        1, keepdims=True
    )
    expected = np.maximum(expected, expected.max(1, keepdims=True) - 16)
    first, second = read_windows(path)
    assert np.abs(first - expected).max() < 16 / 65535
    assert np.array_equal(first, second)


def test_equal_ids_have_equal_hashes_whatever_their_type_and_shape() -> None:
    assert token_sha256(TOKENS) == token_sha256(TOKENS.astype(np.int64).ravel())
    assert token_sha256([1, 2]) != token_sha256([2, 1])
    assert token_sha256([1]) == "67abdd721024f0ff4e0b3f4c2fc13bc5bad42d0b7851d456d88d203d15aaa450"


def test_an_unfinished_file_never_appears(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 of 2 windows"):
        write(tmp_path / "x", [np.zeros((2, 3))])

    assert list(tmp_path.iterdir()) == []


def test_a_window_of_another_shape_or_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 3\), not \(2, 3\)"):
        write(tmp_path / "x", [np.zeros((3, 3))])
    with pytest.raises(ValueError, match="all 2 windows"):
        write(tmp_path / "x", [np.zeros((2, 3))] * 3)


def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x", [np.zeros((2, 3)), np.zeros((2, 3))])
    whole = (tmp_path / "x").read_bytes()

    (tmp_path / "x").write_bytes(whole[:-1])
    with pytest.raises(BadInput, match="131 bytes where its header promises 132"):
        read_header(tmp_path / "x")
    with pytest.raises(BadInput, match="ends within window 2 of 2"):
        figures_of(tmp_path / "x")
    (tmp_path / "x").write_bytes(whole[:30])
    with pytest.raises(BadInput, match="cut short within its token ids"):
        read_header(tmp_path / "x")


@given(st.binary(max_size=80))
def test_other_bytes_are_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("logits") / "x"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        read_header(path)


def test_perplexity_over_the_finite_positions_and_the_others_counted(tmp_path: Path) -> None:
    even = np.log(np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    broken = even.copy()
    broken[1, 2] = np.nan
    # The scored targets are 2 and 0 in the first window, 2 and 2 in the second. The second window's last row is broken.
    write(tmp_path / "x", [even, broken])

    figures = figures_of(tmp_path / "x")

    losses = [math.log(4), math.log(2), math.log(4)]
    assert figures.non_finite == 1
    assert figures.perplexity == pytest.approx(math.exp(sum(losses) / 3), rel=1e-4)
    assert figures.perplexity_error == pytest.approx(
        figures.perplexity * float(np.std(losses)) / math.sqrt(2), rel=1e-3
    )
    assert figures.token_sha256 == token_sha256(TOKENS)


def test_a_model_without_any_finite_position_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x", [np.full((2, 3), np.inf), np.full((2, 3), np.nan)])

    with pytest.raises(QuantpressError, match="none of the 4 scored positions has a finite loss"):
        figures_of(tmp_path / "x")
