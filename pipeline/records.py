"""The one record that flows through the pipeline, its column names, and the closed list of reasons a seed can end for.

Plain Python only: `train/` imports the names from here and nothing else of the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")

# The public InF-IR data set's own columns, in its own order (arXiv 2505.21439).
QUERY_POSITIVE: Final = "query_positive"
QUERY_NEGATIVE: Final = "query_negative"
INSTRUCTION_POSITIVE: Final = "instruction_positive"
INSTRUCTION_NEGATIVE: Final = "instruction_negative"
DOCUMENT: Final = "document"
HARD_NEGATIVE_DOCUMENT_1: Final = "hard_negative_document_1"
HARD_NEGATIVE_DOCUMENT_2: Final = "hard_negative_document_2"
TEXT_COLUMNS: Final = (
    QUERY_POSITIVE,
    QUERY_NEGATIVE,
    INSTRUCTION_POSITIVE,
    INSTRUCTION_NEGATIVE,
    DOCUMENT,
    HARD_NEGATIVE_DOCUMENT_1,
    HARD_NEGATIVE_DOCUMENT_2,
)

# The three contexts and three passages of a tuple, in the order of the relevance matrix's rows and columns.
CONTEXTS: Final = (
    (INSTRUCTION_POSITIVE, QUERY_POSITIVE),
    (INSTRUCTION_NEGATIVE, QUERY_POSITIVE),
    (INSTRUCTION_POSITIVE, QUERY_NEGATIVE),
)
PASSAGES: Final = (DOCUMENT, HARD_NEGATIVE_DOCUMENT_1, HARD_NEGATIVE_DOCUMENT_2)

OFFLINE: Final = "offline"
"""What `--generator` and `--judge` say for the embedded model."""
OFFLINE_RULES: Final = "offline-rules"
"""What rows, manifest and card say for it, so that nobody takes rules for model output."""

JUDGE_MINED: Final = "judge_mined"
"""The task that a run has where it mines."""
TASKS: Final = ("instruct", "poison_instruction", "poison_query", "judge", JUDGE_MINED)
"""The model tasks, in the order of the flow. Each has `prompts/TASK.md` and `schemas/TASK.json`."""
JUDGED: Final = ("judge", JUDGE_MINED)
"""Those that go to the judge."""

# Passages of the collection, where the run mined, in parallel lists.
MINED_DOCUMENTS: Final = "mined_documents"
MINED_RELEVANCE: Final = "mined_relevance"

Matrix = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


_Record = TypeVar("_Record")


def plainly_pickled(cls: type[_Record]) -> type[_Record]:
    """Pickle a slotted dataclass as its class and its values.

    Beam does it twice a barrier, and the default asks `dataclasses.fields` each time.
    """
    values: Callable[[_Record], tuple[Any, ...]] = attrgetter(*cls.__slots__)  # type: ignore[attr-defined]
    cls.__reduce__ = lambda self: (cls, values(self))  # type: ignore[method-assign, arg-type]
    return cls


@plainly_pickled
@dataclass(frozen=True, slots=True)
class Mined:
    """A passage of the collection that comes close to Q+ and that nobody judged relevant to it.

    score: BM25, or the cosine. relevance: the judge's grade under (I+, Q+); None where it was not asked.
    """

    id: str
    document: str
    score: float
    relevance: int | None = None


@plainly_pickled
@dataclass(frozen=True, slots=True)
class Seed:
    """A judged pair of the source, cleaned: what a tuple is made from.

    `id` is `{query_id}-{document_id}`, unique in a run. `split` holds the whole connected component of shared
    queries and passages (DESIGN invariant 6). `mined`: the highest score first; None where nothing was mined for.
    """

    id: str
    query_id: str
    document_id: str
    query: str
    document: str
    split: Split = "train"
    mined: tuple[Mined, ...] | None = None


@plainly_pickled
@dataclass(frozen=True, slots=True)
class Call:
    """What one answer cost, for the accounts: kept beside the tuple that used it.

    latency_ms: of the call that brought it, 0 from the memory or a batch. cost_usd: None where unknown then.
    """

    task: str
    model: str
    from_memory: bool
    failed_attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    latency_ms: int = 0


@plainly_pickled
@dataclass(frozen=True, slots=True)
class Tuple:
    """A tuple on its way: what is not made yet is None. An accepted one has every text field, matrix and rationale.

    `relevance[c][p]` is the judge's grade, 0 to 3, of passage p (PASSAGES) for context c (CONTEXTS).
    `mined` are passages of the collection, the first of them graded; None where the run did not mine.
    `wording_group` names the group of paraphrases that the offline model's instructions come from; None for a real model.
    """

    id: str
    query_id: str
    document_id: str
    split: Split
    query_positive: str
    document: str
    dimension: str
    form: str
    wording_group: str | None = None
    query_negative: str | None = None
    instruction_positive: str | None = None
    instruction_negative: str | None = None
    hard_negative_document_1: str | None = None
    hard_negative_document_2: str | None = None
    relevance: Matrix | None = None
    rationale: str | None = None
    generator: str = OFFLINE_RULES
    generator_version: str | None = None
    judge: str = OFFLINE_RULES
    judge_version: str | None = None
    mined: tuple[Mined, ...] | None = None
    calls: tuple[Call, ...] = field(default=())


@plainly_pickled
@dataclass(frozen=True, slots=True)
class Rejected:
    """A seed that ended: where, why (a code of REASONS), and what had been made so far."""

    tuple: Tuple
    stage: str
    reason: str
    detail: str


@plainly_pickled
@dataclass(frozen=True, slots=True)
class Deferred:
    """A seed without an answer yet: the same command, run again, goes on with it."""

    tuple: Tuple
    stage: str
    reason: str
    detail: str


STAGES: Final = ("instruct", "poison_instruction", "poison_query", "check", "judge", JUDGE_MINED, "split")

REASONS: Final[dict[str, str]] = {
    # the model's answer
    "schema_violation": "the answer broke its JSON Schema, also when asked again with the validator's message",
    "refusal": "the model declined to answer",
    "empty_answer": "the endpoint returned no choice, or a choice without content",
    "truncated": "the answer stopped at the token limit",
    "content_filter": "the endpoint's content filter stopped the answer",
    # the tuple, measured
    "invalid_tuple": "the assembled tuple breaks schemas/tuple.json",
    "leak": "the instruction gives the passage away",
    "same_instruction": "the poisoned instruction says the same as the instruction",
    "same_query": "the poisoned query says the same as the query",
    "same_passage": "a hard negative equals or nearly equals another passage of the tuple",
    "wrong_language": "a generated text is not in English",
    "length": "a generated text is outside its length bounds",
    "prompt_leftover": "a generated text carries remains of prompting",
    "refuted_claim": "measuring a passage refutes what its instruction asks for",
    # the judge's matrix
    "judge_document": "the judge finds P+ not relevant to (I+, Q+)",
    "judge_hard_negative_1_own": "the judge finds P-1 not relevant to its own context (I-, Q+)",
    "judge_hard_negative_2_own": "the judge finds P-2 not relevant to its own context (I+, Q-)",
    "judge_hard_negative_1": "the judge finds P-1 relevant to (I+, Q+)",
    "judge_hard_negative_2": "the judge finds P-2 relevant to (I+, Q+)",
    # the data set as a whole
    "duplicate_tuple": "another accepted tuple holds the same texts",
    "near_duplicate_tuple": "another accepted tuple holds nearly the same texts",
    "split_leak": "a generated text, or one nearly equal to it, stands in another split too",
}
"""The closed list: every rejected row's `reason`, in words."""

DEFERRALS: Final[dict[str, str]] = {
    "budget": "the budget was reached before this call",
    "batch_running": "a batch job that holds the answer is still running",
    "endpoint_failed": "the endpoint kept failing after every allowed retry",
    "stopped": "the run was stopped before this call",
}
