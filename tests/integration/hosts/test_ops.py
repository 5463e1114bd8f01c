"""What load balancers and monitoring see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from musehub_plugin import signals
from musehub_plugin.storage import MemoryStorage

MakeApp = Callable[..., Flask]

PREFIX = "/-/musehub"


class AwayStorage(MemoryStorage):
    """Storage whose server does not answer."""

    def ping(self) -> None:
        from musehub_plugin.errors import StorageUnavailable

        raise StorageUnavailable("away")


def test_o01_live_asks_no_dependency(musehub_make_app: MakeApp) -> None:
    app = musehub_make_app(MUSEHUB_STORAGE=AwayStorage())
    assert app.test_client().get(f"{PREFIX}/live").status_code == 200


def test_o02_ready_is_ok_where_database_and_storage_answer(musehub_make_app: MakeApp) -> None:
    answer = musehub_make_app().test_client().get(f"{PREFIX}/ready")
    assert (answer.status_code, answer.json) == (200, {"status": "ok", "database": "ok", "storage": "ok"})


def test_o02_ready_is_503_without_storage(musehub_make_app: MakeApp) -> None:
    answer = musehub_make_app(MUSEHUB_STORAGE=AwayStorage()).test_client().get(f"{PREFIX}/ready")
    assert (answer.status_code, answer.get_json()["storage"]) == (503, "down")


def test_o02_ready_is_degraded_without_redis(musehub_make_app: MakeApp) -> None:
    app = musehub_make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:1/0")
    answer = app.test_client().get(f"{PREFIX}/ready")
    assert (answer.status_code, answer.get_json()["status"], answer.get_json()["queue"]) == (200, "degraded", "down")


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer "])
def test_o06_metrics_are_404_without_the_token(musehub_make_app: MakeApp, token: str) -> None:
    app = musehub_make_app(MUSEHUB_METRICS_TOKEN="let me see")
    assert app.test_client().get(f"{PREFIX}/metrics", headers={"Authorization": token}).status_code == 404


def test_o06_metrics_are_404_where_no_token_is_set(musehub_make_app: MakeApp) -> None:
    client = musehub_make_app().test_client()
    assert client.get(f"{PREFIX}/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_o06_metrics_count_damage_by_kind(musehub_make_app: MakeApp, tmp_path: Path) -> None:
    app = musehub_make_app(MUSEHUB_METRICS_TOKEN="let me see")
    signals.report_damage("mpack-missing", "sha256:" + "0" * 64, "a test says so")
    answer = app.test_client().get(f"{PREFIX}/metrics", headers={"Authorization": "Bearer let me see"})
    assert 'musehub_integrity_errors_total{kind="mpack-missing"}' in answer.text


PROCESS = """
import sys
from pathlib import Path
from musehub_plugin.signals import report_damage
from musehub_plugin.testing.apps import make_app

app = make_app(Path(sys.argv[1]), {"MUSEHUB_METRICS_TOKEN": "let me see"})
report_damage("mpack-missing", "sha256:1", "for the test")
answer = app.test_client().get("/-/musehub/metrics", headers={"Authorization": "Bearer let me see"})
print(answer.get_data(as_text=True))
"""


def test_metrics_of_processes_that_share_a_folder_are_added_up(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    printed = [
        subprocess.run(
            [sys.executable, "-c", PROCESS, str(tmp_path)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        ).stdout
        for _ in range(3)
    ]
    assert 'musehub_integrity_errors_total{kind="mpack-missing"} 3.0' in printed[-1]
