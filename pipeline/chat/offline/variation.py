"""Saying the same in other words: so that an edited passage is more than a near-duplicate of its original."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import Final

from pipeline.measures.text import sentences
from pipeline.yaml_text import parse_yaml

_SYNONYMS: Final[dict[str, str]] = parse_yaml(
    (files("pipeline.chat.offline") / "synonyms.yaml").read_text(encoding="utf-8")
)
_WORD: Final = re.compile(r"\b(an? )?(" + "|".join(sorted(_SYNONYMS, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_VOWELS: Final = "aeiou"
_SHINGLE_WORD: Final = re.compile(r"\w+")

NEAR_DUPLICATE: Final = 0.8
"""Jaccard of three-word shingles from which two passages count as nearly the same."""


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of the sets of three-word shingles, 0 to 1."""
    left, right = _shingles(a), _shingles(b)
    return len(left & right) / len(left | right) if left or right else 1.0


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _SHINGLE_WORD.findall(text.lower())
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def reworded(text: str) -> str:
    """The text with common words exchanged for others of the same meaning and number."""

    def swap(match: re.Match[str]) -> str:
        article, word = match[1] or "", match[2]
        new = _SYNONYMS[word.lower()]
        if article and (new[0] in _VOWELS) != (word[0].lower() in _VOWELS):
            return match.group()
        return article + (new.capitalize() if word[0].isupper() else new)

    return _WORD.sub(swap, text)


def rotated(text: str, by: int) -> str:
    """The same sentences, starting with another one. Lists and single sentences stay as they are."""
    if "\n" in text:
        return text
    parts = sentences(text)
    by %= max(1, len(parts))
    if parts and not parts[-1].endswith((".", "!", "?", '"', "”", ")")):
        parts[-1] += "."
    return " ".join(parts[by:] + parts[:by])


def variants(text: str) -> Iterator[str]:
    """The text, then ever more distant ways of saying it."""
    yield text
    other = reworded(text)
    yield other
    yield rotated(other, 1)
    parts = sentences(other)
    if len(parts) >= 3 and "\n" not in text:
        yield " ".join(parts[::-1])
    if len(parts) >= 4 and "\n" not in text:
        yield " ".join(parts[1:])
        yield " ".join(parts[: -(-7 * len(parts) // 10)])


def distinct(candidates: Iterable[str], original: str, keeps: Callable[[str], bool]) -> str | None:
    """The first candidate that is no near-duplicate of `original` and that `keeps` accepts.

    Where none is far enough, the farthest that is accepted and not equal; None where none is.
    """
    best: tuple[float, str] | None = None
    for variant in candidates:
        if not keeps(variant):
            continue
        close = similarity(variant, original)
        if close < NEAR_DUPLICATE:
            return variant
        if best is None or close < best[0]:
            best = (close, variant)
    return best[1] if best and best[0] < 1.0 else None
