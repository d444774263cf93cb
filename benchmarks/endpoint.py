"""`python benchmarks/endpoint.py`: how hard an endpoint is driven, against bare loops and peers, interleaved in one run.

A local endpoint in a process of its own answers after 200 ms on average (lognormal, sigma 0.3). Each contender is a process of its
own with the same slots. Shown: requests a second, their share of the ideal (slots / mean latency), CPU per call and peak
memory; the median over the rounds. Ours is the whole pipeline with store, validation and accounting on; its rate is over the
curation, Beam's start and end included (and the start of the worker processes, where there are any), without the start of the
process and the report; its CPU and memory hold everything, the memory that of the biggest process.

The quick contenders get as many requests as an ideal window answers in `--seconds`, the slow ones a tenth, at least 3,000.

Peers: with `pip install -e ".[bench]"`, datatrove's inference runner (server type endpoint) joins. bespokelabs-curator can't be
installed beside this project's libraries: make it an environment of its own (`pip install bespokelabs-curator`) and name that
environment's interpreter with `--curator`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.curate import write_collection  # noqa: E402, the folder is no package of an installed copy
from tests.fakes.endpoint import KEY  # noqa: E402

LATENCY_S = 0.2
PROMPT = "Say in one JSON object what matters about this passage. " * 40  # as long as our prompts are


def body(i: int) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"instruction_positive": {"type": "string"}},
        "required": ["instruction_positive"],
        "additionalProperties": False,
    }
    return {
        "model": "writer-1",
        "messages": [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": json.dumps({"query": f"query {i}", "passage": f"passage {i} " * 40})},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "instruct", "strict": True, "schema": schema},
        },
    }


async def window(slots: int, requests: int, call: Any) -> float:
    """A refilled window over a plain loop: seconds for all requests."""
    numbers = iter(range(requests))

    async def slot() -> None:
        for i in numbers:
            await call(i)

    began = time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(slots)))
    return time.perf_counter() - began


async def bare_openai(url: str, slots: int, requests: int, aio: bool) -> float:
    import openai

    http = openai.DefaultAioHttpClient() if aio else None
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, http_client=http) as client:

        async def call(i: int) -> None:
            answer = await client.chat.completions.create(**body(i))
            json.loads(answer.choices[0].message.content or "")

        return await window(slots, requests, call)


async def bare_aiohttp(url: str, slots: int, requests: int) -> float:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=slots)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def call(i: int) -> None:
            async with session.post(f"{url}/chat/completions", json=body(i)) as response:
                json.loads((await response.json())["choices"][0]["message"]["content"])

        return await window(slots, requests, call)


def pipeline(url: str, slots: int, requests: int, *flags: str) -> float:
    """Seconds of the curation of as many seeds as make that many requests."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source", Path(folder) / "out"
        source.mkdir()
        write_collection(source, requests // 4)
        command = [sys.executable, "-m", "pipeline.run", "--source", str(source), "--output", str(output)]
        command += [
            "--base-url",
            url,
            "--generator",
            "writer-1",
            "--judge",
            "judge-1",
            "--concurrency",
            str(slots),
            *flags,
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        made = json.loads((output / "manifest.json").read_text("utf-8"))
        calls = sum(task["made"] for task in made["calls"].values())
        return float(made["run"]["curating_seconds"]) * requests / calls


def datatrove(url: str, slots: int, requests: int) -> float:
    """Seconds of datatrove's inference runner on documents that are in memory, its results written as JSONL."""
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter
    from loguru import logger

    logger.remove()

    async def rollout(document: Document, generate: Callable[[dict[str, Any]], Any]) -> Any:
        result = await generate(body(int(document.id)))
        return json.loads(result.text)

    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path="writer-1",
        endpoint_url=url.removesuffix("/v1"),
        max_concurrent_generations=slots,
    )
    with tempfile.TemporaryDirectory() as folder:
        runner = InferenceRunner(rollout, config, JsonlWriter(folder))
        documents = [Document(text="passage", id=str(i)) for i in range(requests)]
        began = time.perf_counter()
        runner.run(documents)
        seconds = time.perf_counter() - began
        asked = runner.stats["successful_requests"].total
    assert asked == requests, f"datatrove made {asked} of {requests} requests"
    return seconds


CURATOR = """
import json, os, sys, time
from importlib.util import find_spec
from pathlib import Path

# A vocabulary that it would download comes with one of its own libraries.
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers")
url, slots, requests, key = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
from bespokelabs import curator

class Writer(curator.LLM):
    def prompt(self, row):
        return [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["user"]}]

    def parse(self, row, response):
        return [{"instruction": json.loads(response)["instruction_positive"]}]

most = 10**9
given = json.load(sys.stdin)
writer = Writer(
    model_name="writer-1",
    backend="openai",
    generation_params={"response_format": given["response_format"]},
    backend_params={
        "base_url": url,
        "api_key": key,
        "max_concurrent_requests": slots,
        "max_requests_per_minute": most,
        "max_tokens_per_minute": most,
        "require_all_responses": True,
    },
)
rows = given["rows"]
began = time.perf_counter()
made = writer(rows)
seconds = time.perf_counter() - began
made = getattr(made, "dataset", made)
assert len(made) == requests, len(made)
print("seconds", seconds)
"""


def curator(url: str, slots: int, requests: int) -> float:
    """Seconds of bespokelabs-curator, by the interpreter of an environment that has it."""
    rows = [{"system": PROMPT, "user": body(i)["messages"][1]["content"]} for i in range(requests)]
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"CURATOR_CACHE_DIR": folder, "CURATOR_DISABLE_CACHE": "1", "TELEMETRY_ENABLED": "0", "HOME": folder}
        done = subprocess.run(
            [os.environ["CURATOR_PYTHON"], "-c", CURATOR, url, str(slots), str(requests), KEY],
            input=json.dumps({"rows": rows, "response_format": body(0)["response_format"]}),
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"curator: {done.stderr[-2000:]}")
    return float(next(line for line in done.stdout.splitlines() if line.startswith("seconds")).split()[1])


