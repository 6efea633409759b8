"""What measuring with ExLlamaV3 and measuring with ExLlamaV2 have in common.

Both engines use the code of the transformers engine, with a model object that calls ExLlama. Tokens, windows and
figures therefore come from the same code, and only the forward pass differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from quantpress.errors import Refused
from quantpress.evaluation.engines import transformers
from quantpress.evaluation.engines.torch_runtime import Continuation, continued
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.sample import PROMPT, TOKENS
from quantpress.record.measurement import Engine, Evaluation
from quantpress.source.safetensors import contents

#: A function that computes logits. Its arguments are token ids, int64 ``[batch, length]`` on the CPU, and the number of
#: positions at the end to return. It returns ``[batch, positions, n_vocab]`` on a GPU, float16 or float32.
Forward = Callable[[Any, int], Any]


@dataclass(frozen=True)
class ExLlamaModel:
    """A loaded ExLlama model. It has the part of a transformers model's interface that measuring and generating use."""

    forward_pass: Forward

    @property
    def device(self) -> Any:
        """The device for the token ids. It is the CPU, because ExLlama keeps the embeddings in CPU memory."""
        import torch

        return torch.device("cpu")

    @property
    def dtype(self) -> str:
        """The type of the activations and of the unquantized weights. Both packages fix it."""
        return "float16"

    def forward(self, ids: Any, *, logits_to_keep: int, use_cache: bool = False) -> SimpleNamespace:
        """Returns an object whose ``logits`` are those of the last ``logits_to_keep`` positions. Nothing is cached."""
        return SimpleNamespace(logits=self.forward_pass(ids, logits_to_keep))

    __call__ = forward

    def parameters(self) -> Iterator[Any]:
        """Yields nothing. :func:`measured` counts the weights in the files. In memory they have the same size."""
        return iter(())

    def buffers(self) -> Iterator[Any]:
        return iter(())

    def generate(
        self, input_ids: Any, *, max_new_tokens: int, do_sample: bool, streamer: Any, attention_mask: Any = None
    ) -> Any:
        """Generates greedily, without a cache: for each new token, the model reads all earlier tokens again.

        The recorded speed is therefore the speed without a cache.
        """
        import torch

        streamer.put(input_ids)
        ids = input_ids
        for _ in range(max_new_tokens):
            token = self.forward(ids, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True).cpu()
            streamer.put(token)
            ids = torch.cat([ids, token], dim=1)
        return ids


def require_cuda(device: str) -> None:
    """Raises :class:`Refused` if a job is for a CPU."""
    if device != "cuda":
        raise Refused("ExLlama's formats run on CUDA alone: needs a CUDA runner")


def measured(job: EvaluationJob, model: ExLlamaModel, engine: Engine, version: str) -> Evaluation:
    """Measures a loaded model as ``job.protocol`` says. Raises the errors of :func:`transformers.evaluate`."""
    text = transformers.tokenize(job.model, job.text, job.protocol.n_ctx, job.protocol.windows)
    sample = sampled(job.model, model, PROMPT, TOKENS)
    found = transformers.measure(model, text, job)
    return found.model_copy(
        update={
            "engine": engine,
            "engine_version": version,
            "sample": sample.text,
            "generation_tokens_per_second": sample.tokens_per_second,
            "weights_bytes": contents(job.model).bits // 8,
        }
    )


def sampled(folder: Path, model: ExLlamaModel, prompt: str, tokens: int) -> Continuation:
    """Returns what a loaded model adds to a prompt."""
    tokenizer = transformers.load_tokenizer(folder)
    return continued(model, tokenizer, tokenizer(prompt, return_tensors="pt"), tokens)
