"""Which environment variables reach other programs: only those that are known to be harmless."""

from __future__ import annotations

import os

import pytest

from quantpress.machine.child import child_environment
from quantpress.machine.credentials import environment_of_downloads


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "HOME",
            "LC_ALL",
            "TMPDIR",
            "XDG_CACHE_HOME",
            "LD_LIBRARY_PATH",
            "PYTHONPATH",
            "CUDA_VISIBLE_DEVICES",
        ),
        *("HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS"),
        *("TOKENIZERS_PARALLELISM", "GGML_CUDA_NO_PINNED", "QUANTPRESS_CACHE", "CC", "EXLLAMA_NO_SDPA", "MAX_JOBS"),
    ],
)
def test_a_child_gets_what_is_harmless(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "value")
    assert child_environment()[name] == "value"
    assert environment_of_downloads()[name] == "value"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "GITHUB_PAT",
            "DATABASE_URL",
            "DB_PASS",
            "SSH_AUTH_SOCK",
            "AWS_PROFILE",
        ),
        *("HTTPS_PROXY", "https_proxy", "PIP_INDEX_URL", "PREFECT_API_URL", "HF_ENDPOINT", "NETRC", "UNHEARD_OF"),
        *("QUANTPRESS_WEBHOOK_SECRET", "TRITON_API_KEY", "CUDA_PAT", "MKL_PASSWORD", "TORCH_AUTH", "GGML_CREDENTIALS"),
    ],
)
def test_a_child_gets_nothing_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "value")
    assert name not in child_environment()


def test_an_address_with_a_password_stays_out_under_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_MIRROR", "https://me:word@mirror.example/torch")
    monkeypatch.setenv("TORCH_HOME", "https://mirror.example/torch@2")
    assert {"TORCH_MIRROR", "TORCH_HOME"} & set(child_environment()) == {"TORCH_HOME"}


def test_downloads_get_the_index_and_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "HTTPS_PROXY", "HF_TOKEN", "GITHUB_PAT"):
        monkeypatch.setenv(name, "https://me:word@example.org")
    assert {"PIP_INDEX_URL", "HTTPS_PROXY", "HF_TOKEN", "GITHUB_PAT"} & set(environment_of_downloads()) == {
        "PIP_INDEX_URL",
        "HTTPS_PROXY",
    }


def test_the_operator_names_more_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTPRESS_KEEP_VARIABLES", "SCRATCH, SLURM_*")
    for name in ("SCRATCH", "SLURM_JOB_ID", "SCRATCH_TOO"):
        monkeypatch.setenv(name, "value")
    assert {"SCRATCH", "SLURM_JOB_ID", "SCRATCH_TOO"} & set(child_environment()) == {"SCRATCH", "SLURM_JOB_ID"}
