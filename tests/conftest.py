"""Fixtures and settings that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# The machine may serve several test runs at once, so a slow example says nothing.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(autouse=True, scope="session")
def _no_journal_from_the_environment() -> Iterator[None]:
    """Keep tests away from the journal of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DURABLE_FLOW_DATABASE_URL", raising=False)
        yield
