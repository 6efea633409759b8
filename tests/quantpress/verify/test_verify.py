"""Verification takes what the Hub serves now: it hashes the files, loads the model and makes it generate text."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantizers.gguf.convert import convert
from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.localhub.server import running_hub
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.verify.loading import Loader
from quantpress.verify.verify import verify
from tests.support import samples
from tests.support.served import CARD, REPO, ServedRepo, sums


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, llama_cpp: LlamaCpp) -> Iterator[ServedRepo]:
    folder = tmp_path_factory.mktemp("verify")
    good = folder / "good.gguf"
    convert(llama_cpp, tiny_model, "Tiny", "F16", good)
    small = folder / "small.gguf"
    small.write_bytes(good.read_bytes()[:100_000])
    with running_hub(folder / "hub") as hub:
        token = hub.create_token("press", "write")
        yield ServedRepo(HfApi(endpoint=hub.endpoint, token=token), folder, good, small, hub.root, token)


def test_a_sound_variant_is_loaded_and_writes(served: ServedRepo) -> None:
    served.publish(served.entry("F16", served.good), F16=served.good)
    found = served.verify()
    assert [file.path for file in found.files] == ["Tiny-F16.gguf", "README.md", "SHA256SUMS", "quantpress.json"]
    assert [spoken.variant for spoken in found.variants] == ["F16"]
    assert found.variants[0].text
    assert found.problems == []
    assert list((served.home / "scratch").iterdir()) == []


def test_only_what_is_asked_for_is_loaded(served: ServedRepo) -> None:
    served.publish(served.entry("F16", served.good), F16=served.good)
    found = served.verify(only={"Q8_0"})
    assert [file.path for file in found.files] == ["Tiny-F16.gguf", "README.md", "SHA256SUMS", "quantpress.json"]
    assert found.variants == []


def test_a_file_that_hashes_right_and_does_not_load_is_found(served: ServedRepo) -> None:
    broken = served.folder / "broken.gguf"
    broken.write_bytes(served.good.read_bytes()[:1_000_000])
    served.publish(served.entry("Q8_0", broken), Q8_0=broken)
    found = served.verify()
    assert [file.problem for file in found.files] == ["", "", "", ""]
    (problem,) = found.problems
    assert problem.startswith("Q8_0 does not load and generate: ")
    # The faults that go to manifest and card name no folder of this machine, and are the same in the next run.
    assert found.faults == {"Q8_0": ["does not load and generate"]}
    assert found.record("b1").problems == ["Q8_0 does not load and generate"]


def test_a_file_with_other_bytes_is_found_and_not_loaded(served: ServedRepo) -> None:
    entry = served.entry("F16", served.good)
    (listed,) = entry.artifact.files
    other = entry.artifact.model_copy(update={"files": [listed.model_copy(update={"sha256": "0" * 64})]})
    served.publish(entry.model_copy(update={"artifact": other}), F16=served.good)
    found = served.verify()
    assert found.problems == [f"Tiny-F16.gguf has SHA-256 {listed.sha256}, the manifest says {'0' * 64}"]
    assert found.variants == []


def test_a_withheld_variant_is_not_asked_for(served: ServedRepo) -> None:
    withheld = samples.entry("gguf", "Q2_K", bits=3.0, divergence=2.0, withheld="too far")
    served.publish(served.entry("F16", served.good), withheld, F16=served.good)
    assert served.verify().problems == []


def stored(root: Path, sha256: str) -> Path:
    """Returns the path of an object on the Hub's disk."""
    return root / "objects" / sha256[:2] / sha256


