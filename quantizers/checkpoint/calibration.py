"""Cuts the calibration text into the windows of tokens that quantizers calibrate on."""

from __future__ import annotations

from pathlib import Path

from quantizers.protocol import CalibrationText
from quantpress.errors import BadInput


def calibration_windows(source: Path, calibration: CalibrationText) -> list[list[int]]:
    """Returns ``calibration.samples`` windows of ``calibration.length`` token ids. The windows are evenly spread over
    the text.

    The whole text is tokenized once, in the same way as in the evaluation. Special tokens in the text count as plain
    text. If the tokenizer adds a BOS token, BOS replaces the first token of each window. All windows have the same
    length, because with different lengths GPTQModel's AWQ keeps only the last sample of a layer's inputs.

    Raises :class:`BadInput` if the text is too short.
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
