"""The places of work in progress under the home folder. Every folder's name is derived from the inputs of the work."""

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
    """Folders of one source (a repo at a sha) under ``home``."""

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
        """Returns the folder where the variants of a wave are made together. Their files go to their own folders."""
        key = hashlib.sha256("".join(recipe.fingerprint for recipe in recipes).encode()).hexdigest()
        return self.work / recipes[0].format / f"wave-{key[:12]}"

    def bytes_there(self) -> int:
        """Returns the bytes of the source and of the work in progress that an earlier run left on disk."""
        files = [file for folder in (self.source, self.work) for file in folder.rglob("*")]
        return sum(file.stat().st_size for file in files if file.is_file())

    def room(self) -> int:
        """Returns the bytes of disk that the model can have: the free ones, and those that it takes already."""
        self.home.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.home).free + self.bytes_there()

    def require_disk(self, needed: int) -> None:
        """Raises :class:`QuantpressError` if the disk has no room for ``needed`` bytes; those already there count."""
        require_disk(self.home, needed - self.bytes_there())

    def remove_variant(self, recipe: Recipe) -> None:
        """Removes a published variant's files and figures, because both are on the Hub now."""
        shutil.rmtree(self.variant(recipe), ignore_errors=True)

    def remove_files(self, recipe: Recipe) -> None:
        """Removes a variant's files to make room for the next ones. Logs stay."""
        shutil.rmtree(self.variant(recipe) / "files", ignore_errors=True)

    def remove_work(self) -> None:
        """Removes work in progress. The source's download stays for the next run."""
        shutil.rmtree(self.work, ignore_errors=True)


def require_writable(folder: Path) -> None:
    """Raises :class:`BadInput` if ``folder`` cannot be made or written to. Leaves nothing there."""
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
    """Holds the model's place under ``home``. ``waiting`` is called once if another press holds it now.

    The lock is the kernel's, so it ends with the process, even if the process is killed.
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
    """Removes work on the model's commits that no run will continue.

    A killed run left that work, and since then the source has moved or everything was published. ``keep`` is the sha
    that is worked on. If it is given, downloads of the source at other commits are removed too. With None, all work of
    the model is removed, and no download. Leftovers of killed verifications and rebuilds of any model are also removed.

    Call it only while the model's place is held (:func:`alone`).
    """
    own = re.compile(re.escape(repo.replace("/", "--")) + "-([0-9a-f]{12})")
    for folder in [*(home / "work").glob("*"), *((home / "sources").glob("*") if keep else ())]:
        found = own.fullmatch(folder.name)
        if found is None or (keep and keep.startswith(found[1])):
            continue
        if folder.is_symlink():
            folder.unlink()  # it leads to a folder of the operator's own
        else:
            shutil.rmtree(folder, ignore_errors=True)
    remove_abandoned_scratch(home)


def remove_idle_work(home: Path, repo: str) -> None:
    """Removes all work on a model with nothing to do, unless a press holds the model's place.

    Also removes leftovers of killed verifications and rebuilds.
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
