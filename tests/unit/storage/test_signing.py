"""Signed URLs: one method, one file, one moment; nothing else opens anything."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from musehub_plugin.ids import fake_id, to_hex
from musehub_plugin.storage.signing import MAX_TTL_SECONDS, Grant, SignatureRefused, UrlSigner
from tests.effort import effort

KEY = to_hex(fake_id("file"))
OTHER_KEY = to_hex(fake_id("another file"))
DIGEST = to_hex(fake_id("bytes"))
OLD, NEW, FOREIGN = b"o" * 32, b"n" * 32, b"f" * 32
NOW = 1_700_000_000

Query = list[tuple[str, str]]


def make_signer(*keys: bytes) -> UrlSigner:
    return UrlSigner(keys or (NEW,), lambda: "https://hub.example", clock=lambda: NOW)


def query_of(url: str) -> Query:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def signed_get(signer: UrlSigner | None = None, ttl: int = 60) -> Query:
    return query_of((signer or make_signer()).sign("GET", "mpack", KEY, ttl_seconds=ttl))


def signed_put() -> Query:
    return query_of(make_signer().sign("PUT", "upload", KEY, ttl_seconds=60, size=10, digest=DIGEST))


def replaced(query: Query, name: str, value: str) -> Query:
    return [(key, value if key == name else old) for key, old in query]


def reason_of_refusal(method: str, kind: str, key: str, query: Query, now: float | None = None) -> str:
    with pytest.raises(SignatureRefused) as refusal:
        make_signer().verify(method, kind, key, query, now)
    return refusal.value.reason


def test_a_url_has_base_prefix_kind_and_key() -> None:
    url = make_signer().sign("GET", "blob", KEY, ttl_seconds=60)
    assert url.partition("?")[0] == f"https://hub.example/-/musehub/storage/blob/{KEY}"


def test_s70_a_signed_url_says_what_it_allows() -> None:
    grant = make_signer().verify("PUT", "upload", KEY, signed_put())
    assert grant == Grant("PUT", "upload", KEY, NOW + 60, 10, DIGEST)


@pytest.mark.parametrize("moment", [NOW - 600, NOW, NOW + 59, NOW + 59.9])
def test_s70_a_url_holds_until_it_expires(moment: float) -> None:
    assert make_signer().verify("GET", "mpack", KEY, signed_get(), moment).expires_at == NOW + 60


@pytest.mark.parametrize("moment", [NOW + 60, NOW + 61, NOW + 10**9])
def test_s70_an_expired_url_is_refused(moment: float) -> None:
    assert reason_of_refusal("GET", "mpack", KEY, signed_get(), moment) == "expired"


def test_s73_a_clock_ten_minutes_ahead_fails_closed_and_says_by_how_much() -> None:
    with pytest.raises(SignatureRefused, match="expired 540 seconds ago"):
        make_signer().verify("GET", "mpack", KEY, signed_get(), NOW + 600)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "DELETE", "get", ""])
def test_s63_a_get_url_allows_no_other_method(method: str) -> None:
    assert reason_of_refusal(method, "mpack", KEY, signed_get()) == "mismatch"


@pytest.mark.parametrize("kind", ["blob", "upload", "", "mpack/"])
def test_s70_a_url_for_one_kind_is_refused_for_another(kind: str) -> None:
    assert reason_of_refusal("GET", kind, KEY, signed_get()) == "mismatch"


def test_s70_a_signature_for_another_key_is_refused() -> None:
    assert reason_of_refusal("GET", "mpack", OTHER_KEY, signed_get()) == "mismatch"


@pytest.mark.parametrize("position", range(64))
def test_s70_one_flipped_bit_of_the_key_is_refused(position: int) -> None:
    flipped = KEY[:position] + ("0" if KEY[position] != "0" else "1") + KEY[position + 1 :]
    assert reason_of_refusal("GET", "mpack", flipped, signed_get()) == "mismatch"


@given(position=st.integers(0, 63), digit=st.sampled_from("0123456789abcdef"))
@effort(50)
def test_s70_one_changed_digit_of_the_signature_is_refused(position: int, digit: str) -> None:
    query = signed_get()
    signature = dict(query)["sig"]
    assume(signature[position] != digit)
    changed = signature[:position] + digit + signature[position + 1 :]
    assert reason_of_refusal("GET", "mpack", KEY, replaced(query, "sig", changed)) == "mismatch"


@pytest.mark.parametrize("length", [0, 1, 32, 63])
def test_s70_a_truncated_signature_is_refused(length: int) -> None:
    query = signed_get()
    cut = replaced(query, "sig", dict(query)["sig"][:length])
    assert reason_of_refusal("GET", "mpack", KEY, cut) == "malformed"


@pytest.mark.parametrize("exp", [str(NOW + 61), str(NOW + 59), str(NOW + 10**6)])
def test_s70_another_expiry_is_refused(exp: str) -> None:
    assert reason_of_refusal("GET", "mpack", KEY, replaced(signed_get(), "exp", exp)) == "mismatch"


@pytest.mark.parametrize(
    "exp",
    [
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1e9",
        "0x10",
        "01",
        "1_000",
        "\u0661\u0662",
        "1\u0661",
        "\u00b2",
        "9" * 20,
        "9" * 5000,
    ],
)
def test_s70_an_expiry_that_is_no_plain_number_is_refused(exp: str) -> None:
    assert reason_of_refusal("GET", "mpack", KEY, replaced(signed_get(), "exp", exp)) == "malformed"


@pytest.mark.parametrize(
    ("name", "value"), [("size", "010"), ("size", "ten"), ("digest", DIGEST.upper()), ("digest", "")]
)
def test_s70_a_size_or_digest_in_another_spelling_is_refused(name: str, value: str) -> None:
    assert reason_of_refusal("PUT", "upload", KEY, replaced(signed_put(), name, value)) == "malformed"


@pytest.mark.parametrize("name", ["exp", "sig"])
def test_s70_a_duplicated_parameter_is_refused(name: str) -> None:
    query = signed_get()
    assert reason_of_refusal("GET", "mpack", KEY, [*query, (name, dict(query)[name])]) == "malformed"


@pytest.mark.parametrize("name", ["exp", "sig"])
def test_s70_a_missing_parameter_is_refused(name: str) -> None:
    query = [pair for pair in signed_get() if pair[0] != name]
    assert reason_of_refusal("GET", "mpack", KEY, query) == "malformed"


@pytest.mark.parametrize("name", ["download", "EXP", "x-amz-signature", "exp[]", ""])
def test_s70_a_parameter_that_was_not_signed_is_refused(name: str) -> None:
    assert reason_of_refusal("GET", "mpack", KEY, [*signed_get(), (name, "1")]) == "malformed"


@pytest.mark.parametrize(("name", "value"), [("size", "11"), ("digest", OTHER_KEY)])
def test_s70_another_size_or_digest_is_refused(name: str, value: str) -> None:
    assert reason_of_refusal("PUT", "upload", KEY, replaced(signed_put(), name, value)) == "mismatch"


def test_s70_a_digit_moved_from_one_field_to_the_next_is_refused() -> None:
    query = dict(signed_put())
    moved = {**query, "exp": query["exp"] + query["size"][0], "size": query["size"][1:]}
    assert reason_of_refusal("PUT", "upload", KEY, list(moved.items())) == "mismatch"


@pytest.mark.parametrize("name", ["size", "digest"])
def test_s70_leaving_out_size_or_digest_is_refused(name: str) -> None:
    query = [pair for pair in signed_put() if pair[0] != name]
    assert reason_of_refusal("PUT", "upload", KEY, query) == "mismatch"


@pytest.mark.parametrize(("name", "value"), [("size", "10"), ("digest", DIGEST)])
def test_s70_adding_a_size_or_digest_is_refused(name: str, value: str) -> None:
    assert reason_of_refusal("GET", "mpack", KEY, [*signed_get(), (name, value)]) == "mismatch"


def test_s70_a_url_of_the_old_key_holds_during_rotation() -> None:
    query = signed_get(make_signer(OLD))
    assert make_signer(NEW, OLD).verify("GET", "mpack", KEY, query).key == KEY


def test_s70_a_url_of_a_removed_key_is_refused() -> None:
    assert reason_of_refusal("GET", "mpack", KEY, signed_get(make_signer(OLD))) == "mismatch"


def test_s70_the_first_key_signs() -> None:
    assert make_signer(NEW).verify("GET", "mpack", KEY, signed_get(make_signer(NEW, OLD))).key == KEY


def test_s70_a_foreign_key_is_refused() -> None:
    assert reason_of_refusal("GET", "mpack", KEY, signed_get(make_signer(FOREIGN))) == "mismatch"


@pytest.mark.parametrize("signature", ["\u00e9" * 64, "\ud800" * 64, "\uff41" * 64, "A" * 64])
def test_s71_a_signature_that_is_not_hex_is_refused_without_a_crash(signature: str) -> None:
    assert reason_of_refusal("GET", "mpack", KEY, replaced(signed_get(), "sig", signature)) == "malformed"


@pytest.mark.parametrize(
    "key",
    ["..", "/etc/passwd", "%2e%2e", KEY[:-1], KEY + "0", KEY.upper(), KEY + "\n", f"../{KEY}"[:64], "\u0661" * 64],
)
def test_s72_a_key_that_is_not_64_hex_digits_is_refused(key: str) -> None:
    assert reason_of_refusal("GET", "mpack", key, signed_get()) == "mismatch"


@pytest.mark.parametrize("key", ["..", KEY.upper(), KEY + "\n", ""])
def test_s72_nothing_else_than_64_hex_digits_is_signed(key: str) -> None:
    with pytest.raises(ValueError, match="64 lowercase hex"):
        make_signer().sign("GET", "mpack", key, ttl_seconds=60)


@pytest.mark.parametrize(("method", "kind"), [("PUT", "mpack"), ("GET", "upload"), ("DELETE", "blob"), ("GET", "x")])
def test_only_what_the_routes_serve_is_signed(method: str, kind: str) -> None:
    with pytest.raises(ValueError, match="cannot sign"):
        make_signer().sign(method, kind, KEY, ttl_seconds=60)


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL_SECONDS + 1])
def test_s69_a_life_out_of_bounds_is_not_signed(ttl: int) -> None:
    with pytest.raises(ValueError, match="lives 1 to 604800 seconds"):
        signed_get(ttl=ttl)


@pytest.mark.parametrize("ttl", [1, MAX_TTL_SECONDS])
def test_s69_the_shortest_and_the_longest_life_are_signed(ttl: int) -> None:
    assert make_signer().verify("GET", "mpack", KEY, signed_get(ttl=ttl)).expires_at == NOW + ttl


@pytest.mark.parametrize(("size", "digest"), [(-1, None), (2**63, None), (None, "00"), (None, DIGEST.upper())])
def test_a_size_or_digest_that_no_upload_has_is_not_signed(size: int | None, digest: str | None) -> None:
    with pytest.raises(ValueError, match=r"upload cannot have|64 lowercase hex"):
        make_signer().sign("PUT", "upload", KEY, ttl_seconds=60, size=size, digest=digest)


def test_a_url_that_an_earlier_version_signed_holds() -> None:
    given = [
        ("exp", "1700000060"),
        ("size", "10"),
        ("digest", DIGEST),
        ("sig", "564c2edada6dcc839cb649360d1dc32636e6314f8781869c69a961cb117ce898"),
    ]
    assert make_signer().verify("PUT", "upload", KEY, given).size == 10


def test_s64_a_refusal_does_not_quote_the_url() -> None:
    query = signed_get()
    with pytest.raises(SignatureRefused) as refusal:
        make_signer().verify("PUT", "mpack", KEY, query)
    assert not any(value in str(refusal.value) for value in (KEY, *dict(query).values()))


@pytest.mark.parametrize("key", [b"", b"short", b"k" * 31])
def test_a_short_key_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        make_signer(b"k" * 32, key)


def test_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        UrlSigner([], lambda: "")


@given(
    size=st.none() | st.integers(0, 2**63 - 1),
    digest=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    ttl=st.integers(1, MAX_TTL_SECONDS),
)
@effort(50)
def test_whatever_is_signed_verifies(size: int | None, digest: str | None, ttl: int) -> None:
    url = make_signer().sign("PUT", "upload", KEY, ttl_seconds=ttl, size=size, digest=digest)
    grant = make_signer().verify("PUT", "upload", KEY, query_of(url))
    assert grant == Grant("PUT", "upload", KEY, NOW + ttl, size, digest)
