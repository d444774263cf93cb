"""Versions for result files, and quiet libraries."""

from __future__ import annotations

import logging
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "transformers", "sentence-transformers", "datasets", "numpy", "scipy", "bm25s", "mteb", "peft")


def versions() -> dict[str, str]:
    """Of Python and of each package that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def quiet() -> None:
    """Leave the screen to what a person wants to know: no bars and hints of libraries."""
    import datasets  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    for name in ("sentence_transformers", "datasets", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
