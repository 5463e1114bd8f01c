"""Finds what a working copy and a hub both have, in as few words as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from musehub_plugin.client.history import History, Walk
from musehub_plugin.client.protocol import MAX_HAVES, negotiate
from musehub_plugin.client.transport import HubTransport
from musehub_plugin.client.workdir import Workdir

# Commits named in the second round of a negotiation; each further round names four times as many.
_FIRST_ROUND: Final = 256


def common_commits(workdir: Workdir, hub: HubTransport, want: Sequence[str], extra: Iterable[str] = ()) -> list[str]:
    """Find commits that both sides have, such that what they reach need not be sent.

    The heads are named first, and mostly that is all. Where the hub does not know one, its past is named, newest
    first, until every way into it has come to something that the hub knows.

    Args:
        workdir: the working copy.
        hub: the remote.
        want: commits that the hub has.
        extra: commits here that the hub is known to have.
    """
    history = History(workdir)
    known = set(extra)
    heads = {*workdir.branches().values(), *workdir.tags().values(), *workdir.all_remote_heads()} - known
    present = sorted(head for head in heads if workdir.has_commit(head))
    walk = Walk(history)
    for head in known:
        walk.add(head, common=True)
    for head in present:
        walk.add(head)
    passed = iter(walk)
    batch = present[:MAX_HAVES]
    named = set(batch)
    size = _FIRST_ROUND
    while batch:
        answer = negotiate(hub, want, batch)
        for commit_id in answer.ack:
            walk.paint(commit_id)
        known |= answer.ack
        if answer.ready or len(named) >= MAX_HAVES:
            break
        unknown = (commit_id for commit_id in passed if commit_id not in named and not walk.is_common(commit_id))
        batch = list(islice(unknown, min(size, MAX_HAVES - len(named))))
        named.update(batch)
        size *= 4
    return sorted(known)[:MAX_HAVES]
