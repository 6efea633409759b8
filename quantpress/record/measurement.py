"""What a measurement is: the protocol it followed and the figures it gave."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator

from quantpress.record.base import Record

#: What loads a model, to measure it or to let it write text.
Engine = Literal["transformers", "llama.cpp", "exllamav3", "exllamav2"]

#: Goes up when anything that decides a figure changes. Variants with figures of another version are measured again.
#: Version 2 measures every engine's divergence from one base: the unquantized model by transformers in float32.
#: Version 1 measured each engine's divergence from that engine's own base.
PROTOCOL_VERSION = 2


def _same_nan(value: float) -> float:
    return math.nan if math.isnan(value) else value


#: NaN if no position gave a number. It is always the same object, so that a record that is read back equals itself.
Figure = Annotated[float, AfterValidator(_same_nan)]


class Protocol(Record):
    """llama-perplexity's procedure: non-overlapping windows, the second half of each scored.

    ``text`` names the evaluation text (``wikitext-2-raw-test`` or ``pydoc-topics``), ``text_sha256`` is the
    hash of its bytes. ``windows`` is the number of windows of ``n_ctx`` tokens, from the text's start.
    Figures are compared only if all five fields are equal.
    """

    text: str
    text_sha256: str
    n_ctx: int = 512
    windows: int
    version: int = PROTOCOL_VERSION


class Divergence(Record):
    """Kullback-Leibler divergence from the unquantized model, in nats per token, and related figures.

    ``same_top`` is the share (0 to 1) of scored positions whose most likely token is the same.
    """

    mean: Figure
    mean_error: Figure
    median: Figure
    p99: Figure
    p999: Figure
    maximum: Figure
    same_top: Figure
    same_top_error: Figure


class Evaluation(Record):
    """One model's figures under one protocol.

    ``scored_tokens`` is ``windows * (n_ctx - 1 - n_ctx // 2)``; ``non_finite`` counts the scored positions
    whose loss was not a finite number (0 for a sound model; never dropped silently). ``token_sha256`` is
    the hash of the token ids of all windows as little-endian int32, before BOS replacement: equal ids give an equal
    hash. ``perplexity_error`` is one standard error, as llama-perplexity prints it. ``peak_memory_bytes`` is
    the peak RSS of the process that held the model; ``tokens_per_second`` is prompt speed while evaluating. ``sample``
    is what the model wrote in the smoke test of :mod:`quantpress.evaluation.sample`, at
    ``generation_tokens_per_second``.

    ``weights_bytes`` is the size of the weights as the engine holds them. ``dtype`` is their type if they are not
    quantized. ``peak_device_memory_bytes`` is the most memory that was allocated on a GPU; it is None on a processor.
    ``runner`` names the processor and its threads, or the GPU. Fields that older records lack are None.
    """

    protocol: Protocol
    engine: str
    engine_version: str
    perplexity: Figure
    perplexity_error: Figure
    scored_tokens: int
    non_finite: int = 0
    token_sha256: str
    divergence: Divergence | None = None
    seconds: float
    peak_memory_bytes: int
    tokens_per_second: float
    sample: str | None = None
    generation_tokens_per_second: float | None = None
    weights_bytes: int | None = None
    peak_device_memory_bytes: int | None = None
    dtype: str | None = None
    runner: str | None = None

    @property
    def memory_bytes(self) -> int:
        """Peak memory of what held the weights: the GPU, or the process that measured."""
        return self.peak_device_memory_bytes or self.peak_memory_bytes
