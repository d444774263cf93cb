"""Rules that a finished tuple must pass before a judge is paid: plain functions, a reason code each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import combinations
from typing import Any

import jsonschema_rs

from pipeline.cleaning import is_foreign
from pipeline.measures import satisfies
from pipeline.measures.overlap import folded, jaccard, trigrams
from pipeline.measures.text import word_count
from pipeline.measures.topicality import stem
from pipeline.records import PASSAGES, Rejected, Tuple
from pipeline.tables import ACCEPTED, row_of
from pipeline.tasks import load_schema

LEAK_WORDS = 8
"""Consecutive words of P+ that I+ may hold. Shared runs of ordinary phrases in MS MARCO rarely pass six."""

NEAR_SAME = 0.85
"""Word-trigram Jaccard from which two passages are nearly equal: one changed word in a passage of 40 gives 0.86."""

INSTRUCTION_WORDS = (2, 150)
QUERY_WORDS = (1, 60)
PASSAGE_WORDS = (3, 1000)
"""Bounds of generated texts in words: loose, against runaways and stubs; what is asked for is measured elsewhere."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason code and the function that finds it: the detail of what is wrong, or None."""

    reason: str
    find: Callable[[Tuple], str | None]


def check(t: Tuple) -> Tuple | Rejected:
    """The tuple, or the first rule that it breaks."""
    for rule in RULES:
        detail = rule.find(t)
        if detail is not None:
            return Rejected(t, "check", rule.reason, detail)
    return t


def check_whole(t: Tuple, prompt_hashes: Mapping[str, str], source: str) -> Tuple | Rejected:
    """The judged tuple, or what of its row breaks schemas/tuple.json."""
    row = row_of(t, prompt_hashes, source)
    error = next(_whole().iter_errors({name: row[name] for name in ACCEPTED.names}), None)
    if error is None:
        return t
    where = "/".join(str(step) for step in error.instance_path)
    return Rejected(t, "check", "invalid_tuple", f"{where}: {error.message}")


@cache
def _whole() -> Any:
    return jsonschema_rs.validator_for(load_schema("tuple"))


def outside_length_bounds(t: Tuple) -> str | None:
    """Reject runaways and stubs."""
    for name, text in _generated(t):
        low, high = _bounds(name)
        count = word_count(text)
        if not low <= count <= high:
            return f"{name} has {count} words, expected {low} to {high}"
    return None


def holds_leftovers_of_prompting(t: Tuple) -> str | None:
    """Reject texts that talk to whoever prompted, or carry marks of templates and markdown fences."""
    for name, text in _generated(t):
        found = _OPENING.match(text) or (_MARKED.search(text) if _may_be_marked(text) else None)
        if found:
            return f"{name} holds {found.group()!r}"
    return None


def is_in_another_language(t: Tuple) -> str | None:
    """Reject generated passages that are not English, and shorter texts whose letters are mostly not Latin."""
    for name, text in _generated(t):
        if name in PASSAGES:
            if is_foreign(text):
                return f"{name} is not in English"
        elif _latin_share(text) < 0.5:
            return f"{name} is not in Latin letters"
    return None


def instruction_gives_the_passage_away(t: Tuple) -> str | None:
    """Reject an I+ that quotes P+: more than `LEAK_WORDS` consecutive words in common."""
    instruction, passage = folded(t.instruction_positive or ""), folded(t.document)
    text = f" {' '.join(passage)} "  # looking for nine words in a string is far cheaper than measuring the longest run
    starts = range(len(instruction) - LEAK_WORDS)
    if not any(f" {' '.join(instruction[i : i + LEAK_WORDS + 1])} " in text for i in starts):
        return None
    return f"{longest_common_run(instruction, passage)} consecutive words of the passage stand in the instruction"


def poisoned_instruction_says_the_same(t: Tuple) -> str | None:
    """Reject an I- that equals I+ but for case and punctuation. Finer differences are the judge's matter."""
    same = folded(t.instruction_positive or "") == folded(t.instruction_negative or "")
    return "the two instructions are equal but for case and punctuation" if same else None


