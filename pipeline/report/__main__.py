"""`python -m pipeline.report OUTPUT`: the page for people, from an output folder alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import manifest as manifests
from pipeline.commandline import Parser
from pipeline.errors import UsageError
from pipeline.report.page import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="python -m pipeline.report",
        description="Write OUTPUT/report/index.html: one page, no network, with the funnel, the instructions, the judge's "
        "matrix, overlaps, BM25's accuracy, costs, prompts and a browser of rows. pipeline.run writes it at the end of "
        "every run; call this after an audit, or to write it anew.",
        epilog="Then open OUTPUT/report/index.html in a browser. exit status: 0, or 2 with one line on what could not be used",
    )
    parser.add_argument("output", type=Path, help="an output folder of pipeline.run")
    options = parser.parse_args(argv)
    try:
        file = write_report(manifests.read_output(options.output), options.output)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
