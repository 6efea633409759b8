"""Tensors that a model's class needs and no file has are an error, before anything costly and in every child that loads
a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantizers.checkpoint.transformers_backend import quantize_while_loading
from quantizers.protocol import CalibrationText, Job, Variant
from quantpress.errors import QuantpressError, Refused
from quantpress.evaluation.engines.transformers import load_model
from quantpress.evaluation.tensors import TensorsReport, compare_tensors

Tensors = Mapping[str, Tensor]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of four experts, whose files name each expert's tensors and whose class stacks them."""
    from transformers import MixtralConfig, MixtralForCausalLM

    folder = tmp_path_factory.mktemp("mixtral")
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def changed(model: Path, out: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
    """Makes a copy of a model with other tensors and other values in config.json."""
    own = json.loads((model / "config.json").read_bytes()) | config
    (out / "config.json").write_text(json.dumps(own))
    save_file(dict(change(load_file(model / "model.safetensors"))), out / "model.safetensors", {"format": "pt"})
    return out


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def test_a_whole_model_passes(llama: Path, mixtral: Path) -> None:
    assert compare_tensors(llama) == TensorsReport(model_class="LlamaForCausalLM", unused=[])
    assert compare_tensors(mixtral) == TensorsReport(model_class="MixtralForCausalLM", unused=[])


def test_missing_tensors_are_named(llama: Path, tmp_path: Path) -> None:
    source = changed(llama, tmp_path, without("layers.1.self_attn"))
    with pytest.raises(Refused) as refused:
        compare_tensors(source)
    assert str(refused.value) == (
        "its files lack model.layers.1.self_attn.k_proj.weight, model.layers.1.self_attn.o_proj.weight, "
        "model.layers.1.self_attn.q_proj.weight (and 1 more), which LlamaForCausalLM needs and would fill with random "
        "numbers: ask upstream for the missing files, or pin a revision that is whole"
    )


def test_a_head_that_is_neither_there_nor_tied_is_missing(llama: Path, tmp_path: Path) -> None:
    source = changed(llama, tmp_path, dict, tie_word_embeddings=False)
    with pytest.raises(Refused, match=r"^its files lack lm_head\.weight, which LlamaForCausalLM needs and would"):
        compare_tensors(source)


def test_an_adapter_beside_a_config_is_no_model(llama: Path, tmp_path: Path) -> None:
    def adapter(_: Tensors) -> Tensors:
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        return {name: torch.zeros(4, 32)}

    with pytest.raises(Refused) as refused:
        compare_tensors(changed(llama, tmp_path, adapter))
    assert str(refused.value) == (
        "its files lack lm_head.weight, model.embed_tokens.weight, model.layers.0.input_layernorm.weight (and 18 more)"
        ", which LlamaForCausalLM needs and would fill with random numbers, and have "
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, which it does not use: ask upstream for the "
        "missing files, or pin a revision that is whole"
    )


def test_a_missing_expert_is_named(mixtral: Path, tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"cannot take model\.layers\.1\.mlp\.experts\.gate_up_proj from its files: Sizes"
    ):
        compare_tensors(changed(mixtral, tmp_path, without("layers.1.block_sparse_moe.experts.2.w1")))


def test_a_tensor_of_another_shape_is_named(llama: Path, tmp_path: Path) -> None:
    source = changed(llama, tmp_path, lambda tensors: {**tensors, "model.norm.weight": torch.ones(16)})
    with pytest.raises(
        Refused, match=r"^LlamaForCausalLM cannot take model\.norm\.weight from its files: its shape is \[16\], and the"
    ):
        compare_tensors(source)


def test_unused_tensors_are_named_and_no_obstacle(llama: Path, tmp_path: Path) -> None:
    source = changed(llama, tmp_path, lambda tensors: {**tensors, "score.weight": torch.ones(1, 32)})
    assert compare_tensors(source).in_words == "its files have score.weight, which LlamaForCausalLM does not use"


def test_what_transformers_renames_or_ignores_is_neither_missing_nor_unused(llama: Path, tmp_path: Path) -> None:
    def older(tensors: Tensors) -> Tensors:
        plain = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        return {**plain, "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}

    assert compare_tensors(changed(llama, tmp_path, older)).in_words == ""


def test_the_yardstick_loads_no_model_that_is_not_whole(llama: Path, tmp_path: Path) -> None:
    source = changed(llama, tmp_path, without("layers.1.mlp.up_proj"))
    with pytest.raises(QuantpressError, match=r"^its files lack model\.layers\.1\.mlp\.up_proj\.weight, which Llama"):
        load_model(source, "cpu", 1)


def test_no_checkpoint_is_made_of_a_model_that_is_not_whole(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = changed(llama, tmp_path / "source", without("layers.1.mlp.up_proj"))
    text = CalibrationText(name="none", path=tmp_path, sha256="0" * 64, samples=1, length=1)
    variant = Variant(format="bitsandbytes", name="nf4")
    job = Job(
        step="quantize",
        variant=variant,
        model_name="llama",
        source=source,
        prepared=tmp_path,
        out=tmp_path / "out",
        calibration=text,
        threads=1,
        device="cpu",
    )
    with pytest.raises(QuantpressError, match=r"^its files lack model\.layers\.1\.mlp\.up_proj\.weight, which Llama"):
        quantize_while_loading(job, None, "float32")
    assert not (tmp_path / "out").exists()
