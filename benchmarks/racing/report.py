"""What was measured as tables, each ratio beside its target."""

from __future__ import annotations

import statistics
from typing import Any


def table(measured: dict[str, Any]) -> str:
    """Return all medians as text."""
    lines = []
    for history in measured["histories"]:
        lines.append(f"== {history['name']}")
        for what, by in history["samples"].items():
            for who, values in by.items():
                middle = statistics.median(values)
                lines.append(f"{what:<52} {who:<22} {middle:>14,.4f}  ({min(values):,.4f} to {max(values):,.4f})")
        for name, fact in history["facts"].items():
            lines.append(f"{name}: {fact}")
    return "\n".join(lines)
