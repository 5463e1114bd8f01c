"""`make demo`: this repository's history through a whole hub and back, on one screen.

Starts the example forge, makes an account, a token and a repo, brings the git history to muse, pushes it, clones it
back, and compares what came back with what was there. Exits with 1 where anything differs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from forge import create_app
from forge.tables import create_account, create_repo, issue_token
from werkzeug.serving import WSGIRequestHandler, make_server

HERE = Path(__file__).resolve().parents[1]
FOLDER = Path(".demo")
NAME = "ada/musehub-plugin"


class Different(Exception):
    """What came back is not what was there."""


def main() -> int:
    """Run the demo and return the exit code."""
    os.chdir(HERE)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        run()
    except (Different, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        print(f"\nThe demo failed: {detail.strip()}", file=sys.stderr)
        return 1
    return 0


def run() -> None:
    """Do every step, in order."""
    print(f"musehub-plugin demo, Python {sys.version.split()[0]}, data in {FOLDER}/\n")
    with step() as say:
        app = create_app({"DATA": str(FOLDER / "forge")})
        server = RecordedServer(app)
        say(f"started the example forge on {server.url} (SQLite, files)")
    try:
        with step() as say:
            password = secrets.token_urlsafe(9)
            with app.app_context():
                account = create_account("ada", password)
                create_repo(account, NAME.partition("/")[2])
                token = issue_token(account, "demo")
            say(f"made the account ada, an API token and the repo {NAME}")
        with step() as say:
            source, what = git_history()
            done = musehub("import-git", str(source), "--into", str(FOLDER / "work"))
            pack = git_pack_size(source)
            say(f"imported {what}: {done['commits']} commits, {done['new_blobs']} blobs")
        url = f"{server.url}/{NAME}"
        with step() as say:
            sent = musehub("push", "--set", url, "--all", folder=FOLDER / "work", token=token)
            say(f"pushed {sent['commits']} commits, {size(sent['sent_bytes'])}")
        print_requests(server.taken())
        with step() as say:
            got = musehub("clone", url, str(FOLDER / "clone"))
            say(f"cloned {got['commits']} commits, {size(got['received_bytes'])} (git's own pack: {size(pack)})")
        print_requests(server.taken())
        with step() as say:
            found = musehub("verify", folder=FOLDER / "clone")
            say(f"hashed the clone's {found['commit_count']} commits, {found['blob_count']} blobs: no problems")
        with step() as say:
            records = compare_records(FOLDER / "work", FOLDER / "clone")
            files = compare_files(source, FOLDER / "clone")
            say(f"compared {records} records with the import, {files} files with git: all the same")
    finally:
        server.stop()
    print(
        f"\nLook around: make forge, then http://127.0.0.1:5000/{NAME}  (log in: ada, {password})\n"
        f"Clone it:    .venv/bin/musehub clone http://127.0.0.1:5000/{NAME} {FOLDER}/another"
    )


_number = 0


@contextmanager
def step() -> Iterator[Callable[[str], None]]:
    """Time a step; print what it says about itself, and the time that it took."""
    global _number
    _number += 1
    said: list[str] = []
    start = time.perf_counter()
    yield said.append
    print(f"{_number}. {' '.join(said):<84} {time.perf_counter() - start:6.2f} s", flush=True)


def print_requests(requests: Iterable[str]) -> None:
    """Print what went over the wire."""
    for line in requests:
        print(f"     {line}")


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 10 * 1024**2 else f"{count / 1024**2:.1f} MiB"


class RecordedServer:
    """The app on a free port of this machine, with a note of each request.

    Args:
        app: the WSGI app to serve.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._requests: list[str] = []
        self._server = make_server("127.0.0.1", 0, self._record, threaded=True, request_handler=_Silent)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def taken(self) -> list[str]:
        """Return the notes since the last call."""
        requests, self._requests = self._requests, []
        return requests

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _record(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            sent = int(environ.get("CONTENT_LENGTH") or 0)
            answered = int(dict(headers).get("Content-Length", 0))
            path = "/".join(f"{part[:6]}..." if len(part) == 64 else part for part in environ["PATH_INFO"].split("/"))
            line = f"{environ['REQUEST_METHOD']:<5}{path:<44} {status[:3]}"
            self._requests.append(f"{line}  sent {size(sent):>8}  got {size(answered):>8}")
            return start_response(status, headers, *rest)

        return self._app(environ, start)


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: the demo prints its own notes."""


def musehub(*arguments: str, folder: Path | None = None, token: str = "") -> Any:
    """Run the client's command and return what it reports."""
    # -P: in the clone, which is of this repository, what is installed runs, and not what was cloned.
    program = "from musehub_plugin.client.command import main; main()"
    command = [sys.executable, "-P", "-c", program, *arguments, "--json"]
    environment = {**os.environ, "MUSEHUB_TOKEN": token}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def git(*arguments: str, folder: Path, **options: Any) -> Any:
    """Run git and return what it prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True, **options)
    return done.stdout


def git_history() -> tuple[Path, str]:
    """Return a bare git repository with a history, and what it is.

    It is a clone of this checkout, where that has a whole history; else a small one made here.
    """
    source = (FOLDER / "history.git").absolute()
    lack = what_history_lacks(HERE)
    if lack is not None:
        return small_history(source), f"a small history ({lack})"
    git("clone", "--quiet", "--bare", str(HERE), str(source), folder=HERE)
    if not git("branch", "--show-current", folder=source):
        # A detached HEAD, as CI checks out, is on no branch.
        git("update-ref", "refs/heads/main", "HEAD", folder=source)
        git("symbolic-ref", "HEAD", "refs/heads/main", folder=source)
    return source, "this repository's git history"


def what_history_lacks(folder: Path) -> str | None:
    """Return why a folder's git history cannot be shown, or None where it can."""
    try:
        top = git("rev-parse", "--show-toplevel", folder=folder, text=True).strip()
        shallow = git("rev-parse", "--is-shallow-repository", folder=folder, text=True).strip()
        git("rev-parse", "--verify", "HEAD^{commit}", folder=folder)
    except subprocess.CalledProcessError:
        return "git finds no history in this folder"
    if Path(top) != folder:
        return "this folder is not the top of a git checkout"
    return "this checkout is shallow" if shallow != "false" else None


def small_history(source: Path) -> Path:
    """Make a git repository with a few commits and a merge."""
    source.mkdir()
    git("init", "--quiet", "--bare", "--initial-branch=main", folder=source)
    lines: list[str] = []

    def commit(mark: int, message: str, path: str, content: str, parents: str = "", branch: str = "main") -> None:
        lines.append(f"commit refs/heads/{branch}\nmark :{mark}")
        lines.append(f"committer Ada <ada@example.org> {1_700_000_000 + mark * 60} +0000")
        lines.append(f"data {len(message)}\n{message}{parents}\nM 100644 inline {path}\ndata {len(content)}\n{content}")

    commit(1, "Begin", "README", "A song book.\n")
    commit(2, "A first song", "songs/one", "la\n" * 40, "\nfrom :1")
    commit(3, "Another idea", "songs/two", "li\n" * 40, "\nfrom :1", branch="idea")
    commit(4, "An empty page", "songs/three", "", "\nfrom :2")
    commit(5, "Take the idea", "songs/two", "li\n" * 40, "\nfrom :4\nmerge :3")
    git("fast-import", "--quiet", folder=source, input="\n".join(lines).encode())
    return source


def git_pack_size(source: Path) -> int:
    """Return the bytes that git sends for a clone of the same branches."""
    return len(git("pack-objects", "--all", "--stdout", "--quiet", folder=source, input=b""))


def compare_records(imported: Path, cloned: Path) -> int:
    """Compare commits, snapshots, blobs and branch heads of two working copies; return how many there are.

    Raises:
        Different: something is missing, or differs in what a commit or a snapshot says.
    """
    kinds = {
        # Which repo a copy belongs to, and when it was told of a snapshot, is its own matter.
        "commits": lambda path: json.loads(path.read_bytes()) | {"repo_id": ""},
        "snapshots": lambda path: json.loads(path.read_bytes())["manifest"],
        "objects": Path.read_bytes,
        "refs/heads": Path.read_bytes,
    }
    total = 0
    for kind, read in kinds.items():
        ours, theirs = (
            {path.relative_to(root / ".muse" / kind): read(path) for path in (root / ".muse" / kind).rglob("*")
             if path.is_file()}
            for root in (imported, cloned)
        )  # fmt: skip
        wrong = [str(path) for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)]
        if wrong or not ours:
            raise Different(f"{len(wrong)} {kind} differ from the import's, such as {wrong[:1]}")
        total += len(ours)
    return total


