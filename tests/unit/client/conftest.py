from __future__ import annotations

from pathlib import Path

import pytest

from musehub_plugin.client import Workdir
from tests.unit.client.git_histories import GitHistory


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A working copy without commits."""
    return Workdir.create(tmp_path / "copy")


@pytest.fixture
def history(tmp_path: Path) -> GitHistory:
    """A git repository without commits."""
    return GitHistory(tmp_path / "history.git")
