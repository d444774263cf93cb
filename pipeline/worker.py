"""Beam's worker processes, forked from a nursery that has imported everything once.

A worker that starts from nothing imports for three seconds, and a run needs new workers for every wave and stage. So the runner
starts a stub, `python -m pipeline.worker SOCKET`, which asks the nursery for a fork and lives as long as that does. Python does
not fork safely everywhere: outside Linux the stub itself becomes the worker.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

_NURSERY = "nursery"
_WATCH_S = 0.5
"""Between two looks at whether the runner still lives: Beam's worker alone would wait a minute for one that was killed."""
_FORKS = sys.platform == "linux"


def worker_command() -> str:
    """The shell command that starts a worker, for the runner; the nursery is started at the first call and ends with us."""
    command = f"{shlex.quote(sys.executable)} -m pipeline.worker"
    # Ctrl-C reaches every process of a terminal, and is the run's own to answer: it ends its workers.
    return f"trap '' INT; exec {command} {shlex.quote(_nursery()[0])}" if _FORKS else command


@cache
def _nursery() -> tuple[str, subprocess.Popen[bytes]]:
    """Started: the path of its socket, and its process, whose standard input ends with us, however we end."""
    # in a folder that only we can open: environments, and keys in them, go over the socket
    path = str(Path(tempfile.mkdtemp(prefix="inf-ir-")) / _NURSERY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-m", "pipeline.worker", _NURSERY, str(listener.fileno())]
        process = subprocess.Popen(  # noqa: S603, no shell
            command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], process_group=0
        )
    return path, process


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """On Ctrl-C the workers end before the run does: Beam waits for them, and reports at length how it lost them."""
    if not _FORKS or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: object) -> NoReturn:
        logging.disable(logging.CRITICAL)
        threading.excepthook = lambda _: None
        process = _nursery()[1]
        assert process.stdin
        process.stdin.close()
        _nursery.cache_clear()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def nurse(listener: socket.socket) -> NoReturn:
    """Fork a worker for every stub that connects, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a worker but its stub
    _import_all()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
            os.killpg(0, signal.SIGKILL)  # us and every worker
        stub, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _be_a_worker(stub)
        stub.close()


def _be_a_worker(stub: socket.socket) -> NoReturn:
    """Take the stub's environment, work, tell the stub how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 1
    try:
        with stub.makefile("rb") as sent:
            given = json.loads(sent.readline())
        os.environ.clear()
        os.environ.update(given)
        threading.Thread(target=_end_with, args=(stub,), daemon=True).start()
        work()
        status = 0
    finally:
        stub.sendall(bytes([status]))
        sys.stderr.flush()
        os._exit(status)  # what else the nursery set up is not ours to take down


def _end_with(stub: socket.socket) -> None:
    """End this process when the stub is gone: then so is the runner, or it wants no more of this worker."""
    if not stub.recv(1):
        os._exit(1)


def ask(path: str) -> int:
    """Be the stub of a worker: its exit status, 1 where it ended without one or the runner is gone."""
    runner = os.getppid()
    # a nursery that is gone has said why, if it wasn't told to go
    with socket.socket(socket.AF_UNIX) as nursery, suppress(ConnectionError, FileNotFoundError):
        nursery.connect(path)
        nursery.sendall(json.dumps(dict(os.environ)).encode() + b"\n")
        nursery.settimeout(_WATCH_S)
        while os.getppid() == runner:
            with suppress(TimeoutError):
                return (nursery.recv(1) or b"\1")[0]
    return 1


def work() -> None:
    """Be a worker; only errors reach the terminal."""
    _import_all()
    from apache_beam.runners.worker import sdk_worker_main  # noqa: PLC0415, see there

    sdk_worker_main.main([])


def _import_all() -> None:
    logging.disable(logging.WARNING)  # before Beam, which logs while it is imported
    from apache_beam.runners.worker import sdk_worker_main  # noqa: F401, PLC0415

    import pipeline.curation  # noqa: F401, PLC0415


def main(argv: list[str]) -> int:
    """The stub, with the nursery's socket; the nursery, with the number of its listener; or a worker at once, with neither."""
    if not argv:
        work()
        return 0
    if argv[0] == _NURSERY:
        nurse(socket.socket(fileno=int(argv[1])))
    return ask(argv[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
