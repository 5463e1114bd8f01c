"""The directory backend: what it leaves on the disk, and what it does not read from it."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.ids import blob_id, fake_id, to_hex
from musehub_plugin.storage import FileStorage, UploadRefused
from tests.shortage import full_disk, no_more_files

CONTENT = b"some bytes"
OID = blob_id(CONTENT)
HEX = to_hex(OID)
UPLOAD_KEY = to_hex(fake_id("upload"))


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    return FileStorage(tmp_path / "root")


def files_below(storage: FileStorage) -> set[str]:
    return {str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if not path.is_dir()}


def test_files_lie_below_their_first_two_digits(storage: FileStorage) -> None:
    storage.put(OID, CONTENT)
    assert files_below(storage) == {f"blobs/{HEX[:2]}/{HEX[2:]}"}


def test_the_uri_names_the_file(storage: FileStorage) -> None:
    assert storage.put(OID, CONTENT) == (storage.root / "blobs" / HEX[:2] / HEX[2:]).as_uri()


def test_files_are_readable_by_their_owner_alone(storage: FileStorage) -> None:
    storage.put(OID, CONTENT)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (storage.root, *storage.root.rglob("*"))}
    assert modes == {0o600, 0o700}


def test_storing_again_replaces_damaged_bytes(storage: FileStorage) -> None:
    storage.put(OID, b"damaged as")
    storage.put(OID, CONTENT)
    assert storage.get(OID) == CONTENT


def test_a_full_disk_is_storage_unavailable(storage: FileStorage) -> None:
    with full_disk(1000), pytest.raises(StorageUnavailable, match="cannot write to blobs"):
        storage.put(OID, bytes(100_000))


def test_a_full_disk_leaves_nothing_behind(storage: FileStorage) -> None:
    with full_disk(1000), pytest.raises(StorageUnavailable):
        storage.put_mpack_file(OID, io.BytesIO(bytes(5_000_000)))
    assert files_below(storage) == set()


def test_a_full_disk_keeps_what_was_stored_before(storage: FileStorage) -> None:
    storage.put(OID, CONTENT)
    with full_disk(1000), pytest.raises(StorageUnavailable):
        storage.put(OID, bytes(100_000))
    assert storage.get(OID) == CONTENT


@pytest.mark.parametrize("method", ["get", "exists", "open_blob", "delete"])
def test_what_could_not_be_looked_for_is_not_taken_for_absent(storage: FileStorage, method: str) -> None:
    storage.put(OID, CONTENT)
    with no_more_files(), pytest.raises(StorageUnavailable) as caught:
        getattr(storage, method)(OID)
    area = "remove from blobs" if method == "delete" else "read from blobs"
    assert str(caught.value) == f"the file store cannot {area}: Too many open files"
    assert storage.get(OID) == CONTENT


def test_nothing_is_made_where_something_is_looked_for(storage: FileStorage) -> None:
    storage.root.mkdir()
    assert (storage.get(OID), storage.exists(OID), list(storage.root.iterdir())) == (None, False, [])


def test_no_descriptor_stays_open(storage: FileStorage) -> None:
    planted = storage.root / "blobs" / HEX[:2] / HEX[2:]
    planted.mkdir(parents=True)
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    assert storage.get(OID) is None
    planted.rmdir()
    storage.put(OID, CONTENT)
    assert storage.get(OID) == CONTENT
    storage.delete(OID)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names alone


def test_a_file_has_its_name_once_its_bytes_are_on_the_disk(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def noting_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def noting_rename(*arguments: Any, **more: Any) -> None:
        rename(*arguments, **more)
        done.append("rename")

    storage.put(fake_id("other"), b"of the same directories")
    storage.put(OID, CONTENT)
    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "rename", noting_rename)
    storage.put(OID, CONTENT)
    assert done == ["file", "rename", "directory"]


def test_an_error_names_no_path(storage: FileStorage) -> None:
    with full_disk(1000), pytest.raises(StorageUnavailable) as failure:
        storage.put(OID, bytes(100_000))
    assert "/" not in str(failure.value)


@pytest.mark.parametrize(("body", "said"), [(b"12345", "5 bytes"), (b"1234567", "longer"), (b"abcdef", "SHA-256")])
def test_s66_a_refused_upload_leaves_nothing_behind(storage: FileStorage, body: bytes, said: str) -> None:
    with pytest.raises(UploadRefused, match=said):
        storage.receive_upload(UPLOAD_KEY, io.BytesIO(body), size=6, digest=to_hex(blob_id(b"123456")))
    assert files_below(storage) == set()


def test_s68_no_more_than_the_signed_size_is_read(storage: FileStorage) -> None:
    body = io.BytesIO(bytes(10_000_000))
    with pytest.raises(UploadRefused):
        storage.receive_upload(UPLOAD_KEY, body, size=6, digest=None)
    assert body.tell() == 7


def test_an_upload_that_breaks_off_leaves_nothing_behind(storage: FileStorage) -> None:
    class BrokenBody(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise RuntimeError("the connection is gone")
            return super().read(3)

    with pytest.raises(RuntimeError):
        storage.receive_upload(UPLOAD_KEY, BrokenBody(b"123456"), size=6, digest=None)
    assert files_below(storage) == set()


def test_what_a_killed_writer_left_is_removed(storage: FileStorage) -> None:
    storage.ping()
    left = storage.root / "parts" / "left.part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert (storage.remove_leftovers(), files_below(storage)) == (1, set())


def test_what_is_being_written_is_no_leftover(storage: FileStorage) -> None:
    storage.ping()
    (storage.root / "parts" / "busy.part").write_bytes(b"half")
    assert storage.remove_leftovers() == 0


@pytest.mark.parametrize(
    "name",
    [
        "sha256:../../../../etc/passwd",
        "/etc/passwd",
        "..",
        "sha256:%2e%2e%2f",
        OID.upper(),
        OID + "\n",
        OID[:-1],
        OID + "/x",
        HEX,
        "sha256:" + "\u0661" * 64,
        "",
    ],
)
def test_s72_a_name_that_is_no_id_is_refused(storage: FileStorage, name: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        storage.get(name)


@pytest.mark.parametrize("key", ["..", "../" + UPLOAD_KEY[3:], UPLOAD_KEY.upper(), UPLOAD_KEY + "\n", OID])
def test_s72_an_upload_key_that_is_not_64_hex_digits_is_refused(storage: FileStorage, key: str) -> None:
    with pytest.raises(ValueError, match="not an upload key"):
        storage.receive_upload(key, io.BytesIO(b""), size=None, digest=None)


def planted_symlink(storage: FileStorage, target: Path) -> None:
    target.write_bytes(b"a secret")
    shard = storage.root / "blobs" / HEX[:2]
    shard.mkdir(parents=True)
    (shard / HEX[2:]).symlink_to(target)


def planted_directory_link(storage: FileStorage, target: Path) -> None:
    elsewhere = target.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / HEX[2:]).write_bytes(b"a secret")
    (storage.root / "blobs").mkdir(parents=True)
    (storage.root / "blobs" / HEX[:2]).symlink_to(elsewhere)


def planted_fifo(storage: FileStorage, target: Path) -> None:
    (storage.root / "blobs" / HEX[:2]).mkdir(parents=True)
    os.mkfifo(storage.root / "blobs" / HEX[:2] / HEX[2:])


def planted_directory(storage: FileStorage, target: Path) -> None:
    (storage.root / "blobs" / HEX[:2] / HEX[2:]).mkdir(parents=True)


@pytest.mark.parametrize("plant", [planted_symlink, planted_directory_link, planted_fifo, planted_directory])
def test_s72_what_was_planted_is_not_stored(storage: FileStorage, tmp_path: Path, plant: Any) -> None:
    plant(storage, tmp_path / "secret")
    assert (storage.get(OID), storage.exists(OID), storage.open_blob(OID)) == (None, False, None)


def test_s72_storing_over_a_planted_symlink_does_not_write_through_it(storage: FileStorage, tmp_path: Path) -> None:
    planted_symlink(storage, tmp_path / "secret")
    storage.put(OID, CONTENT)
    assert ((tmp_path / "secret").read_bytes(), storage.get(OID)) == (b"a secret", CONTENT)


def test_s72_nothing_is_written_below_a_planted_directory_link(storage: FileStorage, tmp_path: Path) -> None:
    planted_directory_link(storage, tmp_path / "secret")
    with pytest.raises(StorageUnavailable):
        storage.put(OID, CONTENT)


def test_s72_a_planted_symlink_is_no_upload(storage: FileStorage, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"a secret")
    shard = storage.root / "uploads" / UPLOAD_KEY[:2]
    shard.mkdir(parents=True)
    (shard / UPLOAD_KEY[2:]).symlink_to(tmp_path / "secret")
    assert storage.open_upload(UPLOAD_KEY) is None


def test_the_root_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    storage = FileStorage(tmp_path / "root")
    storage.put(OID, CONTENT)
    assert storage.get(OID) == CONTENT


def test_processes_that_share_a_root_share_its_key(storage: FileStorage) -> None:
    assert FileStorage(storage.root).own_key() == storage.own_key()


def test_the_signing_key_is_readable_by_its_owner_alone(storage: FileStorage) -> None:
    storage.own_key()
    assert stat.S_IMODE((storage.root / ".signing-key").stat().st_mode) == 0o600


def test_a_damaged_signing_key_is_not_used(storage: FileStorage) -> None:
    storage.own_key()
    (storage.root / ".signing-key").write_bytes(bytes(31))
    with pytest.raises(StorageUnavailable, match="signing-key is damaged"):
        storage.own_key()
