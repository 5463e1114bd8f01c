"""A small host whose fetch answers in the ways that capabilities agree on: several, in the body, and thin."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack
from flask import Flask, Response, request, send_file
from werkzeug.serving import make_server

from musehub_plugin import ids
from musehub_plugin.client import Workdir
from musehub_plugin.client.building import built_mpack
from musehub_plugin.client.history import History
from musehub_plugin.client.progress import silent
from musehub_plugin.client.record import wire_from_record
from musehub_plugin.mpack import BaseBlob, MPackWriter


@dataclass
class Offering:
    """One repo, `ada/engine`, and how it is offered.

    Attributes:
        workdir: what is in it.
        stages: commits, oldest first: with `mpacks` each stage comes in a pack of its own.
        capabilities: what `refs` lists.
        inline_bytes: packs of up to so many bytes come in the answer, where that is agreed on.
        as_json: answer fetches in JSON.
        spoiled: flip a bit of what comes in an answer.
        other_base: make thin packs against another blob than the receiver holds.
        asked: the bodies of the fetches.
        origin: `http://127.0.0.1:port`.
    """

    workdir: Workdir
    stages: Sequence[str]
    capabilities: Sequence[str] = ("mpacks", "inline")
    inline_bytes: int = 0
    as_json: bool = False
    spoiled: bool = False
    other_base: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    origin: str = ""
    packs: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The repo's URL."""
        return f"{self.origin}/ada/engine"

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of a fetch."""
        self.asked.append(asked)
        agreed = asked.get("capabilities", [])
        stages = self.stages if "mpacks" in agreed else self.stages[-1:]
        held = list(asked["have"])
        entries = []
        for stage in stages:
            history = History(self.workdir)
            if not history.missing([stage], held):
                continue
            if "thin" in agreed:
                content = thin_mpack(self.workdir, history.missing([stage], held), held[0], spoiled=self.other_base)
            else:
                with built_mpack(self.workdir, history, [stage], held, silent) as built:
                    content = built.path.read_bytes()
            mpack_id = ids.blob_id(content)
            self.packs[ids.to_hex(mpack_id)] = content
            held.append(stage)
            entries.append(self._entry(mpack_id, content, inline="inline" in agreed))
        total = sum(entry["size_bytes"] for entry in entries)
        if len(entries) > 1:
            return {"mpack_url": None, "mpack_id": None, "size_bytes": total, "mpacks": entries}
        if not entries:
            return {"mpack_url": None, "mpack_id": None, "size_bytes": 0}
        single = entries[0]
        return {"mpack_url": single.pop("url", None), "mpack_id": single.pop("id"), **single}

    def _entry(self, mpack_id: str, content: bytes, *, inline: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": mpack_id, "size_bytes": len(content)}
        if not inline or len(content) > self.inline_bytes:
            return {**entry, "url": f"/storage/{ids.to_hex(mpack_id)}"}
        if self.spoiled:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return {**entry, "mpack": base64.b64encode(content).decode() if self.as_json else content}


def thin_mpack(workdir: Workdir, commits: Sequence[str], base: str, *, spoiled: bool = False) -> bytes:
    """Return the thin mpack of some commits, each the child of the one before, the first of `base`.

    Args:
        workdir: what holds them.
        commits: the commits.
        base: a commit that the receiver has.
        spoiled: let the blobs start from something else than the receiver has.
    """
    records = {commit_id: workdir.read_commit(commit_id) for commit_id in (base, *commits)}
    snapshots = {commit_id: ids.PREFIX + record["snapshot_id"] for commit_id, record in records.items()}
    held = workdir.read_snapshot(snapshots[base])
    out = io.BytesIO()
    with MPackWriter(out, bases=[(snapshots[base], held)]) as writer:
        new = {}
        for commit_id in commits:
            for path, object_id in workdir.read_snapshot(snapshots[commit_id]).items():
                if object_id not in held.values():
                    new[object_id] = path
        for object_id, path in new.items():
            before = held.get(path)
            start = None
            if before is not None:
                content = workdir.read_blob(before)
                start = BaseBlob(0, path, content[9:] + content[:9] if spoiled else content)
            writer.add_blob(object_id, workdir.read_blob(object_id), base=start)
        before_manifest, number = held, 0
        for commit_id in commits:
            manifest = workdir.read_snapshot(snapshots[commit_id])
            writer.add_snapshot_delta(
                snapshots[commit_id],
                before_manifest.keys() - manifest.keys(),
                manifest,
                derivable=True,
                start=0 if number == 0 else None,
            )
            before_manifest, number = manifest, number + 1
        for commit_id in commits:
            writer.add_commit(wire_from_record(records[commit_id], repo_id=workdir.repo_id))
    return out.getvalue()


def make_offering_app(offering: Offering) -> Flask:
    """Return the host."""
    app = Flask("offering")

    def encoded(value: object) -> Response:
        if offering.as_json:
            return Response(app.json.dumps(value), mimetype="application/json")
        return Response(msgpack.packb(value), mimetype="application/x-msgpack")

    @app.get("/ada/engine/refs")
    def refs() -> Response:
        return encoded(
            {
                "repo_id": offering.workdir.repo_id,
                "default_branch": "main",
                "branch_heads": offering.workdir.branches(),
                "capabilities": list(offering.capabilities),
            }
        )

    @app.post("/ada/engine/negotiate")
    def negotiate() -> Response:
        asked = msgpack.unpackb(request.get_data())
        known = [have for have in asked["have"] if offering.workdir.has_commit(have)]
        return encoded({"ack": known, "common_base": None, "ready": True})

    @app.post("/ada/engine/fetch")
    def fetch() -> Response:
        return encoded(offering.answer(msgpack.unpackb(request.get_data())))

    @app.get("/storage/<name>")
    def storage(name: str) -> Response:
        return send_file(
            io.BytesIO(offering.packs[name]), mimetype="application/octet-stream", conditional=True, etag=name
        )

    return app


@contextmanager
def offered(offering: Offering) -> Iterator[Offering]:
    """Run the host on a loopback port for as long as it is used."""
    server = make_server("127.0.0.1", 0, make_offering_app(offering), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    offering.origin = f"http://127.0.0.1:{server.server_port}"
    try:
        yield offering
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
