"""Bearer tokens (RFC 6750), and identities by opaque ones.

A token is taken from the `Authorization` header alone. A query string ends up in logs, histories and
`Referer` headers; a token in it is not looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from musehub_plugin.access import Identity, IdentityLoader, InvalidCredentials

if TYPE_CHECKING:
    from flask import Request

MAX_TOKEN: Final = 8 * 1024
"""Characters of a token: what servers let through as one header line."""

# RFC 6750, section 2.1: b64token.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def bearer_token(request: Request) -> str | None:
    """Return the bearer token of a request, or None where there is none.

    Another scheme, such as Basic, is another loader's to judge.

    Raises:
        InvalidCredentials: the scheme is Bearer, and what follows is no token.
    """
    given: str | None = request.environ.get("HTTP_AUTHORIZATION")
    if not given:
        return None
    scheme, _, rest = given.strip().partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = rest.strip(" ")
    if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise InvalidCredentials("malformed bearer token")
    return token


def token_identity(find: Callable[[str], Identity | None]) -> IdentityLoader:
    """Return an identity loader for opaque tokens that the host keeps as hashes.

    Args:
        find: gets the SHA-256 of the token in hex and returns whose it is, or None for nobody's (unknown,
            revoked, expired). A lookup by hash gives a prober no timing to work with, and a leaked table no
            tokens. It is made for tokens of 128 random bits or more; passwords need another hash.
    """

    def load(request: Request) -> Identity | None:
        token = bearer_token(request)
        if token is None:
            return None
        identity = find(hashlib.sha256(token.encode()).hexdigest())
        if identity is None:
            raise InvalidCredentials("unknown token")
        return identity

    return load
