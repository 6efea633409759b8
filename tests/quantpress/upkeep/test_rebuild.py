"""Before it downloads anything, a rebuild says what it lacks. Afterwards it says which files differ."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from quantizers import quantizer
from quantpress.errors import BadInput
from quantpress.evaluation.text import pydoc_halves
from quantpress.record.manifest import File
from quantpress.record.recipe import Calibration
from quantpress.upkeep.rebuild import Compared, compare, differing_tools, find_text
from tests.support import samples


def calibration(text: str, name: str = "custom-1234abcd") -> Calibration:
    return Calibration(text=name, sha256=hashlib.sha256(text.encode()).hexdigest(), samples=2, length=128)


def test_the_text_is_known_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("other words")
    (tmp_path / "wanted.txt").write_text("the very words")
    texts = [tmp_path / "other.txt", tmp_path / "wanted.txt"]
    found = find_text(calibration("the very words"), texts, tmp_path / "texts")
    assert (found.name, found.path) == ("custom-1234abcd", tmp_path / "wanted.txt")
    offline = find_text(calibration(pydoc_halves()[0], "pydoc-topics"), texts, tmp_path / "texts")
    assert offline.path == tmp_path / "texts" / "pydoc-topics.calibration.txt"


def test_a_text_that_nobody_has_is_named(tmp_path: Path) -> None:
    wanted = calibration("lost words")
    with pytest.raises(BadInput) as refused:
        find_text(wanted, [], tmp_path)
    assert str(refused.value) == (
        f"the variant was calibrated on custom-1234abcd, SHA-256 {wanted.sha256}, and that text is not here: "
        "give that file with --calibration-text"
    )
    with pytest.raises(BadInput, match=r"on pydoc-topics \(it changes with Python's version\), SHA-256"):
        find_text(calibration("another Python's topics", "pydoc-topics"), [], tmp_path)


def test_other_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTPRESS_LLAMA_CPP", raising=False)
    gguf, gptq = quantizer("gguf"), quantizer("gptq")
    manifest = samples.gguf()
    recipe = manifest.entries[0].recipe
    assert differing_tools(gguf, manifest, recipe) == [
        f"the variant was made by llama.cpp b9999, and {gguf.version()} is installed here"
    ]
    same = manifest.model_copy(update={"toolchain": gguf.tools()})
    assert differing_tools(gguf, same, recipe.model_copy(update={"quantizer": gguf.version()})) == []
    # The recipe names only the quantizer. The manifest names the tools that it was used with.
    named = samples.gptq(toolchain={**gptq.tools(), "torch": "1.0"})
    assert differing_tools(gptq, named, recipe.model_copy(update={"quantizer": gptq.version()})) == []


def test_files_are_compared_by_name(tmp_path: Path) -> None:
    entry = samples.entry(
        "gptq", "gptq-4bit-64g", bits=4.5, divergence=0.1, files=["a.json", "b.safetensors", "c.json"]
    )
    hashes = {
        name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.json", "b.safetensors", "c.json", "d.json")
    }
    files = [File(path=name, size=1, sha256=hashes[name]) for name in ("a.json", "b.safetensors", "c.json")]
    entry = entry.model_copy(update={"artifact": entry.artifact.model_copy(update={"files": files})})
    for name in ("a.json", "b.safetensors", "d.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "b.safetensors").write_text("other weights")
    found = compare(entry, tmp_path, ["a.json", "b.safetensors", "d.json"])
    other = hashlib.sha256(b"other weights").hexdigest()
    assert found == [
        Compared("a.json", hashes["a.json"], hashes["a.json"]),
        Compared("b.safetensors", hashes["b.safetensors"], other),
        Compared("c.json", hashes["c.json"], ""),
        Compared("d.json", "", hashes["d.json"]),
    ]
    assert [file.equal for file in found] == [True, False, False, False]
