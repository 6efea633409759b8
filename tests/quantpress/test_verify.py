"""What is verified is what the Hub serves now: hashed, loaded and made to speak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

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

    def publish(self, *entries: Entry, **files: Path) -> None:
        """A repo with these entries, whose files' bytes are those of ``files``, by variant."""
        manifest = samples.gguf(entries=list(entries), shared=[])
        content: dict[str, Path | bytes] = {"quantpress.json": manifest.to_json().encode()}
        content |= {f"Tiny-{variant}.gguf": file for variant, file in files.items()}
        self.api.create_repo(REPO, exist_ok=True)
        operations = [CommitOperationAdd(name, data) for name, data in content.items()]
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
        yield Shelf(HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write")), folder, good)


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
