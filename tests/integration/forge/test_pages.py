"""The example forge as a visitor sees it, and the plugin in it as a client does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from forge import create_app
from forge.tables import Account, create_account, create_repo, db, issue_token

from musehub_plugin import ids
from musehub_plugin.mpack import build_wire_mpack, parse_wire_mpack
from musehub_plugin.testing.apps import close_app

PASSWORD = "a long enough one"


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Flask]:
    # Any name but `app`, for which pytest-flask would keep a request context pushed.
    forge = create_app({"DATA": str(tmp_path / "data"), "TESTING": True})
    yield forge
    close_app(forge)


@pytest.fixture
def visitor(forge: Flask) -> FlaskClient:
    return forge.test_client()


@pytest.fixture
def alice_token(forge: Flask) -> str:
    with forge.app_context():
        account = create_account("alice", PASSWORD)
        create_repo(account, "songs")
        create_repo(account, "diary", is_private=True)
        return issue_token(account, "test")


def post_form(browser: FlaskClient, url: str, **fields: str) -> Any:
    page = browser.get(url).get_data(as_text=True)
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return browser.post(url, data={"csrf_token": found[1], **fields}, follow_redirects=True)


def logged_in(forge: Flask) -> FlaskClient:
    browser = forge.test_client()
    post_form(browser, "/-/log-in", handle="alice", password=PASSWORD)
    return browser


def one_commit(message: str) -> tuple[str, bytes]:
    content = b"la la la\n"
    manifest = {"song.txt": ids.blob_id(content)}
    snapshot = ids.snapshot_id(manifest)
    at = "2026-01-02T03:04:05.000006+00:00"
    commit = {
        "commit_id": ids.commit_id([], snapshot, message, at),
        "parent_ids": [],
        "snapshot_id": snapshot,
        "branch": "main",
        "message": message,
        "author": "Alice <alice@example.org>",
        "committed_at": at,
    }
    pack = build_wire_mpack(
        commits=[commit],
        snapshots=[{"snapshot_id": snapshot, "manifest": manifest}],
        blobs=[{"object_id": ids.blob_id(content), "content": content}],
    )
    return str(commit["commit_id"]), pack


def push(client: FlaskClient, path: str, token: str, message: str = "Sing\n\nLoudly.") -> str:
    head, pack = one_commit(message)
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    body: dict[str, Any] = {"mpack_id": ids.blob_id(pack), "size_bytes": len(pack)}
    ticket = client.post(f"{path}/push/presign", json=body, headers=headers).get_json()
    client.put(ticket["upload_url"], data=pack, headers=ticket["headers"])
    body = {"mpack_id": ids.blob_id(pack), "branch": "main", "head_commit_id": head, "expected_head": None}
    answer = client.post(f"{path}/push/unpack-mpack", json=body | {"force": False}, headers=headers)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return head


def test_a_visitor_signs_up_and_creates_a_repo(visitor: FlaskClient) -> None:
    post_form(visitor, "/-/sign-up", handle="bob", password=PASSWORD)
    page = post_form(visitor, "/-/new", slug="tunes").get_data(as_text=True)
    assert "Nothing was pushed yet" in page


@pytest.mark.parametrize("handle", ["", "-", "Bob", "a/b", "b" * 40, "bob smith"])
def test_a_name_that_is_no_part_of_a_path_is_refused(visitor: FlaskClient, handle: str) -> None:
    page = post_form(visitor, "/-/sign-up", handle=handle, password=PASSWORD).get_data(as_text=True)
    assert "A name has 1 to 39 of" in page


def test_a_form_without_its_csrf_token_is_refused(visitor: FlaskClient) -> None:
    assert visitor.post("/-/sign-up", data={"handle": "bob", "password": PASSWORD}).status_code == 400


def test_a_wrong_password_does_not_log_in(visitor: FlaskClient, alice_token: str) -> None:
    page = post_form(visitor, "/-/log-in", handle="alice", password="another long one").get_data(as_text=True)
    assert "Name or password is wrong." in page


def test_passwords_and_tokens_are_stored_as_hashes(forge: Flask, tmp_path: Path, alice_token: str) -> None:
    stored = (tmp_path / "data" / "forge.db").read_bytes()
    assert PASSWORD.encode() not in stored
    assert alice_token.encode() not in stored


def test_a_token_made_on_the_page_may_push(forge: Flask, visitor: FlaskClient, alice_token: str) -> None:
    page = post_form(logged_in(forge), "/-/tokens", label="laptop").get_data(as_text=True)
    found = re.search(r"forge_[\w-]+", page)
    assert found is not None
    assert push(visitor, "/alice/songs", found[0])


def test_a_revoked_token_is_refused(forge: Flask, visitor: FlaskClient, alice_token: str) -> None:
    browser = logged_in(forge)
    page = browser.get("/-/tokens").get_data(as_text=True)
    revoke = re.search(r'action="(/-/tokens/\d+/revoke)"', page)
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert revoke is not None
    assert csrf is not None
    browser.post(revoke[1], data={"csrf_token": csrf[1]})
    answer = visitor.get("/alice/songs/refs", headers={"Authorization": f"Bearer {alice_token}"})
    assert answer.status_code == 401


def test_the_repo_page_shows_branches_commits_and_files(visitor: FlaskClient, alice_token: str) -> None:
    head = push(visitor, "/alice/songs", alice_token)
    page = visitor.get("/alice/songs").get_data(as_text=True)
    shown = [head[7:17], "<td>Sing</td>", ">Alice<", "song.txt", "branch=main"]
    assert [text for text in shown if text not in page] == []


def test_what_was_pushed_is_fetched(visitor: FlaskClient, alice_token: str) -> None:
    head = push(visitor, "/alice/songs", alice_token)
    body = {"want": [head], "have": []}
    answer = visitor.post("/alice/songs/fetch", json=body, headers={"Accept": "application/json"}).get_json()
    fetched = parse_wire_mpack(visitor.get(answer["mpack_url"], buffered=True).data)
    assert [commit["commit_id"] for commit in fetched["commits"]] == [head]


def test_a_private_repo_and_a_missing_one_have_the_same_page(visitor: FlaskClient, alice_token: str) -> None:
    private, missing = visitor.get("/alice/diary"), visitor.get("/alice/nothing")
    assert (private.status_code, private.data) == (404, missing.data)


def test_a_private_repo_is_on_nobody_elses_list(visitor: FlaskClient, alice_token: str) -> None:
    assert "diary" not in visitor.get("/").get_data(as_text=True) + visitor.get("/alice").get_data(as_text=True)


def test_the_owner_sees_a_private_repo(forge: Flask, alice_token: str) -> None:
    assert "alice/diary" in logged_in(forge).get("/").get_data(as_text=True)


def test_a_private_repo_cannot_be_fetched_without_its_owners_token(visitor: FlaskClient, alice_token: str) -> None:
    head = push(visitor, "/alice/diary", alice_token)
    assert visitor.post("/alice/diary/fetch", json={"want": [head], "have": []}).status_code == 404


def test_the_forges_own_404_stays_its_own(visitor: FlaskClient) -> None:
    answer = visitor.get("/nobody/nothing/at/all")
    assert (answer.status_code, answer.content_type) == (404, "text/html; charset=utf-8")


def test_the_plugins_404_is_a_problem(visitor: FlaskClient) -> None:
    answer = visitor.get("/nobody/nothing/refs", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_one_account_cannot_revoke_anothers_token(forge: Flask, alice_token: str) -> None:
    with forge.app_context():
        mallory = create_account("mallory", PASSWORD)
        issue_token(mallory, "hers")
        assert db.session.get(Account, mallory.id) is not None
    browser = logged_in(forge)
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/-/tokens").get_data(as_text=True))
    assert csrf is not None
    assert browser.post("/-/tokens/2/revoke", data={"csrf_token": csrf[1]}).status_code == 404


def test_text_of_a_commit_is_escaped(visitor: FlaskClient, alice_token: str) -> None:
    push(visitor, "/alice/songs", alice_token, message="<script>sing()</script>")
    assert "&lt;script&gt;sing()&lt;/script&gt;" in visitor.get("/alice/songs").get_data(as_text=True)
