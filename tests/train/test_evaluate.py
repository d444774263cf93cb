from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.records import CONTEXTS, PASSAGES
from tests.train.conftest import record
from train import evaluate, metrics
from train.cache import embed
from train.data import load_rows
from train.encoder import Encoder, EncoderOptions
from train.figures import by_query, figure, paired_p
from train.inputs import Context
from train.scoring import Candidates, DenseScorer, Standings


def run(shards: Path, tmp_path: Path, *flags: str) -> int:
    return evaluate.main([str(shards), "--output", str(tmp_path / "out" / "result.json"), *flags])


def result_of(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "result.json").read_text())  # type: ignore[no-any-return]


def collection(folder: Path) -> Path:
    """Three queries with graded passages; a passage holds U+2028, which ends no line."""
    folder.mkdir()
    texts = {str(n): f"the {word} {n} is short" for n, word in enumerate(["bridge", "river", "engine", "garden"])}
    texts["3"] += "\u2028and long"
    (folder / "collection.tsv").write_text("".join(f"{pid}\t{text}\n" for pid, text in texts.items()))
    (folder / "queries.dev.tsv").write_text("7\twhat is the bridge 0\n8\twhat is the river 1\n9\tno judgement\n")
    (folder / "qrels.dev.graded.txt").write_text("7 0 0 3\n7 0 1 1\n8 0 1 2\n8 0 2 0\n")
    return folder


def test_every_figure_of_several_models_is_written(shards: Path, tiny: Path, tmp_path: Path) -> None:
    plain = collection(tmp_path / "dl")
    flags = ("--model", f"one={tiny}", "--model", f"two={tiny}", "--bm25", "--benchmark", f"{plain}:dev")
    assert run(shards, tmp_path, *flags, "--distractors", str(plain)) == 0
    result = result_of(tmp_path)
    assert list(result["models"]) == ["one", "two", "BM25", "BM25, no instruction"]
    assert result["data"]["tuples"] == 8
    assert result["data"]["passages"] == 24 + result["data"]["distractors"]
    one, two = result["models"]["one"], result["models"]["two"]
    assert one["overall"] == two["overall"]
    assert set(two["p_values"].values()) == {1.0}
    assert {"accuracy (I+,Q+)", "strict accuracy", "p-MRR", "nDCG@10", "MRR@10", "Recall@100", "Robustness@10", "SICR",
            "WISE", "dl nDCG@10"} <= set(one["overall"])  # fmt: skip
    assert set(one["dimension"]) == {"length", "layout", "figures"}
    assert one["overall"]["dl nDCG@10"]["queries"] == 2
    assert all(cell["low"] <= cell["mean"] <= cell["high"] for cell in one["overall"].values())
    table = (tmp_path / "out" / "result.md").read_text()
    assert "≈" in table
    assert "| p-MRR |" in table
    assert (tmp_path / "out" / "result.png").read_bytes().startswith(b"\x89PNG")


def test_figures_are_those_of_runs_ranked_one_by_one(shards: Path, tiny: Path) -> None:
    """The fast path over dense scores agrees with the definitions over runs of ids."""
    encoder = Encoder.load(str(tiny), EncoderOptions())
    rows = load_rows(str(shards), "test")
    candidates = Candidates.of(rows, distractors=["the river 99 is short", "the castle 98 is short"])
    scorer = DenseScorer(encoder, encoder.passages(candidates.texts))
    values = Standings.of(scorer, candidates).values(candidates.queries)
    ids = [f"{place:04d}" for place in range(len(candidates.texts))]

    def run_of(context: Context) -> dict[str, float]:
        return dict(zip(ids, scorer.scores([context])[0].tolist(), strict=True))

    changes, ndcgs, lowest, wins = [], [], [], []
    for row in rows:
        gold, rival = (ids[candidates.texts.index(row[name])] for name in PASSAGES[:2])
        runs = [run_of(Context(row[query], row[instruction])) for instruction, query in CONTEXTS]
        changes.append(metrics.p_mrr({"q": runs[0]}, {"q": runs[1]}, {"q": [gold]}))
        ndcgs.append(metrics.ndcg(runs[0], {gold: 1}))
        lowest.append(min(ndcgs[-1], metrics.ndcg(runs[1], {rival: 1})))
        places = [ids[candidates.texts.index(row[name])] for name in PASSAGES]
        wins.append([all(r[places[i]] > r[places[j]] for j in range(3) if j != i) for i, r in enumerate(runs)])
    assert np.allclose(values["p-MRR"], changes, atol=1e-9)
    assert np.allclose(values["nDCG@10"], ndcgs, atol=1e-9)
    assert np.allclose(values["Robustness@10"], lowest, atol=1e-9)
    assert np.allclose(values["strict accuracy"], np.array(wins).all(axis=1))


