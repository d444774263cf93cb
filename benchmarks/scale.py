"""`python benchmarks/scale.py`: a collection of MS MARCO's full shape, from reading it to a curated data set.

8,841,823 passages, 808,731 queries and 532,761 judgements of 502,939 queries; synthetic text in MS MARCO's lengths, 3 GB, in a
temporary folder that is removed. Each step runs in a process of its own, in this order:

- a bare DuckDB join of the three files that writes the judged pairs to parquet, under a memory limit of 500 MB;
- this project's reading of them, with all its checks and counts; and from there to seeds: cleaned, near-duplicates out;
- offline curation of growing samples of that collection, by the command line; `--workers 1 2` for both cores;
- near-duplicates and mined negatives at size: benchmarks/near_duplicates.py and benchmarks/mining.py, with their own tables.

`--collection FOLDER` keeps the collection there and takes one that is there. Times are this machine's: compare them with the bare join.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.curate import FRAMES, QUERIES, words  # noqa: E402, the folder is no package of an installed copy
from benchmarks.measuring import measured  # noqa: E402
from pipeline.cleaning import CleaningOptions, select_seeds  # noqa: E402
from pipeline.sources import open_source  # noqa: E402

PASSAGES, QUERIES_IN_ALL, JUDGEMENTS, JUDGED_QUERIES = 8_841_823, 808_731, 532_761, 502_939
STRIDE = 7_919
"""Prime to the number of passages: judged passages lie all over the collection."""
BLOCK = 100_000


def pair(number: int) -> tuple[str, str]:
    """A query and a passage that answers it: the offline model finds the one's words in the other."""
    rng = random.Random(number % JUDGED_QUERIES)
    slots = words(rng)
    query = rng.choice(QUERIES).format(**slots)
    rng = random.Random(number)
    return query, " ".join(frame.format(**slots) for frame in rng.sample(FRAMES, rng.randint(3, 8)))


def write_collection(folder: Path, passages: int) -> None:
    """The three files. A smaller number of passages has as many queries and judgements less."""
    share = passages / PASSAGES
    judgements, judged, queries = (round(n * share) for n in (JUDGEMENTS, JUDGED_QUERIES, QUERIES_IN_ALL))
    rng = random.Random(0)
    with (
        (folder / "queries.train.tsv").open("w") as asked,
        (folder / "qrels.train.tsv").open("w") as qrels,
        (folder / "collection.tsv").open("w") as collection,
    ):
        asked.writelines(f"{i}\t{pair(i)[0] if i < judged else f'unjudged query {i}'}\n" for i in range(queries))
        judged_of = np.full(passages, -1)
        for i in range(judgements):
            place = i * STRIDE % passages
            judged_of[place] = i
            qrels.write(f"{i % judged}\t0\t{place}\t1\n")
        sentences = [rng.choice(FRAMES).format(**words(rng)) for _ in range(50_000)]
        draw = np.random.default_rng(0)
        for start in range(0, passages, BLOCK):
            size = min(BLOCK, passages - start)
            drawn = draw.integers(0, len(sentences), (size, 5)).tolist()
            for place, number, (a, b, c, d, e) in zip(
                range(start, start + size), judged_of[start : start + size].tolist(), drawn, strict=True
            ):
                text = (
                    pair(number)[1]
                    if number >= 0
                    else f"{sentences[a]} {sentences[b]} {sentences[c]} {sentences[d]} {sentences[e]}"
                )
                collection.write(f"{place}\t{text}\n")


def join_with_duckdb(folder: str, threads: int) -> str:
    import duckdb

    def table(name: str, columns: dict[str, str]) -> str:
        return (
            f"read_csv('{folder}/{name}', delim='\t', header=false, quote='', escape='', "
            f"columns={json.dumps(columns).replace(chr(34), chr(39))})"
        )

    with tempfile.TemporaryDirectory() as scratch:
        base = duckdb.connect(
            config={"memory_limit": "500MB", "threads": threads, "temp_directory": f"{scratch}/spilled"}
        )
        base.execute("SET preserve_insertion_order=false")
        found = base.execute(
            f"""COPY (
                SELECT q.id AS query_id, p.id AS passage_id, q.text AS query, p.text AS passage
                FROM {table("qrels.train.tsv", {"query": "VARCHAR", "zero": "VARCHAR", "passage": "VARCHAR", "grade": "INT"})} j
                JOIN {table("queries.train.tsv", {"id": "VARCHAR", "text": "VARCHAR"})} q ON q.id = j.query
                JOIN {table("collection.tsv", {"id": "VARCHAR", "text": "VARCHAR"})} p ON p.id = j.passage
                WHERE j.grade > 0
            ) TO '{scratch}/pairs.parquet' (FORMAT parquet)"""
        ).fetchall()
    return f"{found[0][0]:,} pairs in parquet"


