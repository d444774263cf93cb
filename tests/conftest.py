"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


@pytest.fixture
def realdata() -> Path:
    """Real MS MARCO text beside the checkout; tests that want it are extra and are skipped without it."""
    if not REALDATA.is_dir():
        pytest.skip("no shared/realdata beside the checkout")
    return REALDATA
