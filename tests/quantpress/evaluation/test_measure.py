"""`quantpress evaluate` with a base (the unquantized model). One measurement of the base serves every engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ByteSize

from quantizers.gguf.convert import convert
from quantpress.errors import BadInput
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.measure import measure
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.target import Target, local_target
from quantpress.evaluation.text import evaluation_text
from quantpress.machine.watch import Limits
from quantpress.record.measurement import Evaluation
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.toolchain.llama_cpp import LlamaCpp
from tests.support import samples

CONFIG = {"model_type": "llama", "vocab_size": 1_000}


def checkpoint(folder: Path) -> Target:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return local_target(folder)


def gguf_file(path: Path) -> Target:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_token_list([f"t{index}" for index in range(1_000)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return local_target(path)


def test_a_model_is_measured_by_the_protocol_of_the_press(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a vocabulary of 1,000 tokens, a window takes 510,000 bytes, so a budget of 4 MB holds 7 of 64 windows."""
    jobs: list[EvaluationJob] = []

    def run(module: str, job: EvaluationJob, result: type[Evaluation], folder: Path, limits: Limits) -> Evaluation:
        jobs.append(job)
        return samples.evaluation(16.1)

    monkeypatch.setattr("quantpress.evaluation.measure.run_child", run)
    settings = Settings(home=tmp_path / "home", windows=64, logits_budget=ByteSize(4_000_000), device="cpu", threads=1)

    text = evaluation_text(None, tmp_path / "texts")
    measure(checkpoint(tmp_path / "model"), text, settings)
    measure(gguf_file(tmp_path / "model.gguf"), text, settings)

    press = current_protocol(Source(samples.source(), CONFIG, ()), settings, text)
    assert press.windows == 7
    assert [job.protocol for job in jobs] == [press, press]


def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not a model, " * 10)
    with pytest.raises(BadInput, match=r"text\.gguf: not a GGUF file \(it does not begin with GGUF\): download"):
        local_target(tmp_path / "text.gguf").vocabulary()


@pytest.mark.slow
def test_one_base_serves_two_engines(llama_cpp: LlamaCpp, tiny_model: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", windows=2, device="cpu", threads=2)
    convert(llama_cpp, tiny_model, "tiny", "F16", tmp_path / "tiny-F16.gguf")
    base = local_target(tiny_model)

    text = evaluation_text(None, tmp_path / "texts")
    gguf = measure(local_target(tmp_path / "tiny-F16.gguf"), text, settings, base)
    (kept,) = (tmp_path / "home" / "bases").glob("[0-9a-f]*")
    made = kept.stat().st_ino
    itself = measure(base, text, settings, base)

    assert [each.stat().st_ino for each in (tmp_path / "home" / "bases").glob("[0-9a-f]*")] == [made]
    assert gguf.divergence is not None and itself.divergence is not None
    # The divergence through another engine's arithmetic is far below the 0.004 that Q8_0 loses (docs/evaluation.md).
    assert abs(gguf.divergence.mean) < 1e-3
    assert abs(itself.divergence.mean) < 1e-5
    assert gguf.token_sha256 == itself.token_sha256
    assert gguf.perplexity == pytest.approx(itself.perplexity, rel=1e-3)
    assert list((tmp_path / "home" / "scratch").iterdir()) == []
