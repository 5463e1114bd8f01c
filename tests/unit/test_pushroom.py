"""How many bytes of packs a process takes in at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from musehub_plugin.pushroom import SMALL_PACK, PushRoom

LARGE = SMALL_PACK + 1


def taken(room: PushRoom, stack: ExitStack, *sizes: int) -> list[bool]:
    return [stack.enter_context(room.take(size)) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([LARGE, LARGE], [True, True]),
        ([LARGE, LARGE, LARGE], [True, True, False]),
        ([5 * LARGE, LARGE], [True, False]),
        ([LARGE, 5 * LARGE], [True, False]),
        ([5 * LARGE, SMALL_PACK, SMALL_PACK], [True, True, True]),
        ([SMALL_PACK, 5 * LARGE], [True, True]),
        ([LARGE, 2 * LARGE, LARGE], [True, False, True]),
    ],
)
def test_packs_are_taken_in_as_far_as_there_is_room(sizes: list[int], expected: list[bool]) -> None:
    with ExitStack() as stack:
        assert taken(PushRoom(2 * LARGE), stack, *sizes) == expected


def test_room_is_there_again_once_a_push_ends_however_it_ends() -> None:
    room = PushRoom(LARGE)
    with pytest.raises(ValueError, match="refused"), room.take(LARGE):
        raise ValueError("refused")
    with room.take(LARGE) as has_room:
        assert has_room


def test_what_found_no_room_gives_none_back() -> None:
    room = PushRoom(LARGE)
    with ExitStack() as stack:
        assert taken(room, stack, LARGE) == [True]
        with room.take(LARGE) as has_room:
            assert not has_room
        assert taken(room, stack, LARGE) == [False]


def test_without_a_bound_all_are_taken_in() -> None:
    with ExitStack() as stack:
        assert taken(PushRoom(0), stack, *[1 << 40] * 3) == [True] * 3
