"""From the pipeline's own sample to figures: curated offline, fitted, evaluated, in the three commands of the README."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.run import main as curate
from tests.train.conftest import vocabulary
from train.data import load_rows, shared_wordings
from train.evaluate import main as evaluate
from train.fit import main as fit


@pytest.fixture(scope="session")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curated") / "infir"
    assert curate(["--output", str(folder), "--num-shards", "2"]) == 0
    return folder


def test_no_wording_of_the_test_split_is_trained_on(curated: Path) -> None:
    train, test = load_rows(str(curated), "train"), load_rows(str(curated), "test")
    known, asked = shared_wordings(train, test)
    assert known == 0 < asked
    assert not set(train["wording_group"]) & set(test["wording_group"])


def test_an_encoder_learns_what_the_sample_teaches(
    curated: Path, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """A two-layer encoder with random weights can't follow wordings that it never saw, so its training rows tell."""
    rows = [*load_rows(str(curated), "train"), *load_rows(str(curated), "test")]
    untuned, tuned = make_encoder(vocabulary(rows), hidden=64, dropout=0.0), tmp_path / "tuned"
    settings = ["--objective", "multi:P,IQ", "--epochs", "7", "--batch-size", "8", "--learning-rate", "3e-3"]
    assert fit([str(curated), "--model", str(untuned), "--output", str(tuned), *settings]) == 0
    figures = {}
    for split in ("train", "test"):
        file = tmp_path / f"{split}.json"
        models = ["--model", f"untuned={untuned}", "--model", f"tuned={tuned}", "--bm25"]
        assert evaluate([str(curated), *models, "--split", split, "--output", str(file)]) == 0
        figures[split] = json.loads(file.read_text())["models"]
    before, after = (figures["train"][name]["overall"] for name in ("untuned", "tuned"))
    for metric in ("strict accuracy", "accuracy (I+,Q+)", "nDCG@10", "p-MRR"):
        assert after[metric]["low"] > before[metric]["high"], metric
    assert set(figures["test"]) == {"untuned", "tuned", "BM25", "BM25, no instruction"}
