"""`python -m train.fit DATA --model M --objective O --output DIR`: a bi-encoder that follows instructions."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from transformers import set_seed

from pipeline.records import MINED_DOCUMENTS, PASSAGES, QUERY_NEGATIVE, QUERY_POSITIVE
from train import display
from train.cache import embed
from train.data import checksum, load_rows, shared_wordings, training_rows
from train.encoder import Encoder, add_lora, blend, freeze_layers, merge_lora, set_dropout, weights
from train.errors import UsageError
from train.figures import as_json
from train.keeping import Embedded
from train.scoring import quick_figures
from train.settings import FitSettings, parse
from train.training import CHECKPOINTS, check_reports, row_options, train
from train.versions import quiet, versions

COMPLETE, FAILED, UNUSABLE = 0, 1, 2

RECORD_FILE = "fit.json"
"""In the model's folder: settings, data, versions, losses, figures."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    quiet()
    try:
        settings = parse(list(sys.argv[1:] if argv is None else argv))
        fit(settings, Console(stderr=False, soft_wrap=True))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return FAILED
    return COMPLETE


def fit(settings: FitSettings, console: Console) -> None:
    """Read, train, measure, save."""
    check_reports(settings.report_to)
    rows, changes = training_rows(
        settings.data,
        unfiltered=settings.unfiltered,
        hold_out=settings.hold_out,
        mined=settings.mined_negatives > 0,
    )
    validation, test = load_rows(settings.data, "validation"), load_rows(settings.data, "test")
    encoder = Encoder.load(settings.model, settings.encoder)
    if settings.instruction_vectors or encoder.format.instruction_vectors:
        settings.check_for_vectors(encoder.format)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    console.quiet = not first
    display.show_data(
        console,
        rows,
        changes=changes,
        shared=shared_wordings(rows, test),
        encoder=encoder,
        options=row_options(settings),
    )

    before = quick_figures(encoder, validation)
    untuned = weights(encoder.model) if settings.blend < 1 else {}
    began = time.monotonic()
    embedded = part(settings, encoder, rows, console)
    make_trainable(settings, encoder)
    losses = train(settings, encoder, rows, [display.ProgressDisplay(console, settings.batch_size)], embedded)
    seconds = time.monotonic() - began
    if settings.lora:
        merge_lora(encoder.model)
    if settings.blend < 1:
        blend(encoder.model, untuned, settings.blend)
    after = quick_figures(encoder, validation)
    if not first:
        return

    encoder.save(settings.output)
    record = {
        "settings": settings.as_json(),
        "data": {"rows": len(rows), "sha256": checksum(rows), **changes},
        "validation": {"before": as_json(before), "after": as_json(after)},
        "losses": losses,
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    (settings.output / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(settings.output / CHECKPOINTS, ignore_errors=True)
    display.show_summary(console, before, after, seconds)
    if settings.push:
        push(settings)
    console.print("Use it: {} against {}, by cosine.".format(*encoder.format.usage()), markup=False, highlight=False)
    console.print(
        f"The model is in {settings.output}. Measure it: python -m train.evaluate {settings.data} "
        f"--model {settings.model} --model {settings.output} --output results.json"
    )


def part(settings: FitSettings, encoder: Encoder, rows: Dataset, console: Console) -> Embedded | None:
    """Where passages, or queries too, stay as they are: give them an encoder of their own; the rows' texts embedded by it."""
    # a folder that a fit with one of the flags left goes on as it was
    vectors = settings.instruction_vectors or encoder.format.instruction_vectors
    if not (vectors or settings.freeze_passages or encoder.passage_model is not encoder.model):
        return None
    encoder.part(instruction_vectors=vectors, style_layers=settings.style_layers)
    return embedded_texts(encoder, rows, settings.cache, console)


def embedded_texts(encoder: Encoder, rows: Dataset, cache: Path | None, console: Console) -> Embedded:
    """The rows' passages, and with instruction vectors their queries, as the untuned model embeds them."""
    mined = (
        [passage for row in rows[MINED_DOCUMENTS] for passage in row] if MINED_DOCUMENTS in rows.column_names else []
    )
    texts = sorted({passage for name in PASSAGES for passage in rows[name]} | set(mined))
    with display.counting(console, f"encoding {len(texts):,} passages") as seen:
        passages = dict(zip(texts, torch.from_numpy(embed(encoder, texts, cache, seen)), strict=True))
    if not encoder.format.instruction_vectors:
        return Embedded(passages)
    queries = sorted({*rows[QUERY_POSITIVE], *rows[QUERY_NEGATIVE]})
    with display.counting(console, f"encoding {len(queries):,} queries"):
        return Embedded(passages, dict(zip(queries, torch.from_numpy(encoder.queries(queries)), strict=True)))


def make_trainable(settings: FitSettings, encoder: Encoder) -> None:
    """Dropout, frozen layers and adapters as the settings say."""
    set_seed(settings.seed)  # adapters begin at random
    if settings.dropout is not None:
        set_dropout(encoder.model, settings.dropout)
    if settings.freeze_layers is not None:
        freeze_layers(encoder.model, settings.freeze_layers)
    if settings.lora:
        add_lora(encoder.model, settings.lora)


def push(settings: FitSettings) -> None:
    """Upload the model's folder; a repository that is made for it is private."""
    from huggingface_hub import HfApi  # noqa: PLC0415, needed only here
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    assert settings.push
    try:
        hub = HfApi()
        hub.create_repo(settings.push, private=True, exist_ok=True)
        hub.upload_folder(repo_id=settings.push, folder_path=settings.output)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(
            f"--push {settings.push}: the Hub did not take it ({str(error).splitlines()[0]}); "
            f"the model is safe in {settings.output}."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
