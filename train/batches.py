"""Batches of tuples: which tuples meet, the rows that they give, and the distinct texts to encode."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.util.distributed import get_world_size
from torch import Tensor

from pipeline.records import CONTEXTS, DOCUMENT, MINED_DOCUMENTS, MINED_RELEVANCE, PASSAGES, QUERY_POSITIVE
from train.errors import UsageError
from train.inputs import INSTRUCTION, STYLE, Context, ContextFormat, text_features
from train.keeping import Embedded, Untuned
from train.objectives import MINED_SLOT, PLAIN_SLOT

RELEVANT = 2
"""The judge's grade from which a passage is right for a context: the curation's own threshold."""


@dataclass(frozen=True, slots=True)
class Row:
    """One positive pair: a context, its passage, and what the judge says of the tuple's three passages for it.

    mined: passages of the collection that are negatives of the context. also: one that the judge finds relevant to it.
    """

    tuple_id: str
    context: Context
    passage: str
    slot: int
    relevant: tuple[bool, bool, bool]
    mined: tuple[str, ...] = ()
    also: str = ""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How tuples become rows.

    instructions: False drops them, which leaves the same pairs with queries alone.
    plain_pairs: the share of tuples, by the hash of their id, that also give (Q+, P+) without an instruction.
    mined_negatives: how many of its mined passages a tuple brings at most, as negatives of (I+, Q+).
    """

    instructions: bool = True
    plain_pairs: float = 0.0
    mined_negatives: int = 0

    def rows(self, record: Mapping[str, Any]) -> list[Row]:
        """The three rows of a tuple, and its plain pair where it has one."""
        query = record[QUERY_POSITIVE]
        rows = []
        for slot, (instruction, asked) in enumerate(CONTEXTS):
            context = Context(record[asked], record[instruction] if self.instructions else None)
            mined, also = self.mined(record) if slot == 0 else ((), "")
            relevant = self._relevant(record, slot)
            rows.append(Row(record["id"], context, record[PASSAGES[slot]], slot, relevant, mined, also))
        if self.instructions and _share(record["id"]) < self.plain_pairs:
            rows.append(Row(record["id"], Context(query, None), record[DOCUMENT], PLAIN_SLOT, (True, True, False)))
        return rows

    def _relevant(self, record: Mapping[str, Any], slot: int) -> tuple[bool, bool, bool]:
        if not self.instructions:  # P+ and P-1 both answer Q+
            return (False, False, True) if slot == 2 else (True, True, False)
        a, b, c = (grade >= RELEVANT for grade in record["relevance"][slot])
        return a, b, c

    def mined(self, record: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
        """The mined negatives, and the mined passage that is none because the judge finds it relevant ("": no such)."""
        if not self.mined_negatives:
            return (), ""
        graded = list(zip(record[MINED_DOCUMENTS], record[MINED_RELEVANCE], strict=True))
        right = [passage for passage, grade in graded if grade is not None and grade >= RELEVANT]
        wrong = [passage for passage, _ in graded if passage not in right]
        return tuple(wrong[: self.mined_negatives]), "".join(right[:1])


class OneQueryBatchSampler(DefaultBatchSampler):
    """Shuffled batches of tuples, no two of one query in what all processes see at a step.

    The tuples of a query lie side by side and are dealt out like cards, so each lands in another batch. Batches differ
    by one tuple at most. An epoch's order depends on the seed and the epoch alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool = False,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        self.sampler = self  # type: ignore[assignment]  # accelerate looks for `set_epoch` there when it shards batches over processes
        self.batch_size = None  # type: ignore[assignment]  # with a number, accelerate drops batches that are not full
        self.processes = get_world_size()
        groups: dict[str, list[int]] = {}
        for index, query in enumerate(dataset[QUERY_POSITIVE]):
            groups.setdefault(" ".join(query.lower().split()), []).append(index)
        self.groups = list(groups.values())
        steps = -(-len(dataset) // (batch_size * self.processes))
        self.steps = max([steps, *map(len, self.groups)])
        if len(dataset) < self.steps * self.processes:
            raise UsageError(
                f"{len(dataset)} tuples, {max(map(len, self.groups))} of them of one query, are too few for "
                f"{self.processes} processes: start fewer."
            )

    def __len__(self) -> int:
        return self.steps * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        chance = random.Random(f"{self.seed}:{self.epoch}")  # noqa: S311, an order, no secret
        groups = chance.sample(self.groups, len(self.groups))
        dealt: list[list[int]] = [[] for _ in range(self.steps)]
        for place, index in enumerate(index for group in groups for index in group):
            dealt[place % self.steps].append(index)
        chance.shuffle(dealt)
        for batch in dealt:
            for process in range(self.processes):
                yield batch[process :: self.processes]


class Collator:
    """Turns tuples into distinct texts, tokenised, and the indices and masks that the loss needs.

    instruction_negatives: for the objectives with "I", how many other rows' instructions a query is paired with:
      a share of the batch's rows below 1, a number from 1 on; 0 where no objective wants them.
    mask: leave out instructions under which the judge finds the row's passage right.
    untuned: what to hold the plain pairs' scores against.
    embedded: of what is not encoded anew, the embeddings.
    """

    valid_label_columns: tuple[str, ...] = ()

    def __init__(
        self,
        model: SentenceTransformer,
        context_format: ContextFormat,
        options: RowOptions,
        *,
        instruction_negatives: float = 0.0,
        mask: bool = True,
        seed: int = 0,
        untuned: Untuned | None = None,
        embedded: Embedded | None = None,
    ) -> None:
        self.embedded = embedded
        self.model = model
        self.format = context_format
        self.options = options
        self.instruction_negatives = instruction_negatives
        self.mask = mask
        self.seed = seed
        self.untuned = untuned

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch: `context_…` and `passage_…` features, and `label`, a mapping of tensors.

        With instruction vectors, what is to be encoded are the distinct instructions, and the label holds each context's
        query embedded, and the number of its instruction. With style vectors, `passage_…` is for the styles.
        """
        rows = [row for record in records for row in self.options.rows(record)]
        mined = mined_passages(rows)
        chosen = self.choose_instructions(rows)
        contexts = _by_length([row.context for row in rows] + [c for row in chosen for c in row if c is not None])
        passages = _by_length([row.passage for row in rows + mined])
        width = max((len(row) for row in chosen), default=0)
        label = {
            "context": torch.tensor([contexts[row.context] for row in rows]),
            "passage": torch.tensor([passages[row.passage] for row in rows]),
            "instructions": torch.tensor(
                [[-1 if c is None else contexts[c] for c in row] + [-1] * (width - len(row)) for row in chosen],
                dtype=torch.long,
            ).view(len(rows), width),
            "rows": _packed(rows),
            "mined": torch.tensor([passages[row.passage] for row in mined], dtype=torch.long),
            "mined_rows": _packed(mined),
        }
        if self.untuned:
            plain = [row for row in rows if row.slot == PLAIN_SLOT]
            label["untuned"] = self.untuned.cosines(
                [row.context.query for row in plain], [row.passage for row in plain]
            )
        if self.embedded and self.embedded.queries is not None:
            instructions = _by_length([c.instruction for c in contexts if c.instruction is not None])
            features = {"context": text_features(self.model, list(instructions), INSTRUCTION)}
            label["queries"] = torch.stack([self.embedded.queries[c.query] for c in contexts])
            label["instruction"] = torch.tensor([instructions[c.instruction] for c in contexts])
        else:
            features = {"context": self.format.features(self.model, list(contexts))}
        if self.embedded is None or self.format.style_vectors:
            task = STYLE if self.format.style_vectors else "document"
            features["passage"] = text_features(self.model, list(passages), task)
        if self.embedded is not None:
            label["embedded"] = torch.stack([self.embedded.passages[text] for text in passages])
        columns = {f"{name}_{key}": value for name, each in features.items() for key, value in each.items()}
        return {"label": label, **columns}

    def choose_instructions(self, rows: Sequence[Row]) -> list[list[Context | None]]:
        """For each row, contexts (I_j, Q_i) with another instruction; None where one is masked.

        The other rows of the same tuple are always among the j; the rest is drawn once for each query of a tuple,
        so that its rows share the encodings. The draw depends on the seed and the batch alone.
        """
        if not self.instruction_negatives:
            return [[] for _ in rows]
        wanted = self.instruction_negatives
        number = int(wanted) if wanted >= 1 else round(wanted * len(rows))
        drawn: dict[tuple[str, str], list[Row]] = {}
        chosen: list[list[Context | None]] = []
        for row in rows:
            if row.context.instruction is None:
                chosen.append([])
                continue
            kin = [r for r in rows if r.tuple_id == row.tuple_id and r.context.instruction is not None and r != row]
            key = (row.tuple_id, row.context.query)
            if key not in drawn:
                others = [r for r in rows if r.tuple_id != row.tuple_id and r.context.instruction is not None]
                chance = random.Random(f"{self.seed}:{rows[0].tuple_id}:{key}")  # noqa: S311
                drawn[key] = chance.sample(others, min(len(others), max(0, number - len(kin))))
            chosen.append([self._paired(row, other) for other in kin + drawn[key]])
        return chosen

    def _paired(self, row: Row, other: Row) -> Context | None:
        context = Context(row.context.query, other.context.instruction)
        if context == row.context:
            return None  # the positive itself
        judged = other.tuple_id == row.tuple_id and context == other.context and other.relevant[row.slot]
        return None if self.mask and judged else context


def mined_passages(rows: Sequence[Row]) -> list[Row]:
    """What is mined for the rows, as rows that bring a passage and have no context of their own."""
    return [
        Row(row.tuple_id, row.context, passage, MINED_SLOT, (False, False, False))
        for row in rows
        for passage in row.mined
    ]


def _by_length(items: Sequence[Any]) -> dict[Any, int]:
    """Each distinct item's place when the longest stand first: mini-batches then carry little padding."""
    distinct = sorted(dict.fromkeys(items), key=lambda item: -len(item))
    return {item: place for place, item in enumerate(distinct)}


def _packed(rows: Sequence[Row]) -> Tensor:
    """(rows, 9), as `Rows.unpacked` reads it."""
    packed = [
        [
            *(_hash(text) for text in (row.tuple_id, row.context.query, row.passage, row.also)),
            *(row.slot, *row.relevant, row.slot != 0),
        ]
        for row in rows
    ]
    return torch.tensor(packed, dtype=torch.long).view(len(rows), 9)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def _share(tuple_id: str) -> float:
    """A number in [0, 1) drawn from an id."""
    return (_hash(f"plain:{tuple_id}") + 2**63) / 2**64
