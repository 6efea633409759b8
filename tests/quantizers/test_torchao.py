from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from quantizers import quantizer
from quantpress.errors import BadInput, Refused

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 64}
LLAMA3 = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}


def test_the_default_runs_anywhere_and_is_on_main() -> None:
    torchao = quantizer("torchao")

    assert torchao.default_variants(SMOLLM2) == ["int8wo"]
    variant = torchao.variant("int8wo", SMOLLM2)
    assert (variant.branch, variant.needs_cuda, variant.nominal_bits) == ("main", False, 8.0)
    assert variant.parameters == {"config": "Int8WeightOnlyConfig", "granularity": "row", "dtype": "bfloat16"}


def test_auto_is_the_largest_group_size_that_fits() -> None:
    torchao = quantizer("torchao")

    assert torchao.variant("intx4wo-auto", SMOLLM2).name == "intx4wo-64g"
    assert torchao.variant("int4wo-auto", LLAMA3).name == "int4wo-128g"
    with pytest.raises(Refused, match="group size 128 does not divide hidden_size 576"):
        torchao.variant("int4wo-128g", SMOLLM2)


def test_what_needs_cuda_says_so() -> None:
    torchao = quantizer("torchao")
    everything = [torchao.variant(name, LLAMA3) for name in torchao.ladders()["all"]]

    assert {variant.name: variant.needs_cuda for variant in everything} == {
        "int8wo": False,
        "int8dq": False,
        "intx4wo-128g": False,
        "int4wo-128g": True,
        "float8wo": True,
        "float8dq": True,
    }


def test_an_unknown_name_hints_at_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown TorchAO variant 'int8-wo': did you mean 'int8wo'"):
        quantizer("torchao").check_name("int8-wo")


def test_a_mixture_of_experts_is_refused() -> None:
    with pytest.raises(Refused, match="TorchAO quantizes only linears, not the 8 experts of this model"):
        quantizer("torchao").variant("int8wo", LLAMA3 | {"num_local_experts": 8})


def test_a_missing_package_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the checkout, because quantpress is in no package index."""

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("quantizers.checkpoint.format.version", missing)
    with pytest.raises(Refused) as caught:
        quantizer("torchao").version()
    assert str(caught.value) == (
        "torchao is not installed: in the checkout of quantpress, run `make setup` or `pip install -e '.[torchao]'`"
    )
