"""The one-pass engine writes the same files as llama-quantize, byte for byte, for every rung (one GGUF variant)."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantizers.gguf.convert import convert
from quantizers.gguf.imatrix import make_imatrix
from quantizers.gguf.ladder import IMATRIX_ONLY, RUNGS, rungs_for
from quantizers.gguf.llama_quantize import quantize_alone
from quantizers.gguf.one_pass import write_rungs
from quantizers.gguf.rung_plan import RungPlan, plan_rungs
from quantizers.gguf.types import storage_types
from quantizers.protocol import CalibrationText
from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.toolchain.cache import cache_folder, make_once
from quantpress.toolchain.llama_cpp import LlamaCpp, require
from quantpress.toolchain.options import processor_options
from tests.support.gguf_files import Matrices, narrow, wide, with_experts, write_imatrix, write_model

#: Every rung that a dense or a ternary model can have. A mixture of experts is tested with one rung of each family,
#: because llama-quantize spends seconds on the grids of the lowest types at each start.
DENSE = [*rungs_for({}), "TQ1_0", "TQ2_0"]
EXPERTS = [
    "IQ3_XXS",
    "Q2_K_L",
    "Q3_K_M",
    "MXFP4_MOE",
    "IQ4_XS",
    "Q4_0",
    "Q4_K_M",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "BF16",
    "F16",
]


#: One rung of each family that a dense or a ternary model can have.
FAMILIES = [
    "TQ1_0",
    "IQ2_XXS",
    "Q2_K_L",
    "Q3_K_M",
    "IQ4_XS",
    "Q4_0",
    "MXFP4",
    "Q4_K_M",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "BF16",
    "F16",
]


@dataclass(frozen=True)
class Model:
    folder: Path
    rungs: list[str]

    @property
    def file(self) -> Path:
        return self.folder / "m-F16.gguf"

    @property
    def imatrix(self) -> Path:
        return self.folder / "m.imatrix.gguf"


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Models by name: widths of 576 and 768, one with experts and all unquantized types, one bfloat16, one float32."""
    made = {}
    for name, matrices, storage, rungs in (
        ("narrow", narrow(tiny_model), {}, DENSE),
        ("wide", wide(tiny_model), {}, DENSE),
        (
            "experts",
            with_experts(wide(tiny_model)),
            {"attn_q.weight": "BF16", "ffn_up_exps.weight": "BF16", "output.weight": "F32", "attn_k.weight": "F32"},
            EXPERTS,
        ),
        ("bfloat16", beyond_float16(wide(tiny_model)), {"": "BF16"}, FAMILIES),
        ("float32", wide(tiny_model), {"": "F32"}, FAMILIES),
    ):
        model = Model(tmp_path_factory.mktemp(name), rungs)
        write_model(model.file, matrices, storage)
        write_imatrix(model.imatrix, matrices)
        made[name] = model
    return made


def beyond_float16(matrices: Matrices) -> Matrices:
    """Makes one row too small for float16 to keep its values apart, and one row too large for float16."""
    up = matrices["blk.0.ffn_up.weight"].copy()
    up[0] *= 1e-6
    up[1] *= 1e4
    return matrices | {"blk.0.ffn_up.weight": up}


@cache
def expected(model: Path, imatrix: Path | None, rung: str) -> str:
    """SHA-256 of the file that llama-quantize makes by itself. The cache keeps it under a hash of all inputs."""
    tools = require()
    made_of = f"{sha256_of(tools.quantize)} {sha256_of(model)} {imatrix and sha256_of(imatrix)} {RUNGS[rung]}"

    def make(folder: Path) -> None:
        quantize_alone(tools, model, imatrix, RUNGS[rung], folder / "rung.gguf", 2)
        (folder / "sha256").write_text(sha256_of(folder / "rung.gguf"))
        (folder / "rung.gguf").unlink()

    kept = cache_folder() / "tests" / "llama-quantize" / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return (make_once(kept, make) / "sha256").read_text()


def write(model: Path, imatrix: Path | None, rungs: list[str], out: Path, threads: int) -> list[RungPlan]:
    plans = plan_rungs(require(), model, imatrix, rungs)
    write_rungs(require(), model, imatrix, {out / f"{plan.rung}.gguf": plan for plan in plans}, threads)
    return plans


@pytest.mark.slow
@pytest.mark.parametrize("name", ["narrow", "wide", "experts", "bfloat16", "float32"])
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_rung_is_the_file_of_llama_quantize(
    llama_cpp: LlamaCpp, models: dict[str, Model], name: str, threads: int, tmp_path: Path
) -> None:
    model = models[name]

    plans = write(model.file, model.imatrix, model.rungs, tmp_path, threads)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{rung}.gguf" for rung in model.rungs)
    for plan in plans:
        file = tmp_path / f"{plan.rung}.gguf"
        assert sha256_of(file) == expected(model.file, model.imatrix, plan.rung), plan.rung
        assert file.stat().st_size == plan.file_bytes
        assert storage_types(file).bits_per_weight == pytest.approx(plan.bits_per_weight)


