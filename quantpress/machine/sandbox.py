"""A sandbox for child processes that read foreign files: no network, no look into processes outside, and writing in
their own folders alone.

The kernel enforces it, and no program in it can leave it. Landlock (landlock(7), Linux 6.7 with TCP) restricts where a
process writes, and keeps it from connections and from the memory and environment of processes outside. A seccomp
filter (seccomp(2)) refuses internet sockets, because Landlock knows no UDP. Reading files stays allowed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

#: The operator sets this variable to ``off`` if a child must do more than the sandbox allows.
VARIABLE = "QUANTPRESS_SANDBOX"
#: The first version of Landlock that knows TCP, and the first that knows signals.
_KNOWS_TCP, _KNOWS_SIGNALS = 4, 6
#: Numbers of system calls that are the same on x86-64 and Arm (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _IO_URING_SETUP = 444, 445, 446, 425
#: For each architecture: its number in the kernel's audit (linux/audit.h), and the number of socket(2).
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_VERSION, _BENEATH = 1, 1  # LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH
#: Rights of linux/landlock.h: to write and truncate files, and to make, remove, link and rename what is in a folder.
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 14))
_BIND, _CONNECT = 1 << 0, 1 << 1
_SIGNALS = 1 << 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
_PR_CAPBSET_DROP = 24  # linux/prctl.h
#: Capabilities that root loses in the sandbox (linux/capability.h): CAP_NET_ADMIN, NET_RAW, SYS_MODULE, SYS_RAWIO,
#: SYS_PTRACE, SYS_ADMIN, SYS_BOOT, PERFMON and BPF. With PERFMON, a process reads the environment of all others.
_LOST = (12, 13, 16, 17, 19, 21, 22, 38, 39)
#: Folders and devices that programs write to: temporary files, shared memory, GPUs, settings of their own process.
_ALWAYS = ("/dev", "/proc", "/tmp", "/var/tmp")
#: Variables that name a folder for temporary files or a cache of a library.
_CACHES = (
    "TMPDIR", "HF_HOME", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "TORCH_HOME",
    "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_HOME", "CUDA_CACHE_PATH",
    "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "CCACHE_DIR",
)  # fmt: skip
#: Caches in the home folder, and in the folder of the user's caches. A cache of a library that is not listed here works
#: once it exists. The toolchains are not among them, because the press runs them.
_AT_HOME = (".triton", ".nv", ".config/matplotlib")
_OF_USER = ("huggingface", "torch", "torch_extensions", "triton", "gptqmodel", "matplotlib", "ccache", "flashinfer")
_OURS = "quantpress"
_LIBC = ctypes.CDLL(None, use_errno=True)
_ZERO, _ONE = ctypes.c_ulong(0), ctypes.c_ulong(1)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


def obstacle() -> str | None:
    """Returns why this system has no sandbox, or None if it has one."""
    if os.environ.get(VARIABLE) == "off":
        return f"{VARIABLE} is off"
    if platform.machine() not in _ARCHITECTURES:
        return f"not known for {platform.machine()}"
    if _version() < _KNOWS_TCP:
        return "the kernel has no Landlock with TCP (Linux 6.7), or a container forbids it"
    return None


@cache
def _version() -> int:
    return int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))


@contextmanager
def sandbox(writes: Iterable[Path]) -> Iterator[Callable[[], None] | None]:
    """Yields a function that a new process calls before its program starts, to enter a sandbox. Yields None if this
    system has no sandbox.

    In the sandbox, files are written only in ``writes``, in folders for temporary files, and in the libraries' caches.
    """
    if obstacle() is not None:
        yield None
        return
    ruleset = _ruleset([*writes, *_shared_folders()])
    program = _network_filter()
    try:
        yield lambda: _enter(ruleset, program)
    finally:
        os.close(ruleset)


def _shared_folders() -> Iterator[Path]:
    yield from map(Path, _ALWAYS)
    yield from (Path(os.environ[name]) for name in _CACHES if os.environ.get(name))
    home = Path(os.environ.get("HOME") or "/nonexistent")
    yield from (home / name for name in _AT_HOME)
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    for name in _OF_USER:
        if os.access(of_user if of_user.exists() else home, os.W_OK):
            (of_user / name).mkdir(parents=True, exist_ok=True)
    if of_user.is_dir():
        yield from (folder for folder in of_user.iterdir() if folder.name != _OURS)


def _ruleset(writes: Iterable[Path]) -> int:
    """Returns the descriptor of a Landlock ruleset that allows writing in these folders and files alone."""
    version = _version()
    handled = _WRITE_FILE | _TRUNCATE | _CHANGE_FOLDER
    wanted = _Ruleset(handled, _BIND | _CONNECT, _SIGNALS if version >= _KNOWS_SIGNALS else 0)
    size = ctypes.sizeof(wanted) if version >= _KNOWS_SIGNALS else _Ruleset.scoped.offset
    ruleset = _checked(_LIBC.syscall(_CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), ctypes.c_uint32(0)))
    for path in writes:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            rule = _Rule(handled if path.is_dir() else _WRITE_FILE | _TRUNCATE, place)
            _checked(_LIBC.syscall(_ADD_RULE, ruleset, _BENEATH, ctypes.byref(rule), ctypes.c_uint32(0)))
        finally:
            os.close(place)
    return ruleset


def _network_filter() -> _Program:
    """Returns a seccomp filter that refuses internet sockets, io_uring (which could open one), and system calls of
    another architecture."""
    architecture, socket = _ARCHITECTURES[platform.machine()]
    load, equal, reached, end = 0x20, 0x15, 0x35, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ, …|BPF_JGE, BPF_RET
    refuse, allow = 0x00050000 | errno.EACCES, 0x7FFF0000  # SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW
    # struct seccomp_data: the call's number at 0, the architecture at 4, the first argument at 16.
    steps = [
        (load, 0, 0, 4),
        (equal, 0, 7, architecture),
        (load, 0, 0, 0),
        (reached, 5, 0, 0x40000000),  # x32 calls of x86-64
        (equal, 4, 0, _IO_URING_SETUP),
        (equal, 0, 4, socket),
        (load, 0, 0, 16),
        (equal, 1, 0, 2),  # AF_INET
        (equal, 0, 1, 10),  # AF_INET6
        (end, 0, 0, refuse),
        (end, 0, 0, allow),
    ]
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    return _Program(len(steps), instructions)


def _enter(ruleset: int, program: _Program) -> None:
    """Restricts this process, which runs one thread, and all that it starts."""
    for capability in _LOST:  # fails for users without privileges, who have none of them
        _LIBC.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), _ZERO, _ZERO, _ZERO)
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, _ONE, _ZERO, _ZERO, _ZERO))
    _checked(_LIBC.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    _checked(_LIBC.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program), _ZERO, _ZERO))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
