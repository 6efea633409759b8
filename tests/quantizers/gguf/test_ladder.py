from __future__ import annotations

import subprocess
import sys

import pytest

from quantizers import quantizer
from quantpress.errors import BadInput


def test_the_ladders() -> None:
    gguf = quantizer("gguf")

    assert len(gguf.ladders()["thebloke"]) == 12
    assert sorted(set(gguf.default_variants({})) - set(gguf.ladders()["thebloke"])) == ["IQ3_M", "IQ4_XS"]
    assert (gguf.format, gguf.suffix, gguf.engine) == ("gguf", "GGUF", "llama.cpp")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("q4_k_m", "did you mean 'Q4_K_M'"),
        ("Q5_KM", "did you mean 'Q5_K_M'"),
        ("--pure", "use one of Q2_K, Q3_K_S, IQ3_M"),
    ],
)
def test_an_unknown_rung_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"unknown GGUF variant '{name}': {hint}"):
        quantizer("gguf").check_name(name)
    with pytest.raises(BadInput, match=hint):
        quantizer("gguf").variant(name, {})


def test_a_rung_goes_to_main() -> None:
    variant = quantizer("gguf").variant("Q4_K_M", {})

    assert (variant.format, variant.name, variant.branch) == ("gguf", "Q4_K_M", "main")
    assert variant.parameters["type"] == "Q4_K_M"


def test_the_quantizer_imports_nothing_heavy() -> None:
    script = (
        "import sys; from quantizers import quantizer; q = quantizer('gguf'); q.version(); q.variant('Q8_0', {});"
        "print(sorted({'torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
