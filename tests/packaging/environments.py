"""The package as its users get it: built, and installed where nothing of the checkout is.

Two ways to an environment. With `MUSEHUB_DIST` set to a folder that holds a wheel and an sdist (`make package`), these
are installed as a user would, with everything that they ask for, over the network. Without it they are built here, and
the environment borrows the dependencies of the one that runs the tests, so that the tests need no network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
# What pages of the documentation run beside `python` and `musehub`.
_COMMANDS = ("flask", "gunicorn", "pytest")


def is_online() -> bool:
    """Whether environments are made over the network."""
    return "MUSEHUB_DIST" in os.environ


def build(folder: Path) -> dict[str, Path]:
    """Return the wheel and the sdist by `wheel` and `sdist`: the ones that were given, or new ones."""
    found = Path(os.environ["MUSEHUB_DIST"]).absolute() if is_online() else folder / "dist"
    if not is_online():
        source = copy_of_checkout(folder / "source")
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(found), str(source))
    (wheel,) = found.glob("*.whl")
    (sdist,) = found.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def copy_of_checkout(folder: Path) -> Path:
    """Copy what belongs to the project; hidden folders and what was built do not."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "site", "*.egg-info", "forge-data")
    shutil.copytree(CHECKOUT, folder, ignore=left_out)
    return folder


class Environment:
    """A virtual environment with the package in it.

    Args:
        folder: where it is made.
        package: what pip is told to install.
        extra: the extra to install with it, such as `testing`.
    """

    def __init__(self, folder: Path, package: list[str], extra: str = "") -> None:
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        venv.create(folder, with_pip=False, symlinks=True)
        *options, what = package
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        command += ["--disable-pip-version-check", "--no-warn-script-location"]
        if is_online():
            run(*command, *options, f"{what}[{extra}]" if extra else what)
        else:
            self._borrow_dependencies()
            run(*command, "--no-deps", "--no-index", "--no-build-isolation", *options, what)

    @property
    def path(self) -> str:
        """A `PATH` on which the environment's commands come first."""
        return f"{self.bin}{os.pathsep}{os.environ['PATH']}"

    def run(self, *arguments: str, cwd: Path) -> str:
        """Run the environment's Python and return what it prints."""
        return run(str(self.python), *arguments, cwd=cwd)

    def _borrow_dependencies(self) -> None:
        # A path file of the borrowed folder is not read, so the editable checkout that it names stays out of sight.
        paths = sysconfig.get_paths()
        target = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=self.bin).strip()
        lines = dict.fromkeys([paths["purelib"], paths["platlib"]])
        Path(target, "borrowed.pth").write_text("\n".join(lines), encoding="utf-8")
        for name in _COMMANDS:
            command = self.bin / name
            command.write_text(f'#!/bin/sh\nexec "{self.python}" -m {name} "$@"\n', encoding="utf-8")
            command.chmod(0o755)


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command and return what it prints; what a failed one said is in the error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout
