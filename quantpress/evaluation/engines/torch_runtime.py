"""Measures the memory and the speed of a model that PyTorch loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Continuation:
    """What a model added to a prompt.

    ``tokens_per_second`` is the speed from the first added token to the last. It is None for fewer than two tokens.
    """

    text: str
    tokens_per_second: float | None


@dataclass
class _Stopwatch:
    """Notes when each token is known. transformers calls ``put`` for the prompt, then for each new token."""

    times: list[float] = field(default_factory=list)

    def put(self, _: Any) -> None:
        self.times.append(time.monotonic())

    def end(self) -> None:
        """Does nothing: no text is buffered."""

    @property
    def tokens_per_second(self) -> float | None:
        tokens = self.times[1:]
        if len(tokens) < 2 or tokens[-1] == tokens[0]:
            return None
        return (len(tokens) - 1) / (tokens[-1] - tokens[0])


def continued(model: Any, tokenizer: Any, inputs: Any, tokens: int) -> Continuation:
    """Continues one tokenized prompt greedily by up to ``tokens`` tokens.

    The returned text omits the prompt and special tokens. On a CPU, the model runs with one thread, because generating
    one token at a time takes many small steps. On busy cores, several threads waited for each other and took 30 s. One
    thread did the same work in 1 s (16 tokens of SmolLM2-135M, 2 cores at load 6).
    """
    import torch

    inputs, watch = inputs.to(model.device), _Stopwatch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, streamer=watch)
    finally:
        torch.set_num_threads(threads)
    text = str(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()
    return Continuation(text, watch.tokens_per_second)


def weights_bytes(model: Any) -> int:
    """Returns the bytes that a model's parameters and buffers take in memory. Tied parameters count once."""
    return sum(_held_bytes(tensor) for tensor in [*model.parameters(), *model.buffers()])


def _held_bytes(tensor: Any) -> int:
    """Returns the bytes that a tensor takes in memory. A quantized tensor consists of several tensors, which all count.

    The quantized tensors of torchao are subclasses of ``Tensor`` that name their parts. The 4-bit parameters of
    bitsandbytes carry their scales in ``quant_state``.
    """
    import torch

    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_held_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    own = int(tensor.nelement() * tensor.element_size())
    state = getattr(tensor, "quant_state", None)
    beside = state.as_dict().values() if state is not None else []
    return own + sum(_held_bytes(each) for each in beside if isinstance(each, torch.Tensor))


def peak_device_bytes() -> int | None:
    """Returns the most bytes that PyTorch has allocated on each GPU, added up, or None if no GPU was used."""
    import torch

    return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) or None
