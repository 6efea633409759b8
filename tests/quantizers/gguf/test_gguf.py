from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from quantizers import quantizer
from quantizers.gguf.imatrix import make_imatrix, read_report
from quantizers.gguf.ladder import RUNGS
from quantizers.gguf.llama_quantize import quantize_alone
from quantizers.gguf.types import storage_types
from quantizers.protocol import CalibrationText, Job, Output, Result
from quantpress.errors import BadInput, ChildFailed, QuantpressError, Refused
from quantpress.files import sha256_of
from quantpress.machine.child import run_child
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.options import processor_options

NAME = "Tiny-1.0_x"


def make_job(source: Path, folder: Path, text: Path, rung: str = "Q4_K_M", **changes: object) -> Job:
    calibration = CalibrationText(name="english", path=text, sha256=sha256_of(text), samples=2, length=128)
    job = Job(
        step="quantize",
        variant=quantizer("gguf").variant(rung, {}),
        model_name=NAME,
        source=source,
        prepared=folder / "prepared",
        out=folder / rung,
        calibration=calibration,
        threads=2,
        device="cpu",
    )
    return job.model_copy(update=changes)


def quantize(job: Job) -> Output:
    job.out.mkdir(parents=True, exist_ok=True)
    return quantizer("gguf").quantize(job)


@pytest.fixture(scope="module")
def prepared(llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``prepared`` was made by the quantizer's child process."""
    folder = tmp_path_factory.mktemp("gguf")
    job = make_job(tiny_model, folder, english, step="prepare")
    assert run_child("quantizers.job", job, Result, folder / "job").output is None
    return folder


@pytest.mark.slow
def test_what_all_rungs_share_is_made_once(prepared: Path) -> None:
    files = sorted(path.name for path in (prepared / "prepared").iterdir())

    assert files == [f"{NAME}-F16.gguf", f"{NAME}.imatrix.gguf", f"{NAME}.imatrix.json", "ollama"]
    ollama = sorted(path.name for path in (prepared / "prepared" / "ollama").iterdir())
    assert ollama == ["params", "system", "template"]
    # 49152 x 576 weights in the embeddings, which are also the output, and 3,538,944 in each of the two layers.
    inside = storage_types(prepared / "prepared" / f"{NAME}-F16.gguf")
    assert inside.weights == {"F16": 35389440, "F32": 2880}
    assert inside.bits_per_weight == pytest.approx(16.0013, abs=1e-4)


@pytest.mark.slow
def test_the_imatrix_covers_every_matrix(prepared: Path) -> None:
    report = read_report(prepared / "prepared" / f"{NAME}.imatrix.gguf")

    assert (report.windows, report.window_tokens) == (2, 128)
    assert report.tensors == 14
    assert report.unused == []


@pytest.mark.slow
def test_a_rung_says_what_is_really_in_it(tiny_model: Path, prepared: Path, english: Path, tmp_path: Path) -> None:
    output = quantize(make_job(tiny_model, prepared, english, "Q4_K_M", out=tmp_path))

    # The width 576 is no multiple of 256: most matrices fall back to another type.
    assert output.files == [f"{NAME}-Q4_K_M.gguf"]
    assert output.tensor_types == {
        "Q8_0": 28422144,
        "Q5_0": 5197824,
        "Q4_K": 884736,
        "Q6_K": 884736,
        "F32": 2880,
    }
    assert output.bits_per_weight == pytest.approx(7.913, abs=0.001)
    assert output.details["fallbacks"] == 12
    assert output.details["weights"] == 35392320
    assert output.details["imatrix"]["windows"] == 2
    assert output.details["imatrix"]["sha256"] == sha256_of(prepared / "prepared" / f"{NAME}.imatrix.gguf")
    assert [path.name for path in tmp_path.iterdir()] == output.files


@pytest.mark.slow
def test_a_rung_made_twice_elsewhere_is_the_same_file(
    tiny_model: Path, prepared: Path, english: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared / "prepared", tmp_path / "elsewhere" / "prepared")
    first = make_job(tiny_model, prepared, english, "IQ3_M", out=tmp_path / "a")
    second = make_job(tiny_model, tmp_path / "elsewhere", english, "IQ3_M", out=tmp_path / "b", threads=1)

    name = quantize(first).files[0]
    quantize(second)

    data = (tmp_path / "a" / name).read_bytes()
    assert data == (tmp_path / "b" / name).read_bytes()
    # No path of this machine is stored in a file that will be published.
    assert str(tmp_path).encode() not in data
    assert str(prepared).encode() not in data
    assert b"/tmp" not in data[: 1 << 22]


@pytest.mark.slow
def test_a_tool_killed_midway_leaves_nothing(llama_cpp: LlamaCpp, prepared: Path, tmp_path: Path) -> None:
    def kill_when_it_runs() -> None:
        for _ in range(2000):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    name, parent = (process / "comm").read_text(), (process / "stat").read_text().rpartition(")")[2]
                except OSError:
                    continue
                writes = list(tmp_path.glob(".*.tmp"))
                if name.strip() == "llama-quantize" and int(parent.split()[1]) == os.getpid() and writes:
                    os.kill(int(process.name), signal.SIGKILL)
                    return
            time.sleep(0.002)

    killer = threading.Thread(target=kill_when_it_runs)
    killer.start()
    folder, file = prepared / "prepared", tmp_path / "Q6_K.gguf"
    model, imatrix = folder / f"{NAME}-F16.gguf", folder / f"{NAME}.imatrix.gguf"
    with pytest.raises(ChildFailed, match="llama-quantize was killed by SIGKILL"):
        quantize_alone(llama_cpp, model, imatrix, RUNGS["Q6_K"], file, 2)
    killer.join()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("words", "windows"), [(20, 0), (60, 2)])
