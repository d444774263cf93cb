"""What a person sees while a model trains, and at the end."""

# ruff: noqa: ARG002  a callback takes what the trainer hands it

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from datasets import Dataset
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sentence_transformers.base.modules import Transformer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.records import MINED_DOCUMENTS, MINED_RELEVANCE
from train.batches import RowOptions
from train.encoder import Encoder
from train.figures import Figure

SAMPLED_TEXTS = 20_000
"""Texts that are tokenised to tell lengths: a few seconds, and a share to half a per cent."""

LINE_EVERY_S = 15.0
"""Seconds between lines where the output is no terminal."""


class ProgressDisplay(TrainerCallback):
    """A bar with loss and rate; plain lines where the output is no terminal."""

    def __init__(self, console: Console, tuples_a_step: int) -> None:
        self.console = console
        self.tuples = tuples_a_step
        self.loss: float | None = None
        self.said = 0.0
        self.bar: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        self.began, self.first = time.monotonic(), state.global_step
        if state.is_world_process_zero and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self.console,
            )  # fmt: skip
            self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Keep the loss."""
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar, or print a line now and then."""
        now = time.monotonic()
        rate = (state.global_step - self.first) * self.tuples / max(now - self.began, 1e-9)
        loss = "" if self.loss is None else f"loss {self.loss:.3f}  "
        text = f"{loss}{rate:.1f} tuples/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, description=text)
        elif state.is_world_process_zero and now - self.said > LINE_EVERY_S:
            self.said = now
            self.console.print(f"step {state.global_step}/{state.max_steps}  {text}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar as it ended."""
        if self.bar is not None:
            self.bar.stop()


def show_data(
    console: Console, rows: Dataset, *, changes: Mapping[str, int], shared: tuple[int, int], encoder: Encoder,
    options: RowOptions,
) -> None:  # fmt: skip
    """What is trained on: rows, dimensions, tokens, truncation, overlap of wordings."""
    dimensions = Counter(rows["dimension"])
    console.print(f"[bold]{len(rows):,}[/] tuples of {len(dimensions)} dimensions: " + _counted(dimensions))
    for what, number in changes.items():
        console.print(f"{what}: {number:,}")
    if options.mined_negatives:
        _show_mined(console, rows, options)
    step = max(1, len(rows) * (6 + options.mined_negatives) // SAMPLED_TEXTS)
    made = [row for record in rows.select(range(0, len(rows), step)) for row in options.rows(record)]
    # with instruction attention or vectors the two texts are capped apart: the joined length is then an upper bound
    contexts = _lengths(encoder, {encoder.format.text(row.context) for row in made})
    passages = _lengths(encoder, {text for row in made for text in (row.passage, *row.mined)})
    first, longest = cast(Transformer, encoder.passage_model[0]), encoder.passage_model.max_seq_length
    for name, lengths, cap in (
        ("contexts", contexts, first.query_length or longest),
        ("passages", passages, first.document_length or longest),
    ):
        cut = sum(length > cap for length in lengths) / len(lengths) if cap else 0.0
        console.print(
            f"{name}: {sum(lengths) / len(lengths):.0f} tokens on average, {cut:.1%} longer than {cap} and cut"
            + ("" if step == 1 else f" (every {step}th tuple measured)")
        )
    known, asked = shared
    console.print(f"wordings: {known:,} of the {asked:,} instructions of the test split occur in training")


def _show_mined(console: Console, rows: Dataset, options: RowOptions) -> None:
    columns = rows.select_columns([MINED_DOCUMENTS, MINED_RELEVANCE])
    found = [options.mined(record) for record in columns]
    number, none, right = (
        sum(counts) for counts in zip(*((len(m), not m, bool(also)) for m, also in found), strict=True)
    )
    console.print(
        f"mined negatives: {number:,}, at most {options.mined_negatives} a tuple; {none:,} tuples have none; "
        f"{right:,} passages left out that the judge grades relevant"
    )


def show_summary(console: Console, before: Mapping[str, Figure], after: Mapping[str, Figure], seconds: float) -> None:
    """The validation split's figures before and after."""
    table = Table(title=f"validation split, {next(iter(after.values())).queries:,} queries, 95 % intervals")
    for name in ("", "before", "after"):
        table.add_column(name, justify="left" if not name else "right")
    for name, figure in after.items():
        table.add_row(name, str(before[name]), str(figure))
    console.print(table)
    console.print(f"trained in {seconds:,.0f} s")


def _lengths(encoder: Encoder, texts: set[str]) -> list[int]:
    encoded = encoder.passage_model.tokenizer(sorted(texts), truncation=False, verbose=False)["input_ids"]
    return [len(ids) for ids in encoded]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A status line that counts; a plain line where the output is no terminal."""
    if not console.is_terminal:
        console.print(what)
        yield lambda _done, _total: None
        return
    with console.status(what) as status:
        yield lambda done, total: status.update(f"{what}: {done / total:.0%}")
