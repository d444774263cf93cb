"""`python -m pipeline.store`: what the memory of answers holds, what it cost, and taking answers out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import jsonlines
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from pipeline.chat.memory import answers, open_engine, spend
from pipeline.commandline import Parser
from pipeline.errors import UsageError
from pipeline.output import Output
from pipeline.progress import paper

EPILOG = """\
examples:
  python -m pipeline.store show data/infir
  python -m pipeline.store show postgresql://me@db/answers
  python -m pipeline.store export data/infir --to answers.jsonl
  python -m pipeline.store prune data/infir --model old-model --yes

STORE is an output folder, or the URL that was given as --store. Pruned answers are paid for again when a run needs them; what
was spent stays on the books, so a budget is not reset. exit status: 0, or 2 with one line on what could not be used.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        engine = open_existing(options.store)
        try:
            options.run(engine, options)
        finally:
            engine.dispose()
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sa.exc.SQLAlchemyError as error:
        print(f"error: the store failed: {' '.join(str(getattr(error, 'orig', error)).split())[:200]}", file=sys.stderr)
        return 2
    return 0


def open_existing(store: str) -> sa.Engine:
    """The engine of a store that is there: looking never makes one."""
    url = store
    if "://" not in store:
        file = Output(Path(store)).answers
        url = f"sqlite:///{file}"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise UsageError(f"{store} holds no store of answers; give an output folder, or the URL given as --store")
    return open_engine(url)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pipeline.store",
        description="What the memory of answers holds and what it cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, help_ in (
        ("show", show, "answers, tokens, latency and spend, by task and model"),
        ("export", export, "every answer as a line of JSON, as the endpoint gave it"),
        ("prune", prune, "forget answers of a model, or older than a day"),
    ):
        command = commands.add_parser(name, help=help_, description=help_)
        command.add_argument("store", metavar="STORE", help="an output folder, or a URL")
        command.set_defaults(run=run)
        if name == "export":
            command.add_argument("--to", type=Path, required=True, help="a file that is not there yet")
        if name == "prune":
            command.add_argument("--model", help="answers of this model")
            command.add_argument("--before", type=_day, help="answers older than this day, as 2026-01-31")
            command.add_argument("--yes", action="store_true", help="do it; without, only tell how many")
    return parser


def show(engine: sa.Engine, _: argparse.Namespace) -> None:
    """Print the books."""
    a = answers.c
    query = (
        sa.select(
            a.task,
            a.model,
            sa.func.count(),
            sa.func.sum(a.prompt_tokens),
            sa.func.sum(a.cached_tokens),
            sa.func.sum(a.completion_tokens),
            sa.func.sum(a.reasoning_tokens),
            sa.func.sum(a.failed_attempts),
            sa.func.avg(a.latency_s),
            sa.func.max(a.latency_s),
            sa.func.sum(a.cost_usd),
            sa.func.count(a.cost_usd),
        )
        .group_by(a.task, a.model)
        .order_by(a.task, a.model)
    )
    table = Table(title="answers", title_justify="left", show_edge=False, pad_edge=False)
    columns = (
        "task",
        "model",
        "answers",
        "prompt",
        "cached",
        "answer",
        "reasoning",
        "failed",
        "mean s",
        "most s",
        "US$",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("task", "model") else "right", no_wrap=name == "task")
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        spent = connection.execute(sa.select(spend.c.usd)).scalar_one()
        size = connection.execute(sa.select(sa.func.sum(sa.func.length(a.raw)))).scalar_one() or 0
    for task, model, n, *tokens, mean, longest, cost, priced in rows:
        dollars = f"{cost:,.4f}" if priced == n else "unknown" if not priced else f"{cost:,.4f} and unknown"
        table.add_row(task, model, f"{n:,}", *(f"{int(t):,}" for t in tokens), f"{mean:.2f}", f"{longest:.2f}", dollars)
    console: Console = paper()
    console.print(table)
    console.print(
        f"{size / 1e6:,.1f} MB of responses. Spent over the store's life, where prices are known: {spent:,.4f} US$."
    )


def export(engine: sa.Engine, options: argparse.Namespace) -> None:
    """Write every answer, in the order of keys."""
    if options.to.exists():
        raise UsageError(f"{options.to} is there already; choose another file")
    n = 0
    with engine.connect() as connection, jsonlines.open(options.to, "w") as writer:
        for row in connection.execution_options(yield_per=1000).execute(sa.select(answers).order_by(answers.c.key)):
            writer.write(row._asdict())
            n += 1
    print(f"{n:,} answers in {options.to}")


def prune(engine: sa.Engine, options: argparse.Namespace) -> None:
    """Forget answers; the spend stays."""
    chosen = []
    if options.model:
        chosen.append(answers.c.model == options.model)
    if options.before:
        chosen.append(answers.c.created_at < options.before.isoformat())
    if not chosen:
        raise UsageError("say what to forget: --model, --before, or both")
    with engine.begin() as connection:
        n = connection.execute(sa.select(sa.func.count()).select_from(answers).where(*chosen)).scalar_one()
        if options.yes:
            connection.execute(sa.delete(answers).where(*chosen))
    print(f"{n:,} answers forgotten." if options.yes else f"{n:,} answers would be forgotten; --yes does it.")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-01-31") from None


if __name__ == "__main__":
    sys.exit(main())
