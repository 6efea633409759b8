"""Runs heavy work in a child process: a JSON job in, a JSON result out.

A crash, an OOM kill or a leak ends one job and not the run. The memory comes back, and the child's peak memory can be
read from the kernel. The job's folder holds the job file, the result file and a log of the child's output. A child that
knows why it fails explains it, and its parent repeats the explanation. Otherwise the error quotes the log's last lines.
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
#: OpenMP threads that wait by spinning take CPU time from working threads if more threads run than there are cores.
#: This happens when one variant is measured while the next is made. On 2 cores at load 5 to 6, llama-perplexity took
#: 14 s with this setting instead of 33 s, and transformers 16 to 22 s instead of 39 to 47 s. If a job runs alone on
#: the machine, the setting makes no difference.
_PATIENT = {"OMP_WAIT_POLICY": "passive"}
_QUOTED_LINES = 8
#: The exit code of a child that has written its error as the last lines of its log, and the prefix of that error.
_EXPLAINED = 3
_ERROR = "error: "
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)

R = TypeVar("R", bound=BaseModel)


def child_environment() -> dict[str, str]:
    """Returns the parent's environment without credentials and with the Hub client offline.

    Waiting OpenMP threads sleep, unless the user's environment says otherwise.
    """
    kept = {key: value for key, value in without_credentials().items() if not key.startswith(_PREFECT_PREFIX)}
    return _PATIENT | kept | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}


def run_child(module: str, job: BaseModel, result: type[R], folder: Path, *, timeout: float | None = None) -> R:
    """Runs ``python -m MODULE JOB RESULT`` with ``job`` in ``folder`` and returns the parsed result.

    ``timeout`` is in seconds. Raises :class:`ChildFailed` if the child exits non-zero, dies of a signal, runs out of
    time or writes no result. The error is the child's own explanation (:func:`explained_exit`) if there is one, else
    the last lines of its output. If this process is interrupted, the child and all processes that it started are
    killed.
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
            cwd=folder,  # libraries that write logs to the working folder write them here
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
        raise ChildFailed(
            f"{module} wrote an invalid {result.__name__} ({place}: {first['msg']}) (log: {log_file})"
        ) from None


@contextmanager
def explained_exit() -> Iterator[None]:
    """Wraps a child's work: an expected error becomes the last lines of its log, without a stack trace."""
    try:
        yield
    except QuantpressError as error:
        print(f"{_ERROR}{error}", flush=True)
        raise SystemExit(_EXPLAINED) from None


def _explanation(log_file: Path) -> str:
    """Returns the error that a child wrote at its end, or an empty string."""
    return ("\n" + log_file.read_text(errors="replace")).rpartition(f"\n{_ERROR}")[2].strip()


def die_with_parent() -> None:
    """Makes the kernel kill this process when its parent dies for any reason. A new process calls this before its
    program starts."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kills what still runs in the child's process group: the child itself, and tools that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished(job: BaseModel, result: type[R], folder: Path) -> R | None:
    """Returns the result that an earlier, equal job left in ``folder``, or None if there is none.

    Returns None also if another version of quantpress wrote a result that this one cannot read.
    """
    result_file = folder / "result.json"
    if not result_file.exists() or not begun(job, folder):
        return None
    try:
        return result.model_validate_json(result_file.read_bytes())
    except ValidationError:
        return None


def begun(job: BaseModel, folder: Path) -> bool:
    """Whether a child was started for an equal job in ``folder`` before. It may have left work to continue.

    Jobs that differ only in their threads are equal, because their results are the same.
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
    """Records in ``folder`` that its job has begun, so that :func:`begun` finds it. A child in another folder does the
    job: one child makes all variants of a wave."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    write_text(folder / "job.json", job.model_dump_json(indent=1))


def keep(job: BaseModel, result: BaseModel, folder: Path) -> None:
    """Records a job and its result in ``folder``, so that :func:`finished` finds them. A child in another folder did
    the job."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "job.json", job.model_dump_json(indent=1))
    write_text(folder / "result.json", result.model_dump_json(indent=1))


def last_lines(log_file: Path) -> str:
    """Returns the last lines of a log, as an error quotes them."""
    lines = [line for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  | {line[-300:]}" for line in lines[-_QUOTED_LINES:])
