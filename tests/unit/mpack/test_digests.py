"""Digests are numbered as a list of them would be, few and many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin.ids import fake_id, to_digest
from musehub_plugin.mpack import digests
from musehub_plugin.mpack.digests import DigestTable

DIGESTS = [to_digest(fake_id(str(number))) for number in range(120)]
_NUMBERS = st.integers(0, len(DIGESTS) - 1)


@given(
    st.sampled_from((0, 1, 7, 1 << 15)),
    st.lists(
        st.one_of(
            _NUMBERS,
            st.lists(_NUMBERS, unique=True, max_size=80),
            st.lists(_NUMBERS, max_size=80).map(tuple),
        ),
        max_size=60,
    ),
)
def test_a_table_numbers_as_a_list_does(few: int, additions: list[int | list[int] | tuple[int, ...]]) -> None:
    expected: list[bytes] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digests, "_FEW", few)
        table = DigestTable()
        for added in additions:
            if isinstance(added, int):
                if DIGESTS[added] not in expected:
                    expected.append(DIGESTS[added])
                assert table.number(DIGESTS[added]) == expected.index(DIGESTS[added])
            elif isinstance(added, tuple):
                asked = [DIGESTS[number] for number in added]
                expected += [digest for digest in dict.fromkeys(asked) if digest not in expected]
                assert table.number_all(asked) == list(map(expected.index, asked))
            else:
                new = [DIGESTS[number] for number in added if DIGESTS[number] not in expected]
                table.extend(b"".join(new))
                expected += new
            assert table.count == len(expected)
        ordinals = {digest: ordinal for ordinal, digest in enumerate(expected)}
        assert [table.find(digest) for digest in DIGESTS] == [ordinals.get(digest) for digest in DIGESTS]
        assert table.part(0, table.count) == b"".join(expected)


@pytest.mark.parametrize("few", [1, 1 << 15])
def test_what_is_added_at_once_is_not_there_yet(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_FEW", few)
    table = DigestTable()
    table.extend(b"".join(DIGESTS[:5]))
    with pytest.raises(ValueError, match="was added before"):
        table.extend(DIGESTS[5] + DIGESTS[4])
