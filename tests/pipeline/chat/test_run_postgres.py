from __future__ import annotations

from pathlib import Path

import pytest
from curated import Curated, write_source

from pipeline.chat.session import close_chats
from pipeline.run import main
from tests.fakes.endpoint import KEY, Endpoint, serving
from tests.fakes.writer import prose


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_two_machines_with_one_postgresql_store_pay_once_and_make_the_same_bytes(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    source = write_source(tmp_path / "source", {f"what does word {i} mean": prose(f"word {i}") for i in range(40)})
    with serving(Endpoint()) as endpoint:
        for machine in ("one", "two"):
            arguments = ["--source", str(source), "--output", str(tmp_path / machine), "--base-url", endpoint.url]
            assert main([*arguments, "--generator", "writer-1", "--judge", "judge-1", "--store", store]) == 0
            close_chats()
    assert sum(endpoint.log.served.values()) == 160
    assert Curated(tmp_path / "one").bytes == Curated(tmp_path / "two").bytes
    assert Curated(tmp_path / "two").manifest["calls"]["judge"]["from_memory"] == 40
    everything = capfd.readouterr()
    assert "planted-password" not in everything.out + everything.err
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"planted-password" not in file.read_bytes()