def spoil(root: Path, sha256: str, position: int) -> None:
    """Changes one byte of an object on the Hub's disk."""
    with stored(root, sha256).open("r+b") as stream:
        stream.seek(position)
        (byte,) = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def call(served: ServedRepo, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quantpress", *arguments],
        cwd=served.folder,
        env=os.environ
        | {"QUANTPRESS_TARGET_ENDPOINT": served.api.endpoint, "HF_TOKEN": served.token, "COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_byte_that_changed_on_the_hubs_disk_is_found(served: ServedRepo) -> None:
    """The command finds the byte and names the file. The test then mends the object, because other tests share it."""
    served.publish(served.entry("F16", served.good), F16=served.good)
    sha256 = sha256_of(served.good)
    spoil(served.root, sha256, served.good.stat().st_size // 2)
    found = call(served, "verify", REPO)
    spoil(served.root, sha256, served.good.stat().st_size // 2)
    assert found.returncode == 1
    assert found.stderr == f"quantpress: {REPO}@main: 1 of 4 files are not what the manifest says\n"
    line = next(line for line in found.stdout.splitlines() if line.startswith("Tiny-F16.gguf"))
    assert "has SHA-256 " in line and line.endswith(f", the manifest says {sha256}")
    again = call(served, "verify", REPO)
    assert again.returncode == 0, again.stderr


def content(served: ServedRepo) -> dict[str, bytes]:
    """Returns a repo's files for tests that only look at files. No client would load its variant."""
    entry = served.entry("Q8_0", served.small)
    manifest = samples.gguf(entries=[entry], shared=[]).to_json().encode()
    return {"README.md": CARD, "Tiny-Q8_0.gguf": served.small.read_bytes(), "quantpress.json": manifest}


@pytest.mark.parametrize(
    ("name", "word"), [("README.md", b"Tiny"), ("SHA256SUMS", b"README"), ("quantpress.json", b"12.0")]
)
def test_a_byte_that_changed_in_what_the_manifest_does_not_list_is_found(
    served: ServedRepo, name: str, word: bytes
) -> None:
    """The changed manifest is still a valid manifest, but with another figure."""
    files = content(served)
    files["SHA256SUMS"] = sums(files)
    served.put(files)
    sha256, position = hashlib.sha256(files[name]).hexdigest(), files[name].index(word) + 1
    spoil(served.root, sha256, position)
    found = served.verify(only=())
    spoil(served.root, sha256, position)
    assert found.problems == [f"{name} is not what the Hub's hash says"]
    assert served.verify(only=()).problems == []


def test_a_manifest_that_is_none_any_more_is_one_line(served: ServedRepo) -> None:
    files = content(served)
    files["SHA256SUMS"] = sums(files)
    served.put(files)
    sha256 = hashlib.sha256(files["quantpress.json"]).hexdigest()
    spoil(served.root, sha256, 0)
    found = call(served, "verify", REPO)
    spoil(served.root, sha256, 0)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == (
        f"quantpress: {REPO}@main: quantpress.json is not what the Hub's hash says, and cannot be read: "
        "restore the file, or rename or delete the repo, then press the model again\n"
    )


def test_a_file_that_was_cut_off_on_the_hubs_disk_is_found(served: ServedRepo) -> None:
    files = content(served)
    files["SHA256SUMS"] = sums(files)
    served.put(files)
    there = stored(served.root, sha256_of(served.small))
    there.write_bytes(b"GGUF")
    found = served.verify()
    there.write_bytes(served.small.read_bytes())
    (problem,) = found.problems
    assert problem == ("Tiny-Q8_0.gguf is not served: the Hub answers 410, so it lost or damaged it")
    assert found.variants == []


def test_sums_that_say_something_else_are_found(served: ServedRepo) -> None:
    files = content(served)
    said = sums({"README.md": b"another card", "gone.gguf": b"gone", "Tiny-Q8_0.gguf": files["Tiny-Q8_0.gguf"]})
    served.put(files | {"SHA256SUMS": said + b"a word\n"})
    assert served.verify(only=()).problems == [
        "SHA256SUMS gives another SHA-256 for README.md; lacks quantpress.json; names what is not there: gone.gguf; "
        "has lines that sha256sum cannot read"
    ]
    served.put(files)
    assert served.verify(only=()).problems == ["SHA256SUMS is missing in the repo"]


def test_a_tag_or_a_commit_of_a_branch_is_checked_as_the_branch(served: ServedRepo) -> None:
    """``main`` lists the variant too, but holds none of its files. So verifying ``main`` is not a success."""
    entry = served.entry("Q8_0", served.small).model_copy(update={"branch": "8bit"})
    served.publish(entry)
    commit = served.publish(entry, branch="8bit", Q8_0=served.small)
    served.api.create_tag(REPO, tag="v1-8bit", revision="8bit")
    spoil(served.root, sha256_of(served.small), 5000)
    found = {revision: served.verify(revision).problems for revision in ("8bit", "v1-8bit", commit)}
    spoil(served.root, sha256_of(served.small), 5000)
    assert {len(problems) for problems in found.values()} == {1}
    assert {problems[0].partition(" has SHA-256 ")[0] for problems in found.values()} == {"Tiny-Q8_0.gguf"}
    main = served.api.list_repo_commits(REPO)[0].commit_id
    for revision in ("main", main):
        assert served.verify(revision).problems == [
            "this revision holds no variant's files. The files are on 8bit: verify them with --revision BRANCH"
        ]


def test_what_is_downloaded_goes_to_the_home_folder(served: ServedRepo, small_disk: Path) -> None:
    """The file would go to the home folder, whose disk is too small. This is found before the download."""
    served.publish(served.entry("F16", served.good), F16=served.good)
    with pytest.raises(QuantpressError) as refused:
        verify(served.api, REPO, "main", Loader("cpu", 2), small_disk / "home")
    assert str(refused.value) == (
        f"{small_disk / 'home'}: 0.1 GB of disk are needed and 0.0 GB are free; "
        "free some, or set QUANTPRESS_HOME to a larger disk"
    )


def test_clients_find_each_variant_by_its_name(served: ServedRepo) -> None:
    entries = [served.entry(name, served.good) for name in ("BF16", "F16", "Q4_K_M")]
    served.publish(*entries, BF16=served.good, F16=served.good, Q4_K_M=served.good)
    found = served.verify(only=())
    digest = f"sha256:{sha256_of(served.good)}"
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
    record = found.record("b1")
    assert record.commit == served.api.list_repo_commits(REPO)[0].commit_id
    assert (record.files, record.loaded, record.problems) == (6, [], [])
    assert record.resolved[-1] == f"the Hub for Ollama Q4_K_M: {digest}"
    assert record.notes == [
        "llama.cpp takes Tiny-BF16.gguf for F16: it finds the tag at the end of BF16; "
        "name the file with -hff Tiny-F16.gguf"
    ]


def test_a_file_that_clients_take_instead_is_found(served: ServedRepo) -> None:
    """A stray file's name comes before ours, so llama.cpp would load the stray file without a word."""
    served.publish(served.entry("Q8_0", served.good), Q8_0=served.good)
    stray = CommitOperationAdd("Other-Q8_0.gguf", b"stray")
    served.api.create_commit(REPO, [stray], commit_message="stray")
    found = served.verify(only=())
    assert found.problems == [
        "llama.cpp takes Other-Q8_0.gguf for Q8_0, not Tiny-Q8_0.gguf",
        "Ollama takes Other-Q8_0.gguf for Q8_0, not Tiny-Q8_0.gguf",
        "llama.cpp takes Other-Q8_0.gguf for no tag, not Tiny-Q8_0.gguf",
        "Ollama takes Other-Q8_0.gguf for latest, not Tiny-Q8_0.gguf",
        "the Hub for Ollama takes sha256:"
        f"{hashlib.sha256(b'stray').hexdigest()} for Q8_0, not sha256:{sha256_of(served.good)}",
    ]
    assert found.faults == {
        "Q8_0": [found.problems[0], found.problems[1], found.problems[4]],
        "": [found.problems[2], found.problems[3]],
    }


def test_a_manifest_cannot_lead_out_of_the_repo(served: ServedRepo) -> None:
    entry = served.entry("F16", served.good)
    (listed,) = entry.artifact.files
    artifact = entry.artifact.model_copy(update={"files": [listed.model_copy(update={"path": "../../x.gguf"})]})
    served.publish(entry.model_copy(update={"artifact": artifact}), F16=served.good)
    with pytest.raises(QuantpressError, match=r"files\.0\.path: Value error, must stay within the folder of the repo"):
        served.verify()


def test_a_repo_of_another_program_is_hashed_and_loaded(served: ServedRepo) -> None:
    repo = "press/Foreign"
    served.api.create_repo(repo)
    files: dict[str, Path | bytes] = {"M.Q8_0.gguf": served.good, "M.imatrix.gguf": b"no model", "README.md": b"# M"}
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    served.api.create_commit(repo, operations, commit_message="test")
    found = served.verify(repo=repo)
    assert [file.path for file in found.files] == [".gitattributes", "M.Q8_0.gguf", "M.imatrix.gguf", "README.md"]
    assert [spoken.variant for spoken in found.variants] == ["M.Q8_0.gguf"]
    assert (found.problems, found.reference) == ([], "the Hub")
    spoil(served.root, hashlib.sha256(b"no model").hexdigest(), 3)
    spoiled = served.verify(repo=repo, only=())
    assert spoiled.problems == ["M.imatrix.gguf is not what the Hub's hash says"]
