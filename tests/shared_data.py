"""Measured data: a small series lies in the repository; more lies beside the project where it is developed."""

from pathlib import Path

NEEDLE = Path(__file__).parent / "data" / "needle"
SHARED = Path(__file__).parents[2] / "shared" / "data"  # a test that needs it skips where it is absent
