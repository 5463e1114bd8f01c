"""How a command's waits are told to whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, what is done of it, and the whole, where it is known.

`receiving` and `sending` count bytes, `planning` and `waiting` count nothing, all others count what they name.
"""


def silent(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
