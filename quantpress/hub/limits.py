"""A Hub's limits: commits per hour and files per commit. Also the files that the Hub itself adds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: Commits that a press makes per hour. huggingface.co accepts 128 from a free account ("the 128 commits/hour limit",
#: huggingface_hub issue 3010), then answers 429. The rest is left for other programs and people with this account.
COMMITS = 120
HOUR = 3600.0
#: The Hub advises fewer files in one commit (https://huggingface.co/docs/hub/repositories-recommendations).
FILES_A_COMMIT = 100
#: Files that the Hub itself makes. A press never writes them. ``.gitattributes`` decides what is stored as LFS.
HUB_FILES = frozenset({".gitattributes"})


@dataclass
class CommitPace:
    """Lets at most ``commits`` pass within any ``seconds``. Later commits wait. Safe to use from threads.

    ``clock`` returns the time in seconds. ``say`` is called with the seconds to wait, then ``sleep`` waits for them.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[float], None]
    commits: int = COMMITS
    seconds: float = HOUR
    _made: deque[float] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> None:
        """Waits until one more commit is allowed, and counts it."""
        with self._lock:
            if len(self._made) == self.commits:
                wait = self._made.popleft() + self.seconds - self.clock()
                if wait > 0:
                    self.say(wait)
                    self.sleep(wait)
            self._made.append(self.clock())
