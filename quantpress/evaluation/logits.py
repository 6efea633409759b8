"""Reads and writes log-probabilities in llama-perplexity's file format, so that all engines can be compared.

The layout is the same as in llama.cpp's ``tools/perplexity/perplexity.cpp``. All numbers are little-endian:

- 8 bytes ``_logits_``, then int32 ``n_ctx``, ``n_vocab`` and the number of windows;
- int32 token ids ``[windows * n_ctx]``, as the tokenizer gave them (before BOS replaces a window's first token);
- per window, one row for each of the ``n_ctx - 1 - n_ctx // 2`` scored positions.

A row is float32 ``scale``, float32 ``min_log_prob``, then ``n_vocab`` uint16 values, padded to an even number. Each
``value`` stands for the log-probability ``scale * value + min_log_prob``. If a log-probability is more than 16 nats
below the highest of its row, it is stored as 16 nats below the highest.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from quantpress.errors import BadInput
from quantpress.files import atomic

MAGIC = b"_logits_"
_PREFIX = struct.Struct("<8siii")
#: The widest range of log-probabilities that a row can hold, in nats (``max_logit - 16`` in perplexity.cpp's
#: log_softmax).
_RANGE = 16.0
_STEPS = 65535

Tokens = npt.NDArray[np.int32]
LogProbs = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LogitsHeader:
    """What the file holds before the rows. ``tokens`` are the token ids, int32 ``[windows, n_ctx]``."""

    n_ctx: int
    n_vocab: int
    tokens: Tokens

    @property
    def windows(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def rows_per_window(self) -> int:
        """The number of scored positions in a window. The scored positions are ``n_ctx // 2`` up to and including the
        last but one (``n_ctx - 2``)."""
        return scored_positions(self.n_ctx)

    @property
    def row_values(self) -> int:
        """The uint16 values in a row: four for the two float32, then the vocabulary, padded to an even number."""
        return 2 * ((self.n_vocab + 1) // 2) + 4

    @property
    def header_bytes(self) -> int:
        return _PREFIX.size + 4 * self.tokens.size

    @property
    def window_bytes(self) -> int:
        return 2 * self.rows_per_window * self.row_values

    @property
    def file_bytes(self) -> int:
        return self.header_bytes + self.windows * self.window_bytes


def scored_positions(n_ctx: int) -> int:
    """Returns how many positions of a window of ``n_ctx`` tokens are scored."""
    return n_ctx - 1 - n_ctx // 2


def token_sha256(tokens: npt.ArrayLike) -> str:
    """Returns the hex SHA-256 of token ids as little-endian int32, in reading order."""
    return hashlib.sha256(np.ascontiguousarray(tokens, dtype="<i4").tobytes()).hexdigest()


def parse_header(stream: BinaryIO, name: str) -> LogitsHeader:
    """Reads the header from the start of a stream. Afterwards the stream is at the first row.

    Raises :class:`BadInput` if the header is not valid or the stream ends early. The error message refers to the
    stream as ``name``.
    """
    prefix = _read_exactly(stream, _PREFIX.size)
    if len(prefix) < _PREFIX.size or not prefix.startswith(MAGIC):
        raise BadInput(f"{name} is not a file of log-probabilities: it does not begin with {MAGIC.decode()!r}")
    _, n_ctx, n_vocab, windows = _PREFIX.unpack(prefix)
    if n_ctx < 1 or n_vocab < 1 or windows < 1:
        raise BadInput(f"{name}: impossible header (n_ctx {n_ctx}, n_vocab {n_vocab}, windows {windows})")
    ids = _read_exactly(stream, 4 * n_ctx * windows)
    if len(ids) < 4 * n_ctx * windows:
        raise BadInput(f"{name} is cut short within its token ids: make it again")
    return LogitsHeader(n_ctx, n_vocab, np.frombuffer(ids, dtype="<i4").astype(np.int32).reshape(windows, n_ctx))


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Returns ``size`` bytes, or fewer at the stream's end.

    Reads in pieces, because a wrong header can announce more bytes than the memory holds.
    """
    pieces = []
    while size > 0 and (piece := stream.read(min(size, 1 << 24))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def read_header(path: Path) -> LogitsHeader:
    """Reads and checks a file's header.

    Raises :class:`BadInput` if the file does not hold log-probabilities, or has another size than its header says.
    """
    with path.open("rb") as stream:
        header = parse_header(stream, str(path))
    size = path.stat().st_size
    if size != header.file_bytes:
        raise BadInput(f"{path} has {size} bytes where its header promises {header.file_bytes}: make it again")
    return header


def raw_windows(stream: BinaryIO, header: LogitsHeader, name: str) -> Iterator[npt.NDArray[np.uint16]]:
    """Yields the rows of each window as they are stored, uint16 ``[rows_per_window, row_values]``.

    ``stream`` must be at the first row. Raises :class:`BadInput` if the stream ends within a window. The error message
    refers to the stream as ``name``.
    """
    for window in range(header.windows):
        data = _read_exactly(stream, header.window_bytes)
        if len(data) < header.window_bytes:
            raise BadInput(f"{name} ends within window {window + 1} of {header.windows}: make it again")
        yield np.frombuffer(data, dtype="<u2").reshape(header.rows_per_window, header.row_values)


def scales_of(rows: npt.NDArray[np.uint16]) -> tuple[LogProbs, LogProbs]:
    """Returns two arrays, ``scale`` and ``min_log_prob`` of each row, both float32 ``[rows, 1]``.

    If a row's prediction is not finite, the row's two values are not finite either.
    """
    pairs = np.ascontiguousarray(rows[:, :4]).view("<f4")
    return pairs[:, :1].astype(np.float32), pairs[:, 1:].astype(np.float32)


def read_windows(path: Path) -> Iterator[LogProbs]:
    """Yields the log-probabilities of each window in nats, float32 ``[rows_per_window, n_vocab]``.

    Row ``i`` is the prediction of the window's token ``n_ctx // 2 + 1 + i``. If a prediction is not finite, its row is
    NaN. Raises the errors of :func:`read_header`.
    """
    header = read_header(path)
    with path.open("rb") as stream:
        stream.seek(header.header_bytes)
        for rows in raw_windows(stream, header, str(path)):
            scale, floor = scales_of(rows)
            yield rows[:, 4 : 4 + header.n_vocab].astype(np.float32) * scale + floor


class LogitsWriter:
    """Appends windows to the file that :func:`write_logits` opens."""

    def __init__(self, stream: BinaryIO, header: LogitsHeader) -> None:
        self._stream = stream
        self._header = header
        self.written = 0

    def write_window(self, logits: LogProbs) -> None:
        """Writes one window of logits or log-probabilities, float32 ``[rows_per_window, n_vocab]``.

        Raises ``ValueError`` if the shape differs from this, or if all windows are already written.
        """
        expected = (self._header.rows_per_window, self._header.n_vocab)
        if logits.shape != expected:
            raise ValueError(f"a window's logits have shape {logits.shape}, not {expected}")
        if self.written == self._header.windows:
            raise ValueError(f"all {self.written} windows are written already")
        self._stream.write(encode_rows(logits).tobytes())
        self.written += 1


def encode_rows(logits: LogProbs) -> npt.NDArray[np.uint16]:
    """Converts logits, float32 ``[rows, n_vocab]``, to the rows that the file stores, uint16 ``[rows, row_values]``."""
    rows, n_vocab = logits.shape
    logits = logits.astype(np.float32, copy=False)
    top = logits.max(axis=1, keepdims=True)
    bottom = np.maximum(logits.min(axis=1, keepdims=True), top - np.float32(_RANGE))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # As in perplexity.cpp, the sum is computed in float64, and its logarithm is rounded to float32.
        log_sum = np.log(np.exp(logits - top).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
        floor = bottom - top - log_sum
        scale = (top - bottom) / np.float32(_STEPS)
        steps = np.rint((logits - bottom) * (np.float32(1) / scale))
    stored = np.zeros((rows, 2 * ((n_vocab + 1) // 2) + 4), dtype="<u2")
    stored[:, :4] = np.concatenate([scale, floor], axis=1).astype("<f4").view("<u2")
    # If a row's scale is not finite, or is zero because all logits are equal, the row's values stay zero.
    sound = np.isfinite(steps) & (logits > bottom)
    stored[:, 4 : 4 + n_vocab] = np.where(sound, steps, 0).clip(0, _STEPS).astype(np.uint16)
    return stored


@contextmanager
def write_logits(path: Path, tokens: Tokens, n_vocab: int) -> Iterator[LogitsWriter]:
    """Opens a file for writing the windows of ``tokens`` (int32 ``[windows, n_ctx]``).

    The file appears under its name only when it is whole.

    Raises ``ValueError`` if the ``with`` block ends before all windows are written.
    """
    windows, n_ctx = tokens.shape
    header = LogitsHeader(n_ctx, n_vocab, tokens.astype(np.int32, copy=False))
    with atomic(path) as temporary:
        with temporary.open("wb") as stream:
            stream.write(_PREFIX.pack(MAGIC, n_ctx, n_vocab, windows))
            stream.write(header.tokens.astype("<i4").tobytes())
            writer = LogitsWriter(stream, header)
            yield writer
        if writer.written != windows:
            raise ValueError(f"{writer.written} of {windows} windows were written to {path}")
