"""
Tests for L{moxtls}.
"""

from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine has to do.
settings.register_profile(
    "moxtls", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moxtls")
