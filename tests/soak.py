"""For `make soak` (`pytest -p tests.soak`): a hypothesis profile that tries far more than an ordinary run does."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
