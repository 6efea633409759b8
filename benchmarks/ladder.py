"""Compares two ways to make a ladder (all GGUF variants, or rungs, of one model): our engine, which needs one pass over
the model, and a loop that runs llama-quantize once per rung.

Run it as ``python -m benchmarks.ladder``. Both ways make the same rungs on the same machine with the same threads, one
after the other. Every pair of files is compared byte for byte. The figures go to docs/benchmarks.md. CPU seconds and
peak memory come from the kernel (``wait4``). They include the processes that a command starts. The one pass includes
the time to plan the tensors' types. Both ways write to the same disk. The one pass also syncs its files. llama-quantize
does not.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks import usage
from benchmarks.report import write_section
from benchmarks.wide_model import tiny_wide_model, wide_model
from quantizers.gguf.convert import convert
from quantizers.gguf.imatrix import make_imatrix
from quantizers.gguf.ladder import RUNGS, rungs_for
from quantizers.gguf.llama_quantize import arguments
from quantizers.gguf.one_pass import write_rungs
from quantizers.gguf.rung_plan import plan_rungs
from quantizers.protocol import CalibrationText
from quantpress.files import sha256_of
from quantpress.toolchain.cache import cache_folder, make_once
from quantpress.toolchain.llama_cpp import LlamaCpp, install, require
from quantpress.toolchain.progress import plain_lines

_MODELS = {"wide": wide_model, "tiny-wide": tiny_wide_model}
_SAMPLES, _LENGTH = 8, 256
#: The limits for the one pass, which issue 3 of quantpress sets: its CPU time and its wall time, each divided by the
#: loop's, and the bytes by which its peak memory can exceed the loop's.
_MOST_TIME, _MOST_MEMORY = 0.6, 300_000_000


@dataclass(frozen=True)
class Measured:
    """The cost of a run.

    ``cpu`` and ``wall`` are in seconds. ``peak`` is in bytes of resident memory. ``read`` is the size of the
    unquantized GGUF file times the number of passes over it, in bytes. It is computed, because the kernel does not
    count reads of mapped files.
    """

    cpu: float
    wall: float
    peak: int
    read: int


def prepared(tools: LlamaCpp, name: str) -> tuple[Path, Path]:
    """Returns the unquantized GGUF file and its imatrix. Both are made once per user."""
    source = _MODELS[name](plain_lines(print))

    def make(folder: Path) -> None:
        from pydoc_data.topics import topics

        convert(tools, source, name, "F16", folder / f"{name}-F16.gguf")
        text = folder / "topics.txt"
        text.write_text("\n\n".join(topics[topic] for topic in sorted(topics)), encoding="utf-8")
        calibration = CalibrationText(
            name="topics", path=text, sha256=sha256_of(text), samples=_SAMPLES, length=_LENGTH
        )
        options = ["--threads", str(len(os.sched_getaffinity(0)))]
        make_imatrix(tools, folder / f"{name}-F16.gguf", calibration, folder / f"{name}.imatrix.gguf", options)

    folder = make_once(cache_folder() / "bench" / source.name, make)
    return folder / f"{name}-F16.gguf", folder / f"{name}.imatrix.gguf"


def measured(commands: Sequence[Sequence[str]], folder: Path, read: int) -> Measured:
    """Runs the commands one after another in ``folder``. Raises ``CalledProcessError`` if one of them fails."""
    took = []
    for command in commands:
        with tempfile.TemporaryDirectory() as scratch:
            result, launcher = Path(scratch) / "usage.json", [sys.executable, "-I", "-S", str(Path(usage.__file__))]
            whole = [*launcher, str(result), *command]
            done = subprocess.run(whole, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode:
                sys.stderr.write((done.stdout + done.stderr).decode(errors="replace")[-2000:])
                raise subprocess.CalledProcessError(done.returncode, list(command))
            took.append(json.loads(result.read_text()))
    return Measured(
        cpu=sum(each["cpu"] for each in took),
        wall=sum(each["wall"] for each in took),
        peak=max(each["peak"] for each in took),
        read=read,
    )


def loop(tools: LlamaCpp, model: Path, imatrix: Path, rungs: Sequence[str], out: Path, threads: int) -> Measured:
    commands = [
        [
            str(tools.quantize),
            *arguments(RUNGS[rung], imatrix),
            model.name,
            str(_file(out, rung)),
            RUNGS[rung].type,
            str(threads),
        ]
        for rung in rungs
    ]
    return measured(commands, model.parent, model.stat().st_size * len(rungs))


def one_pass(model: Path, imatrix: Path, rungs: Sequence[str], out: Path, threads: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.ladder", "--press", str(model), str(imatrix), str(out)]
    return measured([[*command, str(threads), *rungs]], Path.cwd(), model.stat().st_size)


def press(model: Path, imatrix: Path, out: Path, threads: int, rungs: Sequence[str]) -> None:
    """Plans and writes the rungs. :func:`one_pass` runs and measures this function in a separate process."""
    tools = require()
    plans = plan_rungs(tools, model, imatrix, rungs)
    write_rungs(tools, model, imatrix, {_file(out, plan.rung): plan for plan in plans}, threads)


def different(ours: Path, theirs: Path, rungs: Sequence[str]) -> list[str]:
    return [rung for rung in rungs if not filecmp.cmp(_file(ours, rung), _file(theirs, rung), shallow=False)]


def _file(folder: Path, rung: str) -> Path:
    return folder / f"{rung}.gguf"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--press", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=_MODELS, default="wide")
    parser.add_argument("--rounds", type=int, default=1, help="how many times to run both ways (default 1)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--also",
        type=int,
        nargs="*",
        default=[1, 2, 8],
        help="run the one pass again with each of these numbers of threads, only to compare the files",
    )
    asked = parser.parse_args()
    if asked.press:
        model, imatrix, out, threads, *rungs = asked.press
        press(Path(model), Path(imatrix), Path(out), int(threads), rungs)
        return 0
    tools = install(plain_lines(print))
    model, imatrix = prepared(tools, asked.model)
    rungs = rungs_for({})
    loops, passes = [], []
    wrong: set[str] = set()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ladder-", dir=model.parent.parent) as scratch:
        theirs, ours = Path(scratch) / "loop", Path(scratch) / "one-pass"
        for _ in range(asked.rounds):
            for folder in (theirs, ours):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            passes.append(one_pass(model, imatrix, rungs, ours, asked.threads))
            print("one pass", passes[-1], flush=True)
            loops.append(loop(tools, model, imatrix, rungs, theirs, asked.threads))
            print("loop", loops[-1], flush=True)
            wrong.update(different(ours, theirs, rungs))
        for threads in sorted({*asked.also} - {asked.threads}):
            one_pass(model, imatrix, rungs, ours, threads)
            differ = sorted(different(ours, theirs, rungs))
            wrong.update(differ)
            print(f"one pass with {threads} threads: differs in {differ or 'nothing'}", flush=True)
        size = sum(_file(theirs, rung).stat().st_size for rung in rungs)
    lines = _lines(asked, Contest(tools.version, model, rungs, size, loops, passes, sorted(wrong), load))
    print("\n".join(lines))
    write_section(Path("docs/benchmarks.md"), "The GGUF ladder in one pass", lines)
    slow = beyond(loops, passes)
    print("\n".join(slow))
    return 1 if wrong or slow else 0


def beyond(loops: Sequence[Measured], passes: Sequence[Measured]) -> list[str]:
    """Describes each limit that the one pass exceeded. Times are summed over all turns. Peaks are the highest of
    all."""
    found = []
    for name in ("cpu", "wall"):
        ratio = sum(getattr(run, name) for run in passes) / sum(getattr(run, name) for run in loops)
        if ratio > _MOST_TIME:
            found.append(f"{name} time is {ratio:.2f} of the loop's, more than {_MOST_TIME}")
    more = max(run.peak for run in passes) - max(run.peak for run in loops)
    if more > _MOST_MEMORY:
        found.append(f"peak memory is {more / 1e6:.0f} MB above the loop's, more than {_MOST_MEMORY / 1e6:.0f} MB")
    return found


@dataclass(frozen=True)
class Contest:
    """The measured turns.

    ``size`` is the number of bytes of all rungs together. ``wrong`` are the rungs whose bytes differ. ``load`` is the
    machine's load average at the start.
    """

    version: str
    model: Path
    rungs: Sequence[str]
    size: int
    loops: Sequence[Measured]
    passes: Sequence[Measured]
    wrong: Sequence[str]
    load: float


def _lines(asked: argparse.Namespace, contest: Contest) -> list[str]:
    loops, passes, rungs = contest.loops, contest.passes, contest.rungs

    def row(name: str, looped: float, passed: float, unit: str) -> str:
        return f"| {name} | {looped:,.1f} {unit} | {passed:,.1f} {unit} | {passed / looped:.2f} |"

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    same = f"all but {', '.join(contest.wrong)}" if contest.wrong else f"all {len(rungs)}"
    counts = ", ".join(str(count) for count in sorted({*asked.also, asked.threads}))
    also = " ".join(str(count) for count in asked.also)
    command = f"--model {asked.model} --rounds {asked.rounds} --threads {asked.threads} --also {also}".rstrip()
    return [
        f"`python -m benchmarks.ladder {command}`, {date.today().isoformat()}, on {platform.machine()} with "
        f"{os.cpu_count()} cores, {contest.version}; load average {contest.load:.1f} at the start, "
        f"{os.getloadavg()[0]:.1f} at the end.",
        "",
        f"{len(rungs)} rungs of a model of {contest.model.stat().st_size / 1e6:.0f} MB in F16, "
        f"{contest.size / 1e9:.2f} GB written. "
        f"Files equal to llama-quantize's byte for byte with {counts} threads: {same}.",
        "",
        "| | loop of llama-quantize | one pass | ratio |",
        "|---|---:|---:|---:|",
        row("CPU time", mean([run.cpu for run in loops]), mean([run.cpu for run in passes]), "s"),
        row("wall time", mean([run.wall for run in loops]), mean([run.wall for run in passes]), "s"),
        row("source bytes read (computed)", loops[0].read / 1e6, passes[0].read / 1e6, "MB"),
        row("peak memory", max(run.peak for run in loops) / 1e6, max(run.peak for run in passes) / 1e6, "MB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
