"""Longer, shorter; longer sentences, shorter sentences."""

from __future__ import annotations

import re
from typing import Final

from pipeline.chat.offline.edits.task import Task, as_prose, closed, continued, fill, framed, opened
from pipeline.measures.claim import LONG_SENTENCES, SHORT_SENTENCES
from pipeline.measures.text import WORD, mean_sentence_length, sentences, word_count
from pipeline.measures.topicality import covers, key_terms, stems

# Sentences that fit after almost any passage; each 10 to 20 words, none with a trait that a dimension counts.
_FILLERS: Final = (
    "The question of {topic} comes up again and again, and the answer depends on the circumstances.",
    "Anyone who looks into {topic} more closely soon finds that the details matter as much as the outline.",
    "It is worth taking the time to go through {topic} step by step before drawing any conclusion.",
    "Much has been written on {topic}, and the main points given here are widely shared.",
    "The background of {topic} helps to understand why things are the way they are today.",
    "People who deal with {topic} every day tend to see it in a different light from newcomers.",
    "Several sides of {topic} have to be kept apart, because they follow different rules.",
    "What holds for {topic} in one place does not always hold in another.",
    "A closer look at {topic} shows how many separate factors work together.",
    "In practice, {topic} is seldom met alone, and its surroundings have to be taken into account.",
    "The terms used for {topic} differ from one field to the next, which leads to misunderstandings.",
    "A second opinion on {topic} is always welcome, above all where much is at stake.",
    "Over the years, the way {topic} is seen has changed, and it continues to change.",
    "Most of the confusion around {topic} goes back to a few mistakes that are easy to avoid.",
    "Further reading on {topic} is available in any good library, in print as well as online.",
    "None of this takes away from the basic point about {topic}, which remains the same.",
    "For a full picture of {topic}, the wider setting has to be considered along with the core.",
    "With {topic}, as with so much else, care at the beginning saves trouble at the end.",
)

_CLAUSE: Final = re.compile(
    r"\s*(?:[;:—–]|\.{3}| - "
    r"|, (?=(?:and|but|or|so|while|which|who|where|because|although|though|since|as|when|if|with|including|then)\b)"
    r"|(?<! (?:in|of|to|by|on|at))(?<!with)(?<!from)(?<! for)"
    r" (?=(?:and|but|because|while|which|although|whereas|when|where|so that)\b))\s*",
    re.IGNORECASE,
)
_SOFT: Final = re.compile(
    r",\s+| (?=(?:or|with|for|from|by|in|to|that|as|into|through|on|at|of|if|after|before|than)\s)", re.IGNORECASE
)
_LEADING: Final = re.compile(r"^(?:and|but|or|so|because|while|although|whereas|so that|then)\s+", re.IGNORECASE)
_RELATIVE: Final = re.compile(r"^(which|who|where|when)\s+", re.IGNORECASE)
_RELATIVE_STARTS: Final = {"which": "This", "who": "They", "where": "There", "when": "Then"}
_JOINTS: Final = (", and ", "; moreover, ", ", whereas ", "; besides, ", ", and at the same time ")
_LONG_TAIL: Final = (
    ", which is what anyone who has gone into {topic} with some patience and an eye for its details will confirm",
    ", a point that those who deal with {topic} from day to day like to make when they explain it to others",
)
_SHORT_TAILS: Final = (
    "That is {topic}. It is brief. It is plain. No more is needed.",
    "So much for {topic}. The rest is detail. Details can wait.",
    "This is the core. It is short. {topic} is no riddle.",
)


def shorten(task: Task) -> str:
    """At most the claimed number of words: the sentences that say most about the query, in their order."""
    assert task.claim.number is not None
    room = task.claim.number
    terms = key_terms(task.query)
    parts = sentences(task.passage)

    def telling(part: str) -> float:
        found = stems(part)
        return sum(1.0 / (i + 1) for i, term in enumerate(terms) if covers(found, term))

    ranked = sorted(range(len(parts)), key=lambda i: (-telling(parts[i]), i))
    kept: list[int] = []
    for i in ranked:
        size = word_count(parts[i])
        if size <= room:
            kept.append(i)
            room -= size
        elif not kept:
            return _cut(parts[i], room, terms)
    return " ".join(closed(parts[i]) for i in sorted(kept))


