from __future__ import annotations

import subprocess
import sys

import pytest

from quantizers import quantizer
from quantpress.errors import BadInput, Refused


def test_nf4_is_on_main_and_int8_is_a_branch() -> None:
    bitsandbytes = quantizer("bitsandbytes")

    assert bitsandbytes.default_variants({}) == ["nf4", "int8"]
    assert [bitsandbytes.variant(name, {}).branch for name in ("nf4", "int8", "nf4-double")] == [
        "main",
        "int8",
        "nf4-double",
    ]


def test_double_quantization_saves_nearly_three_eighths_of_a_bit() -> None:
    bitsandbytes = quantizer("bitsandbytes")
    plain, double = (bitsandbytes.variant(name, {}).nominal_bits for name in ("nf4", "nf4-double"))

    assert plain == 4.5
    assert plain - double == pytest.approx(0.373, abs=0.001)  # QLoRA, arXiv:2305.14314, section 3


def test_unknown_names_and_experts() -> None:
    with pytest.raises(BadInput, match="unknown BNB variant 'fp4': did you mean 'nf4'"):
        quantizer("bitsandbytes").check_name("fp4")
    with pytest.raises(Refused, match="64 experts"):
        quantizer("bitsandbytes").variant("nf4", {"n_routed_experts": 64})


def test_planning_imports_nothing_heavy() -> None:
    script = (
        "import sys; from quantizers import quantizer\n"
        "for name in ('torchao', 'bitsandbytes', 'compressed-tensors', 'reference'):\n"
        "    made_by = quantizer(name); made_by.ladders(); print(made_by.version(), made_by.tools())\n"
        "heavy = {'torch', 'transformers', 'torchao', 'bitsandbytes', 'llmcompressor', 'compressed_tensors'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert [line.split()[0] for line in said.splitlines()] == ["torchao", "bitsandbytes", "llmcompressor", "quantpress"]


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = quantizer("bitsandbytes")
    monkeypatch.setattr(type(bitsandbytes), "packages", ("no-such-package-anywhere",))

    with pytest.raises(Refused, match=r"run `make setup` or `pip install -e '\.\[bitsandbytes\]'`$"):
        bitsandbytes.version()
