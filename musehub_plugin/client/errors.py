"""What can go wrong on the client's side: each error's text is one line that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_LINE = 400

_HOW = "`musehub login` keeps one, or set MUSEHUB_TOKEN"
# The hub does not know which client asks.
_WHAT_TO_DO = {
    "authentication-required": f"; use a token: {_HOW}",
    "invalid-credentials": f"; use another token: {_HOW}",
    "repo-not-found": f"; a private repo needs a token: {_HOW}",
}


def printable(text: str, limit: int = MAX_LINE) -> str:
    """Return `text` as one line that cannot steer a terminal.

    What a hub, a pack or a git repository says is somebody else's text: control characters, line breaks and
    the characters that turn the direction of writing are replaced by `?`, and the rest is cut.

    Args:
        text: any text.
        limit: characters to keep.
    """
    line = " ".join(text.split())
    shown = "".join(char if char.isprintable() else "?" for char in line[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


class ClientError(Exception):
    """The base of all errors that this package raises for a caller to see."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class WorkdirError(ClientError):
    """The working copy is not there, is damaged, or does not hold what was asked for."""


class GitImportError(ClientError):
    """The git repository cannot be read."""


class BadMPack(ClientError):
    """An mpack is malformed, or something in it is not what its id says; no ref was moved."""


class HubUnreachable(ClientError):
    """The hub or its object storage did not answer, or broke off, as often as it was tried."""


class HubRefused(ClientError):
    """The hub, or its object storage, answered with an error.

    Args:
        status: the HTTP status.
        code: the stable slug of the problem body; `http-<status>` where there was none.
        detail: what the hub says about it, made printable.
        extra: the problem body's further members, such as `branch_heads` or `limit`.
        retry_after: seconds that the hub asked to wait, or None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        extra: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = printable(code, 80)
        self.detail = printable(detail)
        self.extra = dict(extra or {})
        self.retry_after = retry_after
        super().__init__(f"{self.detail} (HTTP {status}, {self.code}){_WHAT_TO_DO.get(code, '')}")


class InsecureTokenError(ClientError):
    """A token would have travelled where others can read it; nothing was sent."""
