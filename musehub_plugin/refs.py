"""Refs and negotiation: what a repo's branches are, and which of the caller's commits it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musehub_plugin import graph
from musehub_plugin.access import Repo, text_id
from musehub_plugin.fetch import INLINE, MPACKS, THIN
from musehub_plugin.history import History
from musehub_plugin.hub import Hub
from musehub_plugin.plan import refuse_missing_wants
from musehub_plugin.store import commits as commit_store
from musehub_plugin.store import repos
from musehub_plugin.store.session import Database

# What the server offers beyond the contract's section 2.
CAPABILITIES = (INLINE, MPACKS, THIN)


@dataclass(frozen=True)
class Refs:
    """The members of the answer to a request for refs."""

    repo_id: str
    default_branch: str
    branch_heads: dict[str, str]
    capabilities: Sequence[str]


def refs(db: Database, repo: Repo) -> Refs:
    """Return the branches of a repo that the caller may read."""
    default_branch = getattr(repo, "default_branch", None) or "main"
    repo_id = text_id(repo.repo_id)
    return Refs(repo_id, default_branch, repos.branch_heads(db, repo_id), list(CAPABILITIES))


@dataclass(frozen=True)
class Negotiation:
    """The members of the answer to a negotiation."""

    ack: Sequence[str]
    common_base: str | None
    ready: bool


def negotiate(hub: Hub, db: Database, repo_id: str, want: Sequence[str], have: Sequence[str]) -> Negotiation:
    """Say which haves this repo holds, and whether they suffice for a small fetch.

    Returns:
        `ack`: the haves that this repo holds, in the order sent. `common_base`: of those that a want reaches, the one
        with the longest history behind it (then the lowest id), or None. `ready`: every want reaches an acknowledged
        have, so that further haves would change little; it is git's rule to give up asking (upload-pack,
        ok_to_give_up).

    Raises:
        NotFound: the repo does not hold a want.
    """
    history = History(db, hub.graphs, repo_id)
    packed = history.packed([*want, *have])
    if packed is None or not packed:
        return _negotiate_by_rows(history.rows(), want, have)
    refuse_missing_wants(packed, want)
    packed_graph = history.graph
    ack = [commit_id for commit_id in have if commit_id in packed]
    acknowledged = {packed[commit_id] for commit_id in ack}
    base = packed_graph.newest_reached((packed[commit_id] for commit_id in want), acknowledged)
    ready = base is not None and all(
        packed_graph.newest_reached([tip], acknowledged) is not None
        for tip in (dict.fromkeys(packed[commit_id] for commit_id in want) if len(want) > 1 else ())
    )
    return Negotiation(ack, None if base is None else packed_graph.commit_id(base), ready)


def _negotiate_by_rows(nodes: Mapping[str, commit_store.Node], want: Sequence[str], have: Sequence[str]) -> Negotiation:
    def parents(commit_id: str) -> Sequence[str]:
        return nodes[commit_id].parent_ids

    refuse_missing_wants(nodes, want)
    ack = [commit_id for commit_id in have if commit_id in nodes]
    acknowledged = set(ack)
    wanted = graph.reachable(nodes, parents, want)
    generation: dict[str, int] = {}
    reaches_ack: set[str] = set()
    for commit_id in graph.history_order(wanted, parents, want):
        known = [parent for parent in parents(commit_id) if parent in generation]
        generation[commit_id] = 1 + max((generation[parent] for parent in known), default=0)
        if commit_id in acknowledged or not reaches_ack.isdisjoint(known):
            reaches_ack.add(commit_id)
    common = sorted(acknowledged & wanted)
    common_base = max(common, key=lambda commit_id: generation[commit_id], default=None)
    return Negotiation(ack, common_base, reaches_ack.issuperset(want))
