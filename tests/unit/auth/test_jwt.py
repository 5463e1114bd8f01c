"""JWTs as credentials: what holds, and every known way to make one up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flask import Request
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from musehub_plugin.access import Identity, InvalidCredentials
from musehub_plugin.auth.jwt import JWTIdentityLoader
from musehub_plugin.errors import ConfigError

SECRET = "s" * 32
OTHER = "o" * 32
RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_PEM = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def claims(**changes: Any) -> dict[str, Any]:
    return {"sub": "1", "exp": int(time.time()) + 3600, **changes}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def made_up(header: Mapping[str, Any], payload: Mapping[str, Any], secret: bytes = SECRET.encode()) -> str:
    """Return a token that PyJWT would not make, signed with HMAC-SHA256."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def request(authorization: str | None = None, path: str = "/") -> Request:
    headers = [] if authorization is None else [("Authorization", authorization)]
    return Request(EnvironBuilder(path=path, headers=headers).get_environ())


def load(loader: JWTIdentityLoader, value: str) -> Identity | None:
    return loader(request(f"Bearer {value}"))


def refused(loader: JWTIdentityLoader, value: str) -> bool:
    try:
        load(loader, value)
    except InvalidCredentials:
        return True
    return False


HS = JWTIdentityLoader(SECRET, algorithms=["HS256"])
RS = JWTIdentityLoader({"k1": RSA_PEM}, algorithms=["RS256"])


def test_a_valid_token_is_its_subject() -> None:
    assert load(HS, token(preferred_username="alice")) == Identity("1", "alice")


def test_a_public_key_verifies_what_its_private_key_signed() -> None:
    assert load(RS, token(RSA_KEY, "RS256", {"kid": "k1"})) == Identity("1")


def test_a_request_without_a_header_is_anonymous() -> None:
    assert HS(request()) is None


def test_another_scheme_is_left_to_other_loaders() -> None:
    assert HS(request("Basic YWxpY2U6cHc=")) is None


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer a b", "Bearer a,Bearer b", "Bearer ä", "Bearer x"])
def test_a_malformed_bearer_header_is_refused(header: str) -> None:
    with pytest.raises(InvalidCredentials):
        HS(request(header))


def test_the_schemes_case_does_not_matter() -> None:
    assert HS(request(f"bEARER {token()}")) == Identity("1")


def test_s88_alg_none_is_refused() -> None:
    unsigned = made_up({"alg": "none"}, claims()).rpartition(".")[0] + "."
    assert [refused(HS, unsigned), refused(RS, unsigned), refused(HS, unsigned[:-1])] == [True] * 3


def test_s88_hs256_with_the_public_key_as_secret_is_refused() -> None:
    assert refused(RS, made_up({"alg": "HS256", "kid": "k1"}, claims(), RSA_PEM.encode()))


def test_s88_rs256_at_a_loader_for_hs256_is_refused() -> None:
    assert refused(HS, token(RSA_KEY, "RS256"))


def test_s88_another_algorithm_of_the_same_sort_is_refused() -> None:
    assert refused(HS, token("s" * 64, "HS512"))


@pytest.mark.parametrize("kid", ["k2", "../k1", "/dev/null", "https://evil.example/k", "", 1, None, ["k1"]])
def test_s88_an_unknown_kid_is_refused(kid: Any) -> None:
    loader = JWTIdentityLoader({"k1": SECRET}, algorithms=["HS256"])
    assert refused(loader, made_up({"alg": "HS256", "kid": kid}, claims()))


def test_s88_a_kid_selects_one_key_only() -> None:
    loader = JWTIdentityLoader({"k1": SECRET, "k2": OTHER}, algorithms=["HS256"])
    assert refused(loader, token(SECRET, headers={"kid": "k2"}))


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_s88_a_key_that_the_token_brings_is_not_used(name: str) -> None:
    assert refused(HS, made_up({"alg": "HS256", name: "https://evil.example/k"}, claims(), OTHER.encode()))


@pytest.mark.parametrize("crit", [["x"], ["b64"], [], "x", None])
def test_s88_a_critical_extension_is_refused(crit: Any) -> None:
    assert refused(HS, made_up({"alg": "HS256", "crit": crit, "x": 1, "b64": True}, claims()))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "evil"},
        {"iss": "hu"},
        {"iss": ["hub"]},
        {"aud": "evil"},
        {"aud": []},
        {"type": "refresh"},
        {"type": ["access"]},
        {"exp": 1},
        {"exp": "never"},
        {"exp": None},
        {"exp": float("inf")},
        {"nbf": 1 << 40},
        {"sub": 1},
        {"sub": ""},
        {"sub": None},
        {"sub": ["1"]},
    ],
)
def test_s88_a_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    loader = JWTIdentityLoader(SECRET, algorithms=["HS256"], issuer="hub", audience="muse", claims={"type": "access"})
    good = claims(iss="hub", aud="muse", type="access")
    assert not refused(loader, made_up({"alg": "HS256"}, good))
    assert refused(loader, made_up({"alg": "HS256"}, {**good, **changes}))


