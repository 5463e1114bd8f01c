"""Reachability over commits: what a fetch sends is reach(want) minus reach(have).

Pure: a graph is a mapping of commit id to parent ids. "Stop walking at a have" would be wrong (it sends what lies
behind a have by another way, ATTACKS N05), and so would any pruning by date or generation; sets are exact.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

Parents = Callable[[str], Sequence[str]]
_Commit = TypeVar("_Commit", str, int)


def reachable(known: Collection[str], parents: Parents, tips: Iterable[str]) -> set[str]:
    """Return `tips` and all their ancestors, as far as they are `known`; unknown ids drop out."""
    seen: set[str] = set()
    stack = [tip for tip in tips if tip in known]
    while stack:
        commit = stack.pop()
        if commit not in seen:
            seen.add(commit)
            stack.extend(parent for parent in parents(commit) if parent not in seen and parent in known)
    return seen


def history_order(
    commits: Collection[_Commit],
    parents: Callable[[_Commit], Sequence[_Commit]],
    tips: Iterable[_Commit],
    *,
    key: Callable[[_Commit], Any] | None = None,
) -> list[_Commit]:
    """Return `commits` with parents before children, each line of history in one piece.

    A walk from the tips that finishes a first parent's line before it turns to the second's: neighbours differ
    little, which is what the mpack's manifest deltas and solid frames live on. The order depends on the graph and
    the set of tips alone.

    Args:
        commits: the commits to order; every one must be reachable from `tips` through `commits`.
        parents: a commit's parents in their order.
        tips: where the walk starts, in any order.
        key: what tips are sorted by, where not by themselves.
    """
    done: set[_Commit] = set()
    order: list[_Commit] = []
    for tip in sorted(set(tips), key=key):
        if tip not in commits or tip in done:
            continue
        done.add(tip)
        # The line of history down to where the walk is, and which parent of each commit in it comes next: as long as
        # the history is, so a few bytes for each, and its parents are asked for again.
        line, following = [tip], array("I", [0])
        while line:
            place = following[-1]
            for parent in parents(line[-1])[place:]:
                place += 1
                if parent in commits and parent not in done:
                    done.add(parent)
                    following[-1] = place
                    line.append(parent)
                    following.append(0)
                    break
            else:
                order.append(line.pop())
                following.pop()
    return order


def is_ancestor(known: Collection[str], parents: Parents, ancestor: str, commit: str) -> bool:
    """Say whether `ancestor` is `commit` or reachable from it."""
    return ancestor in reachable(known, parents, [commit])
