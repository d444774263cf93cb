"""What a run does to each seed, as one picklable value: it is made where the graph is built and travels inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.chat.request import ChatRequest, Sampling
from pipeline.dimensions import Dimension, Dimensions, Form
from pipeline.records import JUDGED, OFFLINE, OFFLINE_RULES, Seed, Tuple
from pipeline.tasks import Task


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the judge's grades (0 to 3) make a tuple: relevant from `relevant` on, irrelevant up to `irrelevant`."""

    relevant: int = 2
    irrelevant: int = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Tasks, dimensions, models and thresholds of a run.

    generator, judge: model names at the endpoint, or `offline`.
    """

    tasks: Mapping[str, Task]
    dimensions: Dimensions
    generator: str = OFFLINE
    judge: str = OFFLINE
    generator_sampling: Sampling = field(default=Sampling())
    judge_sampling: Sampling = field(default=Sampling())
    thresholds: Thresholds = field(default=Thresholds())

    def start(self, seed: Seed) -> Tuple:
        """A seed with its dimension and form, drawn from its id: what the first task starts from."""
        draw = self.dimensions.draw(seed.id, seed.split, measured_only=self.generator == OFFLINE)
        return Tuple(
            id=seed.id,
            query_id=seed.query_id,
            document_id=seed.document_id,
            split=seed.split,
            query_positive=seed.query,
            document=seed.document,
            dimension=draw.dimension.name,
            form=draw.form.name,
            wording_group=draw.wording_group,
            generator=shown_name(self.generator),
            judge=shown_name(self.judge),
            mined=seed.mined,
        )

    def drawn(self, t: Tuple) -> tuple[Dimension, Form]:
        """The dimension and the form that a tuple got, by their names."""
        dimension = next(dimension for dimension in self.dimensions.dimensions if dimension.name == t.dimension)
        form = next(form for form in self.dimensions.forms if form.name == t.form)
        return dimension, form

    def request(self, task: str, data: Mapping[str, object]) -> ChatRequest:
        """The request of a task with this run's model and sampling for it."""
        if task in JUDGED:
            return self.tasks[task].request(self.judge, data, self.judge_sampling)
        return self.tasks[task].request(self.generator, data, self.generator_sampling)

    @property
    def prompt_hashes(self) -> dict[str, str]:
        """The hash of each task's prompt, for the provenance of rows."""
        return {name: task.prompt_hash for name, task in self.tasks.items()}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides what a seed becomes, the code aside, as JSON-able values."""
        return {
            "prompts": self.prompt_hashes,
            "schemas": {name: task.schema_hash for name, task in self.tasks.items()},
            "dimensions": self.dimensions.hash,
            "models": [self.generator, self.judge],
            "sampling": [self.generator_sampling.sent(), self.judge_sampling.sent()],
            "thresholds": asdict(self.thresholds),
        }


def shown_name(model: str) -> str:
    """The model's name in rows, manifest and card."""
    return OFFLINE_RULES if model == OFFLINE else model
