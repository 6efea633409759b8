"""What is verified is what the Hub serves now: hashed, loaded and made to speak."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from quantizers.gguf.convert import convert
from quantpress.files import sha256_of
from quantpress.localhub.server import running_hub
from quantpress.manifest import Entry, File
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.verify import Loader, verify
from tests.quantpress import samples

LOADER = Loader("cpu", 2)
REPO = "press/Tiny-GGUF"


@dataclass(frozen=True)
class Shelf:
    api: HfApi
    folder: Path
    good: Path
    root: Path
    token: str

    def publish(self, *entries: Entry, **files: Path) -> None:
        """A repo with these entries, whose files' bytes are those of ``files``, by variant."""
        manifest = samples.gguf(entries=list(entries), shared=[])
        content: dict[str, Path | bytes] = {"quantpress.json": manifest.to_json().encode()}
        content |= {f"Tiny-{variant}.gguf": file for variant, file in files.items()}
        self.api.create_repo(REPO, exist_ok=True)
        old = set(self.api.list_repo_files(REPO)) - set(content) - {".gitattributes"}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in old]
        operations += [CommitOperationAdd(name, data) for name, data in content.items()]
        self.api.create_commit(REPO, operations, commit_message="test")

    def entry(self, variant: str, file: Path, sample: str | None = None) -> Entry:
        """An entry that describes ``file`` as it is."""
        found = samples.entry("gguf", variant, bits=16.0, divergence=0.001)
        listed = File(path=f"Tiny-{variant}.gguf", size=file.stat().st_size, sha256=sha256_of(file))
        return found.model_copy(
            update={
                "artifact": found.artifact.model_copy(update={"files": [listed]}),
                "evaluation": found.evaluation.model_copy(update={"sample": sample}),
            }
        )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, llama_cpp: LlamaCpp) -> Iterator[Shelf]:
    folder = tmp_path_factory.mktemp("verify")
    good = folder / "good.gguf"
    convert(llama_cpp, tiny_model, "Tiny", "F16", good)
    with running_hub(folder / "hub") as hub:
        token = hub.create_token("press", "write")
        yield Shelf(HfApi(endpoint=hub.endpoint, token=token), folder, good, hub.root, token)


def test_a_sound_variant_is_loaded_and_writes(shelf: Shelf) -> None:
    shelf.publish(shelf.entry("F16", shelf.good), F16=shelf.good)
    found = verify(shelf.api, REPO, "main", LOADER)
    assert [file.path for file in found.files] == ["Tiny-F16.gguf"]
    assert [spoken.variant for spoken in found.variants] == ["F16"]
    assert found.variants[0].text
    assert found.problems == []


def test_only_what_is_asked_for_is_loaded(shelf: Shelf) -> None:
    shelf.publish(shelf.entry("F16", shelf.good), F16=shelf.good)
    found = verify(shelf.api, REPO, "main", Loader("cpu", 2, only=frozenset({"Q8_0"})))
    assert len(found.files) == 1
    assert found.variants == []


def test_a_file_that_hashes_right_and_does_not_load_is_found(shelf: Shelf) -> None:
    broken = shelf.folder / "broken.gguf"
    broken.write_bytes(shelf.good.read_bytes()[:1_000_000])
    shelf.publish(shelf.entry("Q8_0", broken), Q8_0=broken)
    found = verify(shelf.api, REPO, "main", LOADER)
    assert [file.problem for file in found.files] == [""]
    (problem,) = found.problems
    assert problem.startswith("Q8_0 does not load and generate: ")


def test_a_file_with_other_bytes_is_found_and_not_loaded(shelf: Shelf) -> None:
    entry = shelf.entry("F16", shelf.good)
    (listed,) = entry.artifact.files
    other = entry.artifact.model_copy(update={"files": [listed.model_copy(update={"sha256": "0" * 64})]})
    shelf.publish(entry.model_copy(update={"artifact": other}), F16=shelf.good)
    found = verify(shelf.api, REPO, "main", LOADER)
    assert found.problems == [f"Tiny-F16.gguf has SHA-256 {listed.sha256}, the manifest says {'0' * 64}"]
    assert found.variants == []


def test_a_withheld_variant_is_not_asked_for(shelf: Shelf) -> None:
    withheld = samples.entry("gguf", "Q2_K", bits=3.0, divergence=2.0, withheld="too far")
    shelf.publish(shelf.entry("F16", shelf.good), withheld, F16=shelf.good)
    assert verify(shelf.api, REPO, "main", LOADER).problems == []


