"""A process's peak memory does not count the memory of the process that started it."""

from __future__ import annotations

import subprocess
import sys

from quantpress.machine.peak_memory import own_peak_bytes

MIB = 1 << 20
PROGRAM = "from quantpress.machine.peak_memory import own_peak_bytes; {taken}; print(own_peak_bytes())"


def peak_of_child(taken: str) -> int:
    program = PROGRAM.format(taken=taken)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def test_a_child_does_not_count_what_its_parent_holds() -> None:
    held = bytearray(b"x") * (400 * MIB)
    assert own_peak_bytes() > 400 * MIB
    assert peak_of_child("pass") < 100 * MIB
    assert len(held) == 400 * MIB


def test_what_was_given_back_counts() -> None:
    assert 200 * MIB < peak_of_child(f"held = bytearray(b'x') * (200 * {MIB}); del held") < 300 * MIB