@pytest.mark.parametrize("name", ["iss", "aud", "type", "exp", "sub"])
def test_s88_a_missing_claim_is_refused(name: str) -> None:
    loader = JWTIdentityLoader(SECRET, algorithms=["HS256"], issuer="hub", audience="muse", claims={"type": "access"})
    payload = claims(iss="hub", aud="muse", type="access")
    del payload[name]
    assert refused(loader, made_up({"alg": "HS256"}, payload))


def test_s88_a_token_for_another_audience_is_refused_where_none_is_configured() -> None:
    assert refused(HS, token(aud="somebody-else"))


def test_s88_a_changed_signature_is_refused() -> None:
    body, _, signature = token().rpartition(".")
    assert refused(HS, f"{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")


def test_s88_a_token_of_nothing_but_brackets_is_refused() -> None:
    bomb = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    assert refused(HS, f"{bomb}.{bomb}.AA")


def test_a_token_beyond_8_kib_is_refused() -> None:
    assert refused(HS, token(pad="x" * 8192))


@given(st.text("ABCabc019-_.=", max_size=80))
def test_no_text_is_a_token_or_an_error(text: str) -> None:
    assert refused(HS, text)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats() | st.text(max_size=5)))
def test_no_signed_payload_raises_anything_else(payload: dict[str, Any]) -> None:
    assert refused(HS, made_up({"alg": "HS256"}, {**claims(), **payload, "sub": None}))


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "b64"]), st.none() | st.integers() | st.text()))
def test_no_header_raises_anything_else(header: dict[str, Any]) -> None:
    assert refused(RS, made_up(header, claims()))


def test_a_rotated_key_is_accepted_until_it_is_removed() -> None:
    during = JWTIdentityLoader([OTHER, SECRET], algorithms=["HS256"])
    after = JWTIdentityLoader([OTHER], algorithms=["HS256"])
    assert (refused(during, token()), refused(after, token())) == (False, True)


def test_keys_of_several_kinds_are_each_used_for_their_own_algorithm() -> None:
    loader = JWTIdentityLoader([RSA_PEM, EC_PEM], algorithms=["RS256", "ES256"])
    assert load(loader, token(EC_KEY, "ES256")) == load(loader, token(RSA_KEY, "RS256")) == Identity("1")


def test_an_expired_token_holds_within_the_leeway() -> None:
    just_expired = token(exp=int(time.time()) - 1)
    strict = JWTIdentityLoader(SECRET, algorithms=["HS256"], leeway=0)
    assert (refused(HS, just_expired), refused(strict, just_expired)) == (False, True)


@pytest.mark.parametrize("value", [1, "true", None])
def test_only_a_true_admin_claim_makes_an_admin(value: Any) -> None:
    loader = JWTIdentityLoader(SECRET, algorithms=["HS256"], admin_claim="admin")
    assert [load(loader, token(admin=value)), load(loader, token(admin=True))] == [
        Identity("1"),
        Identity("1", is_admin=True),
    ]


@pytest.mark.parametrize(
    ("keys", "algorithms"),
    [
        ("s" * 31, ["HS256"]),
        ("s" * 47, ["HS384"]),
        (RSA_PEM, ["HS256"]),
        (RSA_PEM, ["HS256", "RS256"]),
        (RSA_PEM, ["ES256"]),
        (SECRET, ["none"]),
        (SECRET, ["RS256"]),
        (SECRET, ["HS257"]),
        (SECRET, []),
        (SECRET, "HS256"),
        ([], ["HS256"]),
        ({}, ["HS256"]),
        (RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), ["RS256"]),
    ],
    # Processes that share the work must agree on the names, and keys are made anew in each.
    ids=range(13),
)
def test_s88_unsafe_keys_and_algorithms_are_refused_at_the_start(keys: Any, algorithms: Any) -> None:
    with pytest.raises(ConfigError, match="MUSEHUB_JWT") as caught:
        JWTIdentityLoader(keys, algorithms=algorithms)
    assert "sss" not in str(caught.value)


def test_a_loader_can_come_from_the_apps_config() -> None:
    loader = JWTIdentityLoader.from_config(
        {"MUSEHUB_JWT_KEYS": [SECRET], "MUSEHUB_JWT_ALGORITHMS": ["HS256"], "MUSEHUB_JWT_ISSUER": "hub"}
    )
    assert (refused(loader, token(iss="hub")), refused(loader, token(iss="x"))) == (False, True)


@pytest.mark.parametrize("missing", ["MUSEHUB_JWT_KEYS", "MUSEHUB_JWT_ALGORITHMS"])
def test_a_config_without_keys_or_algorithms_names_the_missing_one(missing: str) -> None:
    config = {"MUSEHUB_JWT_KEYS": [SECRET], "MUSEHUB_JWT_ALGORITHMS": ["HS256"]}
    with pytest.raises(ConfigError, match=missing):
        JWTIdentityLoader.from_config({**config, missing: None})


def test_without_pyjwt_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigError, match=r"musehub-plugin\[jwt\]"):
        JWTIdentityLoader(SECRET, algorithms=["HS256"])


def test_s89_a_token_in_the_query_string_is_not_looked_at() -> None:
    assert [HS(request(path=f"/?{name}={token()}")) for name in ("jwt", "token", "access_token")] == [None] * 3
