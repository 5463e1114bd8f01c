"""A muse client as the tests need one: plain HTTP through the app's test client, bytes straight from storage.

It is written against the contract alone and shares no code with the plugin's own client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from flask import Flask
from werkzeug.test import TestResponse

from musehub_plugin import ids
from musehub_plugin.mpack import parse_wire_mpack
from musehub_plugin.testing.apps import client_for

JSON = "application/json"
MSGPACK = "application/x-msgpack"
OPS_PREFIX = "/-/musehub/"
FETCH_MEMBERS = {
    "mpack_url",
    "mpack_id",
    "commit_count",
    "snapshot_count",
    "blob_count",
    "object_count",
    "size_bytes",
    "expires_at",
}
"""What the contract says that an answer to a fetch has."""


@dataclass(frozen=True)
class Pulled:
    """What a fetch brought: its answer, and the pack, whose bytes hash to `mpack_id`."""

    answer: dict[str, Any]
    data: bytes
    pack: dict[str, list[dict[str, Any]]]

    @property
    def commits(self) -> dict[str, dict[str, Any]]:
        """Records by commit id."""
        return {record["commit_id"]: record for record in self.pack["commits"]}

    @property
    def snapshots(self) -> dict[str, dict[str, str]]:
        """Manifests by snapshot id."""
        return {item["snapshot_id"]: item["manifest"] for item in self.pack["snapshots"]}

    @property
    def blobs(self) -> dict[str, bytes]:
        """Contents by blob id."""
        return {item["object_id"]: item["content"] for item in self.pack["blobs"]}


class Caller:
    """Somebody who talks to a hub.

    Args:
        app: the hub.
        user: their user id; None is anonymous.
    """

    def __init__(self, app: Flask, user: str | None = None) -> None:
        self.http = client_for(app, user)

    def get(self, path: str, *, accept: str = JSON, headers: Mapping[str, str] | None = None) -> TestResponse:
        """GET a path of the hub."""
        return self.http.get(path, headers={"Accept": accept, **(headers or {})})

    def post(self, path: str, body: Any, *, accept: str = JSON) -> TestResponse:
        """POST a JSON body to a path of the hub."""
        return self.http.post(path, json=body, headers={"Accept": accept})

    def post_bytes(self, path: str, data: bytes, content_type: str = MSGPACK, **headers: str) -> TestResponse:
        """POST bytes as they are."""
        return self.http.post(path, data=data, content_type=content_type, headers={"Accept": JSON, **headers})

    def refs(self, repo: str) -> TestResponse:
        """Ask for the branches of `owner/slug`."""
        return self.get(f"/{repo}/refs")

    def fetch(
        self, repo: str, want: Sequence[str], have: Sequence[str] = (), capabilities: Sequence[str] = ()
    ) -> TestResponse:
        """Ask for what `want` reaches and `have` does not."""
        body: dict[str, object] = {"want": list(want), "have": list(have)}
        if capabilities:
            body["capabilities"] = list(capabilities)
        return self.post(f"/{repo}/fetch", body)

    def negotiate(self, repo: str, want: Sequence[str], have: Sequence[str] = ()) -> TestResponse:
        """Ask which of `have` the repo holds."""
        return self.post(f"/{repo}/negotiate", {"want": list(want), "have": list(have)})

    def download(self, url: str) -> bytes:
        """GET a presigned URL: from object storage, or from the plugin where that serves the bytes itself."""
        parts = urlsplit(url)
        if parts.path.startswith(OPS_PREFIX):
            # Buffered: the file is closed once it is read.
            response = self.http.get(f"{parts.path}?{parts.query}", buffered=True)
            assert response.status_code == 200, response.get_data(as_text=True)
            return bytes(response.data)
        answer = urllib3.request("GET", url, retries=False, timeout=60)
        assert answer.status == 200, answer.status
        return bytes(answer.data)

    def pull(self, repo: str, want: Sequence[str], have: Sequence[str] = ()) -> Pulled:
        """Fetch, download, and check the bytes against `mpack_id`."""
        response = self.fetch(repo, want, have)
        assert response.status_code == 200, response.get_data(as_text=True)
        answer: dict[str, Any] = response.get_json()
        data = self.download(answer["mpack_url"])
        assert ids.blob_id(data) == answer["mpack_id"]
        return Pulled(answer, data, parse_wire_mpack(data))

    def presign(self, repo: str, pack: bytes) -> TestResponse:
        """Ask for leave to upload `pack`."""
        return self.post(f"/{repo}/push/presign", {"mpack_id": ids.blob_id(pack), "size_bytes": len(pack)})

    def upload(self, ticket: Mapping[str, Any], pack: bytes) -> int:
        """Send `pack` as a ticket says, and return the status of storage's answer."""
        method, headers = ticket["method"], dict(ticket["headers"])
        parts = urlsplit(ticket["upload_url"])
        if parts.path.startswith(OPS_PREFIX):
            return self.http.open(f"{parts.path}?{parts.query}", method=method, data=pack, headers=headers).status_code
        answer = urllib3.request(method, ticket["upload_url"], body=pack, headers=headers, retries=False, timeout=60)
        return answer.status

    def unpack(
        self,
        repo: str,
        mpack_id: str,
        head: str,
        *,
        branch: str = "main",
        expected_head: str | None = None,
        force: bool = False,
    ) -> TestResponse:
        """Have an uploaded mpack unpacked."""
        body = {
            "mpack_id": mpack_id,
            "branch": branch,
            "head_commit_id": head,
            "expected_head": expected_head,
            "force": force,
        }
        return self.post(f"/{repo}/push/unpack-mpack", body)

    def push(
        self,
        repo: str,
        pack: bytes,
        head: str,
        *,
        branch: str = "main",
        expected_head: str | None = None,
        force: bool = False,
    ) -> TestResponse:
        """Presign, upload and unpack; return the last answer."""
        ticket = self.presign(repo, pack)
        assert ticket.status_code == 200, ticket.get_data(as_text=True)
        if not ticket.get_json()["uploaded"]:
            assert self.upload(ticket.get_json(), pack) == 200
        return self.unpack(repo, ids.blob_id(pack), head, branch=branch, expected_head=expected_head, force=force)
