from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch.nn.parallel import DistributedDataParallel

from tests.train.conftest import record
from tests.train.test_objectives import OBJECTIVES, RECORDS, mined
from train.batches import Collator, RowOptions
from train.encoder import Encoder, EncoderOptions
from train.inputs import ContextFormat
from train.keeping import Embedded, Untuned
from train.loss import ObjectiveLoss
from train.objectives import Objective


def features_of(batch: dict[str, Any]) -> list[dict[str, Any]]:
    sides = (
        {key.removeprefix(name): value for key, value in batch.items() if key.startswith(name)}
        for name in ("context_", "passage_")
    )
    return [side for side in sides if side]


def gradient(
    model: torch.nn.Module, batch: dict[str, Any], objective: str, mini_batch_size: int | None, **options: Any
) -> tuple[float, torch.Tensor]:
    """The loss, and its gradient by all parameters as one vector."""
    loss_of = ObjectiveLoss(model, Objective.parse(objective), mini_batch_size=mini_batch_size, **options)  # type: ignore[arg-type]
    model.zero_grad()
    loss = loss_of(features_of(batch), batch["label"])
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients).clone()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("mined", [0, 2])
def test_a_cached_gradient_is_the_gradient(model: SentenceTransformer, objective: str, mined: int) -> None:
    model.eval()  # without dropout the two can be compared
    options = RowOptions(plain_pairs=0.5, mined_negatives=mined)
    batch = Collator(model, ContextFormat(), options, instruction_negatives=0.5)(RECORDS)
    loss, whole = gradient(model, batch, objective, None)
    for size in (1, 3, 64):
        cached_loss, cached = gradient(model, batch, objective, size)
        assert cached_loss == pytest.approx(loss, abs=1e-5)
        assert torch.allclose(cached, whole, atol=1e-5)


def test_the_drift_from_the_untuned_model_is_a_square_of_scores_and_can_be_cached(tiny: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions())
    encoder.model.eval()
    untuned = Untuned.of(encoder, Dataset.from_list(RECORDS))
    batch = Collator(encoder.model, encoder.format, RowOptions(plain_pairs=1.0), untuned=untuned)(RECORDS)
    free = gradient(encoder.model, batch, "uni:P", None)
    assert gradient(encoder.model, batch, "uni:P", None, keep=3.0)[0] == pytest.approx(free[0], abs=1e-5)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
    (loss, _), (kept_loss, whole) = (gradient(encoder.model, batch, "uni:P", None, keep=k) for k in (0.0, 3.0))
    rows = [(r["query_positive"], r["document"]) for r in RECORDS]
    now, then = (u.cosines(*zip(*rows, strict=True)).numpy() / 0.05 for u in (
        Untuned.of(encoder, Dataset.from_list(RECORDS)), untuned))  # fmt: skip
    assert kept_loss - loss == pytest.approx(3.0 * ((now - then) ** 2).mean(), rel=1e-4)
    cached_loss, cached = gradient(encoder.model, batch, "uni:P", 3, keep=3.0)
    assert cached_loss == pytest.approx(kept_loss, rel=1e-5)
    assert float((cached - whole).norm()) < 1e-4 * float(whole.norm())  # squares of scores have large gradients


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_passages_embedded_before_give_the_same_loss_and_leave_their_gradient_out(tiny: Path, objective: str) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions())
    encoder.model.eval()
    options = RowOptions(plain_pairs=0.5, mined_negatives=2)
    texts = {row.passage for record in RECORDS for row in options.rows(record)}
    texts |= {passage for record in RECORDS for row in options.rows(record) for passage in row.mined}
    embedded = Embedded(dict(zip(sorted(texts), torch.from_numpy(encoder.passages(sorted(texts))), strict=True)))
    (loss, both), (frozen_loss, contexts), (cached_loss, cached) = (
        gradient(
            encoder.model,
            Collator(encoder.model, encoder.format, options, instruction_negatives=0.5, embedded=given)(RECORDS),
            objective,
            size,
        )
        for given, size in ((None, None), (embedded, None), (embedded, 3))
    )
    assert frozen_loss == pytest.approx(loss, abs=1e-4)
    assert not torch.allclose(contexts, both, atol=1e-4)
    assert cached_loss == pytest.approx(frozen_loss, abs=1e-5)
    assert torch.allclose(cached, contexts, atol=1e-5)


