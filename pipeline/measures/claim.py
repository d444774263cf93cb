"""What an instruction can ask for that counting decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipeline.measures import text as measure


@dataclass(frozen=True, slots=True)
class Trait:
    """A dimension whose two poles are 'some' and 'none' of something countable.

    some, none: the poles' names; noun: what is counted, in the plural; minimum: how many make 'some';
    maximum: how many still count as 'none'.
    """

    count: Callable[[str], int]
    some: str
    none: str
    noun: str
    minimum: int = 1
    maximum: int = 0


# A dash or number at the start of a single line is no list yet: many passages begin with one.
TRAITS: Final[dict[str, Trait]] = {
    "layout": Trait(measure.list_items, "list", "prose", "list items", minimum=3, maximum=1),
    "figures": Trait(measure.figures, "some", "none", "figures"),
    "address": Trait(measure.second_person, "reader", "impersonal", "words that address the reader"),
    "viewpoint": Trait(measure.first_person, "first_person", "third_person", "first-person words"),
    "questions": Trait(measure.questions, "some", "none", "questions"),
    "quotation": Trait(measure.quotations, "some", "none", "quotations"),
    "examples": Trait(measure.examples, "some", "none", "phrases that announce an example"),
    "hedging": Trait(measure.hedges, "cautious", "firm", "hedging words"),
    "years": Trait(measure.years, "some", "none", "years"),
    "attribution": Trait(measure.attributions, "some", "none", "attributions"),
    "contractions": Trait(measure.contractions, "casual", "formal", "contractions"),
    "parentheses": Trait(measure.parentheses, "some", "none", "remarks in brackets"),
}

SHORT_SENTENCES: Final = 15.0
LONG_SENTENCES: Final = 18.0
"""Words a sentence on average; between the two, nothing is claimed. The median of MS MARCO's dev passages is 17."""

POLES: Final[dict[str, tuple[str, str]]] = {
    "length": ("at_most", "at_least"),
    **{name: (trait.some, trait.none) for name, trait in TRAITS.items()},
    "sentence_length": ("short", "long"),
    "mention": ("present", "absent"),
}
"""The measured dimensions and their two opposite poles."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One measurable demand on a passage: a dimension's pole, with its number or term where it has one.

    number: words for `length`; for `sentence_count` the most sentences allowed.
    term: for `mention`, the word or phrase that must or must not stand in the passage.
    """

    dimension: str
    pole: str
    number: int | None = None
    term: str | None = None

    def holds(self, passage: str) -> bool:
        """Whether the passage does what is claimed, by counting."""
        if self.dimension in TRAITS:
            trait = TRAITS[self.dimension]
            count = trait.count(passage)
            return count >= trait.minimum if self.pole == trait.some else count <= trait.maximum
        if self.dimension == "length":
            assert self.number is not None
            words = measure.word_count(passage)
            return words <= self.number if self.pole == "at_most" else words >= self.number
        if self.dimension == "sentence_count":
            assert self.number is not None
            return len(measure.sentences(passage)) <= self.number
        if self.dimension == "sentence_length":
            mean = measure.mean_sentence_length(passage)
            return 0 < mean <= SHORT_SENTENCES if self.pole == "short" else mean >= LONG_SENTENCES
        assert self.dimension == "mention"
        assert self.term is not None
        return (measure.mentions(passage, self.term) > 0) == (self.pole == "present")

    def measured(self, passage: str) -> str:
        """What was counted in the passage, as a phrase: `72 words`."""
        if self.dimension in TRAITS:
            trait = TRAITS[self.dimension]
            return f"{trait.count(passage)} {trait.noun}"
        if self.dimension == "length":
            return f"{measure.word_count(passage)} words"
        if self.dimension == "sentence_count":
            return f"{len(measure.sentences(passage))} sentences"
        if self.dimension == "sentence_length":
            return f"{measure.mean_sentence_length(passage):.1f} words a sentence"
        assert self.term is not None
        return f"{measure.mentions(passage, self.term)} mentions of “{self.term}”"

    def __str__(self) -> str:
        if self.dimension in TRAITS:
            trait = TRAITS[self.dimension]
            none = f"at most {trait.maximum}" if trait.maximum else "no"
            return f"{f'at least {trait.minimum}' if self.pole == trait.some else none} {trait.noun}"
        if self.dimension == "length":
            return f"{'at most' if self.pole == 'at_most' else 'at least'} {self.number} words"
        if self.dimension == "sentence_count":
            return f"at most {self.number} sentences"
        if self.dimension == "sentence_length":
            bound = f"at most {SHORT_SENTENCES:g}" if self.pole == "short" else f"at least {LONG_SENTENCES:g}"
            return f"{bound} words a sentence"
        return f"{'a' if self.pole == 'present' else 'no'} mention of “{self.term}”"
