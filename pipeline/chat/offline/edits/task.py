"""What an edit is given, and the small steps that edits share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pipeline.chat.offline.chance import Chance
from pipeline.measures.claim import Claim
from pipeline.measures.text import sentences, word_count
from pipeline.measures.topicality import covered_terms, on_topic, same_term, stem

_TOKEN: Final = re.compile(r"[^\W_]+(?:['’][a-z]+)?")
_SPACE_BEFORE: Final = re.compile(r" +(?=[,;:.!?)])")
LIST_MARK: Final = re.compile(r"^[ \t]*(?:[-*•–]|\(?\d{1,2}[.)]|[a-z]\))[ \t]+", re.MULTILINE)
_ENDED: Final = re.compile(r"[.!?:][\"'”’)\]]*$")
_LOWERED: Final = frozenset(
    re.findall(
        r"\w+",
        "the a an this that these those it its he she they his her their there in on at by for with from after before "
        "because although since if when while as some many most all one each every both",
    )
)


@dataclass(frozen=True, slots=True)
class Task:
    """One edit: the passage, the query it must still answer, what it shall satisfy, and the draws to make."""

    passage: str
    query: str
    claim: Claim
    chance: Chance

    @property
    def topic(self) -> str:
        """The query's most telling term that the passage holds, as the passage writes it in mid-sentence."""
        return _topic(self.query, self.passage)

    def still_answers(self, text: str) -> bool:
        """Whether a text is still on the query's topic, or no farther from it than the passage."""
        return on_topic(self.query, text) or not on_topic(self.query, self.passage)


@lru_cache(maxsize=64)
def _topic(query: str, passage: str) -> str:
    covered = covered_terms(query, passage)
    if not covered:
        return "the subject"
    root = stem(covered[0])
    places = [m for m in _TOKEN.finditer(passage) if same_term(stem(m.group()), root)]
    words = [m.group() for m in places]
    plain = [word for word in words if word.islower()]
    if plain:
        return plain[0]
    inside = [m.group() for m in places if re.search(r"[a-z,] $", passage[max(0, m.start() - 2) : m.start()])]
    if not inside:
        return words[0].lower() if words else covered[0]
    return inside[0].capitalize() if inside[0].isupper() and len(inside[0]) > 4 else inside[0]


def closed(text: str) -> str:
    """The text with a full stop at its end."""
    text = text.rstrip()
    return text if not text or _ENDED.search(text) else f"{text.rstrip(',;:-')}."


def opened(text: str) -> str:
    """The text with a capital at its start."""
    return text[:1].upper() + text[1:]


def continued(text: str) -> str:
    """A sentence fit to stand behind a comma: its first word in lower case where it is surely no name or headline."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text[:1].lower() + text[1:] if first.lower().strip(",") in _LOWERED and first != "I" else text


def tidy(text: str) -> str:
    """The text without the blanks and commas that removing words leaves behind."""
    text = re.sub(r"[^\S\n]+", " ", text)
    text = _SPACE_BEFORE.sub("", text)
    text = re.sub(r",(?:\s*,)+", ",", text)
    text = re.sub(r"(?:(?<=^)|(?<=[.!?] )|(?<=\n))[,;]\s*", "", text)
    text = re.sub(r",(?=[.;!?])", "", text)
    return text.strip()


def unmarked(passage: str) -> str:
    """The passage without a list mark at its start, if it is no list: something is going to stand before it."""
    return passage if "\n" in passage else re.sub(r"^\s*[-*•–]\s+", "", passage)


def framed(before: str, passage: str, after: str) -> str:
    """The passage between an opening and a closing sentence. Lists keep their lines."""
    gap = "\n" if "\n" in passage else " "
    passage = unmarked(passage)
    return gap.join(part for part in (before, closed(passage), after) if part)


def without_sentences(task: Task, unwanted: Callable[[str], bool], keep_share: float) -> str:
    """The passage without its unwanted sentences, as far as the topic stays and that share of its words remains."""
    if "\n" in task.passage:
        return task.passage
    parts = sentences(task.passage)
    least = keep_share * word_count(task.passage)
    for part in [p for p in parts if unwanted(p)]:
        rest = [p for p in parts if p is not part]
        text = " ".join(rest)
        if rest and word_count(text) >= least and task.still_answers(text):
            parts = rest
    return " ".join(parts)


def as_prose(passage: str) -> str:
    """A list's lines as one paragraph: short items in a row, long ones as sentences. Prose stays as it is."""
    if "\n" not in passage:
        return passage
    lines = [LIST_MARK.sub("", line).strip() for line in passage.split("\n") if line.strip()]
    items = [line.rstrip(" .;,") for line in lines[1:]]
    if items and max(map(word_count, items)) <= 8:
        head = lines[0].rstrip(" :.")
        return closed(f"{head}, namely {', '.join(continued(item) for item in items[:-1])} and {continued(items[-1])}")
    return tidy(" ".join(opened(closed(line).replace(":.", ":")) for line in lines))


def fill(task: Task, templates: Sequence[str], **slots: object) -> str:
    """One of the templates, drawn, with {topic} and the other slots filled, starting with a capital."""
    return opened(task.chance.pick(templates).format(topic=task.topic, **slots))
