"""A commit's file and its wire form say the same, whatever fields a hub adds."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.client.record import check_record, commit_hashes_to, record_from_wire, render, wire_from_record

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=12),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(0, 9), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["signature", "structured_delta", "test_runs", "metadata", "x", "parents", "$bytes", "$pairs", "repo_id2"]
)
some_ids = st.integers(0, 9).map(lambda number: ids.fake_id(str(number)))
commits = st.builds(
    lambda core, further: {**further, **core},
    st.fixed_dictionaries(
        {
            "commit_id": some_ids,
            "parent_ids": st.lists(some_ids, max_size=5),
            "snapshot_id": some_ids,
            "branch": texts,
            "message": texts,
            "author": texts,
            "committed_at": texts,
        }
    ),
    st.dictionaries(names, values, max_size=4),
)
DEFAULTS: dict[str, object] = {
    "metadata": {},
    "structured_delta": None,
    "sem_ver_bump": "none",
    "breaking_changes": [],
    "agent_id": "",
    "model_id": "",
    "toolchain_id": "",
    "prompt_hash": "",
    "signature": "",
    "signer_key_id": "",
    "format_version": 5,
    "reviewed_by": [],
    "test_runs": 0,
}


def says_something(key: str, value: object) -> bool:
    return key not in DEFAULTS or value != DEFAULTS[key] or type(value) is not type(DEFAULTS[key])


@given(commits)
def test_whatever_a_hub_sends_goes_back_out(commit: dict[str, Any]) -> None:
    record = json.loads(render(record_from_wire(commit, repo_id="mine")))
    assert check_record(record, commit["commit_id"]) is None
    assert wire_from_record(record, repo_id="mine") == {
        key: value for key, value in commit.items() if says_something(key, value)
    }


@given(commits)
def test_a_rendered_record_is_what_json_would_write(commit: dict[str, Any]) -> None:
    record = record_from_wire(commit, repo_id="mine")
    assert render(record).decode() == json.dumps(record, indent=2) + "\n"


def test_another_repos_id_survives_and_the_copys_own_is_not_sent() -> None:
    commit = {"commit_id": ids.fake_id("c"), "parent_ids": [], "snapshot_id": ids.fake_id("s")}
    commit |= {"branch": "", "message": "", "author": "", "committed_at": ""}
    theirs = record_from_wire({**commit, "repo_id": "theirs"}, repo_id="mine")
    assert wire_from_record(theirs, repo_id="mine")["repo_id"] == "theirs"
    assert "repo_id" not in wire_from_record(record_from_wire(commit, repo_id="mine"), repo_id="mine")


def test_the_first_two_parents_have_keys_of_their_own() -> None:
    parents = [ids.fake_id(name) for name in "xyz"]
    commit = {"commit_id": ids.fake_id("c"), "parent_ids": parents, "snapshot_id": ids.fake_id("s")}
    commit |= {"branch": "", "message": "", "author": "", "committed_at": ""}
    record = record_from_wire(commit, repo_id="mine")
    assert (record["parent_commit_id"], record["parent2_commit_id"]) == tuple(map(ids.to_hex, parents[:2]))
    assert record["parent_ids"] == list(map(ids.to_hex, parents))


def test_a_commit_hashes_by_its_date_or_by_its_author() -> None:
    commit = {"parent_ids": [], "snapshot_id": ids.fake_id("s"), "message": "m", "author": "a", "committed_at": "d"}
    for last in ("a", "d"):
        commit["commit_id"] = ids.commit_id([], ids.fake_id("s"), "m", last)
        assert commit_hashes_to(commit)
    commit["commit_id"] = ids.commit_id([], ids.fake_id("s"), "m", "x")
    assert not commit_hashes_to(commit)
