"""A step in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection


@dataclass(frozen=True, slots=True)
class Measured:
    """What a step said, its seconds, and the peak MB of its process, files mapped into memory included."""

    said: str
    seconds: float
    peak_mb: float


def measured(step: Callable[..., str], *arguments: object) -> Measured:
    """Run the step, a function of a module, in a process of its own. An exception there ends the benchmark."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(step, arguments, sender))
    child.start()
    sender.close()
    try:
        result: Measured = receiver.recv()
    except EOFError:
        raise SystemExit(f"{step.__name__} failed, see above") from None
    child.join()
    return result


def _run(step: Callable[..., str], arguments: tuple[object, ...], sender: Connection) -> None:
    began = time.perf_counter()
    said = step(*arguments)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send(Measured(said, seconds, peak))
