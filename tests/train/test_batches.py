from __future__ import annotations

from collections import Counter

import pytest
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from tests.train.conftest import record
from train.batches import Collator, OneQueryBatchSampler, RowOptions
from train.inputs import Context, ContextFormat


@given(
    queries=st.lists(st.integers(0, 8), min_size=1, max_size=40),
    size=st.integers(1, 7),
    processes=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_no_step_holds_two_tuples_of_a_query_and_each_tuple_comes_once(
    queries: list[int], size: int, processes: int, epoch: int
) -> None:
    rows = Dataset.from_dict({"query_positive": [f"Query  {number}" for number in queries]})
    sampler = OneQueryBatchSampler(rows, size, seed=1)
    sampler.processes = processes
    sampler.steps = max(-(-len(queries) // (size * processes)), *Counter(queries).values())
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(len(batch) <= size for batch in batches)
    assert sorted(index for batch in batches for index in batch) == list(range(len(queries)))
    shards = [BatchSamplerShard(sampler, processes, rank, even_batches=False) for rank in range(processes)]
    assert [batch for step in zip(*shards, strict=True) for batch in step] == batches  # as a process sees them
    for start in range(0, len(batches), processes):
        step = [queries[index] for batch in batches[start : start + processes] for index in batch]
        assert len(step) == len(set(step))


def test_an_epoch_repeats_and_the_next_differs() -> None:
    rows = Dataset.from_dict({"query_positive": [f"query {number}" for number in range(50)]})
    sampler, again = OneQueryBatchSampler(rows, 4, seed=5), OneQueryBatchSampler(rows, 4, seed=5)
    first = list(sampler)
    assert list(again) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_a_text_is_encoded_once(model: SentenceTransformer) -> None:
    """Every row's query meets the same instructions, so distinct contexts are far fewer than pairs."""
    records = [record(number) for number in range(4)]
    collator = Collator(model, ContextFormat(), RowOptions(plain_pairs=1.0), instruction_negatives=0.5)
    batch = collator(records)
    rows = [row for each in records for row in RowOptions(plain_pairs=1.0).rows(each)]
    wanted = {row.context for row in rows} | {c for row in collator.choose_instructions(rows) for c in row if c}
    assert len(batch["context_input_ids"]) == len(wanted)
    assert len(batch["passage_input_ids"]) == len({row.passage for row in rows}) == 12


def test_the_rows_own_poisoned_instruction_is_always_met(model: SentenceTransformer) -> None:
    rows = [row for number in range(6) for row in RowOptions().rows(record(number))]
    for wanted in (1.0, 0.5, 5.0):
        collator = Collator(model, ContextFormat(), RowOptions(), instruction_negatives=wanted)
        for row, met in zip(rows, collator.choose_instructions(rows), strict=True):
            own = record(int(row.tuple_id[1 : row.tuple_id.index("-")]))
            other = {own["instruction_positive"], own["instruction_negative"]} - {row.context.instruction}
            assert Context(row.context.query, other.pop()) in met
            assert row.context not in met
            number = int(wanted) if wanted > 1 else round(wanted * len(rows)) if wanted < 1 else 2
            assert len(met) == max(2, number)


def test_rows_are_the_three_pairs() -> None:
    each = record(3)
    rows = RowOptions().rows(each)
    assert [(r.context.instruction, r.context.query, r.passage) for r in rows] == [
        (each["instruction_positive"], each["query_positive"], each["document"]),
        (each["instruction_negative"], each["query_positive"], each["hard_negative_document_1"]),
        (each["instruction_positive"], each["query_negative"], each["hard_negative_document_2"]),
    ]


def test_without_instructions_the_pairs_stay() -> None:
    ours, theirs = RowOptions(instructions=False).rows(record(3)), RowOptions().rows(record(3))
    assert [(r.context.query, r.passage) for r in ours] == [(r.context.query, r.passage) for r in theirs]
    assert all(row.context.instruction is None for row in ours)
    assert ours[0].relevant == ours[1].relevant == (True, True, False)  # both answer Q+


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_tuples_gives_a_plain_pair(share: float) -> None:
    made = [RowOptions(plain_pairs=share).rows(record(number)) for number in range(400)]
    plain = [rows[3] for rows in made if len(rows) == 4]
    assert len(plain) / 400 == pytest.approx(share, abs=0.07)
    assert all(row.context.instruction is None for row in plain)
