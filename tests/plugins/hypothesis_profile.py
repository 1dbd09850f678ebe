"""The pytest plugin that takes Hypothesis's limits of wall-clock time away.

An example that takes longer than 200 ms, which any does on a machine that is busy, would fail its
test; the limit of the whole test stays.
"""

from hypothesis import HealthCheck, settings

__all__: list[str] = []

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
