"""Measures a checkpoint folder with transformers, in the same way as llama-perplexity measures.

The whole text is tokenized once. If the text contains special tokens, they are read as plain text. Each window is a
separate sequence. If the tokenizer adds a BOS token, BOS replaces the first token of each window. The predictions of
positions ``n_ctx // 2`` to ``n_ctx - 2`` are scored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quantpress.errors import BadInput
from quantpress.evaluation.divergence import summary, token_divergences
from quantpress.evaluation.engines.architecture import auto_class
from quantpress.evaluation.engines.kernels import plain_kernels
from quantpress.evaluation.engines.strict import strict_loading
from quantpress.evaluation.engines.torch_runtime import continued, peak_device_bytes, weights_bytes
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.logits import LogitsWriter, read_header, read_windows, token_sha256, write_logits
from quantpress.evaluation.perplexity import (
    Logits,
    Tokens,
    cut_windows,
    first_scored,
    perplexity,
    token_losses,
)
from quantpress.evaluation.runner import runner_name
from quantpress.evaluation.sample import PROMPT, TOKENS
from quantpress.machine.peak_memory import own_peak_bytes
from quantpress.record.measurement import Evaluation
from quantpress.source.weight_files import weight_paths

#: Windows in one forward pass. A quantized linear layer unpacks its weights once per pass, for any number of windows.
_WINDOWS_PER_PASS = 4

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class TokenizedText:
    """A text cut into windows. ``windows`` holds the token ids, int32 ``[windows, n_ctx]``, as the tokenizer gave them.
    If ``bos`` is not None, this id must replace the first token of each window."""

    windows: Tokens
    bos: int | None


def evaluate(job: EvaluationJob) -> Evaluation:
    """Measures ``job.model`` as ``job.protocol`` says.

    Raises :class:`BadInput` if the text has too few tokens for the windows, or ``job.base_logits`` was made from other
    tokens.
    """
    text = tokenize(job.model, job.text, job.protocol.n_ctx, job.protocol.windows)
    model = load_model(job.model, job.device, job.threads, _dtype(job))
    tokenizer = load_tokenizer(job.model)
    sample = continued(model, tokenizer, tokenizer(PROMPT, return_tensors="pt"), TOKENS)
    return measure(model, text, job).model_copy(
        update={"sample": sample.text, "generation_tokens_per_second": sample.tokens_per_second}
    )


def tokenize(model: Path, text: Path, n_ctx: int, windows: int) -> TokenizedText:
    """Tokenizes a text as llama.cpp does, and cuts it into windows.

    If the tokenizer adds a BOS token, BOS comes before the text. Special tokens in the text are read as plain text.

    Raises :class:`BadInput` if the text is too short.
    """
    tokenizer = load_tokenizer(model)
    bos = added_bos(tokenizer)
    plain = tokenizer(
        text.read_text(encoding="utf-8"), add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return TokenizedText(cut_windows(plain if bos is None else [bos, *plain], n_ctx, windows), bos)


def added_bos(tokenizer: Any) -> int | None:
    """Returns the id of the BOS token that the tokenizer puts before every text, or None if it puts none there."""
    plain, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    return int(whole[0]) if whole[0] == tokenizer.bos_token_id and whole[:1] != plain[:1] else None


def load_tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)


def load_model(model: Path, device: Device, threads: int, dtype: Literal["auto", "float32"] | None = None) -> Any:
    """Loads the checkpoint for inference, from safetensors only.

    The default dtype is float32 on the CPU, and the stored dtype on CUDA. Raises
    :class:`~quantpress.errors.Refused` if the files lack a tensor that the model needs.
    """
    import torch

    torch.set_num_threads(threads)
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    chosen = auto_class(model)
    with strict_loading():
        loaded = chosen.from_pretrained(
            str(model),
            device_map={"": "cuda:0" if device == "cuda" else "cpu"},
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **(plain_kernels(model) if device == "cuda" else {}),
        )
    if dtype == "float32":
        _widen_torchao(loaded)
    return loaded.eval()


def _widen_torchao(model: Any) -> None:
    """Converts torchao's weights to float32, so that they take float32 inputs.

    torchao's weights keep the dtype that they were saved with, even if the model is loaded in another dtype. The inputs
    of a linear layer must have the dtype of its weights.
    """
    import torch

    if "torchao" not in str(getattr(model.config, "quantization_config", None)):
        return
    from torchao.quantization import IntxUnpackedToInt8Tensor

    for module in model.modules():
        if isinstance(getattr(module, "weight", None), IntxUnpackedToInt8Tensor):
            module.weight = torch.nn.Parameter(module.weight.to(torch.float32), requires_grad=False)


def _dtype(job: EvaluationJob) -> Literal["auto", "float32"]:
    """Returns the dtype to load: float32 on the CPU, and the stored dtype ("auto") on CUDA.

    A model that makes the base (the log-probabilities from which divergence is measured) is loaded in float32 on CUDA
    too, if the GPU has room. The GPU has room if its free memory holds twice the stored bytes plus a tenth of its total
    memory. The stored bytes count twice, because 16-bit weights become 32-bit weights.
    """
    import torch

    if job.device == "cpu":
        return "float32"
    if job.save_logits is None:
        return "auto"
    free, total = torch.cuda.mem_get_info()
    stored = sum(file.stat().st_size for file in weight_paths(job.model))
    return "float32" if 2 * stored < free - total // 10 else "auto"


def measure(model: Any, text: TokenizedText, job: EvaluationJob) -> Evaluation:
    """Measures a loaded model on a tokenized text.

    ``job`` names the base file to compare with, or the file into which to write the log-probabilities, if any.
    """
    started = time.monotonic()
    losses, divergences, same_tops = [], [], []
    clock = _Clock()
    base = iter(_base_windows(job.base_logits, text.windows)) if job.base_logits else None
    with ExitStack() as stack:
        writer: LogitsWriter | None = None
        for index, logits in enumerate(_scored_logits(model, text, clock)):
            if job.save_logits and writer is None:
                writer = stack.enter_context(write_logits(job.save_logits, text.windows, logits.shape[1]))
            losses.append(token_losses(logits, text.windows[index, -len(logits) :]))
            if writer:
                writer.write_window(logits)
            if base:
                values, same_top = token_divergences(logits, next(base))
                divergences.append(values)
                same_tops.append(same_top)
            _report(index + 1, text.windows.shape[0], np.concatenate(losses), time.monotonic() - started)
    found = perplexity(np.concatenate(losses))
    return Evaluation(
        protocol=job.protocol,
        engine="transformers",
        engine_version=f"{version('transformers')}, torch {version('torch')}",
        perplexity=found.value,
        perplexity_error=found.error,
        scored_tokens=found.scored,
        non_finite=found.non_finite,
        token_sha256=token_sha256(text.windows),
        divergence=summary(np.concatenate(divergences), np.concatenate(same_tops)) if divergences else None,
        seconds=time.monotonic() - started,
        peak_memory_bytes=own_peak_bytes(),
        tokens_per_second=text.windows.size / clock.seconds,
        weights_bytes=weights_bytes(model),
        peak_device_memory_bytes=peak_device_bytes(),
        dtype=str(model.dtype).removeprefix("torch."),
        runner=runner_name(job.device, job.threads),
    )


@dataclass
class _Clock:
    """The seconds that the model's forward passes took."""

    seconds: float = 0.0


