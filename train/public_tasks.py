"""Public instruction-following benchmarks through `mteb`: FollowIR's three tasks and InstructIR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from train.encoder import Encoder
from train.errors import UsageError
from train.inputs import Context

TASKS = ("Core17InstructionRetrieval", "News21InstructionRetrieval", "Robust04InstructionRetrieval", "InstructIR")

KEPT_SCORES = ("p-MRR", "robustness_at_10", "ndcg_at_5", "ndcg_at_10", "map_at_1000", "main_score")


class MtebEncoder:
    """An encoder as mteb calls it: queries with their instruction in the model's own context format."""

    def __init__(self, encoder: Encoder, name: str) -> None:
        from mteb.models import ModelMeta  # noqa: PLC0415

        self.encoder = encoder
        self.mteb_model_meta = ModelMeta.create_empty({"name": f"inf-ir/{name}", "revision": "local"})

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **_ignored: Any
    ) -> NDArray[np.float32]:
        """(inputs, dimensions). A query batch holds `query` and, where the task has them, `instruction`."""
        parts = []
        for batch in inputs:
            if str(getattr(prompt_type, "value", prompt_type)) == "query":
                queries = batch.get("query", batch["text"])
                instructions = batch.get("instruction") or [None] * len(queries)
                contexts = [Context(q, i or None) for q, i in zip(queries, instructions, strict=True)]
                parts.append(self.encoder.contexts(contexts))
            else:
                parts.append(self.encoder.passages(batch["text"]))
        return np.concatenate(parts)

    def similarity(self, ours: Any, theirs: Any) -> Any:
        """Cosines of normalised embeddings, all against all."""
        return self.encoder.model.similarity(ours, theirs)

    def similarity_pairwise(self, ours: Any, theirs: Any) -> Any:
        """Cosines of normalised embeddings, pair by pair."""
        return self.encoder.model.similarity_pairwise(ours, theirs)


def run_mteb(
    encoder: Encoder, name: str, console: Console, tasks: Sequence[Any] | None = None
) -> dict[str, dict[str, float]]:
    """Task -> scores. Raises UsageError when mteb or its data can't be had.

    tasks: mteb's own task objects; by default those of TASKS.
    """
    try:
        import mteb  # noqa: PLC0415
    except ImportError:
        raise UsageError("--mteb needs mteb: pip install 'inf-ir[bench]'.") from None
    found: dict[str, dict[str, float]] = {}
    for task in tasks or mteb.get_tasks(tasks=list(TASKS)):
        console.print(f"{name}: {task.metadata.name} by mteb")
        try:
            result = mteb.evaluate(MtebEncoder(encoder, name), task, cache=None, show_progress_bar=False)
        except Exception as error:  # mteb lets through whatever its data's source raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(
                f"--mteb: {task.metadata.name} can't be run ({lines[0][:200].rstrip('.')}): its data comes from the "
                "Hub, so run this where the Hub can be reached or its data is in the cache, or leave --mteb out."
            ) from None
        for entry in result.task_results:
            scores = next(iter(entry.scores.values()))[0]
            found[entry.task_name] = {key: float(scores[key]) for key in KEPT_SCORES if key in scores}
    return found
