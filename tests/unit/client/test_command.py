"""The command `musehub`, as a shell sees it: exit codes, one line of error, one object of JSON."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from musehub_plugin import ids
from musehub_plugin.client import Workdir, remotes
from musehub_plugin.mpack import build_wire_mpack
from tests.unit.client.git_histories import GitHistory
from tests.unit.client.scripted_server import Answer, packed, scripted_server

COMMANDS = [
    *("clone", "fetch", "pull", "push", "ls-remote", "import-git", "init", "verify", "pack", "unpack"),
    *("login", "logout", "completion", "remote add", "remote list"),
]
SECRET = "s3cr3t-token"


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    program = "from musehub_plugin.client.command import main; main()"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MUSEHUB_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        # A home without anybody's tokens.
        env={**clean, "HOME": "/nonexistent", **environment},
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a command that failed says."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("musehub: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(tmp_path: Path, command: str) -> None:
    done = run(*command.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"musehub {command}" in done.stdout.partition("Example")[2]
    assert "--json" in done.stdout


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    assert run("clone", cwd=tmp_path).returncode == 2
    assert run("no-such-command", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["clone", "nonsense"],
        ["clone", "http://ada:s3cr3t-token@hub.example/ada/engine"],
        ["ls-remote", "ftp://hub.example/ada/engine"],
        ["push", "--set", "http://"],
        ["remote", "add", "origin", "hub.example"],
        ["login", "http://ada:s3cr3t-token@"],
        ["logout", ""],
    ],
)
def test_a_url_that_can_be_none_is_wrong_usage(workdir: Workdir, arguments: list[str]) -> None:
    done = run(*arguments, cwd=workdir.root)
    assert (done.returncode, SECRET in done.stderr) == (2, False)


@pytest.mark.parametrize(
    "arguments", [["init", "new", "--branch", "a..b"], ["remote", "add", "a b", "https://hub.example/ada/engine"]]
)
def test_a_name_that_can_be_none_is_wrong_usage(workdir: Workdir, arguments: list[str]) -> None:
    done = run(*arguments, cwd=workdir.root)
    assert (done.returncode, repr(arguments[-1 if "init" in arguments else 2]) in done.stderr) == (2, True)


def test_a_url_that_is_none_in_the_settings_is_a_failure(workdir: Workdir) -> None:
    (workdir.muse / "config.toml").write_text('[remotes.origin]\nurl = "nonsense"\n')
    assert "http(s)://" in error_of(run("fetch", cwd=workdir.root))


def test_a_command_works_where_stderr_is_closed(workdir: Workdir) -> None:
    program = "import sys; sys.stderr = None; from musehub_plugin.client.command import main; main()"
    assert subprocess.run([sys.executable, "-c", program, "verify"], cwd=workdir.root).returncode == 0


def test_a_name_that_the_locale_has_no_bytes_for_is_one_line(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={"\u00fc".encode(): b"1"})
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("import-git", str(history.path), "--into", "copy", cwd=tmp_path, **environment)
    assert "set LC_ALL=C.UTF-8" in error_of(done)


def test_a_branch_and_all_of_them_is_wrong_usage(workdir: Workdir) -> None:
    assert run("push", "origin", "main", "--all", cwd=workdir.root).returncode == 2


@pytest.mark.parametrize("arguments", [["fetch"], ["push"], ["verify"], ["remote", "list"]])
def test_outside_of_a_working_copy_one_line_says_what_to_do(tmp_path: Path, arguments: list[str]) -> None:
    assert "musehub clone" in error_of(run(*arguments, cwd=tmp_path))


def test_a_remote_that_is_not_there_says_how_to_add_it(workdir: Workdir) -> None:
    assert "musehub remote add origin URL" in error_of(run("fetch", cwd=workdir.root))


def test_a_git_history_is_imported_and_checked_out(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"dir/a": b"1"})
    done = run("import-git", str(history.path), "--into", "copy", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["commits"], result["files"], result["head"]) == (1, 1, "main")
    assert (tmp_path / "copy/dir/a").read_bytes() == b"1"


def test_a_second_import_brings_the_files_up_to_date(history: GitHistory, tmp_path: Path) -> None:
    first = history.commit(files={b"a": b"1", b"b": b"1"})
    run("import-git", str(history.path), "--into", "copy", cwd=tmp_path)
    (tmp_path / "copy/b").write_bytes(b"mine")
    history.commit(parents=[first], files={b"a": b"2", b"b": b"2"})
    done = run("import-git", str(history.path), "--into", "copy", cwd=tmp_path)
    assert "files kept, since they are not saved: 1" in done.stdout
    assert ((tmp_path / "copy/a").read_bytes(), (tmp_path / "copy/b").read_bytes()) == (b"2", b"mine")


def test_an_import_without_a_folder_takes_the_repositorys_name(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"a": b"1"})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run("import-git", str(history.path), cwd=elsewhere).returncode == 0
    assert (elsewhere / "history/a").exists()


def test_an_import_of_no_repository_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "git rev-parse failed" in error_of(run("import-git", "folder", "--into", "copy", cwd=tmp_path))
    assert not (tmp_path / "copy").exists()


def test_a_name_that_the_file_system_cannot_have_is_a_failure_that_says_so(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"\xe9" * 100: b"1", b"a": b"2"})
    done = run("import-git", str(history.path), "--into", "copy", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["files"]) == (1, 1)
    assert "this file system has no name for '%E9" in done.stderr


def test_an_import_of_a_branch_that_is_not_there_leaves_nothing(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"a": b"1"})
    done = run("import-git", str(history.path), "--into", "copy", "--ref", "nosuch", cwd=tmp_path)
    assert "no branch or tag 'nosuch'" in error_of(done)
    assert not (tmp_path / "copy").exists()


def test_verify_of_a_damaged_copy_fails_and_says_what_mends_it(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"a": b"1"})
    run("import-git", str(history.path), "--into", "copy", cwd=tmp_path)
    assert run("verify", cwd=tmp_path / "copy").returncode == 0
    next((tmp_path / "copy/.muse/objects").glob("*/*")).write_bytes(b"2")
    done = run("verify", "--json", cwd=tmp_path / "copy")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["problems"]) == 1
    assert "musehub fetch --repair" in done.stderr


def test_an_import_counts_the_texts_of_annotated_tags(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"a": b"1"})
    ada = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    history.git(*ada, "tag", "--annotate", "--message", "The first", "v1")
    assert "  texts of annotated tags left in git: 1\n" in run("import-git", str(history.path), cwd=tmp_path).stdout


@pytest.mark.parametrize("code", ["authentication-required", "invalid-credentials", "repo-not-found"])
def test_who_lacks_a_token_is_told_how_to_give_one(tmp_path: Path, code: str) -> None:
    with scripted_server(packed({"detail": "No.", "code": code}, 401)) as server:
        error = error_of(run("clone", f"{server.origin}/ada/engine", cwd=tmp_path))
    assert error.endswith(" token: `musehub login` keeps one, or set MUSEHUB_TOKEN\n")


def test_a_refusal_of_the_hub_is_one_line(tmp_path: Path) -> None:
    refusal = packed({"detail": "You may read this repo,\nbut not do this.", "code": "forbidden"}, 403)
    with scripted_server(refusal) as server:
        error = error_of(run("clone", f"{server.origin}/ada/engine", cwd=tmp_path))
    assert error == "musehub: error: You may read this repo, but not do this. (HTTP 403, forbidden)\n"
    assert list(tmp_path.iterdir()) == []


def test_the_token_comes_from_the_environment(tmp_path: Path) -> None:
    with scripted_server(packed({}, 404)) as server:
        done = run("clone", f"{server.origin}/a/b", cwd=tmp_path, MUSEHUB_TOKEN=SECRET)
    assert server.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in done.stderr + server.asked[0].path


def test_the_token_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    with scripted_server(packed({}, 404)) as server:
        run("clone", f"{server.origin}/a/b", "--token-file", "token", cwd=tmp_path, MUSEHUB_TOKEN="other")
    assert server.asked[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("content", [b"two words", b"two\nlines", b"\xff\xfe", b"x" * 20_000])
def test_a_token_that_is_none_is_refused_without_repeating_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    error = error_of(run("clone", "http://127.0.0.1:9/a/b", "--token-file", "token", cwd=tmp_path))
    assert "must be one line" in error
    assert "words" not in error


def test_what_a_hub_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    refusal = packed({"detail": "\x1b]0;owned\x07\u202egnp.exe", "code": "\x1b[2J"}, 400)
    with scripted_server(refusal) as server:
        error = error_of(run("clone", f"{server.origin}/a/b", cwd=tmp_path))
    assert not set(error) & {"\x1b", "\x07", "\u202e"}


def test_a_web_page_is_no_hub(tmp_path: Path) -> None:
    with scripted_server(Answer(200, b"<html>", {"Content-Type": "text/html"})) as server:
        assert "is the URL right?" in error_of(run("clone", f"{server.origin}/a/b", cwd=tmp_path))


def test_a_folder_that_is_not_empty_is_not_cloned_into(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/mine").write_text("x")
    assert "not empty" in error_of(run("clone", "http://127.0.0.1:9/ada/engine", cwd=tmp_path))
    assert (tmp_path / "engine/mine").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in error_of(run("init", "file/copy", cwd=tmp_path))


def test_init_and_remote_add_make_a_copy_that_can_push(tmp_path: Path) -> None:
    assert run("init", "copy", "--branch", "trunk", cwd=tmp_path).returncode == 0
    added = run("remote", "add", "origin", "https://hub.example/ada/engine/", "--json", cwd=tmp_path / "copy")
    assert json.loads(added.stdout) == {"name": "origin", "url": "https://hub.example/ada/engine"}
    listed = run("remote", "list", cwd=tmp_path / "copy")
    assert listed.stdout == "origin: https://hub.example/ada/engine\n"
    assert "no branch 'trunk' to push" in error_of(run("push", cwd=tmp_path / "copy"))


@pytest.mark.parametrize("arguments", [["remote", "add", "origin"], ["push", "--set"]])
def test_a_remote_is_not_added_beside_another_command(workdir: Workdir, arguments: list[str]) -> None:
    with workdir.lock():
        assert "wait for it to end" in error_of(run(*arguments, "https://hub.example/ada/engine", cwd=workdir.root))
    assert remotes(workdir) == {}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_learns_to_complete_the_commands(tmp_path: Path, shell: str) -> None:
    done = run("completion", shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_MUSEHUB_COMPLETE" in done.stdout


def test_completion_names_the_commands(tmp_path: Path) -> None:
    words = {"_MUSEHUB_COMPLETE": "bash_complete", "COMP_WORDS": "musehub p", "COMP_CWORD": "1"}
    assert run(cwd=tmp_path, **words).stdout.split() == ["plain,pack", "plain,pull", "plain,push"]


def test_help_loads_no_http_client(tmp_path: Path) -> None:
    program = (
        "import sys; from musehub_plugin.client.command import musehub\n"
        "musehub(['clone', '--help'], standalone_mode=False)\n"
        "print(sorted({'urllib3', 'msgpack', 'tqdm', 'logging'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.endswith("\n[]\n")


CLONED_WITHOUT = {
    "asyncio",
    "concurrent.futures",
    "keyring",
    "multiprocessing",
    "musehub_plugin.client.apply",
    "musehub_plugin.client.building",
    "musehub_plugin.client.history",
    "musehub_plugin.client.negotiating",
    "musehub_plugin.client.scratch",
    "musehub_plugin.mpack.writer",
    "sqlite3",
    "subprocess",
    "tomllib",
    "tqdm",
    "urllib.request",
}


def test_a_bare_clone_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    snapshot_id, date = ids.snapshot_id({}), "2026-01-01T00:00:00+00:00"
    head = ids.commit_id([], snapshot_id, "", date)
    commit = {"commit_id": head, "parent_ids": [], "snapshot_id": snapshot_id, "message": "", "committed_at": date}
    snapshot = {"snapshot_id": snapshot_id, "manifest": {}}
    mpack = build_wire_mpack(commits=[commit], snapshots=[snapshot], blobs=[])
    refs = {"repo_id": "r", "default_branch": "main", "branch_heads": {"main": head}, "capabilities": ["inline"]}
    offered = {"mpack_url": None, "mpack_id": ids.blob_id(mpack), "mpack": mpack, "size_bytes": len(mpack)}
    with scripted_server(packed(refs), packed(offered)) as server:
        program = (
            "import sys; from musehub_plugin.client.command import musehub\n"
            f"musehub(['clone', '--bare', '{server.origin}/ada/engine'], standalone_mode=False)\n"
            f"print(sorted({CLONED_WITHOUT!r} & set(sys.modules)))"
        )
        # Without the site module, and what an environment loads by it.
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stderr, done.stdout.splitlines()[1:]) == ("", ["[]"])
    assert len(server.asked) == 2


def test_ls_remote_lists_the_branches(tmp_path: Path) -> None:
    head = "sha256:" + "1" * 64
    refs = packed({"repo_id": "r", "default_branch": "main", "branch_heads": {"main": head, "a/b": head}})
    with scripted_server(refs) as server:
        done = run("ls-remote", f"{server.origin}/ada/engine", cwd=tmp_path)
    assert done.stdout == f"{head}  a/b\n{head}  main\n"


def test_progress_on_a_terminal_ends_with_a_clean_line(history: GitHistory, tmp_path: Path) -> None:
    history.commit(files={b"a": b"1"})
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    program = "from musehub_plugin.client.command import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, "import-git", str(history.path), "--into", "copy"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    with os.fdopen(master, "rb", 0) as screen, suppress(OSError):  # the end of a terminal is an error
        while piece := screen.read(1 << 12):
            written += piece
    assert process.wait() == 0
    # A piece may end in the middle of a character.
    shown = written.decode()
    assert "commits" in shown
    assert shown.rpartition("\r")[2].strip() == ""


def test_a_proxy_of_the_environment_is_used_for_other_machines(tmp_path: Path) -> None:
    with scripted_server(packed({"detail": "by proxy", "code": "x"}, 404)) as server:
        done = run(
            "ls-remote", "http://hub.example/a/b", cwd=tmp_path, HTTP_PROXY=server.origin, http_proxy=server.origin
        )
        assert "by proxy" in error_of(done)
        assert server.asked[0].path == "http://hub.example/a/b/refs"
        direct = run("ls-remote", f"{server.origin}/a/b", cwd=tmp_path, http_proxy="http://127.0.0.1:9")
        assert "by proxy" in error_of(direct)
        bypassed = run(
            "ls-remote", "http://hub.invalid/a/b", cwd=tmp_path, http_proxy=server.origin, no_proxy=".invalid"
        )
        assert "by proxy" not in error_of(bypassed)
