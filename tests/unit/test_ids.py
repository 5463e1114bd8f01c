"""Content addresses: the forms that are ids, and what an id covers."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids

HEX = "0123456789abcdef" * 4
ID = f"sha256:{HEX}"
identifiers = st.binary(min_size=32, max_size=32).map(ids.from_digest)


def test_an_id_is_the_prefix_and_64_lowercase_digits() -> None:
    assert ids.is_id(ID)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(f"sha256:{HEX.upper()}", id="uppercase"),
        pytest.param(ID[:-1], id="63 digits"),
        pytest.param(f"{ID}0", id="65 digits"),
        pytest.param(HEX, id="no prefix"),
        pytest.param(f"SHA256:{HEX}", id="uppercase prefix"),
        pytest.param(f"sha1:{HEX[:40]}", id="sha1"),
        pytest.param(f"sha512:{HEX}{HEX}", id="sha512"),
        pytest.param(f"sha512:{HEX}", id="other name, right length"),
        pytest.param(f"{ID}\n", id="newline after"),
        pytest.param(f"{ID[:-1]}\n", id="newline for the last digit"),
        pytest.param(f" {ID}", id="space before"),
        pytest.param(f" {ID[:-1]}", id="space before, right length"),
        pytest.param(f"sha256:{chr(0xFF11) * 64}", id="full-width digits"),
        pytest.param(f"sha256:{chr(0x661) * 64}", id="Arabic digits"),
        pytest.param(f"sha256:0x{HEX[2:]}", id="0x"),
        pytest.param(f"sha256:{HEX[:31]}\0{HEX[32:]}", id="NUL"),
        pytest.param(f"sha256:{HEX[:31]}_{HEX[32:]}", id="underscore"),
        pytest.param("", id="empty"),
        pytest.param("sha256:", id="prefix alone"),
        pytest.param(ID.encode(), id="bytes"),
        pytest.param(None, id="None"),
        pytest.param(7, id="number"),
        pytest.param([ID], id="list"),
    ],
)
def test_s56_another_form_is_no_id(wrong: object) -> None:
    assert not ids.is_id(wrong)


def test_s56_what_is_no_id_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not an id"):
        ids.to_digest(f"{ID[:-1]}G")


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_and_its_id_name_each_other(digest: bytes) -> None:
    identifier = ids.from_digest(digest)
    assert ids.is_id(identifier)
    assert ids.to_digest(identifier) == digest


@given(st.binary(max_size=100))
def test_a_blob_id_is_the_sha_256_of_the_content(content: bytes) -> None:
    assert ids.blob_id(content) == "sha256:" + hashlib.sha256(content).hexdigest()


def test_hex_is_an_id_without_its_prefix() -> None:
    assert ids.is_hex(ids.to_hex(ID))
    assert not ids.is_hex(ID)


def test_a_snapshot_id_is_the_contract_s_formula() -> None:
    entries = [f"b.txt\0{'b' * 64}", f"a/c.txt\0{'a' * 64}"]
    expected = hashlib.sha256("\0".join(sorted(entries)).encode()).hexdigest()
    manifest = {"b.txt": f"sha256:{'b' * 64}", "a/c.txt": f"sha256:{'a' * 64}"}
    assert ids.snapshot_id(manifest) == f"sha256:{expected}"


def test_s80_the_empty_manifest_has_the_id_of_nothing() -> None:
    assert ids.snapshot_id({}) == ids.blob_id(b"")


@given(st.dictionaries(st.text(min_size=1, max_size=8), identifiers, max_size=5), st.data())
def test_a_snapshot_id_does_not_depend_on_the_order_of_the_paths(manifest: dict[str, str], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(manifest.items()))))
    assert ids.snapshot_id(shuffled) == ids.snapshot_id(manifest)


def test_a_commit_id_is_the_contract_s_formula() -> None:
    text = "\0".join(["\0".join(["1" * 64, "2" * 64]), "3" * 64, "message", "2026-01-01T00:00:00+00:00"])
    expected = hashlib.sha256(text.encode()).hexdigest()
    parents = [f"sha256:{'2' * 64}", f"sha256:{'1' * 64}"]
    found = ids.commit_id(parents, f"sha256:{'3' * 64}", "message", "2026-01-01T00:00:00+00:00")
    assert found == f"sha256:{expected}"


@given(st.lists(identifiers, max_size=4), st.data())
def test_a_commit_id_does_not_depend_on_the_order_of_the_parents(parents: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(parents))
    assert ids.commit_id(shuffled, ID, "m", "d") == ids.commit_id(parents, ID, "m", "d")


@pytest.mark.parametrize("field", ["parents", "snapshot", "message", "date"])
def test_a_commit_id_covers_each_part(field: str) -> None:
    changed = {"parents": [ids.fake_id("p")], "snapshot": ids.fake_id("s"), "message": "other", "date": "later"}
    parts = {"parents": [], "snapshot": ID, "message": "m", "date": "d"}
    other = {**parts, field: changed[field]}
    assert ids.commit_id(*parts.values()) != ids.commit_id(*other.values())  # type: ignore[arg-type]  # mixed values


def test_a_fake_id_is_an_id_that_depends_on_its_seed() -> None:
    assert ids.is_id(ids.fake_id("a"))
    assert ids.fake_id("a") == ids.fake_id("a") != ids.fake_id("b")
