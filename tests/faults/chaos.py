"""Kills a press and its Hub, and fills the Hub's disk, until all is published: the machinery of the chaos test."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from quantpress.localhub.server import RunningHub, running_hub
from tests.support.disks import fill
from tests.support.line import Line, Request, unwatched
from tests.support.operating import Operator


@dataclass(frozen=True)
class AtRequest:
    """The moment when a share of the body of the ``number``-th request of a kind has passed.

    With a share of 1.0, the whole body has passed, but no answer has come yet.
    """

    kind: Literal["upload", "commit", "download"]
    number: int
    share: float


@dataclass(frozen=True)
class AfterSeconds:
    """The moment this many seconds after the press was started."""

    seconds: float


Instant = AtRequest | AfterSeconds


def random_instants(chance: random.Random, longest: float) -> Iterator[Instant]:
    """Yields instants to kill at. Every other one is at an upload or a commit.

    The rest are within ``longest`` seconds of the press's start, or before a download.
    """
    while True:
        if chance.random() < 0.5:
            # The upload of a rung (one GGUF variant) has a few parts.
            yield AtRequest("upload", chance.randint(1, 4), chance.random())
        else:
            yield AtRequest("commit", chance.choice([1, 1, 2]), chance.choice([0.0, 1.0, 1.0]))
        if chance.random() < 0.8:
            yield AfterSeconds(chance.uniform(0.0, longest))
        else:
            yield AtRequest("download", chance.randint(1, 30), 0.0)


class MortalHub:
    """The embedded Hub of a folder, behind a line (a proxy). After a kill, the Hub starts again on another port.

    Before its disk is filled, the folder must be on a small disk of its own.
    """

    def __init__(self, root: Path, line: Line) -> None:
        self.root, self._line = root, line
        self._filler: Path | None = None
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self.now: RunningHub = self._running.enter_context(running_hub(self.root))
        self._line.upstream = self.now.endpoint

    def kill(self) -> None:
        """Kills the Hub as a power loss would."""
        os.kill(self.now.pid, signal.SIGKILL)

    def fill_disk(self) -> None:
        """Takes all free space of the Hub's disk."""
        self._filler = fill(self.root.parent)

    def empty_disk(self) -> None:
        """Gives back what fill_disk took."""
        if self._filler is not None:
            self._filler.unlink()
            self._filler = None

    def close(self) -> None:
        self._running.close()


class Trap:
    """Watches a line's requests and acts once, at the given instant: it kills a process or fills a disk."""

    def __init__(self, instant: AtRequest, act: Callable[[], None]) -> None:
        self.instant, self._act = instant, act
        self._seen = 0
        self._chosen: Request | None = None
        self.sprung = threading.Event()

    def watch(self, request: Request, passed: int) -> None:
        """The line calls this as the bytes of a request pass."""
        if request.kind == self.instant.kind and passed == 0:
            self._seen += 1
            if self._seen == self.instant.number:
                self._chosen = request
        if request is self._chosen and passed >= self.instant.share * request.length and not self.sprung.is_set():
            self._act()
            self.sprung.set()


@dataclass
class Chaos:
    """A press and a Hub with a line between them, the kills of both, and when the Hub's disk was filled."""

    operator: Operator
    hub: MortalHub
    line: Line
    press_kills: list[Instant] = field(default_factory=list)
    hub_kills: list[AtRequest] = field(default_factory=list)
    full_disks: list[AtRequest] = field(default_factory=list)

    def live(
        self, press_ends: Instant | None, hub_ends: AtRequest | None, disk_fills: AtRequest | None, **environment: str
    ) -> bool:
        """Runs the press and kills it at ``press_ends``. Kills the Hub at ``hub_ends`` and starts it again. Fills the
        Hub's disk at ``disk_fills``, until the press has ended.

        Returns whether the press ended by itself and has published everything. A press that ends by itself must have
        done so, unless the disk was full.
        """
        press = self.operator.start_silent("run", **environment)
        press_trap = Trap(press_ends, press.kill) if isinstance(press_ends, AtRequest) else None
        hub_trap = Trap(hub_ends, self.hub.kill) if hub_ends is not None else None
        disk_trap = Trap(disk_fills, self.hub.fill_disk) if disk_fills is not None else None

        def watch(request: Request, passed: int) -> None:
            for trap in (press_trap, hub_trap, disk_trap):
                if trap is not None:
                    trap.watch(request, passed)

        self.line.watch = watch
        began = time.monotonic()
        try:
            while press.poll() is None:
                if hub_trap is not None and hub_trap.sprung.is_set():
                    self._restart_hub(hub_trap.instant)
                    hub_trap = None
                if isinstance(press_ends, AfterSeconds) and time.monotonic() - began >= press_ends.seconds:
                    press.kill()
                time.sleep(0.02)
        finally:
            self.operator.kill(press)
            self.line.watch = unwatched
        if hub_trap is not None and hub_trap.sprung.is_set():
            self._restart_hub(hub_trap.instant)
        self.hub.empty_disk()
        was_full = disk_trap is not None and disk_trap.sprung.is_set()
        if disk_trap is not None and was_full:
            self.full_disks.append(disk_trap.instant)
        if press.returncode == 0:
            # If only the comparison had no room, the press warns and succeeds. The next press makes the comparison.
            return not was_full
        if was_full and press.returncode == 1:
            # The batch that asks for room and the requests that bring bytes say it in different words.
            last = self.operator.log.read_text().splitlines()[-1]
            assert "507 Insufficient Storage" in last or "No room on the Hub's disk" in last, last
            return False
        assert press.returncode == -signal.SIGKILL, self.operator.log.read_text()[-4000:]
        assert press_ends is not None
        self.press_kills.append(press_ends)
        return False

    def _restart_hub(self, killed_at: AtRequest) -> None:
        self.hub.close()
        self.hub.start()
        self.hub_kills.append(killed_at)

    def summary(self) -> str:
        """Says how often the press and the Hub were killed, and how often the Hub's disk was full."""
        kinds = Counter(kill.kind if isinstance(kill, AtRequest) else "any time" for kill in self.press_kills)
        return (
            f"{len(self.press_kills)} kills of the press {dict(kinds)}, {len(self.hub_kills)} of the Hub, "
            f"{len(self.full_disks)} full disks"
        )
