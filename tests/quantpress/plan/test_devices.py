"""GPUs as nvidia-smi lists them. The tests put a stand-in for nvidia-smi on the search path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantizers import quantizer
from quantizers.protocol import Variant
from quantpress.errors import Refused
from quantpress.plan.devices import largest_gpu, require_device
from quantpress.record.manifest import SourceRecord
from quantpress.settings import Settings
from quantpress.source.source import Source, SourceFile
from tests.support import samples

Gpus = Callable[[str], None]
WITH_CUDA, WITHOUT = Settings(device="cuda"), Settings(device="cpu")


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpus]:
    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    largest_gpu.cache_clear()
    yield put
    largest_gpu.cache_clear()


def source(weight_bytes: int) -> Source:
    record: SourceRecord = samples.gguf({"Q8_0": 8.5}).source
    weights = SourceFile(path="model.safetensors", size=weight_bytes, sha256=None, git_sha1="0" * 40)
    return Source(record=record, config={}, files=(weights,))


def variant(*, needs_cuda: bool = False) -> Variant:
    return Variant(format="gptq", name="gptq-4bit-128g-actorder_True", needs_cuda=needs_cuda)


def test_a_variant_that_needs_cuda_is_refused_without() -> None:
    with pytest.raises(Refused, match=r"^needs a CUDA runner$"):
        require_device(variant(needs_cuda=True), source(10**9), WITHOUT)
    require_device(variant(), source(10**12), WITHOUT)


def test_a_model_that_fits_no_gpu_is_refused(gpus: Gpus) -> None:
    gpus("echo 8192; echo 24576")

    require_device(variant(needs_cuda=True), source(24 * 10**9), WITH_CUDA)
    with pytest.raises(Refused, match=r"needs about 28\.3 GB of GPU memory, and the largest GPU here has 25\.8 GB"):
        require_device(variant(), source(27 * 10**9), WITH_CUDA)


def test_a_gpu_that_is_too_old_for_a_variant_is_refused(gpus: Gpus) -> None:
    gpus('case "$*" in *compute_cap*) echo 8.6; echo 7.5;; *) echo 81920;; esac')
    float8 = quantizer("torchao").variant("float8dq", {})

    with pytest.raises(Refused, match=r"^needs a GPU of compute capability 8\.9, and the best here has 8\.6: take"):
        require_device(float8, source(10**9), WITH_CUDA)
    require_device(quantizer("torchao").variant("int8wo", {}), source(10**9), WITH_CUDA)
    for said in ("9.0", "[N/A]"):
        gpus(f'case "$*" in *compute_cap*) echo {said};; *) echo 81920;; esac')
        require_device(float8, source(10**9), WITH_CUDA)


def test_a_worker_that_may_use_one_gpu_is_measured_by_that_one(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus('case "$*" in *--id=1*) echo 8192;; *) echo 8192; echo 81920;; esac')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    with pytest.raises(Refused, match=r"the largest GPU here has 8\.6 GB"):
        require_device(variant(), source(27 * 10**9), WITH_CUDA)


def test_nvidia_smi_is_given_no_token(gpus: Gpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_secret")
    gpus(f'echo "token ${{HF_TOKEN-none}} key ${{PREFECT_API_KEY-none}} path $PATH" > {tmp_path}/seen; echo 8192')

    assert largest_gpu() == 8 << 30
    assert (tmp_path / "seen").read_text() == f"token none key none path {tmp_path}\n"


def test_without_an_answer_nothing_is_refused(gpus: Gpus) -> None:
    gpus("echo No devices were found; exit 6")

    assert largest_gpu() is None
    require_device(variant(), source(10**12), WITH_CUDA)
