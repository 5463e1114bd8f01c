"""A working copy on disk, in the layout of the public muse client, so that both commands work in one folder.

Content goes first and refs last, so that whatever a ref reaches is there; a command that is killed leaves
files that nothing names, which do no harm.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from musehub_plugin import ids
from musehub_plugin.client.entities import EntityFiles, hex_of
from musehub_plugin.client.errors import WorkdirError
from musehub_plugin.names import bad_branch_name, bad_remote_name

MUSE = ".muse"
SCHEMA_VERSION = "0.1.5"
_UNFINISHED = "musehub-clone.json"
_NEW = ".muse-new-"
# What broke off is worth going on with for so long.
_PARTIAL_SECONDS = 7 * 86_400
# A process that cannot be seen may run in another container, so what is younger than this is left to it.
_TEMPORARY_SECONDS = 3_600
_HOW_TO_GET_ONE = "make one with `musehub clone`, `musehub import-git` or `musehub init`"


class Workdir(EntityFiles):
    """A working copy that exists.

    Args:
        root: the folder that holds `.muse`.

    Attributes:
        domain: the repo's domain.
        bare: there are no files beside `.muse`, and mpacks are kept as they come.

    Raises:
        WorkdirError: there is no `.muse` in it, or its `repo.json` is damaged.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root / MUSE)
        self.root = root
        try:
            described = json.loads((self.muse / "repo.json").read_bytes())
            self.repo_id = str(described["repo_id"])
            self.domain: str = str(described.get("domain") or "code")
            self.bare = described.get("bare") is True
        except FileNotFoundError:
            raise WorkdirError(f"{root} is no muse working copy; {_HOW_TO_GET_ONE}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise WorkdirError(f"{self.muse / 'repo.json'} is damaged: it must hold a repo_id") from None
        (self.muse / "tmp").mkdir(exist_ok=True)

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        repo_id: str | None = None,
        domain: str = "code",
        branch: str = "main",
        bare: bool = False,
        clone_of: str | None = None,
    ) -> Workdir:
        """Make a new working copy with no commits: all of `.muse` at once, or nothing.

        Args:
            root: its folder; made where it is missing.
            repo_id: the repo's id on the hub; None: a new one.
            domain: the repo's domain.
            branch: the branch that HEAD names.
            bare: keep mpacks as they come, and have no files.
            clone_of: the URL of a clone that begins; see `unfinished_clone`.

        Raises:
            WorkdirError: there is a working copy already, or the branch name is none.
        """
        if (root / MUSE).exists():
            raise WorkdirError(f"{root} is a muse working copy already")
        _require_branch(branch)
        described = {
            "repo_id": repo_id or _new_repo_id(),
            "schema_version": SCHEMA_VERSION,
            "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "domain": domain,
            **({"bare": True} if bare else {}),
        }
        new = root / f"{_NEW}{os.urandom(16).hex()}"
        try:
            for folder in ("refs/heads", "remotes", "objects", "commits", "snapshots", "tmp", *(["packs"] * bare)):
                (new / folder).mkdir(parents=True)
            (new / "config.toml").write_text("", encoding="utf-8")
            (new / "HEAD").write_text(f"ref: refs/heads/{branch}\n", encoding="utf-8")
            (new / "repo.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
            if clone_of is not None:
                (new / _UNFINISHED).write_text(json.dumps({"url": clone_of}) + "\n", encoding="utf-8")
            new.rename(root / MUSE)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        return cls(root)

    @staticmethod
    def remove_unborn(root: Path) -> None:
        """Remove what `create` leaves in a folder where it is killed; no other may be at work in it."""
        for folder in root.glob(f"{_NEW}*"):
            shutil.rmtree(folder)

    def end_bareness(self) -> None:
        """Note that there are files beside `.muse` from now on."""
        described = json.loads((self.muse / "repo.json").read_bytes())
        described.pop("bare", None)
        self.write_file(self.muse / "repo.json", json.dumps(described, indent=2).encode() + b"\n")
        self.bare = False

    @classmethod
    def discover(cls, start: Path) -> Workdir:
        """Return the working copy that `start` lies in.

        Raises:
            WorkdirError: neither it nor a folder above it is one.
        """
        for folder in (start, *start.absolute().parents):
            if (folder / MUSE / "repo.json").is_file():
                return cls(folder)
        raise WorkdirError(f"{start} lies in no muse working copy; {_HOW_TO_GET_ONE}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the working copy for one command that moves refs.

        Raises:
            WorkdirError: another command holds it.
        """
        with (self.muse / "musehub.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkdirError(f"another musehub command is at work in {self.root}; wait for it to end") from None
            self._sweep()
            # Another command may have added packs, or removed some, before this one's turn.
            self.packs.forget()
            yield

    def partial_path(self, mpack_id: str) -> Path:
        """Return where an mpack is while it comes; what broke off there is gone on with."""
        return self.muse / "tmp" / f"{ids.to_hex(mpack_id)}.part"

    def _sweep(self) -> None:
        """Remove what killed commands left behind; the caller holds the lock."""
        now = time.time()
        for path in (self.muse / "tmp").iterdir():
            pid = path.name.partition("-")[0]
            age = now - path.lstat().st_mtime
            if path.suffix == ".part":
                stale = age > _PARTIAL_SECONDS
            else:
                # In a container every command is the same process number, and one before this had its number too.
                stale = (
                    age > _TEMPORARY_SECONDS and pid.isdecimal() and (int(pid) == os.getpid() or not _runs(int(pid)))
                )
            if stale:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    # A clone that broke off

    def unfinished_clone(self) -> dict[str, str] | None:
        """Return what `note_clone` noted last of a clone that has not ended; None where there is no such clone."""
        try:
            noted = json.loads((self.muse / _UNFINISHED).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return {key: value for key, value in noted.items() if isinstance(value, str)} if isinstance(noted, dict) else {}

    def note_clone(self, noted: dict[str, str] | None) -> None:
        """Note how far a clone is, so that another process can end it; None: it has ended."""
        if noted is None:
            (self.muse / _UNFINISHED).unlink(missing_ok=True)
        else:
            self.write_file(self.muse / _UNFINISHED, json.dumps(noted).encode() + b"\n")

    # Refs

    def head_branch(self) -> str | None:
        """Return the name of the branch that HEAD names; None where it names a commit.

        Raises:
            WorkdirError: HEAD is missing or says neither.
        """
        try:
            text = (self.muse / "HEAD").read_text(encoding="utf-8").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            raise WorkdirError(f"{self.muse / 'HEAD'} is missing or damaged") from None
        if ids.is_hex(text):
            return None
        name = text.removeprefix("ref:").strip().removeprefix("refs/heads/")
        if bad_branch_name(name) is not None:
            raise WorkdirError(f"{self.muse / 'HEAD'} is damaged: it must hold `ref: refs/heads/<branch>`")
        return name

    def set_head_branch(self, branch: str) -> None:
        """Let HEAD name a branch, which need not have a commit."""
        _require_branch(branch)
        self.write_file(self.muse / "HEAD", f"ref: refs/heads/{branch}\n".encode())

    def head_commit(self) -> str | None:
        """Return the id of the commit that HEAD stands at; None on a branch without commits."""
        branch = self.head_branch()
        if branch is not None:
            return self.branch_head(branch)
        return ids.PREFIX + (self.muse / "HEAD").read_text(encoding="utf-8").strip()

    def branches(self) -> dict[str, str]:
        """Return `{branch: commit_id}` of the local branches, sorted by name."""
        return self._read_refs(self.muse / "refs" / "heads")

    def branch_head(self, branch: str) -> str | None:
        """Return the commit id of a local branch; None where there is none."""
        _require_branch(branch)
        return self._read_ref(self.muse / "refs" / "heads" / branch)

    def set_branch(self, branch: str, commit_id: str) -> None:
        """Let a local branch stand at a commit, which must be stored with all that it reaches."""
        _require_branch(branch)
        self._write_ref(self.muse / "refs" / "heads" / branch, commit_id)

    def tags(self) -> dict[str, str]:
        """Return `{tag: commit_id}`; tags are local, the protocol does not carry them."""
        return self._read_refs(self.muse / "refs" / "tags")

    def set_tag(self, tag: str, commit_id: str) -> None:
        """Let a tag name a commit."""
        _require_branch(tag)
        self._write_ref(self.muse / "refs" / "tags" / tag, commit_id)

    def remote_heads(self, remote: str) -> dict[str, str]:
        """Return the last known `{branch: commit_id}` of a remote, sorted by name."""
        _require_remote(remote)
        return self._read_refs(self.muse / "remotes" / remote)

    def all_remote_heads(self) -> set[str]:
        """Return the last known heads of all remotes."""
        folder = self.muse / "remotes"
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        return {head for name in names for head in self._read_refs(folder / name).values()}

    def set_remote_head(self, remote: str, branch: str, commit_id: str) -> None:
        """Note where a remote's branch stands; the commit must be stored with all that it reaches."""
        _require_remote(remote)
        _require_branch(branch)
        self._write_ref(self.muse / "remotes" / remote / branch, commit_id)

    def forget_remote_head(self, remote: str, branch: str) -> None:
        """Drop the note of a remote's branch; one that is not there is no error."""
        _require_remote(remote)
        _require_branch(branch)
        (self.muse / "remotes" / remote / branch).unlink(missing_ok=True)

    def _read_ref(self, path: Path) -> str | None:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except UnicodeDecodeError:
            text = ""
        else:
            # The public client makes the file of a branch without commits, empty.
            if not text:
                return None
        if not ids.is_hex(text):
            raise WorkdirError(f"{path} is damaged: it must hold 64 hex digits")
        return ids.PREFIX + text

    def _read_refs(self, folder: Path) -> dict[str, str]:
        heads: dict[str, str] = {}
        for parent, _, files in os.walk(folder):
            for file in files:
                path = Path(parent, file)
                name = path.relative_to(folder).as_posix()
                commit_id = self._read_ref(path) if bad_branch_name(name) is None else None
                if commit_id is not None:
                    heads[name] = commit_id
        return dict(sorted(heads.items()))

    def _write_ref(self, path: Path, commit_id: str) -> None:
        try:
            self.write_file(path, hex_of(commit_id).encode())
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            raise WorkdirError(
                f"{path.relative_to(self.muse)} cannot be written: another ref's name is a part of this one's"
            ) from None


def _new_repo_id() -> str:
    # Not for a clone, whose hub says what it is.
    import uuid

    return str(uuid.uuid4())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _require_branch(name: str) -> None:
    problem = bad_branch_name(name)
    if problem is not None:
        raise WorkdirError(f"the branch name {name!r:.100} {problem}")


def _require_remote(name: str) -> None:
    problem = bad_remote_name(name)
    if problem is not None:
        raise WorkdirError(f"the remote name {name!r:.100} {problem}")
