"""Selects the environment variables of this process that other programs may see. What is not known to be harmless is
left out, because nobody can list the names under which people keep their secrets."""

from __future__ import annotations

import os
import re

#: Where programs, libraries and temporary files are, and how text is written.
_GENERAL = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS", "NO_COLOR",
    "TMPDIR", "TMP", "TEMP", "VIRTUAL_ENV", "CONDA_PREFIX", "MPLCONFIGDIR", "DO_NOT_TRACK", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
#: What compilers read. Triton and Torch's extensions call compilers too.
_COMPILERS = (
    "CC", "CXX", "CUDACXX", "CUDAHOSTCXX", "CPATH", "CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS", "LIBRARY_PATH",
    "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "MAX_JOBS", "MAKEFLAGS", "SOURCE_DATE_EPOCH",
)  # fmt: skip
#: Where the Hub's client and the libraries beside it keep their caches, and that they are offline.
_HUGGING_FACE = (
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE",
    "HF_XET_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_PROGRESS_BARS",
)  # fmt: skip
_NAMES = {*_GENERAL, *_COMPILERS, *_HUGGING_FACE}
#: Settings of ours, of the dynamic linker, and of the libraries that quantizers and engines are made of.
_PREFIXES = (
    "QUANTPRESS_", "LC_", "XDG_", "LD_", "PYTHON", "MALLOC_", "GLIBC_", "OMP_", "GOMP_", "KMP_", "MKL_",
    "OPENBLAS_", "BLIS_", "VECLIB_", "NUMEXPR_", "NUMBA_", "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NVTE_",
    "NCCL_", "GLOO_", "HIP_", "ROCM_", "ROCR_", "HSA_", "TORCH", "PYTORCH_", "ATEN_", "TRITON_", "TRANSFORMERS_",
    "TOKENIZERS_", "SAFETENSORS_", "ACCELERATE_", "BNB_", "BITSANDBYTES_", "GPTQMODEL_", "EXLLAMA", "TORCHAO_",
    "COMPRESSED_TENSORS_", "LLMCOMPRESSOR_", "GGML_", "LLAMA_", "CMAKE_", "NINJA_", "CCACHE_",
)  # fmt: skip
#: What pip needs to download, besides. An index and a proxy can hold a password, and pip must have it.
_OF_DOWNLOADS = (
    "PIP_", "UV_", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "NO_PROXY",
)  # fmt: skip
#: A variable with a harmless prefix still holds a credential if its name contains one of ``_MARKS`` or ends with one of
#: ``_ENDINGS``, or if its value is an address with a password.
_MARKS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")
_ENDINGS = ("_KEY", "_PAT", "_PASS", "_AUTH")
_NO_CREDENTIALS = "TOKENIZERS_"
_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/\s@]+@")
#: The operator names more variables here, separated by commas. A name that ends with ``*`` stands for a prefix.
KEPT = "QUANTPRESS_KEEP_VARIABLES"


def harmless_environment(*prefixes: str) -> dict[str, str]:
    """Returns the variables of this process that are known to hold no credentials, those that the operator names
    (``QUANTPRESS_KEEP_VARIABLES``), and those whose names begin with one of ``prefixes``.

    A process with this environment cannot find a token that ``hf auth login`` stored either, because ``HF_TOKEN_PATH``
    names an empty file.
    """
    named = {name.strip() for name in os.environ.get(KEPT, "").split(",") if name.strip()}
    chosen = (*prefixes, *(name[:-1] for name in named if name.endswith("*")))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in named or name.startswith(chosen) or (_is_known(name) and not _is_credential(name, value))
    }
    return kept | {"HF_TOKEN_PATH": os.devnull}


def environment_of_downloads() -> dict[str, str]:
    """Returns :func:`harmless_environment` with what pip needs to reach a package index."""
    return harmless_environment(*_OF_DOWNLOADS)


def _is_known(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIXES)


def _is_credential(name: str, value: str) -> bool:
    if _ADDRESS_WITH_PASSWORD.search(value):
        return True
    name = name.upper()
    if name.startswith(_NO_CREDENTIALS):
        return False
    return name.endswith(_ENDINGS) or any(mark in name for mark in _MARKS)
