"""How much a race does, and what it keeps."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Effort:
    """How much of each is done.

    Attributes:
        rounds: how often git and the hub take turns.
        requests: how many requests of a kind a round has at most.
        seconds: how long a load goes on that can be repeated.
    """

    rounds: int = 5
    requests: int = 300
    seconds: float = 1.5


@dataclass
class Results:
    """All samples of one history.

    Attributes:
        samples: `{what: {who: [values]}}`; what a value is, is in the name: seconds, requests a second, bytes.
        facts: single figures, by name.
    """

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, who: str, *values: float) -> None:
        """Keep values."""
        self.samples.setdefault(what, {}).setdefault(who, []).extend(values)

    def median(self, what: str, who: str) -> float | None:
        """Return the median of what was kept; None where there is nothing."""
        values = self.samples.get(what, {}).get(who)
        return statistics.median(values) if values else None
