"""Speed and memory of the training losses, interleaved in one run: each round times every contender on the same tuples.

    python benchmarks/fit.py                                                     # a MiniLM-sized encoder on the CPU
    python benchmarks/fit.py --size base --device cuda --bf16 --batch-size 64 --peak-tflops 989

A step is forward and backward. Weights are random, from a configuration; texts are random words with the lengths of
curated MS MARCO tuples (contexts 25 tokens on average, passages 86), or the tuples of --data.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import batch_to_device
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1]))

from train.batches import Collator, RowOptions
from train.data import UNJUDGED, load_rows
from train.encoder import find_model
from train.inputs import ContextFormat, text_features
from train.loss import ObjectiveLoss
from train.objectives import Objective
from train.versions import quiet

SIZES = {"minilm": (384, 6, 12, 1536), "base": (768, 12, 12, 3072)}  # hidden, layers, heads, intermediate
VOCABULARY = 30_522
Record = dict[str, Any]


@dataclass
class Contender:
    """A loss, what makes its batches, and what was measured."""

    name: str
    loss: torch.nn.Module
    batch: Callable[[list[Record]], tuple[list[dict[str, Any]], Any]]
    passes: int = 3  # forward, and a backward that costs two; a cached step has one more forward
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


def main() -> None:
    quiet()
    given = arguments()
    device = torch.device(given.device)
    model = SentenceTransformer(find_model(given.model)) if given.model else random_encoder(given.size)
    model = model.to(device).train()
    model[0].document_length = model[0].query_length = 256
    records = list(load_rows(given.data, "train")) if given.data else random_records(given.batch_size * given.rounds)
    contenders = make_contenders(model, given)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if given.bf16 else nullcontext()
    for round_number in range(given.warmup + given.rounds):
        start = round_number * given.batch_size % max(1, len(records) - given.batch_size + 1)
        tuples = records[start : start + given.batch_size]
        order = contenders[round_number % len(contenders) :] + contenders[: round_number % len(contenders)]
        for contender in order:
            step(contender, tuples, model, device, autocast, keep=round_number >= given.warmup)
    show(contenders, model, given)


def make_contenders(model: SentenceTransformer, given: argparse.Namespace) -> list[Contender]:
    """Pairs that are compared stand side by side."""

    def ours(name: str, objective: str, mini: int | None = None, negatives: float = 0.0) -> Contender:
        collator = Collator(model, ContextFormat(), RowOptions(), instruction_negatives=negatives)

        def batch(tuples: list[Record]) -> tuple[list[dict[str, Any]], Any]:
            made = collator(tuples)
            features = [
                {key.removeprefix(side): value for key, value in made.items() if key.startswith(side)}
                for side in ("context_", "passage_")
            ]
            return features, made["label"]

        loss = ObjectiveLoss(model, Objective.parse(objective), mini_batch_size=mini)
        return Contender(name, loss, batch, passes=4 if mini else 3)

    def theirs(tuples: list[Record]) -> tuple[list[dict[str, Any]], Any]:
        rows = [row for record in tuples for row in RowOptions().rows(record)]
        contexts = ContextFormat().features(model, [row.context for row in rows])
        return [contexts, text_features(model, [row.passage for row in rows], "document")], None

    mini = given.mini_batch_size
    return [
        Contender("sentence-transformers MNRL", MultipleNegativesRankingLoss(model), theirs),
        ours("uni:P", "uni:P"),
        Contender(
            f"sentence-transformers cached MNRL, {mini} texts",
            CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini),
            theirs,
            passes=4,
        ),
        ours(f"uni:P cached, {mini} texts", "uni:P", mini),
        ours("multi:P,I", "multi:P,I", negatives=given.instruction_negatives),
    ]


def step(
    contender: Contender,
    tuples: list[Record],
    model: SentenceTransformer,
    device: torch.device,
    autocast: Any,
    *,
    keep: bool,
) -> None:
    """One forward and backward, timed from texts to gradients."""
    model.zero_grad(set_to_none=True)
    reset_peak(device)
    began = time.perf_counter()
    features, labels = contender.batch(tuples)
    tokens = sum(int(texts["attention_mask"].sum()) for texts in features)
    features, labels = [batch_to_device(texts, device) for texts in features], move(labels, device)
    with autocast:
        loss = contender.loss(features, labels)
        loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    if keep:
        contender.seconds.append(time.perf_counter() - began)
        contender.tokens.append(tokens)
        contender.peak.append(peak(device))


def show(contenders: list[Contender], model: SentenceTransformer, given: argparse.Namespace) -> None:
    """Medians over rounds, and the ratios that are promised."""
    network = model[0].model
    weights = sum(p.numel() for p in network.parameters()) - network.get_input_embeddings().weight.numel()
    table = Table(
        title=f"{given.batch_size} tuples a step, {given.rounds} rounds, {given.device}, torch {torch.__version__}"
    )
    columns = ["loss", "s a step", "rows/s", "tokens a step", "tokens/s", "peak MiB"]
    for column in columns + (["share of peak"] if given.peak_tflops else []):
        table.add_column(column, justify="left" if column == "loss" else "right")
    medians = {}
    for c in contenders:
        seconds, tokens = statistics.median(c.seconds), statistics.median(c.tokens)
        medians[c.name] = (seconds, tokens)
        cells = [
            c.name, f"{seconds:.3f}", f"{3 * given.batch_size / seconds:.1f}", f"{tokens:,.0f}",
            f"{tokens / seconds:,.0f}", f"{max(c.peak):,.0f}",
        ]  # fmt: skip
        if given.peak_tflops:  # 2 floating-point operations a weight, token and pass; attention's own are left out
            cells.append(f"{2 * c.passes * weights * tokens / seconds / (given.peak_tflops * 1e12):.1%}")
        table.add_row(*cells)
    console = Console(width=140)
    console.print(table)
    names = [c.name for c in contenders]

    def ratio(a: int, b: int) -> float:
        return medians[names[a]][0] / medians[names[b]][0]

    per_token = [seconds / tokens for seconds, tokens in medians.values()]
    console.print(f"speed of {names[1]} against {names[0]}: {ratio(0, 1):.2f} (at least 0.95 is promised)")
    console.print(f"speed of {names[3]} against {names[2]}: {ratio(2, 3):.2f}")
    console.print(f"time of {names[3]} against {names[1]}: {ratio(3, 1):.2f} (one more forward pass: 1.33 expected)")
    console.print(
        f"time of {names[4]} against {names[1]}: {ratio(4, 1):.2f}, for {medians[names[4]][1] / medians[names[1]][1]:.2f} "
        f"times the tokens: {per_token[4] / per_token[1]:.2f} a token"
    )


def random_encoder(size: str) -> SentenceTransformer:
    """A BERT of that size with random weights, and a tokeniser of as many words."""
    hidden, layers, heads, intermediate = SIZES[size]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(special + [f"w{n}" for n in range(VOCABULARY - 4)])}, "[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", model_max_length=512).save_pretrained(folder)
        BertModel(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=intermediate,
            )
        ).save_pretrained(folder)
        transformer = Transformer(folder)
    return SentenceTransformer(modules=[transformer, Pooling(hidden, "mean")], device="cpu")


def random_records(number: int) -> list[Record]:
    """Tuples of random words: queries of 8, instructions of 15, passages of 84 words, the lengths spread by a third."""
    chance = random.Random(0)

    def text(words: int) -> str:
        length = max(2, round(chance.gauss(words, words / 3)))
        return " ".join(f"w{chance.randrange(VOCABULARY - 4)}" for _ in range(length))

    lengths = {
        "query_positive": 8, "query_negative": 8, "instruction_positive": 15, "instruction_negative": 15,
        "document": 84, "hard_negative_document_1": 84, "hard_negative_document_2": 84,
    }  # fmt: skip
    return [
        {"id": str(n), "relevance": UNJUDGED} | {name: text(words) for name, words in lengths.items()}
        for n in range(number)
    ]


def move(labels: Any, device: torch.device) -> Any:
    return {name: tensor.to(device) for name, tensor in labels.items()} if labels else labels


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark of resident memory begins anew


def peak(device: torch.device) -> float:
    """MiB: allocated on the card, or resident in this process, weights and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 2**10 if found else float("nan")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="minilm")
    parser.add_argument("--model", help="a real encoder instead: a folder, a Hub id or package:NAME")
    parser.add_argument("--data", help="an output folder of pipeline.run, for real texts (with --model)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--batch-size", type=int, default=8, metavar="TUPLES")
    parser.add_argument("--mini-batch-size", type=int, default=16, metavar="TEXTS")
    parser.add_argument("--instruction-negatives", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--peak-tflops", type=float, help="the card's peak, such as 989 for an H100 in bf16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
