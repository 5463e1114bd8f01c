"""Signals for the host, by blinker. The sender is the Flask app.

Receivers run in the request or job that sends, after the work is done; what they raise is not caught.
"""

from blinker import Namespace

_signals = Namespace()

#: A fetch was answered. Arguments: `repo`, `identity`, `answer` (a `musehub_plugin.fetch.FetchAnswer`; its URL is a
#: secret, do not log it).
fetched = _signals.signal("musehub-fetched")

#: A push was stored and its branch moved. Arguments: `repo`, `identity`, `branch`, `head_commit_id`, `result` (a
#: `musehub_plugin.push.Unpacked`).
pushed = _signals.signal("musehub-pushed")

#: An mpack was indexed, so that what it holds can be fetched. Arguments: `mpack_id`, `blob_count`.
indexed = _signals.signal("musehub-indexed")

#: A step of a use case was reached. Arguments: `name`, such as "unpack.committed". Sent only where somebody listens:
#: tracing, and the fault tests, which end the process at each step in turn. The sender is None.
step = _signals.signal("musehub-step")


def reached(name: str) -> None:
    """Say that a step was reached."""
    if step.receivers:
        step.send(None, name=name)
