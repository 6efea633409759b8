"""The windows of tokens that GPTQ and AWQ calibrate on."""

from __future__ import annotations

from pathlib import Path

from quantizers.protocol import CalibrationText
from quantpress.errors import BadInput


def calibration_windows(source: Path, calibration: CalibrationText) -> list[list[int]]:
    """``calibration.samples`` windows of ``calibration.length`` token ids, evenly spread over the text.

    The text is tokenized once, in the same way as in the evaluation: special tokens in it are plain text, and BOS
    replaces each window's first token if the tokenizer adds one. All windows have the same length, because GPTQModel's
    AWQ keeps only the last sample of a layer's inputs when lengths differ.

    Raises :class:`BadInput` when the text is too short.
    """
    from quantpress.evaluation.engines.transformers import added_bos, load_tokenizer

    tokenizer = load_tokenizer(source)
    text = calibration.path.read_text(encoding="utf-8")
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    length, samples = calibration.length, calibration.samples
    available = len(ids) // length
    if available < samples:
        raise BadInput(
            f"calibration text {calibration.name} has {len(ids)} tokens, {available} windows of {length}, but"
            f" {samples} are asked for: give a longer text or ask for fewer or shorter windows"
        )
    starts = [index * available // samples * length for index in range(samples)]
    windows = [ids[start : start + length] for start in starts]
    bos = added_bos(tokenizer)
    return windows if bos is None else [[bos, *window[1:]] for window in windows]
