"""Identities from signed bearer tokens (JWT, RFC 7519), verified with PyJWT.

What a token says of itself decides nothing: the algorithms and the keys are the operator's, each key is used
only with algorithms that it is made for, `kid` chooses among the given keys and is never a path or an
address, `jku` and `x5u` are not read, and an extension that must be understood (`crit`) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from musehub_plugin.access import Identity, InvalidCredentials
from musehub_plugin.auth.bearer import bearer_token
from musehub_plugin.errors import ConfigError

if TYPE_CHECKING:
    from flask import Request

# RFC 7518, section 3.2: an HMAC key is at least as long as the hash. In bytes.
_HMAC_KEY_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}


class JWTIdentityLoader:
    """An identity loader for JWTs in the `Authorization` header; a request without one is anonymous.

    Args:
        keys: secrets for `HS...`, public keys (PEM text or `cryptography` objects) for the others. A mapping
            gives them by `kid`: a token that names another one is refused. Of a sequence, any key may have
            signed, and `kid` is not looked at.
        algorithms: names that tokens may be signed with, all of one sort: either `HS...` or public-key ones.
        issuer: what `iss` must be; left out: not looked at.
        audience: what `aud` must be or hold; left out: a token that has an `aud` is meant for somebody else
            and refused.
        leeway: seconds by which clocks may differ for `exp` and `nbf`.
        claims: further claims and the values that they must have, such as `{"type": "access"}`.
        handle_claim: the claim with the name that people read.
        admin_claim: the claim that makes an admin where it is true; left out: nobody is one.

    Raises:
        ConfigError: PyJWT is missing, or keys and algorithms do not go together; the message names the place
            of the key and never shows it.
    """

    def __init__(
        self,
        keys: Mapping[str, Any] | Sequence[Any] | str | bytes,
        *,
        algorithms: Sequence[str],
        issuer: str | None = None,
        audience: str | Sequence[str] | None = None,
        leeway: int = 10,
        claims: Mapping[str, Any] | None = None,
        handle_claim: str = "preferred_username",
        admin_claim: str | None = None,
    ) -> None:
        try:
            import jwt
        except ImportError as error:
            raise ConfigError("JWTIdentityLoader needs PyJWT: pip install 'musehub-plugin[jwt]'") from error
        self._jwt = jwt
        self._by_kid = isinstance(keys, Mapping)
        if isinstance(keys, str | bytes):
            keys = [keys]
        named = dict(keys) if isinstance(keys, Mapping) else {str(at): key for at, key in enumerate(keys)}
        if not named:
            raise ConfigError("MUSEHUB_JWT_KEYS: at least one key is needed")
        _check_algorithms(algorithms)
        self._keys = {name: (key, _fitting(jwt, name, key, algorithms)) for name, key in named.items()}
        self._algorithms = frozenset(algorithms)
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._claims = dict(claims or {})
        self._handle_claim = handle_claim
        self._admin_claim = admin_claim

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> JWTIdentityLoader:
        """Return a loader with `MUSEHUB_JWT_KEYS`, `_ALGORITHMS`, `_ISSUER` and `_AUDIENCE` of an app's
        config.

        Raises:
            ConfigError: one of the first two is missing, or a value is wrong.
        """
        for name in ("MUSEHUB_JWT_KEYS", "MUSEHUB_JWT_ALGORITHMS"):
            if not config.get(name):
                raise ConfigError(f"{name}: needed for JWTs")
        return cls(
            config["MUSEHUB_JWT_KEYS"],
            algorithms=config["MUSEHUB_JWT_ALGORITHMS"],
            issuer=config.get("MUSEHUB_JWT_ISSUER"),
            audience=config.get("MUSEHUB_JWT_AUDIENCE"),
        )

    def __call__(self, request: Request) -> Identity | None:
        """Return who the token of `request` speaks for, or None where there is no bearer token.

        Raises:
            InvalidCredentials: the token does not hold.
        """
        token = bearer_token(request)
        if token is None:
            return None
        try:
            claims = self._verified(token)
        except (self._jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # Beside PyJWT's own: what JSON of a stranger's making can raise in the standard library.
            raise InvalidCredentials(f"JWT refused: {type(error).__name__}") from None
        for name, wanted in self._claims.items():
            if name not in claims or claims[name] != wanted:
                raise InvalidCredentials(f"JWT refused: wrong {name}")
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject:
            raise InvalidCredentials("JWT refused: sub")
        handle = claims.get(self._handle_claim)
        is_admin = self._admin_claim is not None and claims.get(self._admin_claim) is True
        return Identity(subject, handle if isinstance(handle, str) else "", is_admin)

    def _verified(self, token: str) -> dict[str, Any]:
        header = self._jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in self._algorithms or "crit" in header:
            raise InvalidCredentials("JWT refused: header")
        refusal: Exception = InvalidCredentials("JWT refused: no key")
        for key, fitting in self._candidates(header):
            if algorithm not in fitting:
                continue
            try:
                return self._jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=self._leeway,
                    options={"require": ["exp", "sub"]},
                )
            except self._jwt.InvalidSignatureError as error:
                refusal = error
        raise refusal

    def _candidates(self, header: Mapping[str, Any]) -> list[tuple[Any, frozenset[str]]]:
        if not self._by_kid or "kid" not in header:
            return list(self._keys.values())
        kid = header["kid"]
        if not isinstance(kid, str) or kid not in self._keys:
            raise InvalidCredentials("JWT refused: kid")
        return [self._keys[kid]]


def _check_algorithms(algorithms: Sequence[str]) -> None:
    key = "MUSEHUB_JWT_ALGORITHMS"
    if isinstance(algorithms, str) or not algorithms:
        raise ConfigError(f'{key}: expected a list of names, such as ["RS256"]')
    if any(name.lower() == "none" for name in algorithms):
        raise ConfigError(f"{key}: 'none' would accept anybody's word")
    if len({name in _HMAC_KEY_BYTES for name in algorithms}) > 1:
        # The classic confusion: a public key, which everybody has, used as an HMAC secret.
        raise ConfigError(f"{key}: HS... cannot be mixed with public-key algorithms")


def _fitting(jwt: Any, name: str, key: Any, algorithms: Sequence[str]) -> frozenset[str]:
    """Return the algorithms that `key` is made for."""
    where = f"MUSEHUB_JWT_KEYS[{name!r}]"
    fitting: set[str] = set()
    reason = "fits none of the algorithms"
    for algorithm in algorithms:
        least = _HMAC_KEY_BYTES.get(algorithm)
        if least is not None and (not isinstance(key, str | bytes) or len(_bytes(key)) < least):
            raise ConfigError(f"{where}: {algorithm} needs a secret of at least {least} bytes")
        try:
            made_for = jwt.get_algorithm_by_name(algorithm)
            prepared = made_for.prepare_key(key)
        except NotImplementedError as error:
            raise ConfigError(f"MUSEHUB_JWT_ALGORITHMS: {algorithm} is unknown here") from error
        except (jwt.InvalidKeyError, ValueError, TypeError) as error:
            reason = f"cannot be used with {algorithm} ({type(error).__name__})"
            continue
        if hasattr(prepared, "private_bytes"):
            raise ConfigError(f"{where}: this is a private key; the hub needs the public one")
        weakness = made_for.check_key_length(prepared)
        if weakness is not None:
            raise ConfigError(f"{where}: {weakness}")
        fitting.add(algorithm)
    if not fitting:
        raise ConfigError(f"{where}: {reason}")
    return frozenset(fitting)


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key
