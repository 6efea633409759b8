"""Files above the limit become parts. llama.cpp loads all parts if it gets the name of the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from quantizers import quantizer
from quantizers.gguf.convert import convert
from quantizers.gguf.imatrix import make_imatrix, read_report
from quantizers.gguf.quantizer import imatrix_file, report_file
from quantizers.gguf.split import split_above
from quantizers.gguf.unquantized import unquantized_file, unquantized_name
from quantizers.protocol import CalibrationText, Job, Output
from quantpress.errors import Refused
from quantpress.evaluation.engines.llama_cpp import evaluate, generate
from quantpress.evaluation.job import EvaluationJob
from quantpress.files import sha256_of
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.toolchain.llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow

#: In bytes. The Q8_0 file has 39.5 MB, of which its embeddings take 30.1 MB.
LIMIT = 33_000_000


@pytest.fixture(scope="module")
def prepared(llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    model, imatrix = folder / unquantized_name("Tiny", "F16"), imatrix_file(folder, "Tiny")
    convert(llama_cpp, tiny_model, "Tiny", "F16", model)
    make_imatrix(llama_cpp, model, calibration(english), imatrix, ["--threads", "2"])
    report_file(folder, "Tiny").write_text(read_report(imatrix).model_dump_json())
    return folder


def calibration(text: Path) -> CalibrationText:
    return CalibrationText(name="english", path=text, sha256=sha256_of(text), samples=2, length=64)


def make(source: Path, prepared: Path, english: Path, out: Path, limit: int | None) -> Output:
    out.mkdir()
    job = Job(
        step="quantize",
        variant=quantizer("gguf").variant("Q8_0", {}),
        model_name="Tiny",
        source=source,
        prepared=prepared,
        out=out,
        calibration=calibration(english),
        threads=2,
        device="cpu",
        split_above=limit,
    )
    return quantizer("gguf").quantize(job)


def measure(model: Path, text: Path) -> Evaluation:
    protocol = Protocol(text="english", text_sha256=sha256_of(text), windows=2)
    return evaluate(
        EvaluationJob(engine="llama.cpp", model=model, protocol=protocol, text=text, threads=2, device="cpu")
    )


def test_parts_are_the_model(
    llama_cpp: LlamaCpp, tiny_model: Path, prepared: Path, english: Path, tmp_path: Path
) -> None:
    whole = make(tiny_model, prepared, english, tmp_path / "whole", None)
    parts = make(tiny_model, prepared, english, tmp_path / "parts", LIMIT)

    assert whole.files == ["Tiny-Q8_0.gguf"]
    assert parts.files == ["Tiny-Q8_0-00001-of-00002.gguf", "Tiny-Q8_0-00002-of-00002.gguf"]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == parts.files
    assert all((tmp_path / "parts" / name).stat().st_size <= LIMIT for name in parts.files)
    assert parts.model_copy(update={"files": whole.files}) == whole
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "whole" / "Tiny-Q8_0.gguf").tensors}
    for name in parts.files:
        for tensor in GGUFReader(tmp_path / "parts" / name).tensors:
            assert np.array_equal(tensors.pop(tensor.name), tensor.data)
    assert not tensors

    first = tmp_path / "parts" / parts.files[0]
    assert measure(first, english).perplexity == measure(tmp_path / "whole" / whole.files[0], english).perplexity
    prompt = "The capital of France is"
    said = generate(llama_cpp, tmp_path / "whole" / whole.files[0], prompt, 8, 2).text
    assert generate(llama_cpp, first, prompt, 8, 2).text == said


def test_a_file_within_the_limit_stays(llama_cpp: LlamaCpp, prepared: Path) -> None:
    model = unquantized_file(prepared, "Tiny")
    size = model.stat().st_size
    assert split_above(llama_cpp, model, size) == [model]
    assert split_above(llama_cpp, model, None) == [model]
    assert model.stat().st_size == size


def test_a_tensor_above_the_limit_is_said(llama_cpp: LlamaCpp, prepared: Path) -> None:
    model = unquantized_file(prepared, "Tiny")
    with pytest.raises(
        Refused, match=r"Tiny-F16.gguf cannot be split into parts of 0.020 GB: its largest tensor has 0.057"
    ):
        split_above(llama_cpp, model, 20_000_000)
    assert model.exists()