def compare_files(source: Path, cloned: Path) -> int:
    """Compare the clone's files with those of git's HEAD; return how many there are.

    Raises:
        Different: a file is missing, too many, or has other bytes.
    """
    tree = git("ls-tree", "-r", "-z", "HEAD", folder=source).split(b"\0")[:-1]
    blobs = {os.fsdecode(entry.partition(b"\t")[2]): entry.split()[2] for entry in tree if b" blob " in entry}
    there = {
        path.relative_to(cloned).as_posix()
        for path in cloned.rglob("*")
        if path.is_file() and path.relative_to(cloned).parts[0] != ".muse"
    }
    if there != blobs.keys():
        raise Different(f"files differ from git's HEAD: {sorted(there ^ blobs.keys())[:3]}")
    # By absolute paths: git would look for others at the top of the checkout that the demo's folder is in.
    paths = "\n".join(os.fspath(cloned.absolute() / path) for path in blobs)
    hashed = git("hash-object", "--no-filters", "--stdin-paths", folder=source, input=os.fsencode(paths)).split()
    wrong = [path for path, ours, theirs in zip(blobs, blobs.values(), hashed, strict=True) if ours != theirs]
    if wrong:
        raise Different(f"{len(wrong)} files differ from git's HEAD, such as {wrong[0]}")
    return len(blobs)


if __name__ == "__main__":
    sys.exit(main())
