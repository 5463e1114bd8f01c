"""Object storage on S3 and what speaks it, by the `minio` client."""

from __future__ import annotations

from musehub_plugin.config import Settings
from musehub_plugin.storage.base import Storage


def s3_storage(settings: Settings) -> Storage:
    """Return the S3 storage that the settings name."""
    raise NotImplementedError("S3 storage")
