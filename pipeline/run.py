"""`python -m pipeline.run`: judged query-passage pairs in, a validated instruction-following data set out.

read → clean and sample → draw dimension → synthesise I+ → poison I, poison Q → check → judge → split → shards, card, report
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

import pipeline.quiet  # noqa: F401, first of ours: before anything imports Beam
from pipeline import estimate, summary
from pipeline import manifest as manifests
from pipeline.accounts import Accounts, add_untouched, keep_accounts
from pipeline.card import write_card
from pipeline.chat.config import ChatConfig
from pipeline.chat.memory import open_engine, read_experience
from pipeline.chat.money import Prices
from pipeline.chat.request import Sampling
from pipeline.chat.session import close_chats
from pipeline.cleaning import CleaningOptions, Selection, select_seeds
from pipeline.curation import write_shards
from pipeline.dimensions import Dimensions
from pipeline.errors import UsageError
from pipeline.mining import Miner
from pipeline.options import Options, parse
from pipeline.output import Output, open_output
from pipeline.progress import paper, telling
from pipeline.recipe import Recipe, Thresholds
from pipeline.records import DEFERRALS, Seed
from pipeline.report import write_report
from pipeline.runners import make_runner
from pipeline.shards import plan_shards, put_in_place
from pipeline.sources import Source, SourceReport, open_source, summary_lines
from pipeline.sources.passages import check_mineable
from pipeline.splits import assign_splits
from pipeline.staging import forget_other_waves, plan_waves
from pipeline.tasks import load_tasks
from pipeline.versions import code_hash
from pipeline.working import Work, run_beam, search_on_workers, work_through

COMPLETE, FAILED, UNUSABLE, ENDED_EARLY = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(list(sys.argv[1:] if argv is None else argv))
    try:
        with open_output(options.output) as output:
            return run(options, output, Console(stderr=True))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print(f"Stopped. What is answered is safe under {options.output}; the same command goes on.", file=sys.stderr)
        return ENDED_EARLY
    except OSError as error:
        print(f"error: {error}. What is done is safe; the same command goes on.", file=sys.stderr)
        return FAILED


def run(options: Options, output: Output, console: Console) -> int:
    """Read, curate in waves, write. Returns the exit status."""
    began = time.monotonic()
    make_runner(options.runner, options.beam)  # an unknown one is told before anything is read
    prices = Prices.load(options.price)
    recipe = make_recipe(options)
    source = open_source(options.source, options.source_split, options.exclude_queries, options.near_duplicates)
    if options.mining:
        check_mineable(source)
    selection = read(source, options, console)
    read_in = time.monotonic() - began
    seeds = assign_splits(selection.seeds, options.near_duplicates, selection.near_passages)
    if options.estimate:
        return show_estimate(seeds, recipe, prices, options, output)
    origin = f"{selection.report.name}/{options.source_split}"
    settings = {"recipe": recipe.fingerprint, "code": code_hash(), "source": origin}
    miner = None
    if options.mining:
        miner = Miner(options.mining, source, selection, seeds, output.mining, options.near_duplicates)
        settings["mining"] = miner.fingerprint
    waves = plan_waves(seeds, options.wave_size, settings, output.waves)
    inputs = hash_inputs(settings, seeds, options)

    before = manifests.read(output.manifest)
    if before and is_complete(before, inputs, output):
        print(f"{output.folder} is complete and intact: nothing to do.")
        return COMPLETE

    chat = chat_config(options, output)
    if not chat.offline_only:
        open_engine(chat.store).dispose()  # a store that can't be used is told here, before any worker starts
    work = work_through(waves, recipe, origin, options, chat, output, console, miner)
    close_chats()
    folders = [wave.folder for wave in waves]
    untouched = sum(len(wave.seeds) for wave in waves if not wave.folder.is_dir())
    read_of = selection.report
    del waves, seeds, selection, miner  # a gigabyte at MS MARCO's size, which nothing from here on needs
    staged = [folder for folder in folders if folder.is_dir()]
    with output.empty_scratch() as scratch:
        accounts = keep_accounts(staged, options.near_duplicates, partial(search_on_workers, options, scratch))
        add_untouched(accounts, untouched, "stopped")
        shards = plan_shards(accounts.splits, accounts.outcomes["rejected"], options.num_shards, options.rows_per_shard)
        run_beam(options, lambda pipeline: write_shards(pipeline, shards, staged, accounts.gone, scratch))
        files = put_in_place(shards, scratch, output.folder)
    made = manifests.build(
        accounts=accounts,
        recipe=recipe,
        prices=prices,
        source=read_of.as_manifest(),
        near_duplicates=near_duplicates(options, read_of, accounts),
        mining=mining(options, accounts),
        files=files,
        calls=work.calls,
        arguments=arguments(options),
        inputs=inputs,
        run=figures(work, read_in, time.monotonic() - began),
    )
    manifests.write(made, output.manifest)
    write_card(made, output.folder)
    write_report(made, output.folder)
    forget_other_waves(output.waves, folders)
    summary.show(made, output.folder, paper())
    return status(work)


def make_recipe(options: Options) -> Recipe:
    """What the command line asks for, as a value: prompts, schemas and dimensions are read here and nowhere later."""
    return Recipe(
        tasks=load_tasks(mining=options.mining is not None),
        dimensions=Dimensions.load(),
        generator=options.generator,
        judge=options.judge,
        generator_sampling=Sampling(options.temperature, options.max_completion_tokens, options.reasoning_effort),
        judge_sampling=Sampling(
            options.judge_temperature, options.max_completion_tokens, options.judge_reasoning_effort
        ),
        thresholds=Thresholds(options.relevant, options.irrelevant),
    )


def read(source: Source, options: Options, console: Console) -> Selection:
    """Read the source, clean and sample. A source without a usable pair is a UsageError."""
    cleaning = CleaningOptions(near_duplicates=options.near_duplicates)
    with console.status("reading") as status:
        selection = select_seeds(source, options.num_seeds, options.seed, cleaning, telling(status))
    for line in summary_lines(selection.report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return selection


def chat_config(options: Options, output: Output) -> ChatConfig:
    """How the models are reached, without any key."""
    return ChatConfig(
        base_url=options.base_url,
        concurrency=options.concurrency,
        processes=options.processes,
        timeout_s=options.timeout,
        rpm=options.rpm,
        tpm=options.tpm,
        store=options.store or f"sqlite:///{output.answers}",
        max_cost_usd=options.max_cost_usd,
        prices=options.price,
        mode=options.mode,
        live_folder=str(output.live),
        offline_only=not options.needs_endpoint,
    )


def show_estimate(seeds: Sequence[Seed], recipe: Recipe, prices: Prices, options: Options, output: Output) -> int:
    """Print what the run would ask, use, cost and take."""
    chat = chat_config(options, output)
    known = options.store or output.answers.exists()
    lines = estimate.estimate(
        seeds,
        recipe,
        prices,
        read_experience(chat.store) if known else {},
        options.concurrency,
        options.mode == "batch",
    )
    estimate.show(lines, len(seeds), paper())
    return COMPLETE


def hash_inputs(settings: dict[str, Any], seeds: Sequence[Seed], options: Options) -> str:
    """The hash of everything that decides the shards: equal inputs, equal bytes."""
    layout = options.num_shards, options.rows_per_shard, options.near_duplicates
    digest = hashlib.sha256(json.dumps([settings, layout], sort_keys=True).encode())
    for seed in sorted(seeds, key=lambda seed: seed.id):
        digest.update(json.dumps(asdict(seed), sort_keys=True).encode())
    return digest.hexdigest()


def is_complete(before: dict[str, Any], inputs: str, output: Output) -> bool:
    """Whether an earlier run made the very data set that this one would make, and it still lies there whole."""
    return (
        before["inputs"] == inputs
        and before["counts"]["deferred"] == 0
        and output.card.is_file()
        and output.report.is_file()
        and manifests.files_are_intact(before, output.folder)
    )


def near_duplicates(options: Options, read_of: SourceReport, accounts: Accounts) -> dict[str, Any]:
    """Sizes of the clusters of near-duplicates; how many fell stands with the other reasons."""
    clusters = {"seeds": read_of.near_duplicate_clusters, "tuples": accounts.near_duplicate_clusters}
    return {"threshold": options.near_duplicates or None} | {
        what: {str(size): n for size, n in sorted(sizes.items())} for what, sizes in clusters.items()
    }


def mining(options: Options, accounts: Accounts) -> dict[str, Any] | None:
    """What was mined and how the judge graded it; null where nothing was."""
    if not options.mining:
        return None
    grades = {str(grade): n for grade, n in sorted(accounts.mined_grades.items())}
    shown = {"model": _without_place(options.mine_model)}
    return asdict(options.mining) | shown | {"passages": accounts.mined_passages, "first_grades": grades}


def arguments(options: Options) -> dict[str, Any]:
    """The command line as understood, for the manifest: no places of this machine, and no secrets."""
    places = ("beam", "output", "source", "exclude_queries", "store", "base_url")
    shown = {name: value for name, value in asdict(options).items() if name not in places}
    return shown | {
        "exclude_queries": len(options.exclude_queries),
        "mine_model": _without_place(options.mine_model),
        "store": urlsplit(options.store).scheme if options.store else "sqlite",
        "base_url": urlsplit(options.base_url).hostname if options.base_url else None,
    }


def _without_place(model: str | None) -> str | None:
    """A model's name: of a folder of this machine the last part."""
    return Path(model).name if model and Path(model).exists() else model


