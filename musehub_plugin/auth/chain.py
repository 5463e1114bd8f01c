"""Several identity loaders, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musehub_plugin.access import Identity, IdentityLoader

if TYPE_CHECKING:
    from flask import Request


def first_of(*loaders: IdentityLoader) -> IdentityLoader:
    """Return a loader that gives the first identity that one of `loaders` knows.

    Bad credentials end the search: `InvalidCredentials` of one loader is not made good by the next, so that a
    stale token beside a valid session is told, not hidden.

    Args:
        loaders: asked in this order; None passes the question on.

    Raises:
        ValueError: there is no loader.
    """
    if not loaders:
        raise ValueError("first_of needs at least one identity loader")

    def load(request: Request) -> Identity | None:
        for loader in loaders:
            identity = loader(request)
            if identity is not None:
                return identity
        return None

    return load
