"""
Tests for L{moxtls}.
"""

from hypothesis import HealthCheck, settings

# The duration of an example depends on the load of the machine.
settings.register_profile(
    "moxtls", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moxtls")

#: Seconds after which a test that waits for a process, a thread or a socket is
#: ended, as it hangs.  Nothing takes that long on any machine, however busy: how
#: long something takes is never what a test is about.
MAX_WAIT = 180
