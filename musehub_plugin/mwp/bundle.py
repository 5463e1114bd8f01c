"""Bodies with history in them: nested msgpack from a stranger, read piece by piece from a file.

`POST push` and `POST push/objects` carry maps of lists of maps, and blobs. The body is walked over once without
building anything, which finds what is no msgpack, and again to note where each element of the lists begins. An element
is then decoded on its own, when it is asked for: what is in memory at any time is one commit, one manifest or one blob,
whatever the body's size, and a header that promises more than there is costs nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Final, NoReturn, TypeVar

import msgpack

from musehub_plugin.config import Settings
from musehub_plugin.errors import BadBody, Invalid, TooLarge
from musehub_plugin.ids import PREFIX, is_hex
from musehub_plugin.mpack import MPackError
from musehub_plugin.mpack.bounded import decode_value
from musehub_plugin.names import unsafe_path

MAX_UNKNOWN_KEYS: Final = 64
"""Keys that a newer client may send and that are ignored."""
MAX_VALUES: Final = 3_000_000
"""Values in all commits of a push together: they are held at once, at some 100 bytes each."""
MAX_DELTA: Final = 900 * 1024
"""Bytes of a commit's `structured_delta` that are kept; the further fields of a commit have 1 MiB in an mpack.

It lists every change of a commit, so that the first commit of a large tree has some MiB of it. The command works it out
of snapshots by itself and ignores it in what it fetches: a push is not refused for it.
"""
_MAX_COMMIT_VALUES: Final = 100_000
_MAX_COMMIT_DEPTH: Final = 32
_MAX_SCALAR: Final = 4_096
_MAX_OBJECTS: Final = 100_000
_READ_SIZE: Final = 64 * 1024

_T = TypeVar("_T")


class _Elements:
    """The elements of a list in a body: where each begins and ends."""

    def __init__(self, name: str, ends: array[int]) -> None:
        self.name = name
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def read(self, file: IO[bytes], position: int) -> bytes:
        """Return the bytes of the element at `position`."""
        start = self._ends[position]
        file.seek(start)
        return file.read(self._ends[position + 1] - start)


_NONE = array("Q", [0])

# What a known key may hold: a list with a limit, a map of known keys, or a scalar.
_Shape = Mapping[str, "int | _Shape | None"]


class _Walker:
    """Walks over a msgpack map in a file and notes where the elements of known lists are."""

    def __init__(self, file: IO[bytes]) -> None:
        self._size = file.seek(0, 2)
        if not self._size:
            raise Invalid("The body is empty.")
        self._check_form(file)
        self._unpacker = self._new_unpacker(file)

    def _new_unpacker(self, file: IO[bytes]) -> Any:
        file.seek(0)
        # No value with elements of its own can be built; nor can a string that is no name.
        return msgpack.Unpacker(
            file,
            read_size=_READ_SIZE,
            max_buffer_size=max(self._size, _READ_SIZE),
            max_str_len=_MAX_SCALAR,
            max_bin_len=_MAX_SCALAR,
            max_array_len=0,
            max_map_len=0,
            max_ext_len=0,
        )

    def _check_form(self, file: IO[bytes]) -> None:
        unpacker = self._new_unpacker(file)
        try:
            unpacker.skip()
        except (msgpack.UnpackException, ValueError) as error:
            self._refuse("the body", error)
        if unpacker.tell() != self._size:
            raise Invalid(f"There are {self._size - unpacker.tell()} bytes after the body's one value.")

    def walk(self, shape: _Shape, where: str = "") -> dict[str, Any]:
        """Return the known fields of the map that comes next: scalars, maps, and lists as `_Elements`."""
        pairs = self._header(where or "the body", "a map", self._unpacker.read_map_header)
        if pairs > len(shape) + MAX_UNKNOWN_KEYS:
            raise Invalid(f"{where or 'the body'}: {pairs} keys, at most {MAX_UNKNOWN_KEYS} unknown ones are accepted.")
        seen: set[str] = set()
        found: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._step(f"a key of {where or 'the body'}", self._unpacker.unpack)
            if not isinstance(key, str):
                raise Invalid(f"{where or 'the body'}: a key is no string.")
            if key in seen:
                raise Invalid(f"{where or 'the body'}: the key {key!r:.100} is there twice.")
            seen.add(key)
            name = f"{where}.{key}" if where else key
            if key not in shape:
                self._step(name, self._unpacker.skip)
                continue
            inner = shape[key]
            if inner is None:
                found[key] = self._step(name, self._unpacker.unpack)
            elif isinstance(inner, int):
                found[key] = self._elements(name, inner)
            else:
                found[key] = self.walk(inner, name)
        return found

    def _elements(self, name: str, limit: int) -> _Elements:
        length = self._header(name, "a list", self._unpacker.read_array_header)
        if length > limit:
            raise TooLarge(f"{name}: {length} elements, at most {limit} are accepted.", limit=limit)
        ends = array("Q", [self._unpacker.tell()])
        skip, tell = self._unpacker.skip, self._unpacker.tell
        for _ in range(length):
            self._step(name, skip)
            ends.append(tell())
        return _Elements(name, ends)

    def _header(self, name: str, kind: str, read: Callable[[], int]) -> int:
        try:
            return read()
        except (msgpack.UnpackException, ValueError):
            # The body is well-formed, so that this is some other value.
            raise Invalid(f"{name}: must be {kind}.") from None

    def _step(self, name: str, step: Callable[[], _T]) -> _T:
        try:
            return step()
        except (msgpack.UnpackException, ValueError) as error:
            self._refuse(name, error)

    def _refuse(self, where: str, error: Exception) -> NoReturn:
        if isinstance(error, msgpack.OutOfData):
            raise BadBody("The body is cut off.", code="truncated-body") from None
        if isinstance(error, msgpack.FormatError):
            raise BadBody("The body is no msgpack.") from None
        if isinstance(error, msgpack.StackError):
            raise Invalid(f"{where}: is nested too deeply.") from None
        if isinstance(error, UnicodeDecodeError):
            raise Invalid(f"{where}: is not valid UTF-8.") from None
        raise Invalid(f"{where}: a nested, extended or overlong value is not accepted here.") from None


def _decoded(data: bytes, where: str, *, max_values: int, max_depth: int) -> dict[str, Any]:
    try:
        value = decode_value(data, where, max_items=max_values, max_depth=max_depth)
    except MPackError as error:
        raise Invalid(f"{error}.") from None
    if not isinstance(value, dict):
        raise Invalid(f"{where}: must be a map.")
    return value


class SentObjects:
    """A list of blobs in a body: `{object_id, content}` maps.

    Args:
        file: the body.
        elements: where they are.
    """

    def __init__(self, file: IO[bytes], elements: _Elements) -> None:
        self._file = file
        self._elements = elements

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield `(object_id, content)`; no id is checked against its content.

        Raises:
            Invalid: an element is no such map; the detail names it.
        """
        for position in range(len(self._elements)):
            where = f"{self._elements.name}[{position}]"
            data = self._elements.read(self._file, position)
            sent = _decoded(data, where, max_values=2 * MAX_UNKNOWN_KEYS, max_depth=1)
            content = sent.get("content")
            if not isinstance(content, bytes):
                raise Invalid(f"{where}: content must be a byte string.")
            yield _id(sent.get("object_id"), f"{where}: object_id"), content


