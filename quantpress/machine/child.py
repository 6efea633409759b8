"""Heavy work runs in a child process: a JSON job in, a JSON result out.

A crash, an OOM kill or a leak ends one job and not the run, the memory comes back, and the child's peak
memory can be read from the kernel. Both files live in the job's folder; the child's output goes to a log
beside them. A child that knows why it fails says so in one line, and that is what its parent says; else the log's
last lines are quoted.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantpress.errors import ChildFailed, QuantpressError
from quantpress.files import write_text
from quantpress.machine.credentials import without_credentials

#: The connection to Prefect, which no child needs.
_PREFECT_PREFIX = "PREFECT_"
#: OpenMP threads that wait by spinning take the processor from those that work, where jobs outnumber cores, as where
#: one variant is measured while the next is made. On 2 cores at load 5 to 6, llama-perplexity took 14 s instead of
#: 33 s with it, and transformers 16 to 22 s instead of 39 to 47 s; alone on the machine both ways take the same.
_PATIENT = {"OMP_WAIT_POLICY": "passive"}
_QUOTED_LINES = 8
#: How a child ends that has written its error as the last lines of its log, and what they begin with.
_EXPLAINED = 3
_ERROR = "error: "
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)

R = TypeVar("R", bound=BaseModel)


def child_environment() -> dict[str, str]:
    """The parent's environment without credentials, with the Hub client offline, and with threads that wait asleep
    unless the user says otherwise."""
    kept = {key: value for key, value in without_credentials().items() if not key.startswith(_PREFECT_PREFIX)}
    return _PATIENT | kept | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}


def run_child(module: str, job: BaseModel, result: type[R], folder: Path, *, timeout: float | None = None) -> R:
    """Runs ``python -m MODULE JOB RESULT`` with ``job`` in ``folder`` and returns the parsed result.

    ``timeout`` is in seconds. Raises :class:`ChildFailed` with the child's own explanation (:func:`explained_exit`),
    or with the last lines of output when it exits non-zero otherwise, dies of a signal, runs out of time or writes
    no result. The child and all it started are killed
    when this process is interrupted.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    job_file, result_file, log_file = folder / "job.json", folder / "result.json", folder / "log.txt"
    result_file.unlink(missing_ok=True)
    write_text(job_file, job.model_dump_json(indent=1))
    command = [sys.executable, "-m", module, str(job_file), str(result_file)]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment(),
            cwd=folder,  # libraries that write logs where they stand write them here
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, of a library that is loaded already
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{module} ran longer than {timeout:.0f} s\n{last_lines(log_file)}") from None
        finally:
            _end_group(process)
    if code < 0:
        raise ChildFailed(
            f"{module} was killed by {signal.Signals(-code).name} (log: {log_file})\n{last_lines(log_file)}"
        )
    if code == _EXPLAINED and (explanation := _explanation(log_file)):
        raise ChildFailed(explanation)
    if code != 0 or not result_file.exists():
        raise ChildFailed(f"{module} failed with exit code {code} (log: {log_file})\n{last_lines(log_file)}")
    try:
        return result.model_validate_json(result_file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ChildFailed(f"{module} wrote no {result.__name__} ({place}: {first['msg']}) (log: {log_file})") from None


@contextmanager
def explained_exit() -> Iterator[None]:
    """Around a child's work: an expected error becomes the last words of its log, without a stack trace."""
    try:
        yield
    except QuantpressError as error:
        print(f"{_ERROR}{error}", flush=True)
        raise SystemExit(_EXPLAINED) from None


def _explanation(log_file: Path) -> str:
    """The error with which a child ended, or nothing."""
    return ("\n" + log_file.read_text(errors="replace")).rpartition(f"\n{_ERROR}")[2].strip()


def die_with_parent() -> None:
    """Called in a new process before its program starts: the kernel kills it when its parent dies, however it dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the child's process group: the child itself, or tools that outlived it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished(job: BaseModel, result: type[R], folder: Path) -> R | None:
    """The result of an equal job that ``folder`` holds from before, or None; also where another version wrote it, which
    this one cannot read."""
    result_file = folder / "result.json"
    if not result_file.exists() or not begun(job, folder):
        return None
    try:
        return result.model_validate_json(result_file.read_bytes())
    except ValidationError:
        return None


def begun(job: BaseModel, folder: Path) -> bool:
    """Whether a child was started for an equal job in ``folder`` before, and has perhaps left work to go on from.

    Jobs that differ in their threads alone are equal: what comes out is the same.
    """
    job_file = folder / "job.json"
    return job_file.exists() and _without_threads(job_file.read_bytes()) == _without_threads(job.model_dump_json())


def _without_threads(text: str | bytes) -> Any:
    def kept(pairs: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in pairs.items() if key != "threads"}

    try:
        return json.loads(text, object_hook=kept)
    except ValueError:
        return None


def begin(job: BaseModel, folder: Path) -> None:
    """Notes in ``folder`` that another child is to do a job, so that :func:`begun` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    write_text(folder / "job.json", job.model_dump_json(indent=1))


def keep(job: BaseModel, result: BaseModel, folder: Path) -> None:
    """Notes in ``folder`` what became of a job that another child did, so that :func:`finished` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "job.json", job.model_dump_json(indent=1))
    write_text(folder / "result.json", result.model_dump_json(indent=1))


def last_lines(log_file: Path) -> str:
    """The last lines of a log, as they are quoted in an error."""
    lines = [line for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  | {line[-300:]}" for line in lines[-_QUOTED_LINES:])
