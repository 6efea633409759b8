"""Runs heavy work in a child process: a JSON job in, a JSON result out.

A crash or an OOM kill ends only one job, and the run goes on. When the child ends, the kernel frees its memory, leaked
memory too.
A child can read its own peak memory from the kernel. The job's folder holds the job file, the result file and a log of
the child's output. If the child knows why it fails, it writes the reason as the last lines of the log, and the parent's
error repeats this reason. Otherwise the parent's error begins with the exception's own line, quotes the last lines of
the log, and names the log. The whole logs of failed children are kept (:mod:`quantpress.machine.failed_logs`).
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantpress.errors import ChildFailed, QuantpressError
from quantpress.files import write_text
from quantpress.machine.cause import Cause, cause_of_exit, cause_of_kill
from quantpress.machine.credentials import harmless_environment
from quantpress.machine.failed_logs import keep_log
from quantpress.machine.process import process_group
from quantpress.machine.sandbox import sandbox
from quantpress.machine.watch import Limits, watch

#: This setting makes OpenMP threads sleep while they wait. Without it, they can spin. If more threads run than there
#: are cores, spinning threads take CPU time from working threads. This happens when one variant is measured while the
#: next is made. On 2 cores at load 5 to 6, llama-perplexity took 14 s with this setting instead of 33 s, and
#: transformers took 16 to 22 s instead of 39 to 47 s. If a job runs alone on the machine, the setting makes no
#: difference.
_PATIENT = {"OMP_WAIT_POLICY": "passive"}
#: If a child has written its error as the last lines of its log, it exits with one of these codes, and its error begins
#: with ``_ERROR``. With ``_TOOL_FAILED``, the error quotes a tool, and the log tells more than the error.
_EXPLAINED, _TOOL_FAILED = 3, 4
_ERROR = "error: "

_LIMITS = Limits()

R = TypeVar("R", bound=BaseModel)


def child_environment() -> dict[str, str]:
    """Returns the harmless part of the parent's environment, with the Hub client offline.

    OpenMP threads sleep while they wait, unless the user's environment sets ``OMP_WAIT_POLICY``.
    """
    return (
        _PATIENT
        | harmless_environment()
        | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    )


def run_child(module: str, job: BaseModel, result: type[R], folder: Path, limits: Limits = _LIMITS) -> R:
    """Runs ``python -m MODULE JOB RESULT`` with ``job`` in ``folder`` and returns the parsed result.

    Where the system has a sandbox (:mod:`quantpress.machine.sandbox`), the child runs in it. It then writes only in
    ``folder`` and in the folders that the job's property ``writes`` names.

    Raises :class:`ChildFailed` if the child exits non-zero, dies of a signal, exceeds ``limits`` or writes no valid
    result. If the child explained its error (:func:`explained_exit`), the message is this explanation. If the result is
    invalid, the message names the invalid field. If the child exceeded a limit, the message is one line that names the
    limit. Otherwise the message begins with the line of the child's exception, and then quotes what the child said of
    the weights that it loaded, and its last lines. The message names the file to which the child's whole log was
    copied. If this process is interrupted, it kills the child and all processes of the child's process group.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    job_file, result_file, log_file = folder / "job.json", folder / "result.json", folder / "log.txt"
    result_file.unlink(missing_ok=True)
    write_text(job_file, job.model_dump_json(indent=1))
    command = [sys.executable, "-m", module, str(job_file), str(result_file)]
    # The child runs in the job's folder, because some libraries write logs to the working folder.
    with (
        log_file.open("wb") as log,
        sandbox([folder, *_written_by(job)]) as enter,
        process_group(command, child_environment(), folder, log, enter) as group,
    ):
        exceeded = watch(group, limits, log_file)
        code = group.end()
    if exceeded is not None:
        raise ChildFailed(f"{module} was ended because it {exceeded} (log: {keep_log(log_file)})")
    if code < 0:
        why = ", as the kernel does when no memory is left" if -code == signal.SIGKILL else ""
        raise _failed(cause_of_kill, f"{module} was killed by {signal.Signals(-code).name}{why}", log_file)
    if code in (_EXPLAINED, _TOOL_FAILED) and (explanation := _explanation(log_file)):
        kept = keep_log(log_file)
        raise ChildFailed(f"{explanation}\n  log: {kept}" if code == _TOOL_FAILED else explanation)
    if code != 0 or not result_file.exists():
        raise _failed(cause_of_exit, f"{module} failed with exit code {code}", log_file)
    try:
        return result.model_validate_json(result_file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        kept = keep_log(log_file)
        raise ChildFailed(
            f"{module} wrote an invalid {result.__name__} ({place}: {first['msg']}) (log: {kept})"
        ) from None


def _written_by(job: BaseModel) -> list[Path]:
    """Returns the folders in which a job writes. Makes them if they are missing."""
    folders: list[Path] = getattr(job, "writes", [])
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def _failed(find_cause: Callable[[str], Cause], how: str, log_file: Path) -> ChildFailed:
    """Returns the error of a child that did not explain itself. Keeps the child's log."""
    cause = find_cause(log_file.read_text(errors="replace"))
    return ChildFailed(cause.said_of(how, keep_log(log_file)), cause.line)


@contextmanager
def explained_exit() -> Iterator[None]:
    """Wraps a child's work. If an expected error is raised, writes its message to the log without a stack trace, and
    exits."""
    try:
        yield
    except QuantpressError as error:
        print(f"{_ERROR}{error}", flush=True)
        raise SystemExit(_TOOL_FAILED if isinstance(error, ChildFailed) else _EXPLAINED) from None


def _explanation(log_file: Path) -> str:
    """Returns the error that a child wrote at the end of its log, or an empty string if it wrote none."""
    return ("\n" + log_file.read_text(errors="replace")).rpartition(f"\n{_ERROR}")[2].strip()


def finished(job: BaseModel, result: type[R], folder: Path) -> R | None:
    """Returns the result that an earlier, equal job left in ``folder``, or None if there is no such result.

    Also returns None if another version of quantpress wrote a result that this version cannot read.
    """
    result_file = folder / "result.json"
    if not result_file.exists() or not begun(job, folder):
        return None
    try:
        return result.model_validate_json(result_file.read_bytes())
    except ValidationError:
        return None


def begun(job: BaseModel, folder: Path) -> bool:
    """Whether an equal job was started in ``folder`` before. That job can have left unfinished work, which ``job`` can
    continue.

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
    """Records in ``folder`` that ``job`` has begun, so that :func:`begun` finds the job.

    Call this function if the child runs in another folder. One case is a wave, which is a group of variants that are
    made together: one child makes all of them, in a folder of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    write_text(folder / "job.json", job.model_dump_json(indent=1))


def keep(job: BaseModel, result: BaseModel, folder: Path) -> None:
    """Records a job and its result in ``folder``, so that :func:`finished` finds them.

    Call this function if the child that did the job runs in another folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "job.json", job.model_dump_json(indent=1))
    write_text(folder / "result.json", result.model_dump_json(indent=1))
