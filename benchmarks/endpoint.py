"""`python benchmarks/endpoint.py`: how hard an endpoint is driven, against bare loops and peers, interleaved in one run.

A local endpoint in a process of its own answers after 200 ms on average (lognormal, sigma 0.3). Each contender is a process of its
own that makes the same number of requests with the same slots. Shown: requests a second, their share of the ideal
(slots / mean latency), CPU per call and peak memory; the median over the rounds. Ours is the whole pipeline with store,
validation and accounting on; its rate is over the curation, without the start of the process.

With `pip install -e ".[bench]"`, datatrove's inference runner and bespokelabs-curator run too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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


def pipeline(url: str, slots: int, requests: int) -> float:
    """Seconds of the curation of as many seeds as make that many requests."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source", Path(folder) / "out"
        source.mkdir()
        write_collection(source, requests // 4)
        command = [sys.executable, "-m", "pipeline.run", "--source", str(source), "--output", str(output)]
        command += ["--base-url", url, "--generator", "writer-1", "--judge", "judge-1", "--concurrency", str(slots)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        made = json.loads((output / "manifest.json").read_text("utf-8"))
        calls = sum(task["made"] for task in made["calls"].values())
        return float(made["run"]["curating_seconds"]) * requests / calls


def contend(name: str, url: str, slots: int, requests: int) -> float:
    """Run one contender in this process; its seconds."""
    if name == "this pipeline, end to end":
        return pipeline(url, slots, requests)
    if name == "bare AsyncOpenAI loop":
        return asyncio.run(bare_openai(url, slots, requests, aio=False))
    if name == "bare AsyncOpenAI loop on aiohttp":
        return asyncio.run(bare_openai(url, slots, requests, aio=True))
    return asyncio.run(bare_aiohttp(url, slots, requests))


CONTENDERS = (
    "this pipeline, end to end",
    "bare AsyncOpenAI loop",
    "bare AsyncOpenAI loop on aiohttp",
    "bare aiohttp loop",
)


def measure(name: str, url: str, slots: int, requests: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--contend", name, "--url", url]
    command += ["--slots", str(slots), "--requests", str(requests)]
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OPENAI_API_KEY": KEY}, stdout=subprocess.PIPE)
    assert child.stdout is not None
    seconds = float(child.stdout.read())
    _, _, usage = os.wait4(child.pid, 0)
    return {
        "rate": requests / seconds,
        "share": requests / seconds / (slots / LATENCY_S),
        "cpu_ms": (usage.ru_utime + usage.ru_stime) / requests * 1000,
        "mb": usage.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        print(contend(options.contend, options.url, options.slots[0], options.requests))
        return
    command = [sys.executable, "-m", "tests.fakes.endpoint", "--latency-ms", str(LATENCY_S * 1000), "--sigma", "0.3"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    console = Console(width=120)
    try:
        for slots in options.slots:
            got: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
            for _ in range(options.rounds):
                for name in CONTENDERS:
                    got[name].append(measure(name, url, slots, options.requests))
            bare = statistics.median(r["rate"] for r in got["bare aiohttp loop"])
            table = Table(title=f"{slots} slots, {options.requests:,} requests, median of {options.rounds} rounds")
            for column in ("", "requests/s", "of the ideal", "of bare aiohttp", "CPU ms/call", "peak MB"):
                table.add_column(column, justify="left" if not column else "right")
            for name, rounds in got.items():
                middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                table.add_row(
                    name,
                    f"{middle['rate']:,.0f}",
                    f"{middle['share']:.2f}",
                    f"{middle['rate'] / bare:.2f}",
                    f"{middle['cpu_ms']:.2f}",
                    f"{middle['mb']:.0f}",
                )
            console.print(table)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
