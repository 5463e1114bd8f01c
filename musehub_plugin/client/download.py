"""One mpack on its way from object storage to a file, which goes on where it broke off: by `Range`, also days later.

The file is named by the mpack's id, so that whatever is in it is a beginning of that mpack and of no other: nothing
else must be compared before going on (no ETag, no date). The whole is hashed in any case.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

import urllib3

from musehub_plugin import ids
from musehub_plugin.client.progress import Progress

CHUNK: Final = 1 << 18
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")


class BrokenOffError(Exception):
    """A body from object storage ended early, or is another one."""


class Download:
    """A download that may take several attempts.

    Args:
        target: the file; what is in it is the beginning.
        mpack_id: what the whole must hash to.
        size: bytes of the whole.
        progress: told about bytes received.

    Attributes:
        done: bytes that are in the file.
    """

    def __init__(self, target: Path, *, mpack_id: str, size: int, progress: Progress) -> None:
        self._target = target
        self._mpack_id = mpack_id
        self._size = size
        self._progress = progress
        self.done = 0
        self._digest = hashlib.sha256()
        if target.exists():
            self._take_up()

    @property
    def complete(self) -> bool:
        """Whether the file is the whole mpack."""
        return self.done == self._size and ids.from_digest(self._digest.digest()) == self._mpack_id

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for what is missing."""
        return {"Range": f"bytes={self.done}-"} if self.done else {}

    def receive(self, response: urllib3.BaseHTTPResponse) -> None:
        """Take what a response gives: the rest (206), or the whole (200), where the store knows no ranges.

        Args:
            response: of status 200, 206 or 416, its body unread.

        Raises:
            BrokenOffError: it ended early, or is something else than the mpack.
        """
        if response.status == 206:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != self.done:
                self.restart()
                raise BrokenOffError("object storage sent another part of the mpack than it was asked for")
        elif self.done:
            self.restart()
        if response.status == 416:
            raise BrokenOffError(f"object storage has fewer bytes of the mpack {self._mpack_id} than there should be")
        with self._target.open("ab") as file:
            # `read1` gives what is there; `stream` would hold it back, and lose it where the connection breaks.
            while chunk := response.read1(CHUNK, decode_content=False):
                self.done += len(chunk)
                if self.done > self._size:
                    break
                self._digest.update(chunk)
                file.write(chunk)
                self._progress("receiving", self.done, self._size)
        if self.done < self._size:
            raise BrokenOffError(f"object storage broke off at byte {self.done} of {self._size}")
        if not self.complete:
            # None of it can be trusted, and so none is kept.
            self.restart()
            raise BrokenOffError(f"object storage sent something else than the mpack {self._mpack_id}")

    def restart(self) -> None:
        """Forget what came so far."""
        self._target.unlink(missing_ok=True)
        self.done = 0
        self._digest = hashlib.sha256()

    def _take_up(self) -> None:
        with self._target.open("rb") as file:
            while piece := file.read(1 << 20):
                self._digest.update(piece)
                self.done += len(piece)
        if self.done > self._size or (self.done == self._size and not self.complete):
            self.restart()
        elif self.done:
            self._progress("receiving", self.done, self._size)