@pytest.mark.parametrize("style_layers", [None, 0, 1])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_of_instruction_vectors_is_that_of_the_contexts_that_they_make(
    tiny: Path, objective: str, style_layers: int | None
) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions())
    encoder.part(instruction_vectors=True, style_layers=style_layers)
    encoder.model.eval()
    rows = [row for record in RECORDS for row in RowOptions().rows(record)]
    queries, passages = sorted({row.context.query for row in rows}), sorted({row.passage for row in rows})
    embedded = Embedded(
        dict(zip(passages, torch.from_numpy(encoder.passages_without_style(passages)), strict=True)),
        dict(zip(queries, torch.from_numpy(encoder.queries(queries)), strict=True)),
    )
    collator = Collator(encoder.model, encoder.format, RowOptions(), instruction_negatives=0.5, embedded=embedded)
    batch = collator(RECORDS)
    loss, whole = gradient(encoder.model, batch, objective, None)
    contexts = sorted({row.context for row in rows} | {c for each in collator.choose_instructions(rows) for c in each if c},
                      key=lambda context: -len(context))  # fmt: skip
    made = torch.from_numpy(encoder.contexts(contexts))
    place = {context: number for number, context in enumerate(contexts)}
    label = {name: value for name, value in batch["label"].items() if name not in ("queries", "instruction")}
    label["context"] = torch.tensor([place[row.context] for row in rows])
    chosen = collator.choose_instructions(rows)
    width = max(map(len, chosen), default=0)
    label["instructions"] = torch.tensor(
        [[place[c] if c else -1 for c in row] + [-1] * (width - len(row)) for row in chosen]
    )
    literal = ObjectiveLoss(encoder.model, Objective.parse(objective))
    texts = sorted(passages, key=lambda text: -len(text))
    label["passage"] = torch.tensor([texts.index(row.passage) for row in rows])
    expected = float(literal.objective_loss(made, torch.from_numpy(encoder.passages(texts)), label))
    assert loss == pytest.approx(expected, abs=1e-5)
    cached_loss, cached = gradient(encoder.model, batch, objective, 3)
    assert cached_loss == pytest.approx(loss, abs=1e-5)
    assert torch.allclose(cached, whole, atol=1e-5)
    assert whole.abs().max() > 1e-3


def test_instruction_attention_can_be_cached_too(tiny: Path) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions(instruction_attention=True))
    encoder.model.eval()
    batch = Collator(encoder.model, encoder.format, RowOptions(), instruction_negatives=0.5)(RECORDS)
    loss, whole = gradient(encoder.model, batch, "multi:P,I", None)
    cached_loss, cached = gradient(encoder.model, batch, "multi:P,I", 4)
    assert cached_loss == pytest.approx(loss, abs=1e-5)
    assert torch.allclose(cached, whole, atol=1e-5)


SPREAD = [
    [
        record(0, **mined("the river 31 is short", "the comet 32 is short")),
        record(1, **mined("the comet 4 is short", grade=None)),  # P+ of a tuple of the other process
        record(2, **mined("the candle 34 is short", "the river 33 is short", grade=3)),
    ],
    [record(3, query="what is the bridge 0", **mined("the violin 35 is short")), record(4, **mined())],
]


MEETING_S = 60
"""Two processes that have not met and computed by then hang in the rendezvous, which happens on a loaded machine."""


def on_one_of_two(rank: int, port: int, folder: str, answers: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=MEETING_S),
    )
    model = Encoder.load(folder, EncoderOptions()).model
    model.eval()
    # as the trainer does
    wrapped = DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
    found = {}
    for objective in ("uni:P", "uni:IQ", "multi:P,IQ"):
        for number in (0, 2) if "P" in objective else (0,):
            options = RowOptions(plain_pairs=1.0, mined_negatives=number)
            batch = Collator(model, ContextFormat(), options)(SPREAD[rank])
            for size in (None, 4):
                found[objective, size, number] = gradient(wrapped, batch, objective, size, gather=True)
    torch.save(found, f"{answers}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def on_two(folder: Path, answers: Path) -> None:
    """Both processes to their end; a pair that did not meet in time is started once more."""
    for last in (False, True):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pair = processes.spawn(on_one_of_two, (port, str(folder), str(answers)), nprocs=2, join=False)
        until = time.monotonic() + MEETING_S
        while time.monotonic() < until:
            if pair.join(timeout=1):
                return
        for each in pair.processes:
            each.kill()
        assert not last, "two processes did not meet in two tries"


@pytest.mark.timeout(240)
def test_two_processes_that_gather_train_as_one_with_both_batches(tiny: Path, tmp_path: Path) -> None:
    """Also with unequal numbers of rows, and a query that both batches hold."""
    on_two(tiny, tmp_path)
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    model = Encoder.load(str(tiny), EncoderOptions()).model
    model.eval()
    for key in ours[0]:
        options = RowOptions(plain_pairs=1.0, mined_negatives=key[2])
        batch = Collator(model, ContextFormat(), options)([*SPREAD[0], *SPREAD[1]])
        loss, whole = gradient(model, batch, key[0], None)
        assert (ours[0][key][0] + ours[1][key][0]) / 2 == pytest.approx(loss, abs=1e-5)
        for found in ours:
            assert torch.allclose(found[key][1], whole, atol=1e-5)
