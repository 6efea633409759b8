"""A fault that would spoil all rungs (GGUF variants) is found before the model is converted, and told in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import load_file, save_file

from quantizers.gguf.preflight import check_bos, check_source, memory_needed, require_memory
from quantpress.errors import Refused
from quantpress.machine.memory import available_memory
from quantpress.source.weights import WeightsReport
from quantpress.toolchain.llama_cpp import LlamaCpp


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    """Sets keys of a JSON file. The value None removes a key."""
    content = json.loads(file.read_bytes()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def give_it_one_more_token(model: Path) -> None:
    """Widens the vocabulary by one row, because llama.cpp's converter turns BOS off for the tiny model's 49152."""
    weights = load_file(model / "model.safetensors")
    embeddings = weights["model.embed_tokens.weight"]
    save_file(
        weights | {"model.embed_tokens.weight": np.concatenate([embeddings, embeddings[:1]])},
        model / "model.safetensors",
        metadata={"format": "pt"},
    )
    change(model / "config.json", vocab_size=len(embeddings) + 1)


@pytest.mark.slow
def test_a_sound_model_passes(llama_cpp: LlamaCpp, tiny_model: Path) -> None:
    """The model's tokenizer adds no BOS token. That is no fault."""
    check_source(llama_cpp, tiny_model, "Tiny", "F16", "cpu")


@pytest.mark.slow
def test_an_unknown_pre_tokenizer_is_named(llama_cpp: LlamaCpp, model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_bytes())
    tokenizer["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Punctuation", "behavior": "Isolated"})
    change(model / "tokenizer.json", **tokenizer)
    with pytest.raises(Refused) as caught:
        check_source(llama_cpp, model, "Tiny", "F16", "cpu")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"the converter of {llama_cpp.version} does not know its pre-tokenizer (hash ")


@pytest.mark.slow
def test_an_unknown_architecture_is_named(llama_cpp: LlamaCpp, model: Path) -> None:
    change(model / "config.json", architectures=["QuaggaForCausalLM"])
    with pytest.raises(
        Refused, match=r"^the converter of llama.cpp .* does not know the architecture QuaggaForCausalLM: "
    ):
        check_source(llama_cpp, model, "Tiny", "F16", "cpu")