def _cut(sentence: str, room: int, terms: tuple[str, ...]) -> str:
    words = sentence.split()
    hits = [i for i, word in enumerate(words) if any(covers(stems(word), term) for term in terms)]
    start = 0 if not hits or hits[0] < room else max(0, hits[0] - room // 3)
    window = words[start : start + room]
    while window and not any(c.isalnum() for c in window[-1]):
        window.pop()
    text = " ".join(window)
    # Rather end at a clause than in the middle of one, if that costs less than a third.
    ends = [m.start() for m in re.finditer(r"[,;:]\s", text)]
    if ends and ends[-1] > 0.65 * len(text):
        text = text[: ends[-1]]
    return closed(opened(text))


def lengthen(task: Task) -> str:
    """At least the claimed number of words: general sentences on the topic after the passage."""
    assert task.claim.number is not None
    text = closed(task.passage)
    for filler in task.chance.cycle(_FILLERS):
        if word_count(text) >= task.claim.number:
            break
        text += f" {opened(filler.format(topic=task.topic))}"
    return text


def split_sentences(task: Task) -> str:
    """Short sentences, and very short ones at the end."""
    return framed("", " ".join(short_sentences(task.passage)), fill(task, _SHORT_TAILS))


def short_sentences(passage: str) -> list[str]:
    """The passage cut at clause ends, then at the middle of what is still long."""
    parts = [_as_sentence(piece) for sentence in sentences(as_prose(passage)) for piece in _clauses(sentence)]
    parts = [part for part in parts if part]
    for _ in range(40):
        text = " ".join(parts)
        if mean_sentence_length(text) <= SHORT_SENTENCES - 3:
            break
        longest = max(range(len(parts)), key=lambda i: word_count(parts[i]))
        halves = _halves(parts[longest])
        parts[longest : longest + 1] = [_as_sentence(half) for half in halves]
        if len(halves) == 1:
            break
    return parts


def _clauses(sentence: str) -> list[str]:
    pieces = _CLAUSE.split(sentence)
    merged: list[str] = []
    for piece in pieces:
        if merged and (word_count(merged[-1]) < 5 or word_count(piece) < 4):
            merged[-1] = f"{merged[-1].rstrip()}, {piece.lstrip()}" if piece.strip(".") else merged[-1]
        else:
            merged.append(piece)
    return merged


def _halves(sentence: str) -> list[str]:
    middle = len(sentence) / 2
    cuts = [m for m in _SOFT.finditer(sentence) if 0.25 * len(sentence) < m.start() < 0.75 * len(sentence)]
    if cuts:
        cut = min(cuts, key=lambda m: abs(m.start() - middle))
        return [sentence[: cut.start()], sentence[cut.end() :]]
    return [sentence]


def _as_sentence(piece: str) -> str:
    piece = _LEADING.sub("", piece.strip(" ,;:-"))
    relative = _RELATIVE.match(piece)
    if relative and not piece.endswith("?"):
        piece = f"{_RELATIVE_STARTS[relative[1].lower()]} {piece[relative.end() :]}"
    return closed(opened(piece)) if WORD.search(piece) else ""


def join_sentences(task: Task) -> str:
    """Long sentences: neighbours joined until the mean is well over the bound, the last one drawn out."""
    parts = sentences(as_prose(task.passage))
    joints = list(task.chance.cycle(_JOINTS))
    made: list[str] = []
    current = ""
    joined = 0
    for part in parts:
        if current and word_count(current) < LONG_SENTENCES + 6:
            current = f"{current.rstrip(' .!?;')}{joints[joined % len(joints)]}{continued(part)}"
            joined += 1
        else:
            made += [current] if current else []
            current = part
    if made and word_count(current) < LONG_SENTENCES:
        made[-1] = f"{made[-1].rstrip(' .!?;')}{joints[joined % len(joints)]}{continued(current)}"
    elif current:
        made.append(current)
    text = " ".join(closed(part) for part in made)
    if made:
        tail = task.chance.pick(_LONG_TAIL).format(topic=task.topic)
        text = " ".join([*(closed(part) for part in made[:-1]), f"{made[-1].rstrip(' .!?;')}{tail}."])
    return text
