"""git's side: a history as a bare repository, plain and tuned, behind HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.racing.histories import History
from benchmarks.racing.load import request
from musehub_plugin.testing.supervised import Service

TRIVIAL: Final = "/-/trivial"
PLAIN: Final = "plain"
TUNED: Final = "tuned"
_PROCESSES: Final = 8
_BRIDGE: Final = Path(__file__).with_name("bridge.py")
_CONFIG: Final = (
    ("uploadpack.allowAnySHA1InWant", "true"),
    ("gc.auto", "0"),
    ("receive.unpackLimit", "1"),
    ("http.receivepack", "false"),
)


@dataclass(frozen=True)
class GitServer:
    """A git server that runs.

    Attributes:
        port: where it answers.
        service: its processes; its repositories are in their folder.
        front: what stands before `git http-backend`.
    """

    port: int
    service: Service
    front: str

    @property
    def folder(self) -> Path:
        """Where the repositories are."""
        return self.service.directory

    def url(self, name: str) -> str:
        """Return a repository's URL."""
        return f"http://127.0.0.1:{self.port}/{name}.git"

    def load(self, history: History) -> dict[str, int]:
        """Take a history as it was pushed as PLAIN, and tuned as TUNED; return the bytes of their packs.

        Returns:
            `plain` and `tuned`, and `best`: after `repack -adf`.
        """
        refs = f"refs/heads/{history.branch}"
        for name in (PLAIN, TUNED, "best"):
            shutil.rmtree(self.folder / f"{name}.git", ignore_errors=True)
        plain = self.folder / f"{PLAIN}.git"
        _git(self.folder, "init", "--quiet", "--bare", f"--initial-branch={history.branch}", plain)
        for key, value in _CONFIG:
            _git(plain, "config", key, value)
        _git(history.source, "push", "--quiet", plain, f"{refs}:{refs}")
        tuned, best = self.folder / f"{TUNED}.git", self.folder / "best.git"
        shutil.copytree(plain, tuned)
        for key in ("pack.writeReverseIndex", "pack.writeBitmapLookupTable", "repack.writeBitmaps"):
            _git(tuned, "config", key, "true")
        _git(tuned, "repack", "-adbq")
        _git(tuned, "commit-graph", "write", "--reachable", "--no-progress")
        shutil.copytree(plain, best)
        _git(best, "repack", "-adfq")
        sizes = {name: _pack_bytes(self.folder / f"{name}.git") for name in (PLAIN, TUNED, "best")}
        shutil.rmtree(best)
        return sizes


@contextmanager
def git_server(*, bridge: bool) -> Iterator[GitServer]:
    """Run a git server: nginx with fcgiwrap where both are installed, else a bridge of our own.

    Args:
        bridge: take the bridge in any case.
    """
    backend = _git(Path.cwd(), "--exec-path") + "/git-http-backend"
    with Service("git") as service:
        (port,) = service.reserve_ports(1)
        nginx, fcgiwrap = shutil.which("nginx"), shutil.which("fcgiwrap")
        if nginx and fcgiwrap and not bridge:
            front = "nginx and fcgiwrap"
            _run_nginx(service, port, nginx, fcgiwrap, backend)
        else:
            front = "a bridge of ours"
            service.run(
                *(sys.executable, "-I", "-S", _BRIDGE, str(port), str(_PROCESSES)),
                *(service.directory, backend),
                ending=signal.SIGTERM,
            )
        service.wait_until(lambda: socket.create_connection(("127.0.0.1", port), timeout=2).close())
        yield GitServer(port, service, front)


def _run_nginx(service: Service, port: int, nginx: str, fcgiwrap: str, backend: str) -> None:
    root = service.directory
    trivial = root / "trivial"
    trivial.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nok'\n", encoding="ascii")
    trivial.chmod(0o755)
    common = (
        "fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;"
        "fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;"
        "fastcgi_param PATH_INFO $uri; fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param REMOTE_ADDR $remote_addr;"
        f"fastcgi_param GIT_PROJECT_ROOT {root}; fastcgi_param GIT_PROTOCOL $http_git_protocol;"
        "fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding; fastcgi_buffering off;"
        f"fastcgi_pass unix:{root}/cgi.sock;"
    )
    temporary = "".join(f"{kind}_temp_path {root};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (root / "nginx.conf").write_text(
        # Root's workers would be somebody who may not look into the folder.
        ("user root;" if os.geteuid() == 0 else "")
        + f"daemon off; worker_processes 2; pid {root}/nginx.pid; error_log stderr crit; events {{}}\n"
        f"http {{ access_log off; client_max_body_size 0; sendfile on; tcp_nodelay on; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=256;\n"
        f"location / {{ fastcgi_param SCRIPT_FILENAME {backend}; {common} }}\n"
        f"location {TRIVIAL} {{ fastcgi_param SCRIPT_FILENAME {trivial}; {common} }} }} }}\n",
        encoding="ascii",
    )
    service.run(fcgiwrap, "-c", str(_PROCESSES), "-s", f"unix:{root}/cgi.sock", ending=signal.SIGTERM)
    service.wait_until((root / "cgi.sock").exists)
    service.run(nginx, "-p", root, "-c", root / "nginx.conf", ending=signal.SIGTERM)


def ls_refs_request(name: str) -> bytes:
    """Return the request of protocol version 2 that asks where branches are, as `git fetch` sends it."""
    return _upload_pack(name, _command("ls-refs", "peel\n", "symrefs\n", "ref-prefix refs/heads/\n"))


def fetch_request(name: str, want: str, have: str | None = None) -> bytes:
    """Return the request of protocol version 2 that asks for a pack, thin, and ends the negotiation."""
    lines = ["thin-pack\n", "no-progress\n", "ofs-delta\n", f"want {want}\n"]
    lines += [f"have {have}\n"] if have else []
    return _upload_pack(name, _command("fetch", *lines, "done\n"))


def git_pack_size(body: bytes) -> int:
    """Return the bytes of the pack in an answer to `fetch_request`, without what is around them."""
    at = size = 0
    while at < len(body):
        # 0000 to 0002 are marks and have no more than these four digits.
        length = max(4, int(body[at : at + 4], 16))
        size += length - 5 if body[at + 4 : at + 5] == b"\x01" else 0
        at += length
    return size


def _upload_pack(name: str, body: bytes) -> bytes:
    headers = ["Git-Protocol: version=2", "Content-Type: application/x-git-upload-pack-request"]
    return request("POST", f"/{name}.git/git-upload-pack", body, headers)


def _command(name: str, *lines: str) -> bytes:
    head = [f"command={name}", "agent=git/2", "object-format=sha1"]
    return _packets(head) + b"0001" + _packets(lines) + b"0000"


def _packets(lines: Sequence[str]) -> bytes:
    return "".join(f"{len(line) + 4:04x}{line}" for line in lines).encode()


def _pack_bytes(repository: Path) -> int:
    return sum(path.stat().st_size for path in repository.glob("objects/pack/*.pack"))


def _git(folder: Path, *arguments: str | Path) -> str:
    return subprocess.run(
        ["git", "-C", folder, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
