"""`python benchmarks/report.py`: what the report and the exports of a big data set cost: seconds, peak memory, size of what they write.

The rows are synthetic, in MS MARCO's lengths, with a manifest that adds up, in a temporary folder that is removed. Each command runs
in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline import manifest as manifests  # noqa: E402
from pipeline.accounts import Accounts  # noqa: E402
from pipeline.chat.money import Prices  # noqa: E402
from pipeline.dimensions import Dimensions  # noqa: E402
from pipeline.export import FORMATS  # noqa: E402
from pipeline.judging import DECIDING  # noqa: E402
from pipeline.recipe import Recipe  # noqa: E402
from pipeline.records import TEXT_COLUMNS, Tuple  # noqa: E402
from pipeline.shards import file_sha256  # noqa: E402
from pipeline.tables import ACCEPTED, REJECTED, row_of  # noqa: E402
from pipeline.tasks import load_tasks  # noqa: E402

PER_FILE = 10_000
LENGTHS = {"query": (3, 12), "instruction": (4, 60), "document": (25, 120)}


def write_rows(folder: Path, accepted: int, rejected: int) -> None:
    """A finished output folder of so many rows."""
    rng = random.Random(0)
    recipe = Recipe(tasks=load_tasks(), dimensions=Dimensions.load(), generator="writer", judge="judge")
    words = ["".join(rng.choices("aeioubcdfglmnprst", k=rng.randint(2, 10))) for _ in range(20_000)]
    accounts = Accounts(outcomes=Counter(accepted=accepted, rejected=rejected), splits=Counter(train=accepted))
    files = []
    for kind, total in (("train", accepted), ("rejected", rejected)):
        of = -(-total // PER_FILE)
        for number in range(of):
            name = "rejected" if kind == "rejected" else "data"
            file = folder / name / f"{kind}-{number:05d}-of-{of:05d}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                make_row(rng, words, recipe, f"{kind}{number}-{i}", kind, accounts)
                for i in range(min(PER_FILE, total - number * PER_FILE))
            ]
            schema = REJECTED if kind == "rejected" else ACCEPTED
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd", row_group_size=1000)
            path = str(file.relative_to(folder))
            files.append({"path": path, "rows": len(rows), "sha256": file_sha256(file)})
    made = manifests.build(
        accounts=accounts,
        recipe=recipe,
        prices=Prices.load(()),
        source={"name": "synthetic", "split": "train"},
        files=files,
        calls=Counter(),
        arguments={},
        inputs="0" * 64,
        run={},
    )
    manifests.write(made, folder / "manifest.json")


def make_row(
    rng: random.Random, words: list[str], recipe: Recipe, name: str, kind: str, accounts: Accounts
) -> dict[str, object]:
    """A row as the shards hold it; the accounts are told of it."""
    draw = recipe.dimensions.draw(name, "train", measured_only=False)
    outcome = "rejected" if kind == "rejected" else "accepted"
    accounts.dimensions[draw.dimension.name, outcome] += 1
    accounts.forms[draw.form.name, outcome] += 1
    texts = {}
    for column in TEXT_COLUMNS:
        least, most = next((span for part, span in LENGTHS.items() if part in column))
        texts[column] = " ".join(rng.choices(words, k=rng.randint(least, most)))
    grades = tuple(tuple(rng.choice((2, 3)) if c == p else rng.choice((0, 1)) for p in range(3)) for c in range(3))
    tuple_ = Tuple(
        id=name,
        query_id=name,
        document_id=name,
        split="train",
        dimension=draw.dimension.name,
        form=draw.form.name,
        relevance=grades,  # type: ignore[arg-type]
        rationale=" ".join(rng.choices(words, k=30)),
        **texts,
    )
    row = row_of(tuple_, recipe.prompt_hashes, "synthetic/train")
    if kind == "rejected":
        reason = rng.choice(list(DECIDING))
        accounts.reasons["rejected", "judge", reason] += 1
        row |= {"stage": "judge", "reason": reason, "detail": "as drawn"}
    return row


def measure(*command: str) -> tuple[float, float, float]:
    """Seconds of wall and CPU, and MB at the peak, of one of our commands."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status != 0:
        sys.exit(f"{' '.join(command)} failed with status {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 50_000, 200_000], help="accepted rows")
    parser.add_argument("--formats", nargs="*", default=["tevatron", "mteb"], choices=FORMATS, help="to export to")
    options = parser.parse_args()
    table = Table(title="a tenth as many rejected rows beside the accepted ones")
    for column in ("accepted", "command", "wall s", "CPU s", "peak MB", "written MB"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for accepted in options.rows:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "infir"
            write_rows(folder, accepted, accepted // 10)
            commands = {"report": (folder / "report", "pipeline.report", str(folder))}
            for name in options.formats:
                to = Path(scratch) / name
                arguments = ("pipeline.export", str(folder), "--format", name, "--to", str(to))
                commands[f"export to {name}"] = (to, *arguments)
            for what, (to, *command) in commands.items():
                figures = [f"{x:.1f}" for x in measure(*command)]
                size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file()) / 1e6
                table.add_row(f"{accepted:,}", what, *figures, f"{size:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
