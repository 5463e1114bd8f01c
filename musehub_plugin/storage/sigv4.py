"""Presigned S3 URLs that bind request headers.

The `minio` client signs the host alone, so that an upload URL of its making takes any bytes. Here the headers that an
uploader must send are part of what is signed, as "Authenticating Requests: Using Query Parameters (AWS Signature
Version 4)" of the Amazon S3 API reference describes it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote, urlsplit

MAX_TTL_SECONDS = 7 * 24 * 3600


def presign(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    access_key: str,
    secret_key: str,
    region: str,
    now: datetime,
    ttl_seconds: int,
) -> str:
    """Return `url` with a signature in its query.

    Args:
        method: the method that the URL allows.
        url: scheme, host and encoded path of the object, without a query.
        headers: what the request must carry, beside `Host`; values without surrounding or double spaces.
        access_key: name of the credentials.
        secret_key: their secret.
        region: the bucket's region.
        now: when the URL's life begins, in UTC.
        ttl_seconds: how long it lives, 1 second to 7 days.

    Raises:
        ValueError: `ttl_seconds` is out of bounds.
    """
    if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise ValueError(f"a presigned URL lives 1 to {MAX_TTL_SECONDS} seconds, not {ttl_seconds}")
    parts = urlsplit(url)
    signed = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc}
    names = ";".join(sorted(signed))
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    # In the order of their names, which is part of what is signed.
    query = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={_quoted(f'{access_key}/{scope}')}"
        f"&X-Amz-Date={moment}&X-Amz-Expires={ttl_seconds}&X-Amz-SignedHeaders={_quoted(names)}"
    )
    lines = [method, parts.path, query]
    lines += [f"{name}:{signed[name]}" for name in sorted(signed)]
    lines += ["", names, "UNSIGNED-PAYLOAD"]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = _signing_key(secret_key, moment[:8], region)
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{url}?{query}&X-Amz-Signature={signature}"


@lru_cache(maxsize=8)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


# The credentials of a day, and the names of few headers.
@lru_cache(maxsize=32)
def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