def figures(work: Work, read_in: float, seconds: float) -> dict[str, Any]:
    """What varies from run to run: when, and how long each stage took; the card and the report come after it."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "reading_seconds": round(read_in, 2),
        "curating_seconds": round(work.seconds, 2),
        "writing_seconds": round(seconds - read_in - work.seconds, 2),
        "waves": work.waves_done,
        "seeds": work.seeds_done,
        "seeds_per_second": round(work.seeds_done / work.seconds, 2) if work.seconds else None,
        "mean_latency_s": {task: mean_latency(work, task) for task, what in sorted(work.calls) if what == "made"},
    }


def mean_latency(work: Work, task: str) -> float | None:
    """Seconds that a call of this run took until its answer, failed attempts apart; None where none was made."""
    made = work.calls[task, "made"]
    return round(work.calls[task, "latency_ms"] / made / 1000, 3) if made else None


def status(work: Work) -> int:
    """The exit status that the seeds without an answer mean, with a sentence for each reason on stderr."""
    for reason, (seeds, detail) in work.deferred.items():
        print(f"{seeds:,} seeds wait ({DEFERRALS[reason]}): {detail}", file=sys.stderr)
    if not work.deferred:
        return COMPLETE
    failed = {"stopped", "endpoint_failed"} & set(work.deferred)
    ending = "Mend that, and the same command goes on" if failed else "The same command goes on"
    print(f"{ending}; what is answered is safe and not paid for again.", file=sys.stderr)
    return FAILED if failed else ENDED_EARLY


if __name__ == "__main__":
    from pipeline.run import main as imported  # not `__main__`'s classes: workers could not unpickle them

    sys.exit(imported())
