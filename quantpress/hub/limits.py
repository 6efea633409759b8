"""What a Hub allows, and what the operator does: commits an hour, files a commit, bytes a run, bytes stored."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Commits that a press makes within an hour. huggingface.co takes 128 of a free account ("the 128 commits/hour limit",
#: huggingface_hub issue 3010) and answers 429 then; the rest is left to whoever else uses the account.
COMMITS = 120
HOUR = 3600.0
#: Files that the Hub advises to stay below in one commit (https://huggingface.co/docs/hub/repositories-recommendations).
FILES_A_COMMIT = 100


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


@dataclass
class UploadBudget:
    """Bytes that one run may upload (None: any number), given out in the plan's order."""

    limit: int | None
    _given: int = 0

    def refusal(self, upload: int) -> str:
        """Takes ``upload`` bytes from the budget; the reason why it does not have them, or nothing."""
        if self.limit is None or self._given + upload <= self.limit:
            self._given += upload
            return ""
        over = self._given + upload - self.limit
        remedy = "left to a later run, or raise" if self.is_large_enough(upload) else "no run can upload it: raise"
        return (
            f"about {over / 1e9:.2f} GB more than the upload budget of {self.limit / 1e9:.2f} GB a run: "
            f"{remedy} QUANTPRESS_UPLOAD_BUDGET"
        )

    def is_large_enough(self, upload: int) -> bool:
        """Whether a run that uploads nothing else has ``upload`` bytes."""
        return self.limit is None or upload <= self.limit


def storage_used(api: HfApi, namespace: str) -> int | None:
    """Bytes that the namespace's models take on the Hub, as far as the token may see them; None where the Hub does not
    say."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        sizes = [model.used_storage for model in api.list_models(author=namespace, expand=["usedStorage"])]
    except HfHubHTTPError:
        return None
    return None if None in sizes else sum(size or 0 for size in sizes)
