"""One training run on sentence-transformers' trainer: checkpoints, going on from them, repeatability."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.util.distributed import get_rank
from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, get_available_reporting_integrations
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from train.batches import Collator, OneQueryBatchSampler, RowOptions
from train.encoder import Encoder
from train.errors import UsageError
from train.keeping import Embedded, Untuned
from train.loss import ObjectiveLoss
from train.settings import FitSettings

CHECKPOINTS = "checkpoints"
CURVES = "runs"
"""In the model's folder: TensorBoard's files, a folder for each time that the fit was begun or gone on with."""
KEPT_CHECKPOINTS = 2
WEIGHT_DECAY = 0.01
LOG_STEPS = 10


def row_options(settings: FitSettings) -> RowOptions:
    """How the settings turn tuples into rows."""
    return RowOptions(settings.instructions, settings.plain_pairs, settings.mined_negatives)


def check_reports(where: str) -> None:
    """Raise UsageError for a place to log to that the trainer doesn't know, or whose package isn't installed."""
    installed = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    if where not in ("none", "all", *installed):
        raise UsageError(
            f"--report-to {where}: the trainer doesn't know it, or its package isn't installed; "
            f"it can log to {', '.join(installed) or 'nothing'} here. Install the package, or leave the flag out."
        )


def train(
    settings: FitSettings,
    encoder: Encoder,
    rows: Dataset,
    callbacks: list[TrainerCallback],
    embedded: Embedded | None = None,
) -> list[dict[str, float]]:
    """Train the encoder in place; returns the log of losses. Goes on from the last checkpoint of the same settings.

    embedded: the embeddings of what is frozen.
    """
    trainer = make_trainer(settings, encoder, rows, callbacks, embedded)
    with trainer.args.main_process_first():
        last = find_checkpoint(settings, settings.output / CHECKPOINTS)
    try:
        trainer.train(resume_from_checkpoint=last)
    except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower():
            raise
        raise UsageError(
            f"--batch-size {settings.batch_size} does not fit into memory: give --mini-batch-size "
            f"{max(2, (settings.mini_batch_size or settings.batch_size * 4) // 2)} or less, which keeps the batch and "
            "bounds what is held at a time."
        ) from None
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def make_trainer(
    settings: FitSettings,
    encoder: Encoder,
    rows: Dataset,
    callbacks: list[TrainerCallback],
    embedded: Embedded | None = None,
) -> SentenceTransformerTrainer:
    """The trainer with our loss, batches and collator."""
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(settings.output / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=WEIGHT_DECAY,
        bf16=settings.encoder.bf16,
        use_cpu=encoder.model.device.type == "cpu",
        seed=settings.seed,
        batch_sampler=OneQueryBatchSampler,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        logging_steps=LOG_STEPS,
        logging_first_step=True,
        report_to=settings.report_to,
        disable_tqdm=True,
        # constants in every encoder; sent at each forward pass they would need as many passes in every process
        ddp_broadcast_buffers=False,
        # a step passes through instructions' and then through styles' encoder: DDP, which looks at the last pass, would take the
        # first for unused, were it not told that each step is like the first; with gradient caching passes are not
        ddp_static_graph=encoder.format.style_vectors and settings.mini_batch_size is None,
    )
    # only now are processes that torchrun started counted
    epoch = OneQueryBatchSampler(rows, settings.batch_size).steps
    steps = math.ceil(settings.epochs * epoch) if settings.max_steps < 0 else settings.max_steps
    arguments.warmup_steps = round(settings.warmup * steps)
    collator = Collator(
        encoder.model,
        encoder.format,
        row_options(settings),
        instruction_negatives=settings.instruction_negatives if "I" in settings.objective.sets else 0.0,
        mask=settings.mask,
        seed=settings.seed,
        untuned=Untuned.of(encoder, rows, embedded.passages if embedded else None) if settings.keep else None,
        embedded=embedded,
    )
    loss = ObjectiveLoss(
        encoder.model,
        settings.objective,
        temperature=settings.temperature,
        mask=settings.mask,
        gather=settings.gather,
        mini_batch_size=settings.mini_batch_size,
        keep=settings.keep,
    )
    example = row_options(settings).rows(rows[0])
    encoder.model.model_card_data.widget = [
        {"source_sentence": encoder.format.text(example[0].context), "sentences": [row.passage for row in example[:3]]}  # type: ignore[dict-item]
    ]
    trainer = SentenceTransformerTrainer(
        model=encoder.model,
        args=arguments,
        train_dataset=rows,
        loss=loss,
        data_collator=collator,  # type: ignore[arg-type]  # called and asked for its label columns, no more
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            # its own default lies among the checkpoints, which go when the fit is done
            callback.logging_dir = str(settings.output / CURVES / time.strftime("%Y%m%d-%H%M%S"))
    return trainer


def find_checkpoint(settings: FitSettings, folder: Path) -> str | None:
    """The checkpoint to go on from. Raises UsageError when the folder holds those of other settings."""
    if settings.restart and get_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    file = folder / "settings.json"
    wanted: dict[str, Any] = json.loads(json.dumps(settings.as_json()))
    if file.is_file() and json.loads(file.read_text()) != wanted:
        found = json.loads(file.read_text())
        other = [name for name in wanted if found.get(name) != wanted[name]]
        raise UsageError(
            f"{folder} holds checkpoints of a run with another {', '.join(other)}: "
            "give another --output, or --restart to discard them."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(wanted, indent=2))
    last: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
    return last
