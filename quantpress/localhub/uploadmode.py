"""Which files travel as LFS objects and which inside the commit."""

from __future__ import annotations

from fnmatch import fnmatchcase

# What the public Hub writes into a new model's .gitattributes; here a new dataset's holds the same.
LFS_PATTERNS = (
    "*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gguf", "*.gz", "*.h5", "*.joblib", "*.mlmodel",
    "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt",
    "*.pth", "*.rar", "*.safetensors", "*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst",
)  # fmt: skip

# Above this many bytes the public Hub refuses a file that is not in LFS.
LARGE_FILE = 10 * 1024 * 1024


def git_attributes() -> bytes:
    """The .gitattributes of a new repo."""
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether a file of ``size`` bytes that starts with ``sample`` is an LFS object.

    Empty files never are: clients send them inside the commit whatever is answered.
    """
    if size == 0:
        return False
    name = path.rpartition("/")[2]
    return size > LARGE_FILE or b"\0" in sample or any(fnmatchcase(name, p) for p in LFS_PATTERNS)
