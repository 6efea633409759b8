"""How Ollama gets a model: a tag's manifest, then the manifest's blobs. The real llama.cpp gets one too."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantizers.gguf.convert import convert
from quantpress.localhub import admin
from quantpress.localhub.server import running_hub
from quantpress.toolchain.llama_cpp import LlamaCpp

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import Answer, LiveHub


def gguf(architecture: str, note: bytes = b"") -> bytes:
    """Returns the beginning of a GGUF file. The Hub reads no more of such a file."""
    key, value = b"general.architecture", architecture.encode()
    counts = struct.pack("<IQQ", 3, 0, 1)
    keys = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + counts + keys + note


def fill(live_hub: LiveHub, name: str, **files: bytes) -> str:
    """Makes a repo with these files. In a file's name, ``__`` stands for a dot."""
    api = HfApi(endpoint=live_hub.hub.endpoint, token=live_hub.write_token)
    repo = f"press/{name}"
    api.create_repo(repo)
    operations = [CommitOperationAdd(path.replace("__", "."), content) for path, content in files.items()]
    api.create_commit(repo, operations, commit_message="files")
    return repo


def ask(live_hub: LiveHub, repo: str, tag: str, token: str | None = None) -> Answer:
    return live_hub.send("GET", f"/v2/{repo}/manifests/{tag}", token=token)


def layers(answer: Answer) -> dict[str, dict[str, Any]]:
    assert answer.status == 200, answer.body
    prefix = "application/vnd.ollama.image."
    return {layer["mediaType"].removeprefix(prefix): layer for layer in answer.json()["layers"]}


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_an_image_can_be_pulled_as_ollama_does(live_hub: LiveHub) -> None:
    """The Hub sends every blob of the manifest whole and in ranges, with the size and digest that the manifest says."""
    files = {
        "M-Q4_K_M__gguf": gguf("llama", b"weights"),
        "template": b"{{ .Prompt }}",
        "system": b"Be brief.",
        "params": b'{"stop": ["</s>"]}',
        "LICENSE": b"Do as you like.",
        "README__md": b"# M",
    }
    repo = fill(live_hub, "pulled", **files)
    answer = ask(live_hub, repo, "Q4_K_M")
    manifest = answer.json()
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert {kind: layer["digest"] for kind, layer in layers(answer).items()} == {
        "model": digest(files["M-Q4_K_M__gguf"]),
        "template": digest(b"{{ .Prompt }}"),
        "system": digest(b"Be brief."),
        "params": digest(b'{"stop": ["</s>"]}'),
        "license": digest(b"Do as you like."),
    }
    for layer in [manifest["config"], *manifest["layers"]]:
        address = f"/v2/{repo}/blobs/{layer['digest']}"
        head = live_hub.send("HEAD", address)
        assert (head.status, head.headers["Content-Length"]) == (200, str(layer["size"]))
        content = live_hub.send("GET", address).body
        assert digest(content) == layer["digest"]
    part = live_hub.send("GET", f"/v2/{repo}/blobs/{digest(files['M-Q4_K_M__gguf'])}", headers={"Range": "bytes=4-7"})
    assert (part.status, part.body) == (206, struct.pack("<I", 3))
    config = json.loads(live_hub.send("GET", f"/v2/{repo}/blobs/{manifest['config']['digest']}").body)
    assert (config["model_format"], config["model_family"], config["file_type"]) == ("gguf", "llama", "Q4_K_M")
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        ("latest", "M-Q4_K_M.gguf"),
        ("Q4_K_M", "M-Q4_K_M.gguf"),
        ("q4_k_m", "M-Q4_K_M.gguf"),
        ("Q8_0", "M-Q8_0.gguf"),
        ("F16", "M-F16.gguf"),
        ("BF16", "M-BF16.gguf"),
        ("M-Q8_0.gguf", "M-Q8_0.gguf"),
    ],
)
def test_a_tag_is_a_quantization_or_a_file(live_hub: LiveHub, tag: str, path: str) -> None:
    repo = "press/tags"
    if live_hub.send("GET", f"/api/models/{repo}").status == 404:
        names = ["M-BF16", "M-F16", "M-Q4_K_M", "M-Q8_0", "M-Q4_K_M.imatrix", "mmproj-Q8_0"]
        fill(live_hub, "tags", **{f"{name}.gguf": name.encode() for name in names})
    assert layers(ask(live_hub, repo, tag))["model"]["digest"] == digest(path.removesuffix(".gguf").encode())