def _scored_logits(model: Any, text: TokenizedText, clock: _Clock) -> Iterator[Logits]:
    """Yields, for each window, the logits of the scored positions, float32 ``[rows, n_vocab]``."""
    import inspect

    import torch

    windows, n_ctx = text.windows.shape
    kept = n_ctx - first_scored(n_ctx)
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = kept
    for start in range(0, windows, _WINDOWS_PER_PASS):
        ids = torch.from_numpy(text.windows[start : start + _WINDOWS_PER_PASS].astype(np.int64))
        if text.bos is not None:
            ids[:, 0] = text.bos
        began = time.monotonic()
        with torch.inference_mode():
            logits = model(ids.to(model.device), **options).logits
            # The last position predicts the next window's first token, which is not scored.
            scored = logits[:, -kept:-1].float().cpu().numpy()
        clock.seconds += time.monotonic() - began
        yield from scored


def _base_windows(base: Path, windows: Tokens) -> Iterator[Logits]:
    header = read_header(base)
    if not np.array_equal(header.tokens, windows):
        raise BadInput(
            f"{base} was made of other tokens than this model's tokenizer gives:"
            " measure the unquantized model again under this protocol"
        )
    return read_windows(base)


def _report(done: int, windows: int, losses: Any, elapsed: float) -> None:
    left = elapsed / done * (windows - done)
    print(f"window {done}/{windows}: perplexity {perplexity(losses).value:.4f}, {left:.0f} s left", flush=True)
