"""Object storage: blobs, mpacks and uploads by content address, in memory, in a directory or on S3."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from musehub_plugin.config import Settings
from musehub_plugin.storage.base import (
    Deletes,
    Pings,
    PresignedUpload,
    ServedByPlugin,
    Storage,
    StreamsMPacks,
    TakesUploads,
    UploadRefused,
)
from musehub_plugin.storage.file import FileStorage
from musehub_plugin.storage.memory import MemoryStorage
from musehub_plugin.storage.signing import Grant, SignatureRefused, UrlSigner

__all__ = [
    "Deletes",
    "FileStorage",
    "Grant",
    "MemoryStorage",
    "Pings",
    "PresignedUpload",
    "ServedByPlugin",
    "SignatureRefused",
    "Storage",
    "StreamsMPacks",
    "TakesUploads",
    "UploadRefused",
    "UrlSigner",
    "make_storage",
]


def make_storage(settings: Settings, signer: UrlSigner) -> Storage:
    """Return the object storage that the settings name.

    Args:
        settings: checked settings; `storage` is a URL or an object with the storage interface.
        signer: signs for backends whose bytes the plugin serves. An object that was built with a signer keeps
            its own, so that routes verify by `storage.signer`.
    """
    if not isinstance(settings.storage, str):
        storage: Storage = settings.storage
        if isinstance(storage, ServedByPlugin):
            storage.use_signer(signer)
        return storage
    parts = urlsplit(settings.storage)
    if parts.scheme == "memory":
        return MemoryStorage(signer)
    if parts.scheme == "file":
        return FileStorage(unquote(parts.path), signer)
    # minio takes a while to import, and only hubs on S3 need it.
    from musehub_plugin.storage.s3 import s3_storage

    return s3_storage(settings)
