"""`quantpress evaluate` accepts paths and repositories of any format. It says what is wrong with anything else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantpress.errors import BadInput
from quantpress.evaluation.target import Target, find_target, local_target
from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import running_hub

EXL3 = json.dumps({"quantization_config": {"quant_method": "exl3"}}).encode()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfApi]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))


def put(api: HfApi, repo_id: str, files: dict[str, bytes]) -> str:
    api.create_repo(repo_id, exist_ok=True)
    operations = [CommitOperationAdd(path, io.BytesIO(content)) for path, content in files.items()]
    return api.create_commit(repo_id, operations, commit_message="put").oid


def test_a_rung_of_a_gguf_repo_with_all_its_parts(api: HfApi) -> None:
    files = {"M-Q4_K_M.gguf": b"4", "M-IQ4_K_M-00001-of-00002.gguf": b"i1", "M-IQ4_K_M-00002-of-00002.gguf": b"i2"}
    commit = put(api, "press/Rungs-GGUF", {**files, "M.imatrix.gguf": b"x", "sub/M-Q8_0.gguf": b"8"})

    one = find_target("press/Rungs-GGUF:q4_k_m", Hubs(api, api))
    parts = find_target("press/Rungs-GGUF:IQ4_K_M", Hubs(api, api))

    assert (one.engine, one.model.read_bytes(), one.content()) == ("llama.cpp", b"4", f"{commit}/M-Q4_K_M.gguf")
    assert parts.model.name == "M-IQ4_K_M-00001-of-00002.gguf"
    assert (parts.model.parent / "M-IQ4_K_M-00002-of-00002.gguf").read_bytes() == b"i2"
    with pytest.raises(BadInput, match=r"2 GGUF models; name one, as in press/Rungs-GGUF:Q4_K_M; there are M-IQ4_K_M"):
        find_target("press/Rungs-GGUF", Hubs(api, api))
    with pytest.raises(BadInput, match="press/Rungs-GGUF: no GGUF file for 'Q8_0'"):
        find_target("press/Rungs-GGUF:Q8_0", Hubs(api, api))


def test_a_checkpoint_on_a_branch_without_code_and_pickles(api: HfApi) -> None:
    put(api, "press/Branches", {"config.json": b"{}"})
    api.create_branch("press/Branches", branch="4.0bpw")
    operations = [
        CommitOperationAdd(name, io.BytesIO(content))
        for name, content in {
            "config.json": EXL3, "model.safetensors": b"w", "modeling.py": b"x", "pytorch_model.bin": b"p",
        }.items()
    ]  # fmt: skip
    api.create_commit("press/Branches", operations, commit_message="put", revision="4.0bpw")

    found = find_target("press/Branches@4.0bpw", Hubs(api, api))

    assert found.engine == "exllamav3"
    assert sorted(path.name for path in found.model.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(BadInput, match="press/Branches has no revision 'nine'"):
        find_target("press/Branches@nine", Hubs(api, api))


def test_what_is_nowhere_is_said_in_one_line(api: HfApi) -> None:
    with pytest.raises(BadInput, match="press/Nowhere is neither a path here nor a model on http"):
        find_target("press/Nowhere", Hubs(api, api))
    with pytest.raises(BadInput, match="no such file or folder, and not a repository"):
        find_target("../etc/x", Hubs(api, api))


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"1")
    assert local_target(tmp_path) == Target("llama.cpp", tmp_path / "one.gguf")
    (tmp_path / "two.gguf").write_bytes(b"2")
    with pytest.raises(BadInput, match=r"2 GGUF models; give one file of one\.gguf, two\.gguf"):
        local_target(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert local_target(tmp_path) == Target("transformers", tmp_path)
    with pytest.raises(BadInput, match=r"neither a \.gguf file nor a folder with a config\.json"):
        local_target(Path(__file__))


def test_the_content_of_a_folder_changes_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = local_target(tmp_path).content()
    (tmp_path / "README.md").write_text("read me")
    assert local_target(tmp_path).content() == before
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert local_target(tmp_path).content() != before
