"""Reads and writes llama-perplexity's file of log-probabilities, so that every engine can be compared.

The layout (llama.cpp, ``tools/perplexity/perplexity.cpp``), all little-endian:

- 8 bytes ``_logits_``, then int32 ``n_ctx``, ``n_vocab`` and the number of windows;
- int32 token ids ``[windows * n_ctx]``, as the tokenizer gave them (before BOS replaces a window's first token);
- per window, one row for each of its ``n_ctx - 1 - n_ctx // 2`` scored positions: float32 ``scale``, float32
  ``min_log_prob``, then ``n_vocab`` uint16 (padded to an even number) that stand for
  ``scale * value + min_log_prob``. Values more than 16 nats below a row's top are stored as 16 nats below it.
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
#: The widest range, in nats, that a row keeps (``max_logit - 16`` in log_softmax of perplexity.cpp).
_RANGE = 16.0
_STEPS = 65535

Tokens = npt.NDArray[np.int32]
LogProbs = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LogitsHeader:
    """The part of the file before the rows. ``tokens`` is int32 ``[windows, n_ctx]``."""

    n_ctx: int
    n_vocab: int
    tokens: Tokens

    @property
    def windows(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def rows_per_window(self) -> int:
        """Scored positions per window: from ``n_ctx // 2`` to the second to last."""
        return scored_positions(self.n_ctx)

    @property
    def row_values(self) -> int:
        """uint16 values per row: four for the two float32, then the vocabulary padded to an even number."""
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
    """Reads the header from a stream's start. The rows follow it.

    Raises :class:`BadInput`, with ``name``, if the stream begins with another header or ends early.
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

    Reads in pieces, because a header may promise more than memory holds.
    """
    pieces = []
    while size > 0 and (piece := stream.read(min(size, 1 << 24))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def read_header(path: Path) -> LogitsHeader:
    """Reads and checks a file's header.

    Raises :class:`BadInput` if it is not a file of log-probabilities, or its size is not what its header promises.
    """
    with path.open("rb") as stream:
        header = parse_header(stream, str(path))
    size = path.stat().st_size
    if size != header.file_bytes:
        raise BadInput(f"{path} has {size} bytes where its header promises {header.file_bytes}: make it again")
    return header


def raw_windows(stream: BinaryIO, header: LogitsHeader, name: str) -> Iterator[npt.NDArray[np.uint16]]:
    """Yields each window's rows as stored, uint16 ``[rows_per_window, row_values]``. ``stream`` is after the header.

    Raises :class:`BadInput`, with ``name``, if the stream ends within the windows.
    """
    for window in range(header.windows):
        data = _read_exactly(stream, header.window_bytes)
        if len(data) < header.window_bytes:
            raise BadInput(f"{name} ends within window {window + 1} of {header.windows}: make it again")
        yield np.frombuffer(data, dtype="<u2").reshape(header.rows_per_window, header.row_values)


def scales_of(rows: npt.NDArray[np.uint16]) -> tuple[LogProbs, LogProbs]:
    """Returns each row's ``scale`` and ``min_log_prob``, float32 ``[rows, 1]``; not finite if the prediction is not."""
    pairs = np.ascontiguousarray(rows[:, :4]).view("<f4")
    return pairs[:, :1].astype(np.float32), pairs[:, 1:].astype(np.float32)


def read_windows(path: Path) -> Iterator[LogProbs]:
    """Yields each window's log-probabilities, float32 ``[rows_per_window, n_vocab]``, in nats.

    Row ``i`` is the prediction of the window's token ``n_ctx // 2 + 1 + i``. Rows of a non-finite prediction
    come out as NaN. Raises as :func:`read_header` does.
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
        """Writes one window: float32 ``[rows_per_window, n_vocab]``, either logits or log-probabilities.

        Raises ``ValueError`` for another shape or one window too many.
        """
        expected = (self._header.rows_per_window, self._header.n_vocab)
        if logits.shape != expected:
            raise ValueError(f"a window's logits have shape {logits.shape}, not {expected}")
        if self.written == self._header.windows:
            raise ValueError(f"all {self.written} windows are written already")
        self._stream.write(encode_rows(logits).tobytes())
        self.written += 1


def encode_rows(logits: LogProbs) -> npt.NDArray[np.uint16]:
    """Returns rows as they are stored: uint16 ``[rows, row_values]`` from float32 logits ``[rows, n_vocab]``."""
    rows, n_vocab = logits.shape
    logits = logits.astype(np.float32, copy=False)
    top = logits.max(axis=1, keepdims=True)
    bottom = np.maximum(logits.min(axis=1, keepdims=True), top - np.float32(_RANGE))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # The sum is computed in double and its logarithm rounded to float, as in perplexity.cpp.
        log_sum = np.log(np.exp(logits - top).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
        floor = bottom - top - log_sum
        scale = (top - bottom) / np.float32(_STEPS)
        steps = np.rint((logits - bottom) * (np.float32(1) / scale))
    stored = np.zeros((rows, 2 * ((n_vocab + 1) // 2) + 4), dtype="<u2")
    stored[:, :4] = np.concatenate([scale, floor], axis=1).astype("<f4").view("<u2")
    # A row without a finite scale, or with a scale of zero (all logits equal), keeps zeros.
    sound = np.isfinite(steps) & (logits > bottom)
    stored[:, 4 : 4 + n_vocab] = np.where(sound, steps, 0).clip(0, _STEPS).astype(np.uint16)
    return stored


@contextmanager
def write_logits(path: Path, tokens: Tokens, n_vocab: int) -> Iterator[LogitsWriter]:
    """Opens a file for the windows of ``tokens`` (int32 ``[windows, n_ctx]``). The file appears only when it is whole.

    Raises ``ValueError`` if the block ends before all windows are written.
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
