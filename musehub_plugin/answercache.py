"""Small answers to fetches that this process gave a moment ago.

Rows keep the answers that many will ask for, whichever process they meet. This keeps the rest for as long as it has
room, at no cost to the database: what a repo's commits reach does not change. Whether the repo still holds the commits
of both sides is asked each time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count

from musehub_plugin.store.fetch_plans import ReadyPack

# What an answer takes beside its bytes.
_OVERHEAD = 1_000


class AnswerCache:
    """Answers by the key of what was asked, the ones used last. Safe for use by several threads.

    Args:
        max_bytes: memory for them.

    Attributes:
        stored: counts the answers that this process puts into rows.
    """

    def __init__(self, max_bytes: int) -> None:
        self.stored = count(1)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, Sequence[ReadyPack]] = OrderedDict()
        self._bytes = 0

    def find(self, key: str) -> Sequence[ReadyPack] | None:
        """Return the answer to a question, or None."""
        with self._lock:
            found = self._answers.get(key)
            if found is not None:
                self._answers.move_to_end(key)
            return found

    def keep(self, key: str, packs: Sequence[ReadyPack]) -> None:
        """Keep an answer whose packs all travel in it; another is passed over."""
        size = _OVERHEAD
        for pack in packs:
            if pack.content is None:
                return
            size += len(pack.content)
        if size > self._max_bytes:
            return
        with self._lock:
            if key in self._answers:
                return
            self._answers[key] = packs
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, dropped = self._answers.popitem(last=False)
                self._bytes -= _OVERHEAD + sum(len(pack.content or b"") for pack in dropped)