@pytest.mark.parametrize("tag", ["Q2_K", "Q4", "4_K_M", ".*", "%2E%2E", "mmproj-Q8_0.gguf"])
def test_a_tag_of_no_file_is_refused(live_hub: LiveHub, tag: str) -> None:
    if live_hub.send("GET", "/api/models/press/none").status == 404:
        fill(live_hub, "none", **{"M-Q4_K_M.gguf": b"a", "mmproj-Q8_0.gguf": b"b"})
    answer = ask(live_hub, "press/none", tag)
    assert answer.status == 400
    assert answer.json()["error"].startswith("The specified tag is not available in the repository: ")


def test_a_split_model_is_refused_by_name(live_hub: LiveHub) -> None:
    repo = fill(live_hub, "split", **{"M-Q8_0-00001-of-00002.gguf": b"a", "M-Q8_0-00002-of-00002.gguf": b"b"})
    answer = ask(live_hub, repo, "Q8_0")
    assert (answer.status, answer.json()["error"]) == (
        400,
        "The specified tag is a sharded GGUF, which Ollama does not support",
    )


def test_only_what_main_holds_is_a_blob(live_hub: LiveHub) -> None:
    repo = fill(live_hub, "blobs", **{"M-Q8_0.gguf": b"mine"})
    fill(live_hub, "others", **{"M-Q8_0.gguf": b"not mine"})
    assert live_hub.send("GET", f"/v2/{repo}/blobs/{digest(b'mine')}").body == b"mine"
    for wrong in (digest(b"not mine"), "sha256:..%2F..%2Fhub.sqlite3", "sha256:", digest(b"mine")[7:]):
        answer = live_hub.send("GET", f"/v2/{repo}/blobs/{wrong}")
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")


def test_gated_and_private_models_are_pulled_by_whom_they_are_open_to(live_hub: LiveHub) -> None:
    repo = fill(live_hub, "closed", **{"M-Q8_0.gguf": b"closed"})
    blob = f"/v2/{repo}/blobs/{digest(b'closed')}"
    admin.set_gated(live_hub.hub.root, repo, "manual")
    assert ask(live_hub, repo, "Q8_0").status == 403
    assert live_hub.send("GET", blob, token=live_hub.read_token).status == 403
    assert ask(live_hub, repo, "Q8_0", live_hub.write_token).status == 200
    admin.set_gated(live_hub.hub.root, repo, None)
    admin.set_private(live_hub.hub.root, repo, True)
    assert ask(live_hub, repo, "Q8_0").status == 404
    assert live_hub.send("GET", blob, token=live_hub.read_token).body == b"closed"


@pytest.mark.slow
def test_llama_cpp_loads_the_file_of_the_tag(tmp_path: Path, tiny_model: Path, llama_cpp: LlamaCpp) -> None:
    """The real program loads from a gated repo with a token. The program's cache shows which file it took."""
    model = tmp_path / "tiny.gguf"
    convert(llama_cpp, tiny_model, "Tiny", "F16", model)
    names = ["Tiny-BF16.gguf", "Tiny-Q4_K_M.gguf", "Tiny-Q8_0.gguf", "Tiny.imatrix.gguf"]
    with running_hub(tmp_path / "hub") as hub:
        token = hub.create_token("press", "write")
        api = HfApi(endpoint=hub.endpoint, token=token)
        api.create_repo("press/Tiny-GGUF")
        operations = [CommitOperationAdd(name, model) for name in names]
        api.create_commit("press/Tiny-GGUF", operations, commit_message="files")
        admin.set_gated(hub.root, "press/Tiny-GGUF", "auto")
        for tag, expected in [("", "Tiny-Q4_K_M.gguf"), (":Q8_0", "Tiny-Q8_0.gguf"), (":bf16", "Tiny-BF16.gguf")]:
            cache = tmp_path / f"cache{tag.strip(':')}"
            command = [str(llama_cpp.completion), "-hf", f"press/Tiny-GGUF{tag}", "-p", "The", "-n", "2"]
            run = subprocess.run(
                [*command, "-no-cnv", "-t", "2", "--no-warmup"],
                env={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HOME": str(cache), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                text=True,
                timeout=120,
            )
            assert run.returncode == 0, run.stderr
            taken = [path.name for path in cache.glob("hub/models--press--Tiny-GGUF/snapshots/*/*")]
            assert taken == [expected]