Contender = Callable[[str, int, int], float]
OURS, OURS_TWICE, BARE = "this pipeline, end to end", "the same with 2 worker processes", "bare aiohttp loop"
TWO_WORKERS = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
CONTENDERS: dict[str, Contender] = {
    OURS: pipeline,
    OURS_TWICE: lambda url, slots, n: pipeline(url, slots, n, *TWO_WORKERS),
    "datatrove, inference runner": datatrove,
    "bespokelabs-curator": curator,
    "bare AsyncOpenAI loop": lambda url, slots, n: asyncio.run(bare_openai(url, slots, n, aio=False)),
    "bare AsyncOpenAI loop on aiohttp": lambda url, slots, n: asyncio.run(bare_openai(url, slots, n, aio=True)),
    BARE: lambda url, slots, n: asyncio.run(bare_aiohttp(url, slots, n)),
}
QUICK = (OURS, OURS_TWICE, "datatrove, inference runner", BARE)


def present(curator_python: str | None) -> list[str]:
    """The contenders that can run here; the others are said on stderr."""
    names = list(CONTENDERS)
    if importlib.util.find_spec("datatrove") is None:
        names.remove("datatrove, inference runner")
        print('without datatrove: pip install -e ".[bench]" brings it', file=sys.stderr)
    if curator_python is None:
        names.remove("bespokelabs-curator")
        print("without bespokelabs-curator: name an interpreter that has it with --curator", file=sys.stderr)
    else:
        os.environ["CURATOR_PYTHON"] = curator_python
    return names


def measure(name: str, url: str, slots: int, seconds: float) -> dict[str, float]:
    ideal = round(slots / LATENCY_S * seconds)
    requests = ideal if name in QUICK else min(ideal, max(3000, ideal // 10))
    command = [sys.executable, __file__, "--contend", name, "--url", url]
    command += ["--slots", str(slots), "--requests", str(requests)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{name} failed")
    rate = requests / float(printed)
    return {
        "rate": rate,
        "share": rate / (slots / LATENCY_S),
        "cpu_ms": (usage.ru_utime + usage.ru_stime) / requests * 1000,
        "mb": usage.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--seconds", type=float, default=60.0, help="of an ideal window, for the quick contenders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curator", metavar="PYTHON", help="interpreter of an environment with bespokelabs-curator")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORDS", help="contenders whose names hold one of these"
    )
    parser.add_argument("--requests", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        print(CONTENDERS[options.contend](options.url, options.slots[0], options.requests))
        return
    contenders = [
        name
        for name in present(options.curator)
        if name == BARE or not options.only or any(words in name for words in options.only)
    ]
    os.environ["OPENAI_API_KEY"] = KEY
    command = [sys.executable, "-m", "tests.fakes.endpoint", "--latency-ms", str(LATENCY_S * 1000), "--keyless"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    console = Console(width=120)
    try:
        for slots in options.slots:
            got: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
            pipeline(
                url, slots, round(slots / LATENCY_S * options.seconds)
            )  # so that the endpoint has made its answers
            for _ in range(options.rounds):
                for name in contenders:
                    got[name].append(measure(name, url, slots, options.seconds))
            bare = statistics.median(r["rate"] for r in got[BARE])
            table = Table(title=f"{slots} slots, median of {options.rounds} rounds")
            for column in ("", "requests/s", "of the ideal", "of bare aiohttp", "CPU ms/call", "peak MB"):
                table.add_column(column, justify="left" if not column else "right")
            for name, rounds in got.items():
                middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                table.add_row(
                    name,
                    f"{middle['rate']:,.0f}",
                    f"{middle['share']:.2f}",
                    f"{middle['rate'] / bare:.2f}",
                    # the process that forks workers keeps no account of their CPU
                    "" if name == OURS_TWICE else f"{middle['cpu_ms']:.2f}",
                    f"{middle['mb']:.0f}",
                )
            console.print(table)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
