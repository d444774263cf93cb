"""What tests of the pipeline share: a finished output folder, the command line, small sources."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Curated:
    """A finished output folder."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text("utf-8"))

    @property
    def bytes(self) -> dict[str, bytes]:
        """The data files, by name."""
        files = sorted([*self.folder.glob("data/*"), *self.folder.glob("rejected/*")])
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in files}

    def rows(self, split: str = "*") -> list[dict[str, Any]]:
        """The accepted rows of a split, or all."""
        files = sorted(self.folder.glob(f"data/{split}-*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]


def run_command(
    *arguments: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.run` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.run", *arguments],
        cwd=options.pop("cwd", ROOT),
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(env or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def write_source(folder: Path, pairs: Mapping[str, str]) -> Path:
    """A passage-ranking folder of query -> passage pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    collection = "".join(f"{i}\t{passage}\n" for i, passage in enumerate(pairs.values()))
    queries = "".join(f"{i}\t{query}\n" for i, query in enumerate(pairs))
    qrels = "".join(f"{i}\t0\t{i}\t1\n" for i in range(len(pairs)))
    for name, text in (("collection", collection), ("queries.train", queries), ("qrels.train", qrels)):
        (folder / f"{name}.tsv").write_text(text, "utf-8", newline="\n")
    return folder