def poisoned_query_says_the_same(t: Tuple) -> str | None:
    """Reject a Q- that has the words of Q+ in their order: endings, articles and auxiliaries aside.

    Question words, negations and order stay: "when was x born" and "where was x born" ask different things.
    """
    same = _gist(t.query_positive) == _gist(t.query_negative or "")
    return "the two queries are equal but for endings, articles and auxiliaries" if same else None


def passages_are_nearly_the_same(t: Tuple) -> str | None:
    """Reject hard negatives that equal or nearly equal P+ or each other."""
    for a, b in combinations(PASSAGES, 2):
        similarity = jaccard(trigrams(getattr(t, a)), trigrams(getattr(t, b)))
        if similarity >= NEAR_SAME:
            return f"{a} and {b} share {similarity:.0%} of their word trigrams"
    return None


def measuring_refutes_the_instruction(t: Tuple) -> str | None:
    """Reject a passage that breaks what its own instruction asks for, where counting can tell."""
    pairs = (
        ("instruction_positive", "document"),
        ("instruction_negative", "hard_negative_document_1"),
        ("instruction_positive", "hard_negative_document_2"),
    )
    for instruction, passage in pairs:
        if satisfies(getattr(t, instruction), getattr(t, passage)) is False:
            return f"{passage} breaks what {instruction} asks for: {getattr(t, instruction)!r}"
    return None


RULES: tuple[Rule, ...] = (
    Rule("length", outside_length_bounds),
    Rule("prompt_leftover", holds_leftovers_of_prompting),
    Rule("wrong_language", is_in_another_language),
    Rule("leak", instruction_gives_the_passage_away),
    Rule("same_instruction", poisoned_instruction_says_the_same),
    Rule("same_query", poisoned_query_says_the_same),
    Rule("same_passage", passages_are_nearly_the_same),
    Rule("refuted_claim", measuring_refutes_the_instruction),
)


_SILENT = frozenset(["a", "an", "the", "is", "are", "was", "were", "be", "do", "does", "did", "can", "please"])
_MARKED = re.compile(
    r"```"
    r"|<\|[a-z_]+\|>|\[/?INST\]|</?(?:think|passage|query|instruction)>"
    r"|\{\{|\}\}"
    r"|\bas an ai (?:language )?model\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"\s*(?:sure|certainly|of course|absolutely)[,!]"
    r"|\s*here(?: is|'s|’s| are) (?:the|a|an|your|my) (?:\w+ )?(?:instruction|query|passage|answer|json|rewrite)\b"
    r"|\s*(?:instruction|query|passage|poisoned \w+|hard negative\w*|instruction_\w+|query_\w+)\s*:",
    re.IGNORECASE,
)


def _may_be_marked(text: str) -> bool:
    """Whether it is worth looking for marks: one in a hundred texts is."""
    return any(sign in text for sign in "`<[{}") or "as an ai" in text.lower()


def _gist(query: str) -> tuple[str, ...]:
    words = folded(query)
    return tuple(stem(word) for word in words if word not in _SILENT) or words


def longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest run of consecutive words that both texts hold."""
    return SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size


def _generated(t: Tuple) -> Iterator[tuple[str, str]]:
    for name in (
        "instruction_positive",
        "instruction_negative",
        "query_negative",
        "hard_negative_document_1",
        "hard_negative_document_2",
    ):
        yield name, getattr(t, name)


def _bounds(name: str) -> tuple[int, int]:
    if name.startswith("instruction"):
        return INSTRUCTION_WORDS
    return QUERY_WORDS if name.startswith("query") else PASSAGE_WORDS


def _latin_share(text: str) -> float:
    if text.isascii():
        return 1.0
    letters = [c for c in text if c.isalpha()]
    return sum(c < "\u0250" for c in letters) / len(letters) if letters else 1.0
