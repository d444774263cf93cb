"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# pytest-xdist runs a process a core. With torch's own threads besides, each waits for a core that the other spins on: four times
# the time for tests/train/test_loss.py. Before anything imports torch, and for processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


@pytest.fixture
def realdata() -> Path:
    """Real MS MARCO text beside the checkout; tests that want it are extra and are skipped without it."""
    if not REALDATA.is_dir():
        pytest.skip("no shared/realdata beside the checkout")
    return REALDATA