class SentSnapshots:
    """The snapshots of a body.

    Args:
        file: the body.
        elements: where they are.
        max_entries: paths that one manifest may have.
    """

    def __init__(self, file: IO[bytes], elements: _Elements, max_entries: int) -> None:
        self._file = file
        self._elements = elements
        self._max_entries = max_entries

    def __len__(self) -> int:
        return len(self._elements)

    def read(self, position: int) -> tuple[str, dict[str, str]]:
        """Return id and manifest of the snapshot at `position`; the id is not checked against the manifest.

        Raises:
            Invalid: it is no snapshot, or has a path that no client could restore; the detail names it.
        """
        where = f"{self._elements.name}[{position}]"
        data = self._elements.read(self._file, position)
        sent = _decoded(data, where, max_values=2 * (self._max_entries + MAX_UNKNOWN_KEYS), max_depth=2)
        snapshot_id = _id(sent.get("snapshot_id"), f"{where}: snapshot_id")
        manifest = sent.get("manifest")
        if not isinstance(manifest, dict):
            raise Invalid(f"{where}: manifest must be a map.")
        if len(manifest) > self._max_entries:
            raise TooLarge(f"{where}: {len(manifest)} paths.", limit=self._max_entries)
        translated: dict[str, str] = {}
        for path, object_id in manifest.items():
            reason = unsafe_path(path)
            if reason is not None:
                detail = f"snapshot {snapshot_id}: path {path!r:.200} {reason}."
                raise Invalid(detail, code="unsafe-path", extra={"path": path[:4096]})
            translated[path] = _id(object_id, f"{where}: the id of {path!r:.100}")
        return snapshot_id, translated


