"""What answers cost. An unknown price is unknown, never zero."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from pipeline.chat.request import Usage
from pipeline.errors import UsageError
from pipeline.records import OFFLINE
from pipeline.yaml_text import parse_yaml

_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens, and where that is from."""

    prompt: float
    completion: float
    cached: float
    date: str
    source: str


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of models by name; a name with a date at its end falls back to the one without."""

    models: Mapping[str, Price]
    batch_share: float

    @classmethod
    def load(cls, overrides: Iterable[str] = ()) -> Prices:
        """`prices.yaml`, and `MODEL=IN,OUT[,CACHED]` over it. A malformed override is a UsageError."""
        table = parse_yaml(resources.files("pipeline.chat").joinpath("prices.yaml").read_text("utf-8"))
        models = {name: Price(**(price | {"date": str(price["date"])})) for name, price in table["models"].items()}
        for text in overrides:
            name, price = _override(text)
            models[name] = price
        return cls(models, table["batch_share"])

    def of(self, model: str) -> Price | None:
        """The price of a model; None where it is unknown."""
        return self.models.get(model) or self.models.get(_DATED.sub("", model))

    def cost(self, model: str, usage: Usage, batch: bool = False) -> float | None:
        """US dollars for tokens of a model; None where its price is unknown. The offline rules cost nothing."""
        if model == OFFLINE:
            return 0.0
        price = self.of(model)
        if price is None:
            return None
        fresh = usage.prompt_tokens - usage.cached_tokens
        dollars = (
            fresh * price.prompt + usage.cached_tokens * price.cached + usage.completion_tokens * price.completion
        ) / 1e6
        return dollars * (self.batch_share if batch else 1.0)

    def described(self, model: str) -> dict[str, object] | None:
        """A price for the manifest."""
        price = self.of(model)
        if price is None:
            return None
        return {
            "prompt": price.prompt,
            "completion": price.completion,
            "cached": price.cached,
            "date": price.date,
            "source": price.source,
        }


def _override(text: str) -> tuple[str, Price]:
    name, _, numbers = text.rpartition("=")
    try:
        amounts = [float(number) for number in numbers.split(",")]
        prompt, completion = amounts[:2]
        cached = amounts[2] if len(amounts) > 2 else prompt
        if not name or len(amounts) > 3 or min(amounts) < 0:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--price {text!r}: expected MODEL=IN,OUT[,CACHED] in US dollars a million tokens, as in my-model=0.4,1.6"
        ) from None
    return name, Price(prompt, completion, cached, "", "--price")
