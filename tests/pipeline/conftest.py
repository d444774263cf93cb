"""A data set curated from the embedded sample, made once and only read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from curated import Curated

from pipeline.chat.session import close_chats
from pipeline.run import main
from tests.fakes.endpoint import KEY


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    """The embedded sample, curated with the offline model. Tests don't write into it."""
    folder = tmp_path_factory.mktemp("curated") / "infir"
    assert main(["--output", str(folder)]) == 0
    return Curated(folder)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The key of the local endpoint, and no chat left open."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield
    close_chats()


@pytest.fixture(scope="session")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    """A part of the sample, with mined negatives. Tests don't write into it."""
    folder = tmp_path_factory.mktemp("mined") / "infir"
    assert main(["--output", str(folder), "--mine", "bm25", "--mine-k", "4", "--num-seeds", "80"]) == 0
    return Curated(folder)
