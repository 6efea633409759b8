"""Renders each card once, in a child process that has little time and memory.

``python -m quantpress.localhub.rendering FILES_ADDRESS`` is the child. It reads a card from its standard input and
writes HTML.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

from quantpress.localhub.markdown import render_card
from quantpress.localhub.modelcard import MAX_CARD_BYTES, read_card
from quantpress.machine.credentials import harmless_environment

# Cards of ours have some 20 kB. Measured here: 256 kB of ordinary Markdown take 1.5 s.
MAX_CHARACTERS = 256 * 1024
_MAX_HTML_BYTES = 2 * 1024 * 1024
_CPU_SECONDS = 3
_MEMORY_BYTES = 1 << 30
# How long a busy machine may take for the child's 3 s, and how long a reader waits for other cards.
_WALL_SECONDS = 60
_TURN_SECONDS = 5
_KEPT_CARDS = 64


class CardNotShown(Exception):
    """The card cannot be shown. The message is a sentence for the reader of the page."""


class Cards:
    """The cards of one Hub as HTML. Several threads may use it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, str], str | None] = OrderedDict()
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def html(self, card: Path, files_address: str) -> str:
        """Returns a card as HTML that is safe to show. An object ``card`` never changes, so it is rendered once.

        Puts ``files_address``, which ends in "/", before relative addresses of links and images.

        Raises CardNotShown if the card is lost, is too large or takes too long, or if too many others are in its way.
        """
        key = card, files_address
        if not self._knows(key):
            if not self._turn.acquire(timeout=_TURN_SECONDS):
                raise CardNotShown("The Hub is busy with other cards. Load this page again.")
            try:
                if not self._knows(key):  # another thread had the turn, perhaps for this card
                    self._keep(key, _render(card, files_address))
            finally:
                self._turn.release()
        with self._lock:
            html = self._kept.get(key)
        if html is None:
            raise CardNotShown("This card is too large to be shown here, or takes too long. Read the file README.md.")
        return html

    def _knows(self, key: tuple[Path, str]) -> bool:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return key in self._kept

    def _keep(self, key: tuple[Path, str], html: str | None) -> None:
        with self._lock:
            self._kept[key] = html
            while len(self._kept) > _KEPT_CARDS:
                self._kept.popitem(last=False)


def _render(card: Path, files_address: str) -> str | None:
    """Returns the card as HTML, or None if it is too large or takes too long."""
    try:
        if card.stat().st_size > MAX_CARD_BYTES:
            return None
        content = card.read_bytes()
    except OSError as error:
        raise CardNotShown("This card cannot be shown: the Hub has lost its file. Upload README.md again.") from error
    command = [sys.executable, "-m", "quantpress.localhub.rendering", files_address]
    try:
        child = subprocess.run(
            command,
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=harmless_environment(),
            timeout=_WALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CardNotShown("The machine is busy. Load this page again.") from error
    return child.stdout.decode() if child.returncode == 0 else None


def main() -> int:
    """Renders the card on the standard input. Returns the exit status: 1 if the card is too large."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text = read_card(sys.stdin.buffer.read()).text
    if len(text) > MAX_CHARACTERS:
        return 1
    html = render_card(text, sys.argv[1]).encode()
    if len(html) > _MAX_HTML_BYTES:
        return 1
    sys.stdout.buffer.write(html)
    return 0


if __name__ == "__main__":
    sys.exit(main())
