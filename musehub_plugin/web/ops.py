"""`{ops}/live`, `{ops}/ready` and `{ops}/metrics`: for load balancers and monitoring.

Live looks at nothing but the process: a database that is away is no reason to restart it. Ready asks each dependency,
each with a time-out of its own, and is 503 without database or storage; without Redis pushes and fetches go on, so
that is only `degraded`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from typing import Final

from flask import Blueprint, Response, request

from musehub_plugin.errors import NotFound, StorageUnavailable
from musehub_plugin.hub import current_hub
from musehub_plugin.jobs.queue import queue_answers
from musehub_plugin.metrics import render_metrics
from musehub_plugin.storage.base import Pings, Storage, ask
from musehub_plugin.store.session import database_answers
from musehub_plugin.web import problems
from musehub_plugin.web.negotiation import encode_response

_TIMEOUT: Final = 1.0


def make_ops_blueprint() -> Blueprint:
    """Return a blueprint with the resources above, to be registered below the ops prefix."""
    blueprint = Blueprint("musehub_ops", __name__)
    problems.register(blueprint)
    blueprint.add_url_rule("/live", view_func=get_live)
    blueprint.add_url_rule("/ready", view_func=get_ready)
    blueprint.add_url_rule("/metrics", view_func=get_metrics)
    return blueprint


def get_live() -> Response:
    """Answer 200: the process serves."""
    return encode_response({"status": "ok"}, _accept())


def get_ready() -> Response:
    """Answer 200 where database and storage answer, else 503; the body says how each is."""
    hub = current_hub()
    engine = hub.sqlalchemy.engines.get(hub.settings.bind_key)
    checks: dict[str, Callable[[], bool]] = {
        "database": lambda: engine is not None and database_answers(engine),
        "storage": lambda: _storage_answers(hub.storage),
    }
    if hub.settings.redis_url:
        checks["queue"] = lambda: queue_answers(hub)
    # Not as a context manager: that would wait for a check which hangs.
    pool = ThreadPoolExecutor(max_workers=len(checks))
    pending = {name: pool.submit(check) for name, check in checks.items()}
    found: dict[str, str] = {}
    for name, future in pending.items():
        try:
            found[name] = "ok" if future.result(timeout=_TIMEOUT) else "down"
        except TooSlow:
            found[name] = "down"
    pool.shutdown(wait=False, cancel_futures=True)
    ready = found["database"] == found["storage"] == "ok"
    status = "ok" if all(state == "ok" for state in found.values()) else "degraded" if ready else "down"
    return encode_response({"status": status, **found}, _accept(), status=200 if ready else 503)


def _storage_answers(storage: Storage) -> bool:
    if isinstance(storage, Pings):
        try:
            ask(storage.ping)
        except StorageUnavailable:
            return False
    return True


def get_metrics() -> Response:
    """Answer with the metrics in Prometheus' text form, to whoever has `MUSEHUB_METRICS_TOKEN`.

    404 for everybody else, and where the token is not set or `prometheus_client` is not installed.
    """
    token = current_hub().settings.metrics_token
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise NotFound("There is nothing here.")
    rendered = render_metrics(current_hub())
    if rendered is None:
        raise NotFound("prometheus_client is not installed: pip install 'musehub-plugin[metrics]'.")
    body, content_type = rendered
    return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def _accept() -> str:
    # People and load balancers look at these: JSON, unless msgpack is asked for by name.
    accept: str = request.headers.get("Accept", "")
    return accept if "msgpack" in accept else "application/json"