def test_kept_embeddings_are_used_for_the_same_weights_and_texts_alone(
    shards: Path, tiny: Path, tmp_path: Path
) -> None:
    flags = ("--model", str(tiny), "--cache", str(tmp_path / "kept"))
    assert run(shards, tmp_path, *flags) == 0
    first = result_of(tmp_path)["models"]
    (file,) = (tmp_path / "kept").iterdir()
    np.save(file, -np.load(file))  # turned round, so that their use shows
    assert run(shards, tmp_path, *flags) == 0
    assert result_of(tmp_path)["models"] != first
    assert run(shards, tmp_path, *flags, "--passage-length", "8") == 0
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--split", "dev"), "holds no data/dev-"),
        (("--benchmark", "nowhere"), "expected FOLDER:SPLIT"),
        (("--benchmark", "nowhere:dev"), "can't be read"),
        (("--distractors", "nowhere"), "can't be read"),
        (("--model", "no-such-model"), "can't be loaded"),
    ],
)
def test_bad_input_is_one_sentence(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...], expected: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(shards, tmp_path, "--model", str(tiny), *flags) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", ["7 0 0", "7 0 0 high"])
def test_a_broken_line_is_named(
    shards: Path, tiny: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = collection(tmp_path / "dl")
    (plain / "qrels.dev.graded.txt").write_text(f"7 0 1 1\n{line}\n")
    assert run(shards, tmp_path, "--model", str(tiny), "--benchmark", f"{plain}:dev") == 2
    assert "qrels.dev.graded.txt:2: " in capsys.readouterr().err


def test_two_models_of_one_name_are_refused(
    shards: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shards, tmp_path, "--model", f"x={tiny}", "--model", f"x={tiny}") == 2
    assert "two models of that name" in capsys.readouterr().err


def test_bm25_knows_words_and_with_instructions_their_words_too(shards: Path) -> None:
    from train.baselines import Bm25Scorer

    texts = ["a river runs", "a bridge stands", "details of bridges"]
    asked = [Context("bridge", "river please"), Context("unheard word")]
    alone, joined = (Bm25Scorer(texts, instructions=flag).scores(asked) for flag in (False, True))
    assert alone[0].argmax() == 1
    assert alone[0, 0] == 0 < joined[0, 0]
    assert not alone[1].any()


def test_an_interval_covers_the_mean_it_is_for() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        cell = figure(random.normal(loc=0.3, size=60), seed)
        covered += cell.low <= 0.3 <= cell.high
    assert 87 <= covered <= 100  # 95 expected, 3 standard deviations around


def test_a_paired_test_supports_a_steady_difference_and_not_noise() -> None:
    random = np.random.default_rng(1)
    noise = random.normal(size=200)
    assert paired_p(noise + 0.2, noise + random.normal(scale=0.1, size=200)) < 0.01
    assert paired_p(noise, random.permutation(noise)) > 0.05
    assert paired_p(noise, noise) == 1.0


def test_a_querys_tuples_are_averaged_first() -> None:
    assert by_query(np.array([1.0, 0.0, 1.0]), ["a", "b", "a"]).tolist() == [1.0, 0.0]
    assert by_query(np.array([1.0, 0.0, 0.0]), ["a", "a", "b"]).tolist() == [0.5, 0.0]


def test_equal_passages_of_two_tuples_are_ranked_once(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = Dataset.from_list([record(0), record(1, document=record(0)["document"])])
    candidates = Candidates.of(rows, distractors=[record(0)["document"]])
    assert len(candidates.texts) == 5
    assert candidates.place[0, 0] == candidates.place[1, 0]


def test_mteb_runs_with_the_models_own_format(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a task made here: mteb hands query and instruction apart, and the model's template joins them."""
    from mteb.abstasks import AbsTaskRetrieval
    from rich.console import Console

    from train.public_tasks import run_mteb

    class Task(AbsTaskRetrieval):
        metadata = task_metadata()

        def load_data(self, *args: Any, **kwargs: Any) -> None:
            from datasets import Dataset

            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list([{"id": f"d{n}", "text": record(n)["document"]} for n in range(5)]),
                        "queries": Dataset.from_list(
                            [{"id": "q0", "text": "what is the bridge 0", "instruction": "in few words"}]
                        ),
                        "relevant_docs": {"q0": {"d0": 1}},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    seen: list[Context] = []
    encoder = Encoder.load(str(tiny), EncoderOptions())
    real = encoder.contexts
    monkeypatch.setattr(encoder, "contexts", lambda contexts: [seen.extend(contexts), real(contexts)][1])
    found = run_mteb(encoder, "tiny", Console(quiet=True), [Task()])
    assert 0 <= found["TinyInstructions"]["ndcg_at_10"] <= 1
    assert seen == [Context("what is the bridge 0", "in few words")]


def task_metadata() -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name="TinyInstructions", description="A task made by a test.", dataset={"path": "none/none", "revision": "0"},
        type="Retrieval", category="t2t", modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"],
        main_score="ndcg_at_10", reference=None, date=None, domains=None, task_subtypes=None, license=None,
        annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
    )  # fmt: skip


def test_mteb_without_its_data_is_one_sentence_and_the_other_figures_are_kept(
    shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert run(shards, tmp_path, "--model", str(tiny), "--mteb") == 2
    said = capsys.readouterr().err
    assert "its data comes from the Hub" in said
    assert said.count("\n") == 1
    assert result_of(tmp_path)["models"][str(tiny)]["overall"]["strict accuracy"]


def test_encoders_that_share_their_passages_encoder_encode_them_once(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the bridge is long", "the bridge is new"]
    untuned, tuned = (Encoder.load(str(tiny), EncoderOptions()) for _ in range(2))
    tuned.part()
    with torch.no_grad():
        next(tuned.model.parameters()).mul_(2)
    first = embed(untuned, texts, None, lambda _done, _total: None)
    monkeypatch.setattr(Encoder, "passages", lambda *_: pytest.fail("they were encoded already"))
    assert embed(tuned, texts, None, lambda _done, _total: None) is first
