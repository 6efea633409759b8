"""What a Hub allows, and what it adds: commits an hour, files a commit, its own files."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: Commits that a press makes within an hour. huggingface.co takes 128 of a free account ("the 128 commits/hour limit",
#: huggingface_hub issue 3010) and answers 429 then; the rest is left to whoever else uses the account.
COMMITS = 120
HOUR = 3600.0
#: Files that the Hub advises to stay below in one commit (https://huggingface.co/docs/hub/repositories-recommendations).
FILES_A_COMMIT = 100
#: Made by the Hub itself, and no press writes them: ``.gitattributes`` decides what is stored as LFS.
HUB_FILES = frozenset({".gitattributes"})


@dataclass
class CommitPace:
    """Lets ``commits`` pass within any ``seconds``; whoever comes after them waits. Safe to use from threads.

    ``clock`` gives seconds, ``sleep`` waits for some, ``say`` is told how many they will be.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[float], None]
    commits: int = COMMITS
    seconds: float = HOUR
    _made: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> None:
        """Returns when there is room for one more commit, which then counts."""
        with self._lock:
            if len(self._made) == self.commits:
                wait = self._made.popleft() + self.seconds - self.clock()
                if wait > 0:
                    self.say(wait)
                    self.sleep(wait)
            self._made.append(self.clock())
