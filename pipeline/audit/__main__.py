"""`python -m pipeline.audit`: people check the judge."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import manifest as manifests
from pipeline.audit import sample as samples
from pipeline.audit.annotations import Annotations, read_all, read_sheet, write_sheet
from pipeline.audit.sample import audit_folder, judged_grades
from pipeline.card import write_card
from pipeline.commandline import Parser
from pipeline.errors import UsageError
from pipeline.progress import paper

EPILOG = """\
a round, from the draw to the figures:
  python -m pipeline.audit sample data/infir --rows 60
  python -m pipeline.audit serve data/infir          grade with the keys 0 to 3, u takes back
  python -m pipeline.audit agree data/infir          kappas, confusion, thresholds; the card gets the figures

in a spreadsheet instead of the page:
  python -m pipeline.audit to-csv data/infir --to grades.csv
  python -m pipeline.audit from-csv data/infir grades.csv --annotator anna

Several people grade under names of their own, one after the other or in turns: agree takes all of them together. The sample
and everybody's grades lie in OUTPUT/audit, one file a person; nothing there shows what the judge thought. serve and agree take
the audit extra: pip install -e ".[audit]".

exit status: 0, or 2 with one line on what could not be used
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: this needs {error.name}: pip install 'inf-ir[audit]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pipeline.audit",
        description="People check the judge: draw rows blind, grade them, measure agreement.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.add_argument("output", type=Path, help="an output folder of pipeline.run")
        sub.set_defaults(run=run)
        return sub

    sample = command("sample", _sample, "draw rows, evenly over dimensions and the judge's verdicts")
    sample.add_argument("--rows", type=int, default=60, help="rows to draw, nine cells each (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    page = command("serve", _serve, "open a local page on which a person grades by keyboard")
    page.add_argument(
        "--port", type=_port, default=8321, help="on 127.0.0.1; 0 for any free one (default: %(default)s)"
    )
    command("agree", _agree, "agreement with the judge and between people, and what other thresholds would do")
    sheet = command("to-csv", _to_csv, "write the sample as a sheet to fill in")
    sheet.add_argument("--to", type=Path, required=True, help="a file that is not there yet")
    filled = command("from-csv", _from_csv, "take the grades of a filled sheet")
    filled.add_argument("sheet", type=Path)
    filled.add_argument("--annotator", required=True, help="whose grades they are")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535, or 0 for any free one")
    return int(text)


def _sample(options: argparse.Namespace) -> None:
    if options.rows < 1:
        raise UsageError(f"--rows {options.rows}: at least 1")
    sample = samples.draw(options.output, options.rows, options.seed)
    file = samples.write(sample, audit_folder(options.output))
    print(f"{len(sample.rows)} rows, {len(sample.cells)} cells to grade, in {file}.")
    print(f"Next: python -m pipeline.audit serve {options.output}")


def _serve(options: argparse.Namespace) -> None:
    folder = audit_folder(options.output)
    sample = samples.read(folder)
    from pipeline.audit.serve import serve  # noqa: PLC0415, an extra

    serve(folder, sample, options.port)


def _to_csv(options: argparse.Namespace) -> None:
    try:
        write_sheet(samples.read(audit_folder(options.output)), options.to)
    except FileExistsError:
        raise UsageError(f"{options.to} is there already, perhaps with grades in it; choose another file") from None
    print(f"Fill the last column of {options.to} with grades 0 to 3, then: python -m pipeline.audit from-csv …")


def _from_csv(options: argparse.Namespace) -> None:
    folder = audit_folder(options.output)
    sample = samples.read(folder)
    taken = read_sheet(options.sheet, Annotations(folder, sample, options.annotator), sample)
    print(f"{taken} grades of {options.annotator} taken.")


def _agree(options: argparse.Namespace) -> None:
    folder = audit_folder(options.output)
    sample = samples.read(folder)
    people = [person for person in read_all(folder, sample) if person.grades]
    if not people:
        raise UsageError(f"nobody has graded yet: {folder} holds no answers. Start with python -m pipeline.audit serve")
    made = manifests.read_output(options.output)
    from pipeline.audit import agreement  # noqa: PLC0415, an extra, and slow to import

    judged = judged_grades(options.output, sample)
    figures = {"inputs": made["inputs"]} | agreement.measure(sample, people, judged).as_dict()
    (folder / "agreement.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    write_card(made, options.output)
    _show(figures, agreement.differing_cells(people, judged), paper())
    print(
        f"{options.output / 'README.md'} has the figures now; python -m pipeline.report {options.output} shows them too."
    )


def _show(figures: dict[str, Any], apart: list[tuple[tuple[str, int, int], int, int]], console: Console) -> None:
    console.print(
        f"{figures['cells_graded']:,} cells of {figures['rows']:,} rows, graded by {', '.join(figures['annotators'])}"
    )
    table = Table(title="Cohen's kappa, quadratic weights, 95 % interval", title_justify="left", show_edge=False)
    for name in ("", "cells", "equal", "kappa", "from", "to"):
        table.add_column(name, justify="right" if name else "left")
    lines = {"judge and people": figures["judge_and_people"], **figures["between_people"]["pairs"]}
    lines |= {f"  {name}": line for name, line in figures["by_dimension"].items()}
    for name, line in lines.items():
        table.add_row(name, f"{line['cells']:,}", *(_shown(line[key]) for key in ("equal", "kappa", "low", "high")))
    console.print(table)
    between = figures["between_people"]
    if between["fleiss"]:
        fleiss = between["fleiss"]
        low, high = _shown(fleiss["low"]), _shown(fleiss["high"])
        console.print(f"between people: Fleiss' kappa {fleiss['kappa']:.3f} ({low} to {high})")
    if between["krippendorff"]:
        alpha = between["krippendorff"]
        low, high = _shown(alpha["low"]), _shown(alpha["high"])
        console.print(f"between people: Krippendorff's alpha {alpha['alpha']:.3f} ({low} to {high})")
    confusion = Table(
        title="cells by the judge's grade (lines) and people's (columns)", title_justify="left", show_edge=False
    )
    for name in ("judge", "0", "1", "2", "3"):
        confusion.add_column(name, justify="right")
    for grade, counts in enumerate(figures["confusion"]):
        confusion.add_row(str(grade), *map(str, counts))
    console.print(confusion)
    other = Table(
        title="accepting at other thresholds, people's verdict as the truth", title_justify="left", show_edge=False
    )
    for name in ("relevant from", "irrelevant up to", "yield", "precision"):
        other.add_column(name, justify="right")
    for line in figures["thresholds"]:
        other.add_row(str(line["relevant"]), str(line["irrelevant"]), _shown(line["yield"]), _shown(line["precision"]))
    console.print(other)
    for (row, context, passage), judge, people in apart[:20]:
        console.print(
            f"apart: {row}, context {context + 1}, passage {passage + 1}: judge {judge}, people {people}",
            highlight=False,
        )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
