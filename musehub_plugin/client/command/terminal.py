"""Progress on stderr where that is a terminal: a bar for each stage; nothing at all otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from musehub_plugin.client.progress import Progress, silent

if TYPE_CHECKING:
    from tqdm import tqdm

_BYTES: Final = frozenset({"receiving", "sending"})
_UNCOUNTED: Final = frozenset({"planning", "waiting"})
_PAUSE: Final = 0.1
_WIDTH: Final = 19


class Terminal:
    """Shows one stage at a time, for as long as it is used as a context manager.

    Attributes:
        show: a `Progress`.
    """

    def __init__(self) -> None:
        # A process that is started with stderr closed has none.
        watched = sys.stderr is not None and sys.stderr.isatty()
        self.show: Progress = self._show if watched else silent
        self._stage = ""
        self._bar: tqdm[Any] | None = None
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _show(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        new = stage != self._stage
        # The end of a stage is shown however soon it comes.
        if not new and now < self._next and done != total:
            return
        self._next = now + _PAUSE
        if new:
            self._end()
            self._begin(stage, done, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def _begin(self, stage: str, done: int, total: int | None) -> None:
        # Here and not above: where nobody watches it is not needed.
        from tqdm import tqdm

        tqdm.monitor_interval = 0
        self._stage = stage
        counted = stage not in _UNCOUNTED
        self._bar = tqdm(
            desc=stage.ljust(_WIDTH if counted else 0),
            total=total,
            # What was there before counts for the bar, and not for the rate.
            initial=done if stage in _BYTES else 0,
            unit="B" if stage in _BYTES else "",
            unit_scale=stage in _BYTES,
            unit_divisor=1024,
            bar_format=_format(total) if counted else "{desc} {elapsed}",
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
            mininterval=0,
        )

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""


def _format(total: int | None) -> str:
    return "{desc}{n_fmt} [{elapsed}, {rate_fmt}]" if total is None else "{desc}{percentage:3.0f}%|{bar}{r_bar}"
