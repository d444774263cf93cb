"""`python benchmarks/curate.py`: what a tuple costs with the offline model: wall, CPU and peak memory at growing sizes.

Synthetic text in MS MARCO's layout and lengths, in a temporary folder that is removed. Each size is one real run of
`python -m pipeline.run` in a process of its own; children's CPU counts. Times are this machine's: compare the
columns with each other (linear or not), not with other machines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ki",
    "lo",
    "me",
    "nu",
    "pa",
    "re",
    "si",
    "to",
    "va",
    "wi",
    "ran",
    "tel",
    "mor",
    "cas",
    "lin",
    "der",
    "fen",
    "gal",
    "hol",
]
FRAMES = (
    "The {a} is a kind of {b} that people use to {c} the {d}.",
    "Most of the {d} comes from {b}, and a {a} can hold it for {n} days.",
    "You may find that the {a} needs {n} hours before the {b} is ready.",
    "In {year} the {b} was first described by a {d} who wanted to {c} it.",
    "According to the {d} office, {n} of the {b} were lost.",
    "I have seen a {a} that did not {c} at all.",
    "If the {b} is dry, then the {a} does not {c}.",
    "A {a} costs about {n} dollars, which is more than a {b}.",
)
QUERIES = ("what is a {a}", "how does a {a} {c} the {d}", "{a} {b} cost", "how long does the {a} last", "define {a}")


def words(rng: random.Random) -> dict[str, object]:
    made = {slot: "".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for slot in "abcd"}
    return made | {"n": rng.randint(2, 900), "year": rng.randint(1800, 2020)}


def write_collection(folder: Path, pairs: int, seed: int = 0) -> None:
    """A passage-ranking folder of `pairs` judged pairs, 30 to 120 words a passage."""
    rng = random.Random(seed)
    with (
        (folder / "collection.tsv").open("w", encoding="utf-8", newline="\n") as collection,
        (folder / "queries.train.tsv").open("w", encoding="utf-8", newline="\n") as queries,
        (folder / "qrels.train.tsv").open("w", encoding="utf-8", newline="\n") as qrels,
    ):
        for i in range(pairs):
            slots = words(rng)
            passage = " ".join(frame.format(**slots) for frame in rng.sample(FRAMES, rng.randint(3, 8)))
            collection.write(f"{i}\t{passage}\n")
            queries.write(f"{i}\t{rng.choice(QUERIES).format(**slots)}\n")
            qrels.write(f"{i}\t0\t{i}\t1\n")


def measure(seeds: int, extra: list[str]) -> dict[str, float]:
    """Run the pipeline over `seeds` pairs; seconds of wall and CPU, MB at the peak, accepted tuples."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source", Path(folder) / "out"
        source.mkdir()
        write_collection(source, seeds)
        command = [sys.executable, "-m", "pipeline.run", "--source", str(source), "--output", str(output), *extra]
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        if status != 0:
            sys.exit(f"the run over {seeds:,} seeds failed with status {os.waitstatus_to_exitcode(status)}")
        counts = json.loads((output / "manifest.json").read_text("utf-8"))["counts"]
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mb": usage.ru_maxrss / 1024,
        "accepted": counts["accepted"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="worker processes, 1 2 compares")
    parser.add_argument("--rounds", type=int, default=1, help="of each, interleaved; medians are shown")
    options = parser.parse_args()
    table = Table(title="offline curation")
    columns = (
        "processes",
        "seeds",
        "accepted",
        "wall s",
        "CPU s",
        "CPU ms a seed",
        "first size off",
        "peak MB",
        "times as fast",
    )
    for column in columns:
        table.add_column(column, justify="right")
    first: tuple[int, float] | None = None
    for seeds in options.seeds:
        rounds = [{n: measure(seeds, flags(n)) for n in options.processes} for _ in range(options.rounds)]
        got = {n: {key: median(each[n][key] for each in rounds) for key in rounds[0][n]} for n in options.processes}
        for n, figures in got.items():
            # Workers' CPU is not in the run's own: the process that forks them keeps no account of it.
            cpu = figures["cpu"] if n == 1 else None
            # The first size carries the start of the process; the slope from there on is what a seed costs.
            slope = (cpu - first[1]) / (seeds - first[0]) * 1000 if cpu and first else None
            if cpu and not first:
                first = seeds, cpu
            table.add_row(
                str(n),
                f"{seeds:,}",
                f"{figures['accepted']:,.0f}",
                f"{figures['wall']:.1f}",
                f"{cpu:.1f}" if cpu else "",
                f"{cpu / seeds * 1000:.2f}" if cpu else "",
                f"{slope:.2f}" if slope else "",
                f"{figures['mb']:.0f}",
                f"{got[options.processes[0]]['wall'] / figures['wall']:.2f}",
            )
    Console(width=130).print(table)


def flags(processes: int) -> list[str]:
    """Of the pipeline, for that many worker processes."""
    if processes == 1:
        return []
    return ["--direct_running_mode", "multi_processing", "--direct_num_workers", str(processes)]


if __name__ == "__main__":
    main()