def read_with_ours(folder: str) -> str:
    judged = open_source(folder, "train").read()
    lines = sum(judged.report.lines.values())
    return f"{len(judged.pairs):,} pairs; {lines:,} lines checked, 3 files hashed"


def seeds_with_ours(folder: str) -> str:
    selection = select_seeds(open_source(folder, "train"), 0, 0, CleaningOptions())
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in selection.report.dropped.counts.most_common())
    return f"{len(selection.seeds):,} seeds; dropped: {dropped or 'none'}"


def curate(folder: Path, seeds: int, workers: int) -> tuple[dict[str, float], str]:
    """One run of the command line over a sample: its figures, and a hash over the shards' bytes."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "pipeline.run", "--source", str(folder), "--output", f"{output}/out"]
        command += ["--num-seeds", str(seeds)]
        if workers > 1:
            command += ["--direct_running_mode", "multi_processing", "--direct_num_workers", str(workers)]
        began = time.perf_counter()
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        if status:
            sys.exit(f"the run over {seeds:,} seeds failed with status {os.waitstatus_to_exitcode(status)}")
        made = json.loads((Path(output) / "out" / "manifest.json").read_text("utf-8"))
    digest = hashlib.sha256(json.dumps(made["files"], sort_keys=True).encode()).hexdigest()
    figures = {name: made["run"][f"{name}_seconds"] for name in ("reading", "curating", "writing")}
    return figures | {"wall": wall, "mb": usage.ru_maxrss / 1024, "accepted": made["counts"]["accepted"]}, digest


def reading_table(folder: Path, threads: int) -> Table:
    table = Table(title="the judged pairs of the collection")
    for column in ("step", "result", "s", "of bare DuckDB", "peak MB"):
        table.add_column(column, justify="left" if column in ("step", "result") else "right")
    bare = measured(join_with_duckdb, str(folder), threads)  # the files are warm for all from here on
    bare = measured(join_with_duckdb, str(folder), threads)
    steps = [
        (f"DuckDB, {threads} threads, 500 MB", bare),
        ("read and joined", measured(read_with_ours, str(folder))),
        ("cleaned seeds, near-duplicates out", measured(seeds_with_ours, str(folder))),
    ]
    for name, done in steps:
        ratio = f"{done.seconds / bare.seconds:.2f}"
        table.add_row(name, done.said, f"{done.seconds:.1f}", ratio, f"{done.peak_mb:,.0f}")
    return table


def curation_table(folder: Path, sizes: list[int], workers: list[int]) -> Table:
    table = Table(title="offline curation of a sample of the collection")
    columns = ("seeds", "workers", "accepted", "reading s", "curating s", "writing s", "wall s", "ms a seed", "peak MB")
    for column in columns:
        table.add_column(column, justify="right")
    for seeds in sizes:
        bytes_of = set()
        for number in workers:
            got, digest = curate(folder, seeds, number)
            bytes_of.add(digest)
            table.add_row(
                f"{seeds:,}",
                str(number),
                f"{got['accepted']:,.0f}",
                *(f"{got[name]:.1f}" for name in ("reading", "curating", "writing", "wall")),
                f"{(got['wall'] - got['reading']) / seeds * 1000:.2f}",
                f"{got['mb']:,.0f}",
            )
        if len(bytes_of) > 1:
            sys.exit(f"the shards of {seeds:,} seeds differ between numbers of workers")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--seeds", type=int, nargs="*", default=[5_000, 50_000, 500_000], help="sizes of curation")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="worker processes of curation")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of DuckDB")
    parser.add_argument("--collection", type=Path, metavar="FOLDER", help="keep the collection there")
    parser.add_argument("--skip-reading", action="store_true")
    parser.add_argument("--also", action="store_true", help="near-duplicates and mining too")
    options = parser.parse_args()
    console = Console(width=150)
    with ExitStack() as stack:
        folder = options.collection or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "collection.tsv").exists():
            folder.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            write_collection(folder, options.passages)
            gigabytes = (folder / "collection.tsv").stat().st_size / 1e9
            console.print(
                f"{options.passages:,} passages, {gigabytes:.2f} GB, made in {time.perf_counter() - began:.0f} s"
            )
        if not options.skip_reading:
            console.print(reading_table(folder, options.threads))
        if options.seeds:
            console.print(curation_table(folder, options.seeds, options.workers))
    if options.also:
        for name in ("near_duplicates", "mining"):
            subprocess.run([sys.executable, f"benchmarks/{name}.py"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
