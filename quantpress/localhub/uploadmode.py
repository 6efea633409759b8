"""Decides which files clients upload as LFS (Git Large File Storage) objects, and which they send inside the commit."""

from __future__ import annotations

from fnmatch import fnmatchcase

# The public Hub writes these patterns into the .gitattributes of a new model. This Hub writes the same patterns for a
# new dataset too.
LFS_PATTERNS = (
    "*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gguf", "*.gz", "*.h5", "*.joblib", "*.mlmodel",
    "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt",
    "*.pth", "*.rar", "*.safetensors", "*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst",
)  # fmt: skip

# The public Hub refuses a file of more bytes than this, unless the file is in LFS.
LARGE_FILE = 10 * 1024 * 1024


def git_attributes() -> bytes:
    """Returns the .gitattributes of a new repo."""
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether clients must upload a file of ``size`` bytes that starts with ``sample`` as an LFS object.

    An empty file is never an LFS object, because clients send an empty file inside the commit, whatever the server
    answers.
    """
    if size == 0:
        return False
    name = path.rpartition("/")[2]
    return size > LARGE_FILE or b"\0" in sample or any(fnmatchcase(name, p) for p in LFS_PATTERNS)
