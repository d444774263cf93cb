from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tuples import GOOD

from pipeline.accounts import keep_accounts
from pipeline.records import Call, Deferred, Rejected, Seed, Tuple
from pipeline.shards import file_sha256, plan_shards, put_in_place, write_shard
from pipeline.splits import split_of
from pipeline.staging import PARTS, forget_other_waves, part_of, plan_waves, write_part
from pipeline.synthesis import Outcome

HASHES = dict.fromkeys(("instruct", "poison_instruction", "poison_query", "judge"), "0" * 16)


def outcomes(n: int) -> list[Outcome]:
    """Tuples with texts of their own, every seventh rejected, every nineteenth deferred."""
    made: list[Outcome] = []
    for i in range(n):
        texts = {
            name: f"{name} {i}" for name in ("query_positive", "document", "query_negative", "instruction_positive")
        }
        texts |= {f"hard_negative_document_{k}": f"negative {k} {i}" for k in (1, 2)}
        t = replace(
            GOOD, id=f"q{i}-d{i}", split=split_of(str(i)), calls=(Call("judge", "m", False, 1, 10, 4, 3, 2),), **texts
        )
        if i % 7 == 0:
            made.append(Rejected(replace(t, relevance=None), "check", "leak", "told"))
        elif i % 19 == 0:
            made.append(Deferred(replace(t, rationale=None), "judge", "budget", "reached"))
        else:
            made.append(t)
    return made


def id_of(outcome: Outcome) -> str:
    return outcome.id if isinstance(outcome, Tuple) else outcome.tuple.id


def stage(made: list[Outcome], wave_size: int, folder: Path) -> list[Path]:
    by_id = {id_of(outcome): outcome for outcome in made}
    seeds = [Seed(name, "q", "d", "query", "document") for name in by_id]
    waves = plan_waves(seeds, wave_size, {"a": 1}, folder)
    for wave in waves:
        wave.begin()
        parts: dict[int, list[Outcome]] = {}
        for seed in wave.seeds:
            parts.setdefault(part_of(seed.id), []).append(by_id[seed.id])
        for part in parts.items():
            write_part(part, str(wave.unfinished_folder), HASHES, "sample/train")
        wave.end()
    return [wave.folder for wave in waves]


def write_all(waves: list[Path], scratch: Path, output: Path, num_shards: int = 3) -> dict[str, str]:
    accounts = keep_accounts(waves)
    shards = plan_shards(accounts.splits, accounts.outcomes["rejected"], num_shards)
    for shard in shards:
        write_shard(shard, waves, accounts.gone, scratch)
    return {file["path"]: file["sha256"] for file in put_in_place(shards, scratch, output)}


def test_the_same_rows_give_the_same_bytes_in_any_order_and_any_wave_size(tmp_path: Path) -> None:
    made = outcomes(400)
    reference = write_all(stage(made, 1000, tmp_path / "one"), tmp_path / "s1", tmp_path / "o1")
    for trial, wave_size in enumerate((7, 64, 399)):
        shuffled = list(made)
        random.Random(trial).shuffle(shuffled)
        waves = stage(shuffled, wave_size, tmp_path / f"waves{trial}")
        assert write_all(waves, tmp_path / f"s{trial}x", tmp_path / f"o{trial}x") == reference


def test_every_outcome_lies_in_exactly_one_place(tmp_path: Path) -> None:
    made = outcomes(300)
    waves = stage(made, 90, tmp_path / "waves")
    paths = write_all(waves, tmp_path / "scratch", tmp_path / "out", num_shards=5)
    rows = {path: pq.read_table(tmp_path / "out" / path) for path in paths}
    accepted = [i for path, table in rows.items() if path.startswith("data/") for i in table["id"].to_pylist()]
    rejected = [i for path, table in rows.items() if path.startswith("rejected/") for i in table["id"].to_pylist()]
    assert sorted(accepted) == sorted(id_of(o) for o in made if isinstance(o, Tuple))
    assert sorted(rejected) == sorted(id_of(o) for o in made if isinstance(o, Rejected))
    for path, table in rows.items():
        assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
        if path.startswith("data/"):
            split = path.split("/")[1].split("-")[0]
            assert {split_of(i.split("-")[0][1:]) for i in table["id"].to_pylist()} <= {split}
    books = keep_accounts(waves)
    assert books.outcomes.total() == 300
    assert books.usage_where().prompt_tokens == 3000
    assert books.usage_where(outcome="rejected").prompt_tokens == 10 * len(rejected)


