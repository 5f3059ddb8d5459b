"""Reference data that lie beside the project where it is developed; users have only the project."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
TILT = SHARED / "tilt"
needs_shared_data = pytest.mark.skipif(not TILT.is_dir(), reason="the reference data are not beside the project")
