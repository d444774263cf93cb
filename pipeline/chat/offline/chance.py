"""Choices that look random and are a function of the request alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Chance:
    """Draws from SHA-256 of a text: the same on every machine, process and Python version."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode("utf-8", "surrogatepass")
        self._drawn = 0

    def below(self, limit: int) -> int:
        """The next draw, 0 to limit - 1."""
        self._drawn += 1
        digest = hashlib.sha256(self._seed + self._drawn.to_bytes(4, "big")).digest()
        return int.from_bytes(digest[:8], "big") % limit

    def pick(self, choices: Sequence[_T]) -> _T:
        """One of the choices, which must not be empty."""
        return choices[self.below(len(choices))]

    def cycle(self, choices: Sequence[_T]) -> Iterator[_T]:
        """All choices once, in their order, starting at a drawn place."""
        start = self.below(len(choices)) if choices else 0
        for i in range(len(choices)):
            yield choices[(start + i) % len(choices)]
