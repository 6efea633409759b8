"""Decides which files are uploaded as LFS objects and which inside the commit."""

from __future__ import annotations

from fnmatch import fnmatchcase

# The public Hub writes these into a new model's .gitattributes. This Hub writes the same into a new dataset's.
LFS_PATTERNS = (
    "*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gguf", "*.gz", "*.h5", "*.joblib", "*.mlmodel",
    "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt",
    "*.pth", "*.rar", "*.safetensors", "*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst",
)  # fmt: skip

# Above this many bytes the public Hub refuses a file that is not in LFS.
LARGE_FILE = 10 * 1024 * 1024


def git_attributes() -> bytes:
    """Returns the .gitattributes of a new repo."""
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether a file of ``size`` bytes that starts with ``sample`` is an LFS object.

    An empty file never is: clients send it inside the commit, no matter what the server answers.
    """
    if size == 0:
        return False
    name = path.rpartition("/")[2]
    return size > LARGE_FILE or b"\0" in sample or any(fnmatchcase(name, p) for p in LFS_PATTERNS)
