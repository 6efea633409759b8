"""A measurement of a model: the protocol that it followed and the figures that it gave."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator

from quantpress.record.base import Record
from quantpress.record.bounds import Finite, Name, Sha256, Size

#: The program that loads a model, to measure it or to let it write text.
Engine = Literal["transformers", "llama.cpp", "exllamav3", "exllamav2"]

#: This number goes up when anything changes that decides a figure. Variants with figures of another version are
#: measured again. In version 2, the divergence of every engine is measured from one base: the log-probabilities of the
#: unquantized model, by transformers in float32. In version 1, each engine's divergence was measured from that engine's
#: own base.
PROTOCOL_VERSION = 2


def _same_nan(value: float) -> float:
    return math.nan if math.isnan(value) else value


#: A figure is NaN if no position gave a number. The NaN is always the same object, so that a record equals itself after
#: it was written and read back.
Figure = Annotated[float, AfterValidator(_same_nan)]


class Protocol(Record):
    """The procedure of llama-perplexity: the text is cut into windows that do not overlap, and the second half of each
    window is scored.

    ``text`` names the evaluation text (``wikitext-2-raw-test`` or ``pydoc-topics``). ``text_sha256`` is the hash of the
    text's bytes. ``windows`` is the number of windows, counted from the text's start. Each window has ``n_ctx`` tokens.
    Figures are compared only if all five fields are equal.
    """

    text: Name
    text_sha256: Sha256
    n_ctx: Size = 512
    windows: Size
    version: int = PROTOCOL_VERSION


class Divergence(Record):
    """The Kullback-Leibler divergence from the unquantized model, in nats per token, and related figures.

    ``same_top`` is the share (0 to 1) of scored positions at which both models find the same token most likely.
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

    ``scored_tokens`` is ``windows * (n_ctx - 1 - n_ctx // 2)``. ``non_finite`` counts the scored positions whose loss
    was not a finite number. It is 0 for a sound model. These positions are never dropped silently. ``token_sha256``
    is the hash of the token ids of all windows as little-endian int32, before BOS replaces the first token of a window.
    Equal ids give an equal hash. ``perplexity_error`` is one standard error, as llama-perplexity prints it.

    ``peak_memory_bytes`` is the peak RSS of the process that held the model. ``tokens_per_second`` is the prompt speed
    during the evaluation. ``sample`` is the text that the model wrote in the smoke test of
    :mod:`quantpress.evaluation.sample`, at ``generation_tokens_per_second``.

    ``weights_bytes`` is the size of the weights as the engine holds them. ``dtype`` is the type of the weights if they
    are not quantized. ``peak_device_memory_bytes`` is the most memory that was allocated on a GPU, or None if a
    processor ran the model. ``runner`` names the processor and its threads, or the GPU. If an older record lacks a
    field, the field is None.
    """

    protocol: Protocol
    engine: str
    engine_version: str
    perplexity: Figure
    perplexity_error: Figure
    scored_tokens: Size
    non_finite: Size = 0
    token_sha256: Sha256
    divergence: Divergence | None = None
    seconds: Finite
    peak_memory_bytes: Size
    tokens_per_second: float
    sample: str | None = None
    generation_tokens_per_second: float | None = None
    weights_bytes: Size | None = None
    peak_device_memory_bytes: Size | None = None
    dtype: str | None = None
    runner: str | None = None

    @property
    def memory_bytes(self) -> int:
        """The peak memory of the GPU that held the weights. Without a GPU, the peak memory of the process that
        measured."""
        return self.peak_device_memory_bytes or self.peak_memory_bytes
