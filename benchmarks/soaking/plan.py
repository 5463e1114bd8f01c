"""What goes wrong in a soak, and when: the same for the same seed.

Four tracks run beside each other, so that a worker may be killed while object storage is away and garbage is
collected: `kills` of single processes and connections, `outages` of whole servers, and `chores` and `checks`, which
are an operator's own commands. Each track goes through its kinds in rounds, shuffled anew, so that none is left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TRACKS: Final[dict[str, tuple[str, ...]]] = {
    "kills": ("web-killed", "worker-killed", "job-killed", "connections-cut"),
    "outages": (
        "redis-flushed",
        "redis-restarted-empty",
        "redis-stopped",
        "storage-stopped",
        "storage-frozen",
        "postgresql-restarted",
        "postgresql-crashed",
        "postgresql-frozen",
    ),
    "chores": ("gc", "sweep"),
    "checks": ("verify", "verify-repair"),
}
# Mean seconds between the end of one and the start of the next.
_GAPS: Final = {"kills": 5.0, "outages": 9.0, "chores": 4.0, "checks": 20.0}
_LONGEST_OUTAGE: Final = 4.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        wait: seconds since the one before it on its track.
        kind: one of `TRACKS`.
        lasts: seconds until it is over, for those that last.
        choice: 0 up to 1: which of several processes is hit.
    """

    wait: float
    kind: str
    lasts: float
    choice: float


def faults(seed: int, track: str, seconds: float) -> Iterator[Fault]:
    """Yield a track's faults, without end.

    Args:
        seed: decides kinds, order and times.
        track: a key of `TRACKS`.
        seconds: how long the load lasts; a short one has its faults closer together, so that each kind occurs.
    """
    chance = random.Random(f"{seed} {track}")
    kinds = TRACKS[track]
    gap = min(_GAPS[track], seconds / (2 * len(kinds)))
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            yield Fault(
                wait=gap * chance.uniform(0.5, 1.5),
                kind=kind,
                lasts=chance.uniform(0.25, 1.0) * min(_LONGEST_OUTAGE, gap),
                choice=chance.random(),
            )