class SentPush:
    """The body of `POST push`.

    Args:
        file: the body, seekable.
        settings: what is accepted.

    Attributes:
        branch: the branch to move.
        force: whether it need not be a fast-forward.
        snapshots: the snapshots that came along.
        objects: blobs that came along; the released command sends them ahead instead.
        dropped_deltas: how many commits lost a `structured_delta` of more than `MAX_DELTA`, once they are all read.

    Raises:
        BadBody: the bytes are no msgpack.
        Invalid: they are, but no push.
        TooLarge: a list is longer than `MUSEHUB_MAX_COMMITS`.
    """

    def __init__(self, file: IO[bytes], settings: Settings) -> None:
        limit = settings.max_commits
        bundle: _Shape = {"commits": limit, "snapshots": limit, "objects": _MAX_OBJECTS}
        fields = _Walker(file).walk({"bundle": bundle, "branch": None, "force": None})
        sent = fields.get("bundle")
        if not isinstance(sent, dict):
            raise Invalid("bundle: is required.")
        branch, force = fields.get("branch"), fields.get("force", False)
        if not isinstance(branch, str):
            raise Invalid("branch: must be a string.")
        if not isinstance(force, bool):
            raise Invalid("force: must be true or false.")
        self.branch: str = branch
        self.force: bool = force
        self.dropped_deltas = 0
        self._file = file
        self._commits = sent.get("commits") or _Elements("bundle.commits", _NONE)
        snapshots = sent.get("snapshots") or _Elements("bundle.snapshots", _NONE)
        self.snapshots = SentSnapshots(file, snapshots, settings.max_manifest_entries)
        self.objects = SentObjects(file, sent.get("objects") or _Elements("bundle.objects", _NONE))

    def commits(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the commits as they were sent, each with what it is called in an error.

        Raises:
            Invalid: one is no map that a commit could be.
            TooLarge: they hold more than `MAX_VALUES` values.
        """
        left = MAX_VALUES
        self.dropped_deltas = 0
        for position in range(len(self._commits)):
            where = f"{self._commits.name}[{position}]"
            if left <= 0:
                raise TooLarge("bundle.commits: too many values; push the history in parts.", limit=MAX_VALUES)
            data = self._commits.read(self._file, position)
            if len(data) > MAX_DELTA:
                whole, data = data, _without_large_delta(data)
                self.dropped_deltas += len(data) < len(whole)
            commit = _decoded(data, where, max_values=_MAX_COMMIT_VALUES, max_depth=_MAX_COMMIT_DEPTH)
            left -= _count(commit)
            yield where, commit


def _without_large_delta(data: bytes) -> bytes:
    """Return the msgpack of a commit without a `structured_delta` that is too large to keep; nothing is built."""
    unpacker = msgpack.Unpacker(
        None,
        max_buffer_size=len(data),
        max_str_len=_MAX_SCALAR,
        max_bin_len=0,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(data)
    kept: list[bytes] = []
    try:
        pairs = unpacker.read_map_header()
        for _ in range(pairs):
            start = unpacker.tell()
            key = unpacker.unpack()
            value_start = unpacker.tell()
            unpacker.skip()
            end = unpacker.tell()
            if key != "structured_delta" or end - value_start <= MAX_DELTA:
                kept.append(data[start:end])
    except (msgpack.UnpackException, ValueError):
        # No commit; what is wrong with it is said where it is decoded.
        return data
    header: bytes = msgpack.Packer().pack_map_header(len(kept))
    return data if len(kept) == pairs else header + b"".join(kept)


def sent_objects(file: IO[bytes]) -> SentObjects:
    """Return the blobs in the body of `POST push/objects`.

    Raises:
        BadBody: the bytes are no msgpack.
        Invalid: they are, but no list of blobs.
    """
    elements = _Walker(file).walk({"objects": _MAX_OBJECTS}).get("objects")
    if elements is None:
        raise Invalid("objects: is required.")
    return SentObjects(file, elements)


def _id(value: object, where: str) -> str:
    if not is_hex(value):
        raise Invalid(f"{where}: expected 64 lowercase hex digits.")
    return f"{PREFIX}{value}"


def _count(value: Any) -> int:
    """Return how many values a decoded value holds, itself included."""
    total = 0
    left = [value]
    while left:
        item = left.pop()
        total += 1
        if isinstance(item, dict):
            total += len(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return total
