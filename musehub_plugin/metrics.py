"""Metrics for Prometheus, where `prometheus_client` is installed; nothing at all where it is not.

Names and labels follow Prometheus' naming rules: base units, `_total` on counters, few label values, and never a repo,
a user or an object as a label. They are in the process' default registry, so a host that exports metrics already
exports these too. Where `PROMETHEUS_MULTIPROC_DIR` names a folder, those of all processes that share it are added up.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from musehub_plugin import signals
from musehub_plugin.store import jobs

if TYPE_CHECKING:
    from musehub_plugin.hub import Hub

try:
    import prometheus_client
except ImportError:
    prometheus_client = None  # type: ignore[assignment]  # the extra `metrics` is not installed


class _Metrics:
    def __init__(self) -> None:
        counter = prometheus_client.Counter
        self.fetches = counter("musehub_fetches_total", "Fetches answered", ["outcome"])
        self.fetch_bytes = counter("musehub_fetch_bytes_total", "Bytes of the mpacks that fetches were answered with")
        self.fetch_commits = counter("musehub_fetch_commits_total", "Commits that fetches were answered with")
        self.pushes = counter("musehub_pushes_total", "Pushes stored")
        self.push_commits = counter("musehub_push_commits_total", "Commits in the mpacks that were pushed")
        self.indexed = counter("musehub_index_jobs_total", "Pushed mpacks that a job has indexed")
        self.indexed_blobs = counter("musehub_indexed_blobs_total", "Blobs in the mpacks that a job has indexed")
        self.swept = counter("musehub_sweeper_requeued_total", "Jobs that the queue had lost")
        self.integrity = counter("musehub_integrity_errors_total", "Bytes or rows missing or wrong", ["kind"])
        self.collected = counter("musehub_gc_removed_total", "What garbage collection removed", ["kind"])
        self.waiting = prometheus_client.Gauge(
            "musehub_jobs", "Jobs on record that are not done", ["state"], multiprocess_mode="mostrecent"
        )
        self.oldest = prometheus_client.Gauge(
            "musehub_oldest_pending_job_seconds",
            "Age of the oldest job that is not done",
            multiprocess_mode="mostrecent",
        )


@cache
def count_signals() -> None:
    """Count what the signals say, from now on and once per process."""
    if prometheus_client is None:
        return
    metrics = _metrics()

    sent, nothing_new = (metrics.fetches.labels(outcome) for outcome in ("sent", "nothing_new"))

    def fetched(_: object, *, answer: Any, **__: object) -> None:
        if not answer.commit_count:
            nothing_new.inc()
            return
        sent.inc()
        metrics.fetch_bytes.inc(answer.size_bytes)
        metrics.fetch_commits.inc(answer.commit_count)

    def pushed(_: object, *, result: Any, **__: object) -> None:
        metrics.pushes.inc()
        metrics.push_commits.inc(result.commit_count)

    def indexed(_: object, *, blob_count: int, **__: object) -> None:
        metrics.indexed.inc()
        metrics.indexed_blobs.inc(blob_count)

    def swept(_: object, *, count: int, **__: object) -> None:
        metrics.swept.inc(count)

    def damaged(_: object, *, kind: str, **__: object) -> None:
        metrics.integrity.labels(kind).inc()

    def collected(_: object, *, collected: Any, **__: object) -> None:
        if not collected.dry_run:
            for kind in ("commits", "snapshots", "blobs", "mpacks", "fetch_packs", "uploads"):
                metrics.collected.labels(kind).inc(getattr(collected, kind))

    # weak=False: the functions live as long as the process.
    signals.fetched.connect(fetched, weak=False)
    signals.pushed.connect(pushed, weak=False)
    signals.indexed.connect(indexed, weak=False)
    signals.swept.connect(swept, weak=False)
    signals.integrity_error.connect(damaged, weak=False)
    signals.collected.connect(collected, weak=False)


def render_metrics(hub: Hub) -> tuple[bytes, str] | None:
    """Return all metrics and their content type; None where `prometheus_client` is not installed.

    Of this process; with `PROMETHEUS_MULTIPROC_DIR`, of all processes that share that folder.
    """
    if prometheus_client is None:
        return None
    metrics = _metrics()
    backlog = jobs.backlog(hub.database())
    for state in (jobs.PENDING, jobs.RUNNING, jobs.FAILED):
        metrics.waiting.labels(state).set(backlog.counts.get(state, 0))
    metrics.oldest.set(backlog.oldest_seconds)
    registry = prometheus_client.REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = prometheus_client.CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped in prometheus_client
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST


@cache
def _metrics() -> _Metrics:
    return _Metrics()