@pytest.mark.slow
def test_a_tokenizer_that_cannot_be_read_is_named(llama_cpp: LlamaCpp, model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(Refused, match=r"^llama.cpp's converter cannot read its tokenizer \([^\n]+$"):
        check_source(llama_cpp, model, "Tiny", "F16", "cpu")


@pytest.mark.slow
def test_a_tokenizer_with_more_tokens_than_the_model(llama_cpp: LlamaCpp, model: Path) -> None:
    """The finetune's tokenizer got three more tokens, and the embedding was not resized."""
    content = json.loads((model / "tokenizer.json").read_bytes())
    names = ["<tool>", "</tool>", "<pad>"]
    more = [content["added_tokens"][0] | {"id": 49152 + number, "content": name} for number, name in enumerate(names)]
    change(model / "tokenizer.json", added_tokens=content["added_tokens"] + more)

    with pytest.raises(Refused) as caught:
        check_source(llama_cpp, model, "Tiny", "F16", "cpu")

    assert str(caught.value) == (
        "its tokenizer has 49155 tokens and its config.json says vocab_size 49152, so 3 of the tokens have no "
        "embedding: ask upstream to resize the embeddings or to remove these tokens, or leave gguf out of the model's "
        "formats"
    )


@pytest.mark.slow
def test_a_bos_that_is_added_and_not_named(llama_cpp: LlamaCpp, model: Path) -> None:
    give_it_one_more_token(model)
    change(model / "tokenizer_config.json", add_bos_token=True, bos_token=None)
    change(model / "config.json", bos_token_id=None)
    with pytest.raises(Refused, match=r"^its tokenizer adds a BOS and no BOS token is named, .*[^\n]+$"):
        check_source(llama_cpp, model, "Tiny", "F16", "cpu")


@pytest.mark.slow
def test_a_matrix_that_float16_cannot_hold(llama_cpp: LlamaCpp, model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    up = weights["model.layers.1.mlp.up_proj.weight"].astype(np.float32)
    up[3, 5] = 70000
    save_file(weights | {"model.layers.1.mlp.up_proj.weight": up}, model / "model.safetensors")
    with pytest.raises(
        Refused, match=r"^tensor model.layers.1.mlp.up_proj.weight in model.safetensors has values beyond"
    ):
        check_source(llama_cpp, model, "Tiny", "F16", "cpu")
    check_source(llama_cpp, model, "Tiny", "F32", "cpu")


def vocabulary(file: Path, model: str = "gpt2", adds: bool | None = None, bos: int | None = None) -> Path:
    writer = GGUFWriter(file, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(["a", "b", "c"])
    if adds is not None:
        writer.add_add_bos_token(adds)
    if bos is not None:
        writer.add_bos_token_id(bos)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("model", "adds", "bos"),
    [("gpt2", None, None), ("gpt2", False, None), ("gpt2", False, 7), ("gpt2", True, 2), ("llama", None, 1)],
)
def test_a_bos_that_is_there_or_not_needed(tmp_path: Path, model: str, adds: bool | None, bos: int | None) -> None:
    check_bos(vocabulary(tmp_path / "v.gguf", model, adds, bos))


@pytest.mark.parametrize(("model", "adds"), [("gpt2", True), ("llama", None), ("llama", True)])
def test_a_bos_that_is_missing(tmp_path: Path, model: str, adds: bool | None) -> None:
    with pytest.raises(Refused, match=r"^its tokenizer adds a BOS and no BOS token is named"):
        check_bos(vocabulary(tmp_path / "v.gguf", model, adds))


def test_a_bos_outside_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^its tokenizer adds a BOS, token 3, and its vocabulary ends at 2: "):
        check_bos(vocabulary(tmp_path / "v.gguf", adds=True, bos=3))


def test_memory_is_asked_for_beforehand() -> None:
    report = WeightsReport(tensors=9, weights=70_000_000_000, largest_tensor=1_000_000_000, beyond_float16=[])
    assert memory_needed(report, "cpu") == 282_000_000_000
    assert memory_needed(report, "cuda") == 13_000_000_000
    require_memory(9_000_000_000, 9_000_000_000)
    with pytest.raises(Refused) as caught:
        require_memory(282_000_000_000, 192_000_000_000)
    assert str(caught.value) == (
        "282.0 GB of memory are needed for the unquantized model and 192.0 GB are available: "
        "end other programs, or press it on a machine with more"
    )


def test_a_tensor_larger_than_the_rest_decides() -> None:
    report = WeightsReport(tensors=2, weights=3_000_000_000, largest_tensor=2_500_000_000, beyond_float16=[])
    assert memory_needed(report, "cpu") == 31_000_000_000


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with ``meminfo``, the process's control group ``own`` and the mounted ``groups``. 2 MB are available."""
    (tmp_path / "meminfo").write_text("MemTotal:       24689764 kB\nMemFree:        100 kB\nMemAvailable:   2000 kB\n")
    (tmp_path / "own").write_text("9:name=systemd:/\n0::/user/press\n")
    (tmp_path / "groups" / "user" / "press").mkdir(parents=True)
    return tmp_path


def limit(group: Path, most: str, used: int, inactive: int) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file 7\n")


def available(machine: Path) -> int:
    return available_memory(machine / "meminfo", machine / "own", machine / "groups")


def test_available_memory_is_the_kernels(machine: Path) -> None:
    assert available(machine) == 2_048_000
    assert available_memory() > 1_000_000
    (machine / "meminfo").write_text("MemTotal: 1 kB\n")
    with pytest.raises(Refused, match="does not say how much memory is available"):
        available(machine)


def test_a_containers_limit_counts(machine: Path) -> None:
    limit(machine / "groups", "1500000", used=600_000, inactive=100_000)
    assert available(machine) == 1_000_000
    (machine / "own").write_text("0::/elsewhere/as/the/host/names/it\n")
    assert available(machine) == 1_000_000
    (machine / "own").unlink()
    assert available(machine) == 1_000_000


def test_the_tightest_of_the_groups_around_counts(machine: Path) -> None:
    limit(machine / "groups" / "user", "800000", used=700_000, inactive=0)
    limit(machine / "groups" / "user" / "press", "max", used=700_000, inactive=0)
    assert available(machine) == 100_000
    limit(machine / "groups" / "user" / "press", "600000", used=700_000, inactive=0)
    assert available(machine) == 0


def test_a_group_without_a_limit_changes_nothing(machine: Path) -> None:
    limit(machine / "groups" / "user" / "press", "max", used=700_000, inactive=0)
    assert available(machine) == 2_048_000
