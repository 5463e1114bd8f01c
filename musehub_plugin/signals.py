"""Signals for the host, by blinker. The sender is the Flask app.

Receivers run in the request or job that sends, after the work is done; what they raise is not caught.
"""

from __future__ import annotations

import logging

from blinker import Namespace

logger = logging.getLogger(__name__)

_signals = Namespace()

#: A fetch was answered. Arguments: `repo`, `identity`, `answer` (a `musehub_plugin.fetch.FetchAnswer`; its URL is a
#: secret, do not log it; it has none where the released muse command got the history itself).
fetched = _signals.signal("musehub-fetched")

#: A push was stored and its branch moved. Arguments: `repo`, `identity`, `branch`, `head_commit_id`, `result` (a
#: `musehub_plugin.push.Unpacked`).
pushed = _signals.signal("musehub-pushed")

#: An mpack was indexed, so that what it holds can be fetched. Arguments: `mpack_id`, `blob_count`.
indexed = _signals.signal("musehub-indexed")

#: Jobs that the queue had lost were put on it again. Arguments: `count`. The sender is None.
swept = _signals.signal("musehub-swept")

#: Garbage was collected. Arguments: `collected` (a `musehub_plugin.gc.Collected`). The sender is None.
collected = _signals.signal("musehub-collected")

#: Bytes or rows are missing or wrong. Arguments: `kind` (a slug), `subject` (an id). The sender is None. What could be
#: served from elsewhere was; still, somebody should run `flask musehub verify`.
integrity_error = _signals.signal("musehub-integrity-error")

#: A step of a use case was reached. Arguments: `name`, such as "unpack.committed". Sent only where somebody listens:
#: tracing, and the fault tests, which end the process at each step in turn. The sender is None.
step = _signals.signal("musehub-step")


def reached(name: str) -> None:
    """Say that a step was reached."""
    if step.receivers:
        step.send(None, name=name)


def report_damage(kind: str, subject: str, says: str) -> None:
    """Log that something is missing or wrong, and send `integrity_error`.

    Args:
        kind: a slug, one of few: it becomes a label of a metric.
        subject: the id of what is missing or wrong.
        says: one sentence for the operator.
    """
    logger.error("integrity: %s: %s: %s", kind, subject, says)
    integrity_error.send(None, kind=kind, subject=subject)
