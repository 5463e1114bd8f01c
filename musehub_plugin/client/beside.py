"""A check that runs in processes of its own, beside what this one does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Generic, TypeVar

from musehub_plugin.forks import Fork
from musehub_plugin.mpack import MPackError

_Share = TypeVar("_Share")


class Beside(Generic[_Share]):
    """Checks the shares of some work, each in a fork of this process; used as a context manager.

    Args:
        check: checks one share, and raises `MPackError` where it is wrong. It must leave open files where they stand.
        shares: the shares.
        handles: the files that the check reads; it has no others.
    """

    def __init__(self, check: Callable[[_Share], None], shares: Sequence[_Share], handles: Collection[int]) -> None:
        self._check = check
        self._waiting: list[tuple[_Share, Fork]] = []
        for share in shares:
            self._waiting.append((share, Fork(partial(_found_wrong, check, share), handles)))

    def __enter__(self) -> Beside[_Share]:
        return self

    def __exit__(self, *_: object) -> None:
        for _share, fork in self._waiting:
            fork.end()
        self._waiting.clear()

    def finish(self) -> None:
        """Wait for all shares.

        Raises:
            MPackError: what a check raised; of several, the first share's.
        """
        while self._waiting:
            share, fork = self._waiting.pop(0)
            ended, wrong = fork.wait()
            if wrong is not None:
                raise MPackError(wrong)
            if not ended:
                self._check(share)


def _found_wrong(check: Callable[[_Share], None], share: _Share) -> str | None:
    try:
        check(share)
    except MPackError as error:
        return str(error)
    return None
