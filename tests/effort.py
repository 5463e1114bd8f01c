"""How hard properties are tried.

A run of the tests tries the same examples each time, so that it says something about what changed and nothing about
luck. `MUSEHUB_FUZZ=5` draws fresh ones instead, and five times as many: `make fuzz` does, to find what those miss.
What it finds becomes an example of its test, or a test of its own.

Importing this makes it so, also for properties that say nothing of it; `conftest.py` does before any is defined.
"""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings

FUZZ: Final = int(os.environ.get("MUSEHUB_FUZZ", "0"))
"""How many times as many examples are tried, all of them fresh; 0: the same ones each time."""


def effort(examples: int, *, shared_fixtures: bool = False, shrinks: bool = True, **more: Any) -> settings:
    """Return the settings of a property.

    Args:
        examples: how many are tried.
        shared_fixtures: the examples do not mind that fixtures are made once for all of them.
        shrinks: search for a smaller example where one fails. Where each sends requests through real parts, that
            takes minutes.
        more: further settings of hypothesis.
    """
    # How long an example takes says something about the machine and nothing about the code.
    checks = [HealthCheck.too_slow, *([HealthCheck.function_scoped_fixture] if shared_fixtures else [])]
    phases = Phase if shrinks else (Phase.explicit, Phase.generate)
    return settings(
        max_examples=examples * max(1, FUZZ),
        deadline=None,
        derandomize=not FUZZ,
        phases=tuple(phases),
        print_blob=True,
        suppress_health_check=checks,
        **more,
    )


settings.register_profile("musehub", effort(100))
settings.load_profile("musehub")
if not FUZZ:
    # Hypothesis would also try constants of the modules that are loaded: those of whatever tests ran before.
    pytest.MonkeyPatch().setattr(
        "hypothesis.internal.conjecture.providers.is_local_module_file", lambda path: False, raising=False
    )
