"""Beam's worker process, started without its notes about starting: `python -m pipeline.worker`, by the runner alone."""

from __future__ import annotations

import logging
import sys


def main(argv: list[str]) -> None:
    """Run the worker; only errors reach the terminal."""
    logging.disable(logging.WARNING)
    from apache_beam.runners.worker import sdk_worker_main  # noqa: PLC0415, after the line above: it logs on import

    sdk_worker_main.main(argv)


if __name__ == "__main__":
    main(sys.argv)
