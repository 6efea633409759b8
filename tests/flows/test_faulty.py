"""A rung (a GGUF variant) arrives on the Hub with other bytes. Manifest and card say so until it is found sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantpress.files import sha256_of
from quantpress.record.manifest import Entry, parse_manifest
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL, REPO = "upstream/Tiny-Instruct", "press/Tiny-Instruct-GGUF"
REPOS = [REPO, "press/Tiny-Instruct-quantized"]
FILE = "Tiny-Instruct-Q8_0.gguf"


def stored(operator: Operator, sha256: str) -> Path:
    """Returns the path of an object on the Hub's disk."""
    return operator.hub.root / "objects" / sha256[:2] / sha256


def spoil(operator: Operator, sha256: str) -> None:
    """Changes a byte of an object, or changes it back."""
    with stored(operator, sha256).open("r+b") as stream:
        stream.seek(1_000_000)
        (byte,) = stream.read(1)
        stream.seek(1_000_000)
        stream.write(bytes([byte ^ 1]))


@pytest.fixture(scope="module")
def sha256(operator: Operator, tiny_model: Path) -> str:
    """The hash of the rung that the press will make. The Hub has this object already, so the press uploads nothing, but
    one byte of the object is changed."""
    operator.upload_source(MODEL, tiny_model)
    line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": ["Q8_0", "Q5_0"]}}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})
    code, _, err = operator.call("quantize", MODEL, "--variants", "Q8_0", "--out", "made")
    assert code == 0, err
    operator.api.create_repo("press/Elsewhere")
    made = operator.folder / "made" / FILE
    operator.api.upload_file(repo_id="press/Elsewhere", path_in_repo=FILE, path_or_fileobj=made)
    spoil(operator, sha256_of(made))
    return sha256_of(made)


def read(operator: Operator, name: str) -> str:
    return Path(operator.api.hf_hub_download(REPO, name, cache_dir=operator.folder / "look")).read_text()


def entries(operator: Operator) -> dict[str, Entry]:
    return {entry.variant: entry for entry in parse_manifest(read(operator, "quantpress.json"), REPO).entries}


def run(operator: Operator) -> tuple[int, list[str]]:
    """Returns the exit code and the command line's own lines."""
    code, _, err = operator.call("run")
    return code, [line for line in err.splitlines() if line.startswith("quantpress: ")]


def test_it_is_on_record_and_on_the_card(operator: Operator, sha256: str) -> None:
    code, said = run(operator)
    fault = f"{FILE} has SHA-256 {sha256_of(stored(operator, sha256))}, the manifest says {sha256}"
    assert (code, said) == (1, [f"quantpress: {REPO}@main: {fault}"])
    found = entries(operator)
    assert {name: (entry.verified is None, entry.problems) for name, entry in found.items()} == {
        "Q8_0": (True, [fault]),
        "Q5_0": (False, []),
    }
    card = read(operator, "README.md")
    assert f"| `Q8_0` | {fault.replace('_', chr(92) + '_')} |" in card.split("## Found faulty")[1]
    assert {step["variant"]: step["reason"] for step in operator.plan()} == {
        "Q8_0": f"found faulty after upload: {fault}",
        "Q5_0": "up to date",
    }


def test_the_next_night_looks_again_and_has_nothing_new_to_say(operator: Operator) -> None:
    before = {repo: operator.commits(repo) for repo in REPOS}
    code, said = run(operator)
    assert (code, len(said)) == (1, 1)
    assert said[0].startswith(f"quantpress: {REPO}@main: {FILE} has SHA-256 ")
    assert {repo: operator.commits(repo) for repo in REPOS} == before


def test_what_is_found_sound_is_no_longer_said_to_be_faulty(operator: Operator, sha256: str) -> None:
    spoil(operator, sha256)
    before = operator.commits(REPO)
    assert run(operator) == (0, [])
    assert operator.api.list_repo_commits(REPO)[0].title == "Verified after upload: Q8_0"
    assert len(operator.commits(REPO)) == len(before) + 1
    entry = entries(operator)["Q8_0"]
    assert (entry.verified, entry.problems) == (before[0], [])
    assert "Found faulty" not in read(operator, "README.md")
    assert {step["reason"] for step in operator.plan()} == {"up to date"}
