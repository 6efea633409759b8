"""Waves of the GGUF quantizer (rungs that one run makes together).

Finished files stay, a rung that llama-quantize made says why, and a rung with another rung's bytes is its alias.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter

from quantizers import quantizer
from quantizers.gguf.quantizer import imatrix_file, rung_file
from quantizers.protocol import CalibrationText, Job, Layout, Result
from quantpress.files import sha256_of
from quantpress.machine.child import run_child
from quantpress.toolchain.llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow

NAME = "Tiny"


@pytest.fixture(scope="module")
def prepared(llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    job = job_of("Q8_0", tiny_model, folder, folder / "out", english).model_copy(update={"step": "prepare"})
    run_child("quantizers.job", job, Result, folder.parent / "job")
    return folder


def job_of(rung: str, source: Path, prepared: Path, out: Path, text: Path) -> Job:
    return Job(
        step="quantize",
        variant=quantizer("gguf").variant(rung, {}),
        model_name=NAME,
        source=source,
        prepared=prepared,
        out=out,
        calibration=CalibrationText(name="english", path=text, sha256=sha256_of(text), samples=2, length=64),
        threads=2,
        device="cpu",
    )


def test_a_wave_that_was_killed_goes_on_from_its_whole_files(
    tiny_model: Path, prepared: Path, english: Path, tmp_path: Path
) -> None:
    jobs = [job_of(rung, tiny_model, prepared, tmp_path / rung, english) for rung in ("Q4_0", "Q8_0", "IQ4_NL")]
    for job in jobs:
        job.out.mkdir()
    next(iter(quantizer("gguf").quantize_wave(jobs[:2])))  # killed here: both files exist, one result is known
    before = {job.variant.name: rung_file(job).stat().st_ino for job in jobs[:2]}
    half = jobs[2].out / f".{rung_file(jobs[2]).name}.1.tmp"
    half.write_bytes(b"half")

    outputs = list(quantizer("gguf").quantize_wave(jobs))

    assert {job.variant.name: rung_file(job).stat().st_ino for job in jobs[:2]} == before
    assert [output.files for output in outputs] == [["Tiny-Q4_0.gguf"], ["Tiny-Q8_0.gguf"], ["Tiny-IQ4_NL.gguf"]]
    assert [sorted(path.name for path in job.out.iterdir()) for job in jobs] == [output.files for output in outputs]
    assert all("by_llama_quantize" not in output.details for output in outputs)


def test_a_rung_that_the_engine_cannot_make_says_why(
    tiny_model: Path, prepared: Path, english: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "prepared"
    shutil.copytree(prepared, elsewhere)
    without(imatrix_file(elsewhere, NAME), "blk.0.ffn_down.weight")
    jobs = [job_of(rung, tiny_model, elsewhere, tmp_path / rung, english) for rung in ("IQ3_XS", "Q8_0")]
    for job in jobs:
        job.out.mkdir()

    low, high = quantizer("gguf").quantize_wave(jobs)

    reason = "the imatrix has nothing for blk.0.ffn_down.weight, which would be IQ3_S"
    assert (low.files, low.details["by_llama_quantize"]) == (["Tiny-IQ3_XS.gguf"], reason)
    assert "by_llama_quantize" not in high.details


def without(imatrix: Path, tensor: str) -> None:
    """Takes one tensor out of an imatrix."""
    reader = GGUFReader(imatrix)
    writer = GGUFWriter(imatrix.with_suffix(".new"), "imatrix")
    writer.add_uint32("imatrix.chunk_count", int(reader.fields["imatrix.chunk_count"].contents()))
    writer.add_uint32("imatrix.chunk_size", int(reader.fields["imatrix.chunk_size"].contents()))
    writer.add_array("imatrix.datasets", ["english"])
    for each in reader.tensors:
        if not each.name.startswith(tensor):
            writer.add_tensor(each.name, each.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    imatrix.with_suffix(".new").replace(imatrix)


def test_what_is_published_keeps_its_file_and_others_of_its_bytes_are_its_aliases(
    tiny_model: Path, prepared: Path, english: Path, tmp_path: Path
) -> None:
    gguf, job = quantizer("gguf"), job_of("Q8_0", tiny_model, prepared, tmp_path, english)
    middle, large, other = (gguf.variant(name, {}) for name in ("Q4_K_M", "Q4_K_L", "Q8_0"))

    assert gguf.layout(job, [middle, large], [], None) == Layout(waves=[["Q4_K_M"]], aliases={"Q4_K_L": "Q4_K_M"})
    assert gguf.layout(job, [middle, other], [large], None) == Layout(waves=[["Q8_0"]], aliases={"Q4_K_M": "Q4_K_L"})


def test_an_alias_of_a_rung_beyond_the_disk_budget_is_refused_with_it(
    tiny_model: Path, prepared: Path, english: Path, tmp_path: Path
) -> None:
    gguf, job = quantizer("gguf"), job_of("Q8_0", tiny_model, prepared, tmp_path, english)

    layout = gguf.layout(job, [gguf.variant(name, {}) for name in ("Q4_K_M", "Q4_K_L")], [], 1_000_000)

    reason = "its file of 0.04 GB would take more than the disk budget"
    assert layout == Layout(waves=[], refused={"Q4_K_M": reason, "Q4_K_L": reason})
