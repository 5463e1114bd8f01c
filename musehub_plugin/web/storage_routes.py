"""The routes behind the plugin's own signed URLs: what object storage does, for backends that only hold
bytes.

`GET storage/<kind>/<hex>` answers as S3 does to a presigned URL: bytes, a single Range, the content address
as ETag. `PUT storage/upload/<hex>` takes exactly the bytes that were signed for. A URL is the whole
permission: no identity is asked for, and a credential that comes along is not looked at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import IO, BinaryIO, Final

from flask import Blueprint, Response, request
from werkzeug.wsgi import FileWrapper

from musehub_plugin.errors import Forbidden, Invalid, NotFound
from musehub_plugin.ids import PREFIX
from musehub_plugin.storage import uploads
from musehub_plugin.storage.base import Storage
from musehub_plugin.storage.signing import METHODS, Grant, UrlSigner
from musehub_plugin.web import problems
from musehub_plugin.web.body import open_body, read_some, too_large
from musehub_plugin.web.negotiation import NO_STORE

_CHUNK: Final = 256 * 1024
_HEX_LENGTH: Final = 64
_LAST_BYTES: Final = re.compile(r"bytes=-([0-9]{1,20})")
# All are routed, so that a URL used for something else gets its 403 here, whatever the host does with a 405.
_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")

STORAGE_BLUEPRINT_NAME: Final = "musehub_storage"


def make_storage_blueprint(
    get_storage: Callable[[], Storage],
    get_signer: Callable[[], UrlSigner],
    *,
    name: str = STORAGE_BLUEPRINT_NAME,
    retry_after: Callable[[], int] = lambda: 2,
) -> Blueprint:
    """Return a blueprint with `/storage/<kind>/<key>`, to be registered below the ops prefix.

    Args:
        get_storage: gives the current app's storage.
        get_signer: gives the current app's signer; a storage that has a signer of its own goes before it.
        name: the blueprint's name.
        retry_after: gives the seconds that a caller should wait when storage is away.
    """
    blueprint = Blueprint(name, __name__)
    problems.register(blueprint, retry_after)

    @blueprint.route("/storage/<kind>/<key>", methods=_METHODS)
    def stored(kind: str, key: str) -> Response:
        # What has another form names no file; what has the form and was not signed is refused.
        if kind not in METHODS or len(key) != _HEX_LENGTH:
            raise NotFound("There is no such file.")
        storage = get_storage()
        signer = uploads.signer_of(storage, get_signer())
        grant = signer.verify(request.method, kind, key, request.args.items(multi=True))
        return _receive(storage, grant) if grant.method == "PUT" else _send(storage, grant)

    return blueprint


def _send(storage: Storage, grant: Grant) -> Response:
    identifier = PREFIX + grant.key
    is_mpack = grant.kind == "mpack"
    file = uploads.open_mpack(storage, identifier) if is_mpack else uploads.open_blob(storage, identifier)
    if file is None:
        raise NotFound("There is no such file.")
    try:
        return _file_response(file, grant, f"{grant.key}.mpack" if is_mpack else grant.key)
    except BaseException:
        # A range that cannot be satisfied, say: no response will close the file.
        file.close()
        raise


def _file_response(file: BinaryIO, grant: Grant, filename: str) -> Response:
    size = file.seek(0, 2)
    file.seek(0)
    # Seekable, unlike some servers' own wrappers: a range must not read all that lies before it.
    response = Response(FileWrapper(file, _CHUNK), content_type="application/octet-stream", direct_passthrough=True)
    response.content_length = size
    response.set_etag(grant.key)
    lifetime = max(0, grant.expires_at - int(time.time()))
    response.headers["Cache-Control"] = f"private, immutable, max-age={lifetime}"
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    environ = dict(request.environ)
    asked = environ.get("HTTP_RANGE", "").strip().lower()
    last = _LAST_BYTES.fullmatch(asked)
    if not asked.startswith("bytes="):
        # RFC 9110, 14.2: a unit that a server does not know is no reason to refuse.
        environ.pop("HTTP_RANGE", None)
    elif last is not None and int(last[1]) > size:
        # RFC 9110, 14.1.2: the last bytes of a file that has fewer are all of it; werkzeug refuses.
        environ["HTTP_RANGE"] = "bytes=0-"
    response.make_conditional(environ, accept_ranges=True, complete_length=size)
    return response


def _receive(storage: Storage, grant: Grant) -> Response:
    if grant.size is None or grant.digest is None:
        raise Forbidden("This URL does not say which bytes it was signed for.", code="signature-refused")
    if not uploads.takes_bytes(storage):
        raise NotFound("There is no such file.")
    stream = open_body(request, grant.size)
    length = request.content_length
    if length is not None and length < grant.size:
        raise Invalid(f"The body has {length} bytes, {grant.size} were signed.", code="upload-refused")
    body = _UploadBody(stream, grant.size)
    uploads.receive_upload(storage, grant.key, body, size=grant.size, digest=grant.digest)
    response = Response(b"", content_type="application/octet-stream")
    response.set_etag(grant.digest)
    response.headers["Cache-Control"] = NO_STORE
    return response


class _UploadBody:
    """A request body as a file that refuses to be longer than it may."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, at most 1 MiB where it says nothing.

        Raises:
            TooLarge: the body is longer than the limit.
            BadBody: it is shorter than announced.
        """
        # Never more than one byte too many, however much is asked for.
        wanted = min(size if size >= 0 else 1 << 20, self._left + 1)
        data = read_some(self._stream, wanted)
        self._left -= len(data)
        if self._left < 0:
            raise too_large(self._limit)
        return data
