"""The importance matrix is made in segments. If a call is killed, the next call goes on where it stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from quantizers.gguf import imatrix
from quantizers.gguf.convert import convert
from quantizers.gguf.imatrix import ImatrixReport, make_imatrix, read_report, segments
from quantizers.protocol import CalibrationText
from quantpress.errors import BadInput
from quantpress.files import sha256_of
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

OPTIONS = ["--threads", "2"]


def test_segments_cover_every_window_once() -> None:
    assert segments(2) == [(0, 2)]
    assert segments(34) == [(0, 34)]  # llama-imatrix would not start on the last two windows
    assert segments(35) == [(0, 32), (32, 35)]
    assert segments(128) == [(0, 32), (32, 64), (64, 96), (96, 128)]


@pytest.fixture(scope="module")
def model(llama_cpp: LlamaCpp, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("imatrix") / "Tiny-F16.gguf"
    convert(llama_cpp, tiny_model, "Tiny", "F16", file)
    return file


def calibration(text: Path, samples: int) -> CalibrationText:
    return CalibrationText(name="english", path=text, sha256=sha256_of(text), samples=samples, length=64)


@pytest.mark.slow
def test_a_killed_one_goes_on_and_is_the_file_of_one_run(
    llama_cpp: LlamaCpp, model: Path, english: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.parent
    text = calibration(english, 10)
    # A user would call the tool like this, once over all windows.
    (folder / "calibration.txt").symlink_to(english)
    command = [str(llama_cpp.imatrix), "-m", model.name, "-f", "calibration.txt", "-o", "plain.gguf", "--no-ppl"]
    command += ["--output-format", "gguf", "--chunks", "10", "-c", "64", "-b", "64", *OPTIONS]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    monkeypatch.setattr(imatrix, "_SEGMENT", 3)
    calls: list[list[str]] = []

    def killed_in_the_third(command: list[str | Path], folder: Path, on_line: Callable[[str], None]) -> str:
        calls.append([str(part) for part in command])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_tool(command, folder, on_line)

    monkeypatch.setattr(imatrix, "run_tool", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        make_imatrix(llama_cpp, model, text, folder / "Tiny.imatrix.gguf", OPTIONS)
    assert sorted(path.name for path in folder.iterdir()) == [
        "Tiny-F16.gguf",
        "Tiny.imatrix.partial.gguf",
        "plain.gguf",
    ]
    assert read_report(folder / "Tiny.imatrix.partial.gguf").windows == 6

    report = make_imatrix(llama_cpp, model, text, folder / "Tiny.imatrix.gguf", OPTIONS)

    assert report == ImatrixReport(windows=10, window_tokens=64, tensors=14, unused=[])
    assert [call[call.index("--chunks") + 1] for call in calls] == ["3", "3", "4", "4"]
    assert (folder / "Tiny.imatrix.gguf").read_bytes() == (folder / "plain.gguf").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["Tiny-F16.gguf", "Tiny.imatrix.gguf", "plain.gguf"]


@pytest.mark.slow
def test_too_little_text_is_said(
    llama_cpp: LlamaCpp, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imatrix, "_SEGMENT", 3)
    for words, windows in ((64 * 5 + 10, "5"), (64 * 4, "at most 5")):
        folder = tmp_path / windows
        folder.mkdir()
        (folder / model.name).symlink_to(model)
        text = folder / "short.txt"
        text.write_text(" the" * words)
        with pytest.raises(BadInput, match=f"english has {windows} windows of 64 tokens, and 9 are asked for"):
            make_imatrix(llama_cpp, folder / model.name, calibration(text, 9), folder / "im.gguf", OPTIONS)
        assert not (folder / "im.gguf").exists()


def test_what_no_token_reached_is_named(llama_cpp: LlamaCpp, english: Path, tmp_path: Path) -> None:
    """The report names an expert that no token chose and a matrix that never ran. Vectors and what lies outside the
    layers need no imatrix."""
    matrix, vector = np.ones((4, 32), np.float16), np.ones(32, np.float32)
    model = {
        "token_embd.weight": matrix,
        "blk.0.attn_norm.weight": vector,
        "blk.0.attn_q.weight": matrix,
        "blk.0.ffn_up_exps.weight": np.ones((2, 4, 32), np.float16),
        "blk.1.nextn.eh_proj.weight": matrix,
    }
    sums = {
        "blk.0.attn_q.weight.in_sum2": np.ones((1, 32), np.float32),
        "blk.0.attn_q.weight.counts": np.full((1, 1), 128, np.float32),
        "blk.0.ffn_up_exps.weight.in_sum2": np.ones((2, 32), np.float32),
        "blk.0.ffn_up_exps.weight.counts": np.array([[128], [0]], np.float32),
    }
    for name, tensors in (("model.gguf", model), ("im.gguf", sums)):
        writer = GGUFWriter(tmp_path / name, "llama")
        writer.add_uint32("imatrix.chunk_count", 2)
        writer.add_uint32("imatrix.chunk_size", 64)
        # llama-quantize reads these keys of any model before it says what it would quantize.
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_block_count(2)
        writer.add_feed_forward_length(4)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        for key, data in tensors.items():
            writer.add_tensor(key, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    report = make_imatrix(llama_cpp, tmp_path / "model.gguf", calibration(english, 2), tmp_path / "im.gguf", OPTIONS)

    assert report.unused == ["blk.0.ffn_up_exps.weight", "blk.1.nextn.eh_proj.weight"]
