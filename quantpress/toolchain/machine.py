"""The properties of this machine on which a build depends: the processor, its instruction sets, and CUDA."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quantpress.machine.gpu import ask_nvidia_smi

#: Maps each CMake option of ggml to the flags in /proc/cpuinfo that the option needs. AMX is left out on purpose,
#: because a virtual machine can announce AMX and then trap on the first tile instruction. This was seen on a
#: Firecracker guest with kernel 6.18: SIGILL at tilezero in every quantized matrix product. ``GGML_NATIVE`` would use
#: AMX.
_X86_OPTIONS = {
    "GGML_SSE42": ("sse4_2",),
    "GGML_AVX": ("avx",),
    "GGML_AVX2": ("avx2",),
    "GGML_BMI2": ("bmi2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_AVX_VNNI": ("avx_vnni",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "GGML_AVX512_VBMI": ("avx512vbmi",),
    "GGML_AVX512_VNNI": ("avx512_vnni",),
    "GGML_AVX512_BF16": ("avx512_bf16",),
}


@dataclass(frozen=True)
class Processor:
    """A processor's architecture, model name and instruction set flags."""

    architecture: str
    model: str
    flags: frozenset[str]


@dataclass(frozen=True)
class Cuda:
    """The CUDA compiler, and the compute capabilities of this machine's GPUs, such as ``9.0``."""

    compiler: Path
    capabilities: tuple[str, ...]


def processor() -> Processor:
    """Returns this machine's processor, as described by /proc/cpuinfo if that file exists."""
    source = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if source.exists():
        for line in source.read_text(errors="replace").splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features") or ""
    return Processor(platform.machine(), fields.get("model name", platform.processor()), frozenset(flags.split()))


def instruction_options(of: Processor) -> list[str]:
    """Returns the CMake options for the instruction sets of a processor.

    For an x86 processor, the options name each instruction set. For other processors, the compiler chooses.
    """
    if of.architecture not in {"x86_64", "AMD64"}:
        return ["-DGGML_NATIVE=ON"]
    chosen = [f"-D{option}={'ON' if of.flags.issuperset(needed) else 'OFF'}" for option, needed in _X86_OPTIONS.items()]
    return ["-DGGML_NATIVE=OFF", *chosen]


@cache
def cuda() -> Cuda | None:
    """Returns the CUDA compiler and the GPUs' capabilities, or None if nvcc or a GPU is missing.

    The search takes a second, so its result is cached for the process.
    """
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return None
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    search = os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)])
    compiler = shutil.which("nvcc", path=search)
    if compiler is None:
        return None
    capabilities = tuple(sorted(set(ask_nvidia_smi("compute_cap"))))
    return Cuda(Path(compiler), capabilities) if capabilities else None


def cuda_options(found: Cuda | None) -> list[str]:
    """Returns the CMake options for CUDA. The build contains code only for the GPUs of this machine."""
    if found is None:
        return []
    architectures = ";".join(capability.replace(".", "") for capability in found.capabilities)
    return [
        "-DGGML_CUDA=ON",
        f"-DCMAKE_CUDA_COMPILER={found.compiler}",
        f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
    ]
