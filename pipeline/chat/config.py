"""How models are reached, as a value that travels to workers. No key is ever in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ChatConfig:
    """One for a run.

    base_url: None for OpenAI's own. concurrency: requests in flight over the whole machine, shared out among `processes`.
    rpm, tpm: caps over the whole machine, or None for what the endpoint allows. store: a SQLAlchemy URL.
    max_cost_usd: over everything the store holds. prices: `MODEL=IN,OUT[,CACHED]`, as on the command line.
    offline_only: no endpoint and no store is opened.
    """

    base_url: str | None = None
    concurrency: int = 64
    processes: int = 1
    timeout_s: float = 120.0
    rpm: int | None = None
    tpm: int | None = None
    store: str = "sqlite://"
    max_cost_usd: float | None = None
    prices: tuple[str, ...] = ()
    mode: Literal["online", "batch"] = "online"
    live_folder: str = ""
    offline_only: bool = False

    @property
    def window(self) -> int:
        """Requests in flight for one process."""
        return self.concurrency // self.processes
