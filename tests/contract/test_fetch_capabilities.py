"""The members of a fetch's answer: what the contract says without capabilities, and what each of them changes."""

from __future__ import annotations

import base64
import random

import msgpack
import pytest

from musehub_plugin import ids
from musehub_plugin.repack import repack
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import FETCH_MEMBERS, MSGPACK, Caller

REPO = "alice/songs"
ALL = ("inline", "mpacks", "thin")


@pytest.fixture
def made(hub: HubEnvironment) -> list[str]:
    """Four commits, of which the first three are a clone pack."""
    repo_id = hub.create_repo(REPO)
    caller = hub.caller("alice")
    history = History()
    commits: list[str] = []
    for number in range(4):
        # What resembles the version before, and nothing else.
        content = random.Random(4).randbytes(2000) + f"version {number}".encode()
        commits.append(history.commit({"a.txt": content}, commits[-1:]))
        if number >= 2:
            pack = history.pack(want=commits, have=commits[:3] if number == 3 else [])
            assert caller.push(REPO, pack, commits[-1]).status_code == 200
            hub.run_jobs()
        if number == 2:
            with hub.app.app_context():
                repack(hub_of(hub.app), hub_of(hub.app).database(), repo_id)
    return commits


def test_without_capabilities_an_answer_has_the_contract_s_members_alone(hub: HubEnvironment, made: list[str]) -> None:
    for have in ([], made[:1], made[3:]):
        assert hub.caller().fetch(REPO, [made[3]], have).get_json().keys() == FETCH_MEMBERS


def test_without_capabilities_an_answer_is_one_url(hub: HubEnvironment, made: list[str]) -> None:
    for have in ([], made[:1]):
        answer = hub.caller().fetch(REPO, [made[3]], have).get_json()
        assert answer["mpack_url"].startswith("http")
        assert answer["mpack_id"].startswith("sha256:")


def test_nothing_new_has_the_contract_s_members_whatever_is_offered(hub: HubEnvironment, made: list[str]) -> None:
    answer = hub.caller().fetch(REPO, [made[3]], [made[3]], ALL).get_json()
    assert answer.keys() == FETCH_MEMBERS
    assert (answer["mpack_url"], answer["mpack_id"], answer["size_bytes"]) == (None, None, 0)


def test_a_small_pack_in_a_json_answer_is_base64_text(hub: HubEnvironment, made: list[str]) -> None:
    answer = hub.caller().fetch(REPO, [made[3]], made[:1], ["inline"]).get_json()
    assert answer.keys() == FETCH_MEMBERS | {"mpack"}
    data = base64.b64decode(answer["mpack"], validate=True)
    assert answer["mpack_url"] is None
    assert (ids.blob_id(data), len(data)) == (answer["mpack_id"], answer["size_bytes"])


def test_a_small_pack_in_a_msgpack_answer_is_bytes(hub: HubEnvironment, made: list[str]) -> None:
    body = {"want": [made[3]], "have": made[:1], "capabilities": ["inline"]}
    answer = msgpack.unpackb(hub.caller().post(f"/{REPO}/fetch", body, accept=MSGPACK).data)
    assert isinstance(answer["mpack"], bytes)
    assert ids.blob_id(answer["mpack"]) == answer["mpack_id"]


def test_a_pack_over_the_limit_comes_by_url_although_inline_is_offered(hub: HubEnvironment, made: list[str]) -> None:
    app = hub.make_app(MUSEHUB_FETCH_INLINE=10)
    answer = Caller(app).fetch(REPO, [made[3]], made[:1], ["inline"]).get_json()
    assert answer.keys() == FETCH_MEMBERS
    assert answer["mpack_url"] is not None


def test_several_packs_are_listed_with_their_totals(hub: HubEnvironment, made: list[str]) -> None:
    answer = hub.caller().fetch(REPO, [made[3]], [], ["mpacks"]).get_json()
    assert answer.keys() == FETCH_MEMBERS | {"mpacks"}
    assert (answer["mpack_url"], answer["mpack_id"]) == (None, None)
    assert [each.keys() for each in answer["mpacks"]] == [{"id", "url", "size_bytes"}] * 2
    assert answer["size_bytes"] == sum(each["size_bytes"] for each in answer["mpacks"])
    assert answer["commit_count"] == 4


def test_one_of_several_packs_may_be_in_the_answer(hub: HubEnvironment, made: list[str]) -> None:
    answer = hub.caller().fetch(REPO, [made[3]], [], ["mpacks", "inline"]).get_json()
    assert [each.keys() for each in answer["mpacks"]] == [{"id", "url", "size_bytes"}, {"id", "mpack", "size_bytes"}]


def test_where_one_pack_suffices_mpacks_changes_nothing(hub: HubEnvironment, made: list[str]) -> None:
    plain = hub.caller().fetch(REPO, [made[3]], made[:1]).get_json()
    offered = hub.caller().fetch(REPO, [made[3]], made[:1], ["mpacks"]).get_json()
    assert offered.keys() == FETCH_MEMBERS
    assert offered["mpack_id"] == plain["mpack_id"]


def test_a_thin_pack_is_smaller_than_the_plain_one(hub: HubEnvironment, made: list[str]) -> None:
    plain = hub.caller().fetch(REPO, [made[3]], made[:1]).get_json()
    thin = hub.caller().fetch(REPO, [made[3]], made[:1], ["thin"]).get_json()
    assert thin["size_bytes"] < plain["size_bytes"] / 2


def test_thin_without_a_have_is_the_plain_pack(hub: HubEnvironment, made: list[str]) -> None:
    plain = hub.caller().fetch(REPO, [made[3]]).get_json()
    assert hub.caller().fetch(REPO, [made[3]], [], ["thin"]).get_json()["mpack_id"] == plain["mpack_id"]


def test_a_capability_that_nobody_knows_is_no_error(hub: HubEnvironment, made: list[str]) -> None:
    answer = hub.caller().fetch(REPO, [made[3]], made[:1], ["teleport"])
    assert answer.status_code == 200
    assert answer.get_json().keys() == FETCH_MEMBERS
