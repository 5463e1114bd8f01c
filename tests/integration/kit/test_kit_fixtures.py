"""The pytest plugin as a developer of another package uses it: in a pytest run of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


TESTS_OF_A_DEVELOPER = """
import pytest
from flask import has_app_context
from musehub_plugin.ids import blob_id
from musehub_plugin.mpack import parse_wire_mpack
from musehub_plugin.testing import History, MemoryStorage, create_repo, make_commit, store_object
from musehub_plugin.testing.apps import client_for


def session_of(app):
    return app.extensions["sqlalchemy"].session


def push(client, history, tip):
    client.environ_base["HTTP_ACCEPT"] = "application/json"
    pack = history.pack()
    ask = {"mpack_id": blob_id(pack), "size_bytes": len(pack)}
    ticket = client.post("/alice/songs/push/presign", json=ask).json
    client.open(ticket["upload_url"], method=ticket["method"], data=pack, headers=ticket["headers"])
    body = {"mpack_id": blob_id(pack), "branch": "main", "head_commit_id": tip}
    assert client.post("/alice/songs/push/unpack-mpack", json=body).status_code == 200


def test_rows_of_the_factories_are_fetched(musehub_app, musehub_client, musehub_storage):
    assert not has_app_context()
    assert isinstance(musehub_storage, MemoryStorage)
    session = session_of(musehub_app)
    with musehub_app.app_context():
        repo = create_repo(session, "alice", "songs", visibility="private")
        kept = store_object(session, repo.repo_id, b"in storage", storage=musehub_storage, in_row=False)
        first = make_commit(session, repo.repo_id, {"a.txt": b"in a row"})
        tip = make_commit(session, repo.repo_id, {"b.txt": kept}, [first], branch="main")
    assert (repo.slug, repo.default_branch) == ("songs", "main")
    assert musehub_client().get("/alice/songs/refs").status_code == 404
    assert musehub_client("bob").get("/alice/songs/refs").status_code == 404
    assert musehub_client("bad-token").get("/alice/songs/refs").status_code == 401
    alice, headers = musehub_client("alice"), {"Accept": "application/json"}
    assert alice.get("/alice/songs/refs", headers=headers).json["branch_heads"] == {"main": tip}
    answer = alice.post("/alice/songs/fetch", json={"want": [tip], "have": []}, headers=headers).json
    pack = parse_wire_mpack(musehub_storage.get_mpack(answer["mpack_id"]))
    assert {blob["content"] for blob in pack["blobs"]} == {b"in a row", b"in storage"}
    assert [commit["commit_id"] for commit in pack["commits"]] == [first, tip]


def test_a_history_is_pushed_and_indexed(musehub_app, musehub_client, musehub_run_jobs):
    with musehub_app.app_context():
        create_repo(session_of(musehub_app))
    history = History()
    tip = history.commit({"a.txt": b"1"}, signature="kept")
    alice = musehub_client("alice")
    push(alice, history, tip)
    assert musehub_run_jobs() == 0
    assert alice.post("/alice/songs/fetch", json={"want": [tip]}).json["blob_count"] == 1


class TestWithRedis:
    @pytest.fixture
    def musehub_app(self, musehub_make_app, musehub_redis_url):
        return musehub_make_app(MUSEHUB_REDIS_URL=musehub_redis_url, MUSEHUB_INDEX_INLINE=0)

    def test_jobs_run_when_they_are_told_to(self, musehub_app, musehub_client, musehub_run_jobs):
        with musehub_app.app_context():
            create_repo(session_of(musehub_app))
        history = History()
        tip = history.commit({"a.txt": b"1"})
        alice = musehub_client("alice")
        push(alice, history, tip)
        assert alice.post("/alice/songs/fetch", json={"want": [tip]}).status_code == 503
        assert musehub_run_jobs() == 1
        assert musehub_run_jobs() == 0
        assert alice.post("/alice/songs/fetch", json={"want": [tip]}).status_code == 200


def test_apps_have_parts_of_their_own_and_the_settings_asked_for(musehub_make_app):
    one, two = musehub_make_app(MUSEHUB_RETRY_AFTER=7), musehub_make_app(MUSEHUB_URL_PREFIX="/code")
    assert one.extensions["musehub"].settings.retry_after == 7
    with one.app_context():
        create_repo(session_of(one))
    assert client_for(one).get("/alice/songs/refs").status_code == 200
    assert client_for(two).get("/code/alice/songs/refs").status_code == 404
"""


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    """Run `source` as a test module, in a process of its own and with warnings as errors."""
    pytester.makepyfile(source)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_a_developers_tests_pass(pytester: pytest.Pytester) -> None:
    run(pytester, TESTS_OF_A_DEVELOPER).assert_outcomes(passed=4)


def test_the_plugin_imports_nothing_heavy_and_starts_nothing(pytester: pytest.Pytester) -> None:
    source = """
        import sys

        def test_nothing_is_imported():
            heavy = {"musehub_plugin.extension", "sqlalchemy", "minio", "redis", "rq", "psycopg2", "alembic"}
            assert not heavy & set(sys.modules)
        """
    run(pytester, source).assert_outcomes(passed=1)


def test_the_fixtures_are_listed(pytester: pytest.Pytester) -> None:
    output = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider").stdout.str()
    for name in ("app", "make_app", "client", "run_jobs", "storage", "postgres_url", "redis_url", "s3_url"):
        assert f"musehub_{name}" in output


def test_a_bad_setting_fails_the_test_by_the_name_of_its_key(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_bad(musehub_make_app): musehub_make_app(MUSEHUB_PRESIGN_TTL='soon')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ConfigError: MUSEHUB_PRESIGN_TTL: *"])
