"""The public interface has the types that its users rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import musehub_plugin

CHECKOUT = Path(__file__).parents[2]


def test_uses_of_every_public_name_pass_mypy_in_strict_mode() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "tests/typing/public_api.py"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(musehub_plugin.__file__).parent / "py.typed").is_file()


def test_the_package_s_names_are_those_of_the_contract() -> None:
    assert musehub_plugin.__all__ == ["Identity", "InvalidCredentials", "MuseHub", "__version__"]
    assert all(getattr(musehub_plugin, name) for name in musehub_plugin.__all__)