def test_too_little_calibration_text_is_said(
    llama_cpp: LlamaCpp, prepared: Path, tmp_path: Path, words: int, windows: int
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("One and two and three. " * words)
    text = CalibrationText(name="short", path=short, sha256=sha256_of(short), samples=3, length=128)
    model = tmp_path / "F16.gguf"
    model.symlink_to(prepared / "prepared" / f"{NAME}-F16.gguf")

    with pytest.raises(BadInput, match=f"short has {windows} windows of 128 tokens, and 3 are asked for"):
        make_imatrix(llama_cpp, model, text, tmp_path / "im.gguf", processor_options(2, "cpu"))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["F16.gguf", "short.txt"]


def test_a_source_without_safetensors_is_refused(llama_cpp: LlamaCpp, english: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    job = make_job(source, tmp_path, english, step="prepare")
    job.prepared.mkdir()

    with pytest.raises(Refused, match="holds no safetensors file"):
        quantizer("gguf").prepare(job)


def test_an_unknown_architecture_is_refused_before_anything_is_made(
    llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "config.json").write_text('{"architectures": ["NobodyForCausalLM"], "num_hidden_layers": 1}')
    job = make_job(source, tmp_path, english, step="prepare")
    job.prepared.mkdir()

    with pytest.raises(Refused, match="does not know the architecture NobodyForCausalLM"):
        quantizer("gguf").prepare(job)

    assert list(job.prepared.iterdir()) == []


@pytest.mark.parametrize("name", ["../up", "a/b", "-flag", "", "a b"])
def test_a_name_that_is_no_file_name_is_refused(name: str, english: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a plain file name"):
        quantize(make_job(tmp_path, tmp_path, english, model_name=name))


def test_an_imatrix_with_a_broken_sum_or_an_unused_expert(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    def write(sums: list[float], counts: list[float]) -> Path:
        writer = gguf.GGUFWriter(tmp_path / "im.gguf", "none")
        writer.add_uint32("imatrix.chunk_count", 3)
        writer.add_uint32("imatrix.chunk_size", 64)
        writer.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", np.array(sums, dtype=np.float32))
        writer.add_tensor("blk.0.ffn_up_exps.weight.counts", np.array(counts, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "im.gguf"

    assert read_report(write([1, 2], [3, 0])).unused == ["blk.0.ffn_up_exps.weight"]
    with pytest.raises(QuantpressError, match=r"non-finite values in 1 tensors \(blk.0.ffn_up_exps.weight.in_sum2"):
        read_report(write([1, float("nan")], [3, 3]))


@pytest.mark.slow
def test_rungs_load_and_speak_english(llama_cpp: LlamaCpp, demo_model: Path, english: Path, tmp_path: Path) -> None:
    from quantpress.evaluation.engines.llama_cpp import generate

    job = make_job(demo_model, tmp_path, english, step="prepare")
    job.prepared.mkdir()
    quantizer("gguf").prepare(job)

    for rung in ("Q3_K_S", "Q8_0"):
        output = quantize(make_job(demo_model, tmp_path, english, rung))
        said = generate(llama_cpp, tmp_path / rung / output.files[0], "The capital of France is", 8, 2).text
        assert said.startswith("Paris"), (rung, said)
