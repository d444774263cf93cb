from dataclasses import dataclass


@dataclass(frozen=True)
class ChatConfig:
    base_url: str | None = None
    concurrency: int = 64
    processes: int = 1
    timeout_s: float = 120
    rpm: int | None = None
    tpm: int | None = None
    store: str = ""
    max_cost_usd: float | None = None
    prices: tuple[str, ...] = ()
    mode: str = "online"
    live_folder: str = ""
    offline_only: bool = False
