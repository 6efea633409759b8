"""What of a checkout reaches a container image. Docker's own client decides it here, since no engine runs in tests."""

from __future__ import annotations

from pathlib import Path

from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[2]
#: What ``make setup`` and the press read.
NEEDED = {
    "Makefile", "README.md", "LICENSE", "pyproject.toml", "constraints.txt", "catalog.yaml", "prefect.yaml",
    "flows/nightly.py",
    "quantpress/__main__.py", "quantpress/localhub/pages/base.html", "quantpress/toolchain/cpu_torch.txt",
    "quantizers/gguf/quantizer.py", "templates/base.md.jinja",
}  # fmt: skip
#: What an operator's checkout holds besides.
PRIVATE = {
    ".env", ".git/config", ".hf/token", ".netrc", ".quantpress/hub/hub.sqlite3", ".venv/bin/python",
    "id_ed25519", "notes.txt", "quantpress/.env", "quantpress/__pycache__/a.pyc", "model.gguf", "flows/w.safetensors",
    "secrets/token", "tests/test_a.py", "quantpress.egg-info/PKG-INFO",
}  # fmt: skip


def test_an_image_gets_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    for name in NEEDED | PRIVATE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    taken = {path for path in exclude_paths(str(tmp_path), patterns) if (tmp_path / path).is_file()}

    # Docker's client always adds the file Dockerfile, which is missing here.
    assert taken == NEEDED
    assert all((ROOT / name).is_file() for name in NEEDED)


def test_base_images_are_arguments_that_a_release_sets() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "ARG CPU_BASE=" in text and "ARG CUDA_BASE=" in text
    bases = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")]
    assert set(bases) == {"${CPU_BASE}", "${CUDA_BASE}", "cpu-base", "cuda-base"}
    # pip runs only in `make setup`, which checks hashes.
    assert "pip install" not in text
