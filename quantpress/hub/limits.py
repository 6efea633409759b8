"""A Hub's limits for commits per hour and files per commit, and the files that the Hub itself adds to a repo."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: The most commits that quantpress makes per hour. huggingface.co accepts 128 from a free account, then answers
#: 429 ("the 128 commits/hour limit", huggingface_hub issue 3010). quantpress stays below the limit, so that other
#: programs and people with this account can commit too.
COMMITS = 120
HOUR = 3600.0
#: The Hub advises fewer files than this in one commit
#: (https://huggingface.co/docs/hub/repositories-recommendations).
FILES_A_COMMIT = 100
#: Files that the Hub itself makes. quantpress never writes them. ``.gitattributes`` decides which files go into LFS.
HUB_FILES = frozenset({".gitattributes"})


@dataclass
class CommitPace:
    """Lets at most ``commits`` commits pass within any period of ``seconds``. Further commits wait.

    Several threads can share one pace. ``clock`` returns the time in seconds. Before a wait, ``say`` is called with the
    seconds to wait. Then ``sleep`` is called with the same number, and waits.
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
