"""The client needs no server: it imports and works where Flask, SQLAlchemy and minio are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {"flask", "flask_sqlalchemy", "sqlalchemy", "werkzeug", "jinja2", "minio", "rq", "redis", "alembic"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
        return None

sys.meta_path.insert(0, Absent())
from pathlib import Path
from musehub_plugin.client import Workdir, apply_mpack, verify
from musehub_plugin.client.command import main
from musehub_plugin.mpack import build_wire_mpack

copy = Workdir.create(Path(sys.argv[1]))
apply_mpack(copy, build_wire_mpack(commits=[], snapshots=[], blobs=[]))
print(len(verify(copy).problems))
"""


def test_the_client_works_without_the_servers_libraries(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "copy")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