@pytest.mark.slow
def test_without_an_imatrix_too(llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path) -> None:
    model = models["wide"].file
    plans = plan_rungs(llama_cpp, model, None, DENSE)

    assert [plan.rung for plan in plans if plan.refusal] == IMATRIX_ONLY
    assert IMATRIX_ONLY == ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S", "IQ3_XXS", "IQ3_XS"]
    assert plans[DENSE.index("Q2_K_S")].refusal == "Q2_K_S needs an imatrix"
    made = ["Q2_K", "IQ3_S", "IQ4_XS", "Q4_0", "BF16"]
    write(model, None, made, tmp_path, 2)
    for rung in made:
        assert sha256_of(tmp_path / f"{rung}.gguf") == expected(model, None, rung), rung


@pytest.mark.slow
def test_a_converted_model_with_its_own_imatrix(
    llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path: Path
) -> None:
    model, imatrix = tmp_path / "Tiny-F16.gguf", tmp_path / "Tiny.imatrix.gguf"
    convert(llama_cpp, tiny_model, "Tiny", "F16", model)
    text = CalibrationText(name="english", path=english, sha256=sha256_of(english), samples=2, length=128)
    make_imatrix(llama_cpp, model, text, imatrix, processor_options(2, "cpu"))
    rungs = ["IQ2_XXS", "Q4_K_M"]

    write(model, imatrix, rungs, tmp_path / "out", 2)

    for rung in rungs:
        assert sha256_of(tmp_path / "out" / f"{rung}.gguf") == expected(model, imatrix, rung), rung


@pytest.mark.parametrize(("value", "bits"), [("nan", 0x7E00), ("infinity", 0x7C00)])
def test_a_broken_value_is_named_and_no_file_appears(
    llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path, value: str, bits: int
) -> None:
    from gguf import GGUFReader

    model = tmp_path / "broken-F16.gguf"
    model.write_bytes(models["wide"].file.read_bytes())
    tensor = next(each for each in GGUFReader(model, "r+").tensors if each.name == "blk.1.ffn_up.weight")
    tensor.data.view("uint16")[180, 5] = bits
    tensor.data.flush()

    with pytest.raises(QuantpressError, match=r"blk\.1\.ffn_up\.weight of the unquantized model holds"):
        write(model, None, ["Q8_0", "Q4_0"], tmp_path / "out", 2)

    assert list((tmp_path / "out").iterdir()) == []


def test_a_rung_that_cannot_hold_a_value_is_named(
    llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path
) -> None:
    large = np.ones((32, 768), np.float32)
    large[3, 5] = 70000
    matrices = {"token_embd.weight": np.ones((32, 768), np.float32), "blk.0.ffn_up.weight": large}
    write_model(tmp_path / "large.gguf", matrices, {"": "BF16"})

    with pytest.raises(QuantpressError, match=r"^F16 cannot be made: blk\.0\.ffn_up\.weight as F16 holds a value that"):
        write(tmp_path / "large.gguf", None, ["Q8_0", "F16"], tmp_path / "out", 2)

    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_cut_short_is_named_and_no_file_appears(
    llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path
) -> None:
    model = tmp_path / "short-F16.gguf"
    model.write_bytes(models["wide"].file.read_bytes())
    plans = plan_rungs(llama_cpp, model, None, ["Q8_0"])
    os.truncate(model, model.stat().st_size - 5000)

    with pytest.raises(QuantpressError, match=r"the unquantized model ends within blk\.1\.\w+\.weight"):
        write_rungs(llama_cpp, model, None, {tmp_path / "out" / "Q8_0.gguf": plans[0]}, 2)

    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_said_before_any_work(
    llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["wide"].file
    plans = plan_rungs(llama_cpp, model, None, ["Q8_0", "BF16"])
    steps: list[int] = []

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(QuantpressError, match=r"no room for Q8_0\.gguf of 0\.00 GB in .*: No space left on device"):
        write_rungs(
            llama_cpp,
            model,
            None,
            {tmp_path / f"{plan.rung}.gguf": plan for plan in plans},
            2,
            lambda what, done, total: steps.append(done),
        )

    assert (list(tmp_path.iterdir()), steps) == ([], [])


@pytest.mark.slow
def test_a_kill_leaves_no_half_file_and_the_next_run_cleans_up(
    llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path
) -> None:
    model = models["wide"]
    script = (
        "import sys; from pathlib import Path; from quantizers.gguf.one_pass import write_rungs;"
        "from quantizers.gguf.rung_plan import plan_rungs; from quantpress.toolchain.llama_cpp import require;"
        "m, i, o = map(Path, sys.argv[1:]); p = plan_rungs(require(), m, i, ['IQ3_S', 'Q4_0']);"
        "write_rungs(require(), m, i, {o / f'{x.rung}.gguf': x for x in p}, 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, model.file, model.imatrix, tmp_path])
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp", ".tmp"]

    write(model.file, model.imatrix, ["IQ3_S", "Q4_0"], tmp_path, 2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["IQ3_S.gguf", "Q4_0.gguf"]


def test_what_cannot_be_made_is_refused(llama_cpp: LlamaCpp, models: dict[str, Model], tmp_path: Path) -> None:
    plans = plan_rungs(llama_cpp, models["wide"].file, None, ["IQ1_S"])

    with pytest.raises(QuantpressError, match="IQ1_S cannot be made in one pass: IQ1_S needs an imatrix"):
        write_rungs(llama_cpp, models["wide"].file, None, {tmp_path / "x.gguf": plans[0]}, 1)
