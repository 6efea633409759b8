"""What a watched child may use, and what the operator reads when it used more."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from quantpress.errors import ChildFailed
from quantpress.machine import watch
from quantpress.machine.child import run_child
from quantpress.machine.watch import Limits, duration

#: Doubles its memory in a process of its own, as a tool of a child can.
GREEDY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import time
held = bytearray(b"e" * 1_000_000)
while len(held) < 2_000_000_000:
    held = held + held
    time.sleep(0.1)
'''])
"""
#: Each of 14 rules of a tokenizer doubles what the rule before it left: 5 MB of text would become 80 GB.
BOMB = """
import json
from tokenizers import Tokenizer
rule = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
rules = {"type": "Sequence", "normalizers": [rule] * 14}
model = {"type": "BPE", "vocab": {"e": 0}, "merges": []}
text = json.dumps({"version": "1.0", "added_tokens": [], "normalizer": rules, "model": model})
Tokenizer.from_str(text).encode("e" * 5_000_000)
"""
#: Starts processes that share its memory. They hold 300 MB together, and 1,500 MB if it is counted for each of them.
SHARING = """
import os, pathlib, sys, time
held = bytearray(b"e" * 300_000_000)
children = []
for _ in range(4):
    if not (child := os.fork()):
        time.sleep(2)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
pathlib.Path(sys.argv[2]).write_text("{}")
"""
#: Each gets on in its own way for 3 s: it computes, writes a log, or reads.
COMPUTES = "end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
WRITES = "for _ in range(30):\n    print('at work', flush=True)\n    time.sleep(0.1)"
READS = "for _ in range(30):\n    open('/dev/zero', 'rb').read(2_000_000)\n    time.sleep(0.1)"
ANSWERS = "import pathlib, sys, time\n{}\npathlib.Path(sys.argv[2]).write_text('{{}}')\n"


class Nothing(BaseModel):
    pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def failure(program: str, folder: Path, limits: Limits) -> str:
    (folder / "greedy.py").write_text(program)
    with pytest.raises(ChildFailed) as caught:
        run_child("greedy", Nothing(), Nothing, folder / "job", limits)
    return str(caught.value).replace(str(folder), "FOLDER")


@pytest.mark.parametrize("program", [GREEDY, BOMB], ids=["tool", "tokenizer"])
def test_a_child_that_takes_too_much_memory_is_ended(folder: Path, program: str) -> None:
    said = failure(program, folder, Limits(memory=400_000_000))
    assert said == "greedy was ended because it took more than 0.4 GB of memory (log: FOLDER/job/log.txt)"


def test_memory_that_processes_share_counts_once(folder: Path) -> None:
    (folder / "sharing.py").write_text(SHARING)
    assert run_child("sharing", Nothing(), Nothing, folder / "job", Limits(memory=600_000_000)) == Nothing()


def test_a_child_is_ended_before_it_takes_the_machines_last_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine of this test says that it has only 300 MB left: to fill the real one would end other programs."""
    monkeypatch.setattr("quantpress.machine.watch._reserve", lambda: 400_000_000)
    monkeypatch.setattr("quantpress.machine.watch.available_memory", lambda: 300_000_000)
    said = failure(GREEDY, folder, Limits())
    assert said.startswith("greedy was ended because it took 0.")
    assert said.endswith(" GB of memory and left 0.3 GB to the machine (log: FOLDER/job/log.txt)")


def test_the_smaller_of_two_children_is_not_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantpress.machine.watch._reserve", lambda: 1_000_000)
    monkeypatch.setattr("quantpress.machine.watch.available_memory", lambda: 0)
    monkeypatch.setitem(watch._HELD, 0, 10_000_000_000)
    (folder / "small.py").write_text(ANSWERS.format("time.sleep(0.5)"))
    assert run_child("small", Nothing(), Nothing, folder / "job") == Nothing()


def test_a_child_that_does_nothing_is_ended(folder: Path) -> None:
    said = failure("import time\ntime.sleep(600)", folder, Limits(silence=1))
    assert said == "greedy was ended because it did nothing for 1 s (log: FOLDER/job/log.txt)"


@pytest.mark.parametrize("work", [COMPUTES, WRITES, READS], ids=["computes", "writes", "reads"])
def test_a_child_that_gets_on_is_not_ended(folder: Path, work: str) -> None:
    (folder / "busy.py").write_text(ANSWERS.format(work))
    assert run_child("busy", Nothing(), Nothing, folder / "job", Limits(silence=1.5)) == Nothing()


def test_the_kernel_ends_a_child_before_the_press(folder: Path) -> None:
    (folder / "graded.py").write_text(
        ANSWERS.format(
            "time.sleep(0.5)\nprint(pathlib.Path('/proc/self/oom_score_adj').read_text(), flush=True)\n1 / 0"
        )
    )
    with pytest.raises(ChildFailed, match=r"\| 1000$"):
        run_child("graded", Nothing(), Nothing, folder / "job")


def test_durations_in_words() -> None:
    assert [duration(seconds) for seconds in (1, 90, 1800, 9000)] == ["1 s", "90 s", "30 min", "2.5 h"]
