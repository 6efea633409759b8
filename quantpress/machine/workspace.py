"""The folders of work in progress under the home folder. The name of each folder depends on the inputs of its work."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput, QuantpressError
from quantpress.machine.scratch import remove_abandoned_scratch
from quantpress.record.recipe import Recipe


@dataclass(frozen=True)
class Workspace:
    """The folders under ``home`` for one source (the repo of an unquantized model, at one commit ``sha``)."""

    home: Path
    repo: str
    sha: str

    @property
    def _name(self) -> str:
        return f"{self.repo.replace('/', '--')}-{self.sha[:12]}"

    @property
    def source(self) -> Path:
        return self.home / "sources" / self._name

    @property
    def work(self) -> Path:
        return self.home / "work" / self._name

    def baseline(self, engine: str, protocol_key: str) -> Path:
        return self.work / f"baseline-{engine}-{protocol_key[:12]}"

    def prepared(self, recipe: Recipe) -> Path:
        return self.work / recipe.format / f"prepared-{recipe.preparation_fingerprint[:12]}"

    def variant(self, recipe: Recipe) -> Path:
        return self.work / recipe.format / f"{recipe.variant}-{recipe.fingerprint[:12]}"

    def wave(self, recipes: list[Recipe]) -> Path:
        """Returns the folder of the job that makes a wave (variants that are made together and lie on the disk
        together).

        The files of each variant go to the variant's own folder.
        """
        key = hashlib.sha256("".join(recipe.fingerprint for recipe in recipes).encode()).hexdigest()
        return self.work / recipes[0].format / f"wave-{key[:12]}"

    def bytes_there(self) -> int:
        """Returns the bytes on disk of the source's download and of the work in progress."""
        files = [file for folder in (self.source, self.work) for file in folder.rglob("*")]
        return sum(file.stat().st_size for file in files if file.is_file())

    def room(self) -> int:
        """Returns the bytes of disk that the model can take in all: the free bytes plus :meth:`bytes_there`."""
        self.home.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.home).free + self.bytes_there()

    def require_disk(self, needed: int) -> None:
        """Raises :class:`QuantpressError` if the model cannot take ``needed`` bytes of disk in all. ``needed`` includes
        the bytes that the model's files take now."""
        require_disk(self.home, needed - self.bytes_there())

    def remove_variant(self, recipe: Recipe) -> None:
        """Removes the folder of a variant, with its files and figures. Once the variant is published, the Hub has
        both."""
        shutil.rmtree(self.variant(recipe), ignore_errors=True)

    def remove_files(self, recipe: Recipe) -> None:
        """Removes a variant's files to make room for the files of the next variants. The variant's logs stay."""
        shutil.rmtree(self.variant(recipe) / "files", ignore_errors=True)

    def remove_work(self) -> None:
        """Removes the work in progress. The download of the source stays for the next run."""
        shutil.rmtree(self.work, ignore_errors=True)


def require_writable(folder: Path) -> None:
    """Raises :class:`BadInput` if ``folder`` cannot be made or written to. The check leaves no file and no new folder
    behind."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written to ({error.strerror}); give another folder by --out") from None
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()


@contextmanager
def alone(home: Path, repo: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the model's lock under ``home``, so that only one press (a run that makes variants) works on the model.

    If another press holds the lock, calls ``waiting`` once and then waits. The kernel releases the lock when the
    process ends or is killed.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_file(home, repo))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock_file(home: Path, repo: str) -> Path:
    file = home / "locks" / f"{repo.replace('/', '--')}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def remove_abandoned_work(home: Path, repo: str, keep: str | None) -> None:
    """Removes a model's abandoned work. Killed runs left this work, and no run will continue it.

    No run will continue the work if the source has a new commit or if everything was published. ``keep`` is the commit
    sha of the source that the caller works on. If ``keep`` is given, removes the work on other commits and the
    downloads of other commits. If ``keep`` is None, removes all work on the model and no download. In both cases also
    removes the abandoned scratch folders (:mod:`quantpress.machine.scratch`) of all models.

    Call this function only while you hold the model's lock (:func:`alone`).
    """
    own = re.compile(re.escape(repo.replace("/", "--")) + "-([0-9a-f]{12})")
    for folder in [*(home / "work").glob("*"), *((home / "sources").glob("*") if keep else ())]:
        found = own.fullmatch(folder.name)
        if found is None or (keep and keep.startswith(found[1])):
            continue
        if folder.is_symlink():
            folder.unlink()  # the link leads to the operator's own folder, which stays
        else:
            shutil.rmtree(folder, ignore_errors=True)
    remove_abandoned_scratch(home)


def remove_idle_work(home: Path, repo: str) -> None:
    """Removes all work on a model for which there is nothing to do. If a press holds the model's lock, the work stays.

    Also removes the abandoned scratch folders (:mod:`quantpress.machine.scratch`) of all models.
    """
    remove_abandoned_scratch(home)
    if any((home / "work").glob(f"{repo.replace('/', '--')}-*")):
        from filelock import FileLock, Timeout

        with suppress(Timeout), FileLock(_lock_file(home, repo), timeout=0):
            remove_abandoned_work(home, repo, keep=None)


def require_disk(folder: Path, needed: int) -> None:
    """Raises :class:`QuantpressError` if the file system of ``folder`` has fewer than ``needed`` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise QuantpressError(
            f"{folder}: {needed / 1e9:.1f} GB of disk are needed and {free / 1e9:.1f} GB are free; "
            "free some, or set QUANTPRESS_HOME to a larger disk"
        )
