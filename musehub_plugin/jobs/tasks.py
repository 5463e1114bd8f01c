"""What a worker runs. Arguments are ids and nothing else, so that Redis never holds code or secrets."""

from __future__ import annotations

from musehub_plugin.build_job import run_build_job
from musehub_plugin.hub import current_hub
from musehub_plugin.index import index_mpack
from musehub_plugin.jobs.queue import request_repack
from musehub_plugin.repack import run_repack_job
from musehub_plugin.store.mpacks import repos_of


def index(mpack_id: str) -> int:
    """Run `mpack.index` in the app context that the worker provides; return how many blobs were indexed."""
    hub = current_hub()
    db = hub.database()
    count = index_mpack(hub, db, mpack_id)
    for repo_id in repos_of(db, mpack_id):
        request_repack(hub, repo_id)
    return count


def repack(repo_id: str) -> int:
    """Run `mpack.repack` in the app context that the worker provides; return how many packs were made."""
    hub = current_hub()
    return run_repack_job(hub, hub.database(), repo_id)


def build(plan_key: str) -> bool:
    """Run `mpack.build` in the app context that the worker provides; say whether the pack is there now."""
    hub = current_hub()
    return run_build_job(hub, hub.database(), plan_key)
