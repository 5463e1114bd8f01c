"""Small answers of a moment ago: those used last, and none that is not all there."""

from __future__ import annotations

import pytest

from musehub_plugin.answercache import AnswerCache
from musehub_plugin.ids import fake_id
from musehub_plugin.store.fetch_plans import ReadyPack

# Each is counted with some bytes beside its own: three have room, four have not.
SIZE = 100_000
ROOM = 3 * SIZE + SIZE // 2


def packs(*sizes: int | None) -> list[ReadyPack]:
    """Return packs that travel in an answer with so many bytes; None: one that does not."""
    return [ReadyPack(fake_id("pack"), 1, 1, 1, 1, None if size is None else bytes(size)) for size in sizes]


def there(cache: AnswerCache, *keys: str) -> list[bool]:
    return [cache.find(key) is not None for key in keys]


def test_an_answer_is_found_as_it_was_kept() -> None:
    cache = AnswerCache(ROOM)
    cache.keep("a", packs(1, 2))
    assert (cache.find("a"), cache.find("b")) == (packs(1, 2), None)


@pytest.mark.parametrize("sizes", [(None,), (1, None), (None, 1)])
def test_an_answer_of_which_a_pack_is_in_storage_is_not_kept(sizes: tuple[int | None, ...]) -> None:
    cache = AnswerCache(ROOM)
    cache.keep("a", packs(*sizes))
    assert cache.find("a") is None


def test_the_answer_that_was_used_longest_ago_goes() -> None:
    cache = AnswerCache(ROOM)
    for key in "abc":
        cache.keep(key, packs(SIZE))
    cache.find("a")
    cache.keep("d", packs(SIZE))
    assert there(cache, *"abcd") == [True, False, True, True]


def test_there_is_always_room_for_the_last_ones() -> None:
    cache = AnswerCache(ROOM)
    for number in range(1_000):
        cache.keep(f"{number}", packs(SIZE // 2, SIZE // 2))
    assert there(cache, "996", "997", "998", "999") == [False, True, True, True]


def test_an_answer_that_is_larger_than_all_room_pushes_none_out() -> None:
    cache = AnswerCache(ROOM)
    cache.keep("a", packs(SIZE))
    cache.keep("b", packs(SIZE, 3 * SIZE))
    assert there(cache, "a", "b") == [True, False]


def test_an_answer_that_is_kept_again_takes_room_once() -> None:
    cache = AnswerCache(ROOM)
    cache.keep("a", packs(SIZE))
    for _ in range(5):
        cache.keep("b", packs(SIZE))
    assert there(cache, "a", "b") == [True, True]


def test_small_answers_take_room_beside_their_bytes() -> None:
    cache = AnswerCache(SIZE)
    for number in range(1_000):
        cache.keep(f"{number}", packs(0))
    assert sum(there(cache, *map(str, range(1_000)))) < 200
