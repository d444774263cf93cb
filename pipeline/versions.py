"""Which code made a data set."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable

PACKAGES = (
    "inf-ir",
    "apache-beam",
    "openai",
    "pyarrow",
    "datasets",
    "ftfy",
    "py3langid",
    "pystemmer",
    "rensa",
    "bm25s",
)


def versions() -> dict[str, str | None]:
    """Python and the packages that the bytes can depend on; None for one that runs from its folder, uninstalled."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@cache
def code_hash() -> str:
    """The SHA-256 over the files of this package: results staged by other code are never taken for ours."""
    digest = hashlib.sha256()
    for name, file in sorted(_files(resources.files("pipeline"), "")):
        if name.endswith((".py", ".yaml", ".md")):
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _files(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        found += _files(entry, f"{name}/") if entry.is_dir() else [(name, entry)]
    return found
