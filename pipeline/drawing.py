"""Draws rows by the hash of their id: the same ones every time, whatever the order, in memory that follows the draw."""

from __future__ import annotations

import heapq

from pipeline.splits import unit_hash


def place(purpose: str, tuple_id: str) -> float:
    """Where an id stands in the order of a purpose, in [0, 1)."""
    return unit_hash(f"{purpose}:{tuple_id}")


class Draw:
    """Keeps the `size` ids with the smallest places of all that are offered; `offered` counts them all."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[tuple[float, str]] = []
        self.offered = 0

    def offer(self, at: float, tuple_id: str) -> None:
        """Take an id into account."""
        self.offered += 1
        if len(self._held) < self._size:
            heapq.heappush(self._held, (-at, tuple_id))
        elif self._held and -at > self._held[0][0]:
            heapq.heapreplace(self._held, (-at, tuple_id))

    @property
    def ids(self) -> list[str]:
        """The ids that are held, by their places."""
        return [tuple_id for _, tuple_id in sorted(self._held, reverse=True)]