def test_a_tuple_that_the_whole_data_set_rejects_goes_to_rejected_with_its_reason(tmp_path: Path) -> None:
    made = outcomes(200)
    test_rows = [o for o in made if isinstance(o, Tuple) and o.split == "test"]
    train = next(o for o in made if isinstance(o, Tuple) and o.split == "train")
    leaking = replace(test_rows[0], hard_negative_document_1=train.document)
    made[made.index(test_rows[0])] = leaking
    waves = stage(made, 50, tmp_path / "waves")
    write_all(waves, tmp_path / "scratch", tmp_path / "out")
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    row = next(row for row in rejected if row["id"] == leaking.id)
    assert (row["stage"], row["reason"], row["split"]) == ("split", "split_leak", "test")
    assert train.id in row["detail"]
    assert leaking.id not in pq.read_table(tmp_path / "out" / "data")["id"].to_pylist()


def test_a_big_data_set_has_as_many_shards_as_its_rows_ask_for_and_a_small_one_eight() -> None:
    def planned(train: int, rejected: int, num_shards: int | None = None, **sizes: int) -> Counter[str]:
        rows = {"train": train, "validation": train // 20, "test": train // 20}
        return Counter(shard.kind for shard in plan_shards(rows, rejected, num_shards, **sizes))

    assert planned(100, 3) == {"train": 8, "validation": 1, "test": 1, "rejected": 1}
    assert planned(480_000, 60_001) == {"train": 48, "validation": 3, "test": 3, "rejected": 7}
    assert planned(480_000, 0, 5) == {"train": 5, "validation": 1, "test": 1, "rejected": 1}
    assert planned(480_000, 0, rows_per_shard=50_000)["train"] == 10


def test_files_of_an_earlier_layout_are_removed(tmp_path: Path) -> None:
    waves = stage(outcomes(60), 100, tmp_path / "waves")
    before = write_all(waves, tmp_path / "s1", tmp_path / "out", num_shards=4)
    after = write_all(waves, tmp_path / "s2", tmp_path / "out", num_shards=2)
    there = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.parquet")}
    assert there == set(after) != set(before)
    assert all(file_sha256(tmp_path / "out" / path) == digest for path, digest in after.items())


def test_a_wave_is_finished_only_when_it_is_whole_and_nothing_waits(tmp_path: Path) -> None:
    seeds = [Seed(f"q{i}-d{i}", f"q{i}", f"d{i}", "query", "document") for i in range(20)]
    (wave,) = plan_waves(seeds, 100, {"a": 1}, tmp_path)
    assert not wave.finished
    wave.begin()
    write_part((0, [Deferred(GOOD, "judge", "budget", "reached")]), str(wave.unfinished_folder), HASHES, "s")
    assert not wave.finished
    wave.end()
    assert wave.folder.is_dir()
    assert not wave.finished
    wave.begin()
    write_part((0, [GOOD]), str(wave.unfinished_folder), HASHES, "s")
    wave.end()
    assert wave.finished


@pytest.mark.parametrize("change", ["settings", "text", "split"])
def test_a_changed_setting_or_seed_never_meets_an_old_wave(tmp_path: Path, change: str) -> None:
    seed = Seed("q-d", "q", "d", "query", "document")
    (before,) = plan_waves([seed], 10, {"judge": "a"}, tmp_path)
    changed = {
        "settings": ([seed], {"judge": "b"}),
        "text": ([replace(seed, query="another")], {"judge": "a"}),
        "split": ([replace(seed, split="test")], {"judge": "a"}),
    }
    (after,) = plan_waves(changed[change][0], 10, changed[change][1], tmp_path)
    assert before.folder != after.folder


def test_other_waves_are_forgotten_and_ours_kept(tmp_path: Path) -> None:
    stage(outcomes(10), 100, tmp_path / "waves")
    kept = plan_waves(
        [Seed(id_of(o), "q", "d", "query", "document") for o in outcomes(10)], 100, {"a": 1}, tmp_path / "waves"
    )
    (tmp_path / "waves" / "stale").mkdir()
    forget_other_waves(tmp_path / "waves", [wave.folder for wave in kept])
    assert [p.name for p in (tmp_path / "waves").iterdir()] == [kept[0].folder.name]


def test_a_lone_surrogate_from_a_model_is_written_as_its_escape(tmp_path: Path) -> None:
    t = replace(GOOD, rationale="half \ud83d of a pair")
    write_part((0, [t]), str(tmp_path), HASHES, "s")
    assert pq.read_table(tmp_path / "part-00.parquet")["rationale"].to_pylist() == ["half \\ud83d of a pair"]


def test_parts_are_ranges_of_the_hash_so_that_a_shard_reads_its_share(tmp_path: Path) -> None:
    for shard in plan_shards({"train": 8, "validation": 1, "test": 1}, 0, 5):
        low, high = shard.parts
        for i in range(500):
            if shard.holds(f"q{i}"):
                assert low <= part_of(f"q{i}") < high <= PARTS
