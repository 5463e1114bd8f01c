"""Where a token comes from, where it is kept, and who else could read it."""

from __future__ import annotations

import json
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from musehub_plugin.client import ClientError
from musehub_plugin.client.credentials import credentials_path, forget, host_of, store, token_for
from tests.unit.client.scripted_server import packed, scripted_server
from tests.unit.client.test_command import error_of, run

URL = "https://hub.example/ada/engine"
SECRET = "s3cr3t-token"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any token, and no keyring."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("MUSEHUB_TOKEN", raising=False)
    return tmp_path


def identity(home: Path, text: str, mode: int = 0o600) -> None:
    (home / ".muse").mkdir()
    (home / ".muse/identity.toml").write_text(text)
    (home / ".muse/identity.toml").chmod(mode)


def test_without_any_there_is_no_token() -> None:
    assert token_for(URL) is None


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in a container."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_has_no_token() -> None:
    assert token_for(URL) is None


def test_who_has_dev_null_for_a_home_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    assert token_for(URL) is None


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_is_told_where_else_a_token_can_be() -> None:
    with pytest.raises(ClientError, match="MUSEHUB_TOKEN"):
        store(URL, SECRET)


def test_the_file_is_for_its_owner_alone_and_holds_one_token_for_each_hub() -> None:
    store("https://hub.example", SECRET)
    store("http://localhost:5000/ada/engine", "other")
    assert stat.S_IMODE(credentials_path().stat().st_mode) == 0o600
    assert credentials_path().read_text() == f"machine hub.example token {SECRET}\nmachine localhost:5000 token other\n"
    assert (token_for(URL), token_for("http://localhost:5000/b/c"), token_for("https://hub.example:8443/a/b")) == (
        SECRET,
        "other",
        None,
    )


def test_tokens_that_are_kept_at_the_same_time_are_all_kept() -> None:
    urls = [f"https://hub-{number}.example" for number in range(16)]
    with ThreadPoolExecutor(len(urls)) as threads:
        list(threads.map(lambda url: store(url, SECRET), urls))
    assert [token_for(url) for url in urls] == [SECRET] * len(urls)


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    store(URL, "kept")
    monkeypatch.setenv("MUSEHUB_TOKEN", SECRET)
    assert token_for(URL) == SECRET


def test_a_token_that_is_forgotten_is_gone() -> None:
    store(URL, SECRET)
    assert (forget(URL), forget(URL), token_for(URL)) == (True, False, None)


def test_a_file_that_others_may_read_is_refused_and_says_how_to_mend_it() -> None:
    store(URL, SECRET)
    credentials_path().chmod(0o644)
    with pytest.raises(ClientError, match="chmod 600") as caught:
        token_for(URL)
    assert SECRET not in str(caught.value)


def test_a_file_of_another_form_names_the_line_and_shows_nothing_of_it() -> None:
    store(URL, SECRET)
    with credentials_path().open("a") as file:
        file.write(f"login {SECRET}\n")
    with pytest.raises(ClientError, match="line 2") as caught:
        token_for(URL)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["hub.example", "https://hub.example"])
def test_the_public_clients_token_is_found(home: Path, name: str) -> None:
    identity(home, f'["{name}"]\ntype = "human"\ntoken = "{SECRET}"\n')
    assert token_for(URL) == SECRET
    assert token_for("https://other.example/a/b") is None


def test_the_public_clients_file_must_be_private_too(home: Path) -> None:
    identity(home, f'["hub.example"]\ntoken = "{SECRET}"\n', mode=0o640)
    with pytest.raises(ClientError, match="chmod 600"):
        token_for(URL)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """What a keyring holds that this machine has."""
    kept: dict[tuple[str, str], str] = {}
    keyring = ModuleType("keyring")
    keyring.__spec__ = SimpleNamespace(name="keyring")  # type: ignore[assignment]  # only that it is there counts
    vars(keyring).update(
        get_keyring=lambda: SimpleNamespace(priority=1),
        set_password=lambda service, host, token: kept.__setitem__((service, host), token),
        get_password=lambda service, host: kept.get((service, host)),
        delete_password=lambda service, host: kept.pop((service, host)),
    )
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND")
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    return kept


def test_a_keyring_keeps_the_token_where_there_is_one(kept: dict[tuple[str, str], str]) -> None:
    assert store(URL, SECRET) == "the system's keyring"
    assert (kept, token_for(URL)) == ({("musehub", "hub.example"): SECRET}, SECRET)
    assert not credentials_path().exists()
    assert (forget(URL), kept, token_for(URL)) == (True, {}, None)


@pytest.mark.usefixtures("kept")
def test_a_token_in_the_keyring_takes_the_place_of_one_in_the_file() -> None:
    credentials_path().parent.mkdir(parents=True)
    credentials_path().write_text("machine hub.example token older\nmachine other.example token theirs\n")
    credentials_path().chmod(0o600)
    store(URL, SECRET)
    assert (token_for(URL), token_for("https://other.example")) == (SECRET, "theirs")


@pytest.mark.parametrize(
    ("url", "host"),
    [("hub.example", "hub.example"), ("https://HUB.example/", "hub.example"), ("http://[::1]:5000/a/b", "[::1]:5000")],
)
def test_a_hub_is_its_host_and_port(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize("url", ["", "https://", "https://h:port/", "two words"])
def test_what_names_no_hub_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="a hub's URL looks like"):
        host_of(url)


def test_login_asks_the_hub_keeps_the_token_and_the_next_command_sends_it(tmp_path: Path) -> None:
    refs = packed({"repo_id": "r", "default_branch": "main", "branch_heads": {}})
    (tmp_path / "token").write_text(SECRET)
    with scripted_server(refs) as server:
        url = f"{server.origin}/ada/engine"
        done = run("login", url, "--token-file", "token", "--json", cwd=tmp_path, HOME=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["checked"] is True
        listed = run("ls-remote", url, "--json", cwd=tmp_path, HOME=str(tmp_path))
        assert json.loads(listed.stdout)["default_branch"] == "main"
        run("logout", url, cwd=tmp_path, HOME=str(tmp_path))
        run("ls-remote", url, cwd=tmp_path, HOME=str(tmp_path))
    assert [asked.headers.get("authorization") for asked in server.asked] == [*[f"Bearer {SECRET}"] * 2, None]
    assert SECRET not in done.stdout + listed.stdout


def test_a_token_that_the_hub_refuses_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    with scripted_server(packed({"detail": "no", "code": "invalid-credentials"}, 401)) as server:
        done = run("login", f"{server.origin}/a/b", "--token-file", "token", cwd=tmp_path, HOME=str(tmp_path))
    assert SECRET not in error_of(done)
    assert not (tmp_path / ".config").exists()


def test_verbose_says_what_was_asked_and_no_secret(tmp_path: Path) -> None:
    with scripted_server(packed({"detail": "no", "code": "x"}, 404)) as server:
        done = run("ls-remote", f"{server.origin}/a/b", "-v", cwd=tmp_path, HOME=str(tmp_path), MUSEHUB_TOKEN=SECRET)
    assert done.returncode == 1
    assert "GET " in done.stderr
    assert "Traceback" in done.stderr
    assert "musehub: error: no" in done.stderr
    assert SECRET not in done.stderr