def spoil(root: Path, sha256: str, position: int) -> None:
    """Changes one byte of an object on the Hub's disk."""
    stored = root / "objects" / sha256[:2] / sha256
    with stored.open("r+b") as stream:
        stream.seek(position)
        (byte,) = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def call(shelf: Shelf, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quantpress", *arguments],
        cwd=shelf.folder,
        env=os.environ | {"QUANTPRESS_TARGET_ENDPOINT": shelf.api.endpoint, "HF_TOKEN": shelf.token, "COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_byte_that_changed_on_the_hubs_disk_is_found(shelf: Shelf) -> None:
    """By the command, which names the file; the object is whole again afterwards, as it is shared."""
    shelf.publish(shelf.entry("F16", shelf.good), F16=shelf.good)
    sha256 = sha256_of(shelf.good)
    spoil(shelf.root, sha256, shelf.good.stat().st_size // 2)
    found = call(shelf, "verify", REPO)
    spoil(shelf.root, sha256, shelf.good.stat().st_size // 2)
    assert found.returncode == 1
    assert found.stderr == f"quantpress: {REPO}@main: 1 of 1 files are not what the manifest says\n"
    line = next(line for line in found.stdout.splitlines() if line.startswith("Tiny-F16.gguf"))
    assert "has SHA-256 " in line and line.endswith(f", the manifest says {sha256}")
    again = call(shelf, "verify", REPO)
    assert again.returncode == 0, again.stderr


def test_clients_find_each_variant_by_its_name(shelf: Shelf) -> None:
    entries = [shelf.entry(name, shelf.good) for name in ("BF16", "F16", "Q4_K_M")]
    shelf.publish(*entries, BF16=shelf.good, F16=shelf.good, Q4_K_M=shelf.good)
    found = verify(shelf.api, REPO, "main", Loader("cpu", 2, only=()))
    digest = f"sha256:{sha256_of(shelf.good)}"
    assert [(each.client, each.tag, each.path) for each in found.resolved] == [
        ("llama.cpp", "BF16", "Tiny-BF16.gguf"),
        ("Ollama", "BF16", "Tiny-BF16.gguf"),
        ("llama.cpp", "F16", "Tiny-BF16.gguf"),
        ("Ollama", "F16", "Tiny-F16.gguf"),
        ("llama.cpp", "Q4_K_M", "Tiny-Q4_K_M.gguf"),
        ("Ollama", "Q4_K_M", "Tiny-Q4_K_M.gguf"),
        ("llama.cpp", "no tag", "Tiny-Q4_K_M.gguf"),
        ("Ollama", "latest", "Tiny-Q4_K_M.gguf"),
        *[("the Hub for Ollama", tag, digest) for tag in ("BF16", "F16", "Q4_K_M")],
    ]
    assert found.problems == []
    record = found.record()
    assert record.commit == shelf.api.list_repo_commits(REPO)[0].commit_id
    assert (record.files, record.loaded, record.problems) == (3, [], [])
    assert record.resolved[-1] == f"the Hub for Ollama Q4_K_M: {digest}"
    assert record.notes == [
        "llama.cpp takes Tiny-BF16.gguf for F16: it finds the tag at the end of BF16; "
        "name the file with -hff Tiny-F16.gguf"
    ]


def test_a_file_that_clients_take_instead_is_found(shelf: Shelf) -> None:
    """A stray file that comes before ours by name, and that llama.cpp would load without a word."""
    shelf.publish(shelf.entry("Q8_0", shelf.good), Q8_0=shelf.good)
    stray = CommitOperationAdd("Other-Q8_0.gguf", b"stray")
    shelf.api.create_commit(REPO, [stray], commit_message="stray")
    found = verify(shelf.api, REPO, "main", Loader("cpu", 2, only=()))
    assert found.problems == [
        "llama.cpp takes Other-Q8_0.gguf for Q8_0, not Tiny-Q8_0.gguf",
        "Ollama takes Other-Q8_0.gguf for Q8_0, not Tiny-Q8_0.gguf",
        "llama.cpp takes Other-Q8_0.gguf for no tag, not Tiny-Q8_0.gguf",
        "Ollama takes Other-Q8_0.gguf for latest, not Tiny-Q8_0.gguf",
        "the Hub for Ollama takes sha256:"
        f"{hashlib.sha256(b'stray').hexdigest()} for Q8_0, not sha256:{sha256_of(shelf.good)}",
    ]


def test_a_manifest_cannot_lead_out_of_the_repo(shelf: Shelf) -> None:
    entry = shelf.entry("F16", shelf.good)
    (listed,) = entry.artifact.files
    artifact = entry.artifact.model_copy(update={"files": [listed.model_copy(update={"path": "../../x.gguf"})]})
    shelf.publish(entry.model_copy(update={"artifact": artifact}), F16=shelf.good)
    found = verify(shelf.api, REPO, "main", LOADER)
    assert "../../x.gguf has a name that leads out of the repo's folder: it was not downloaded" in found.problems
    assert found.variants == []


def test_a_repo_of_another_program_is_hashed_and_loaded(shelf: Shelf) -> None:
    repo = "press/Foreign"
    shelf.api.create_repo(repo)
    files: dict[str, Path | bytes] = {"M.Q8_0.gguf": shelf.good, "M.imatrix.gguf": b"no model", "README.md": b"# M"}
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    shelf.api.create_commit(repo, operations, commit_message="test")
    found = verify(shelf.api, repo, "main", LOADER)
    assert [file.path for file in found.files] == [".gitattributes", "M.Q8_0.gguf", "M.imatrix.gguf", "README.md"]
    assert [spoken.variant for spoken in found.variants] == ["M.Q8_0.gguf"]
    assert (found.problems, found.reference) == ([], "the Hub")
    spoil(shelf.root, hashlib.sha256(b"no model").hexdigest(), 3)
    spoiled = verify(shelf.api, repo, "main", Loader("cpu", 2, only=()))
    assert spoiled.problems == ["M.imatrix.gguf is not what the Hub's hash says"]
