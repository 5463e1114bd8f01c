"""The servers of the testing kit: they work, and they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg2
import pytest
import redis

from musehub_plugin.testing import services
from musehub_plugin.testing.supervised import reserved_ports

HOLDS_ALL = """
import sys
from musehub_plugin.testing.services import postgres_service, redis_service, s3_service
with postgres_service() as a, redis_service() as b, s3_service() as c:
    print(a.directory, b.directory, c.directory, flush=True)
    sys.stdin.read()
"""


def value_of(url: str, query: str) -> object:
    connection = psycopg2.connect(services.libpq_url(url))
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
            return row[0] if row else None
    finally:
        connection.close()


def test_postgresql_answers(musehub_postgres_url: str) -> None:
    assert value_of(musehub_postgres_url, "SELECT 40 + 2") == 42


def test_postgresql_sorts_text_by_code_point_on_every_machine(musehub_postgres_url: str) -> None:
    assert value_of(musehub_postgres_url, "SELECT string_agg(c, '' ORDER BY c) FROM (VALUES ('a'), ('B')) t(c)") == "Ba"


def test_redis_answers(musehub_redis_url: str) -> None:
    with redis.Redis.from_url(musehub_redis_url) as connection:
        assert connection.ping() is True


def test_a_server_s_socket_has_a_name_that_is_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("a long name " * 10)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with services.redis_service() as service, redis.Redis.from_url(service.url) as connection:
        assert connection.ping() is True


def test_a_fresh_database_is_another_one_and_goes_away(musehub_postgres_url: str) -> None:
    with services.fresh_database(musehub_postgres_url) as url:
        name = value_of(url, "SELECT current_database()")
    assert str(name) not in str(value_of(musehub_postgres_url, "SELECT array_agg(datname) FROM pg_database"))


def test_a_given_postgresql_server_is_used_by_a_database_of_its_own(
    musehub_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(services.DATABASE_VARIABLE, musehub_postgres_url)
    with services.postgres() as url:
        assert value_of(url, "SELECT current_database()") != value_of(musehub_postgres_url, "SELECT current_database()")


def test_a_given_redis_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    with services.redis_service() as service:
        monkeypatch.setenv(services.REDIS_VARIABLE, service.url)
        with services.redis() as url, redis.Redis.from_url(url) as connection:
            connection.set("left", "behind")
        with redis.Redis.from_url(url) as connection:
            assert connection.dbsize() == 0


def test_a_given_redis_that_holds_keys_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with services.redis_service() as service:
        monkeypatch.setenv(services.REDIS_VARIABLE, service.url)
        with redis.Redis.from_url(service.url) as connection:
            connection.set("valuable", "data")
        with pytest.raises(services.ServiceFailed, match="holds keys"), services.redis():
            pass


@pytest.mark.parametrize(
    ("worker", "url", "wanted"),
    [
        ("gw0", "redis://localhost:6379", "redis://localhost:6379/0"),
        ("gw3", "redis://localhost:6379/5", "redis://localhost:6379/8"),
        ("gw2", "unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=3"),
    ],
)
def test_each_worker_of_a_test_run_has_its_own_redis_database(worker: str, url: str, wanted: str) -> None:
    assert services.redis_url_for_worker(url, worker) == wanted


def test_a_given_bucket_is_used_below_a_fresh_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(services.S3_VARIABLE, "https://access:secret@s3.example/bucket/tests?region=eu-west-1")
    with services.s3() as first, services.s3() as second:
        storages = [services.s3_config(url)["MUSEHUB_STORAGE"] for url in (first, second)]
    assert [storage.startswith("s3://bucket/tests/") for storage in storages] == [True, True]
    assert storages[0] != storages[1]


def test_an_s3_url_becomes_settings() -> None:
    assert services.s3_config("https://ac%2Fcess:se%2Bcret@s3.example:9000/bucket/a/b?region=eu-west-1") == {
        "MUSEHUB_STORAGE": "s3://bucket/a/b",
        "MUSEHUB_S3_ENDPOINT": "https://s3.example:9000",
        "MUSEHUB_S3_ACCESS_KEY": "ac/cess",
        "MUSEHUB_S3_SECRET_KEY": "se+cret",
        "MUSEHUB_S3_BUCKET": "bucket",
        "MUSEHUB_S3_REGION": "eu-west-1",
    }


def test_an_s3_url_without_credentials_is_refused_and_not_quoted() -> None:
    with pytest.raises(ValueError, match="ACCESS:SECRET") as refusal:
        services.s3_config("https://s3.example/bucket")
    assert "s3.example" not in str(refusal.value)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ports are found and not held")
def test_a_reserved_port_is_its_servers_and_nobody_elses() -> None:
    with reserved_ports(1) as (port,):
        for _ in range(2):
            # As servers do it, and as they do it again when they are restarted.
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


@pytest.mark.faults
def test_postgresql_keeps_its_data_over_a_crash() -> None:
    with services.postgres_service() as service:
        connection = psycopg2.connect(services.libpq_url(service.url))
        connection.cursor().execute("CREATE TABLE t AS SELECT 7 AS n")
        connection.commit()
        connection.close()
        service.stop(signal.SIGKILL)
        service.start()
        assert value_of(service.url, "SELECT n FROM t") == 7


@pytest.mark.faults
def test_servers_end_with_a_process_that_is_killed_hard() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_ALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    folders = [Path(name) for name in holder.stdout.readline().split()]
    running = _processes_in(folders)
    holder.kill()
    holder.stdin.close()
    holder.stdout.close()
    holder.wait()
    deadline = time.monotonic() + 120
    while (_processes_in(folders) or any(folder.exists() for folder in folders)) and time.monotonic() < deadline:
        os.sched_yield()
    left = (_processes_in(folders), [folder for folder in folders if folder.exists()])
    assert (len(folders), len(running) > 5, left) == (3, True, ([], []))


def _processes_in(folders: list[Path]) -> list[str]:
    """Return the command lines that name one of the directories."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if any(str(folder) in command for folder in folders):
            found.append(command)
    return found
