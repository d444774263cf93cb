"""Questions, quotations, caution, attribution."""

from __future__ import annotations

import re
from typing import Final

from pipeline.chat.offline.edits.task import (
    Task,
    closed,
    continued,
    fill,
    framed,
    opened,
    tidy,
    unmarked,
    without_sentences,
)
from pipeline.measures.text import ATTRIBUTION, HEDGE, attributions, questions, sentences, word_count

_QUESTIONS: Final = (
    "What is there to know about {topic}?",
    "What does it come down to with {topic}?",
    "Why would anyone ask about {topic}?",
    "How is one to think of {topic}?",
)
_LAST_QUESTIONS: Final = (
    "Is that all there is to {topic}?",
    "Does that settle the matter?",
    "Who would have thought so?",
    "And what follows from it?",
)

_SPEAKERS: Final = (
    "says one specialist",
    "a teacher of the subject explains",
    "as one expert puts it",
    "says a guide to the field",
    "a practitioner remarks",
)
_SECOND_QUOTES: Final = (
    '"People should know more about {topic} than they do," the same voice adds.',
    '"There is nothing mysterious about {topic}," goes another comment.',
    '"Ask anyone who has dealt with {topic}," runs a common reply.',
    '"I wish that somebody had told me about {topic} earlier," a beginner admits.',
)

_CAUTIOUS_OPENINGS: Final = (
    "As far as {topic} is concerned, this might possibly be the best account.",
    "With some reservation, one could perhaps say the following about {topic}.",
    "What is known about {topic} may well be incomplete, and it could change.",
    "Perhaps this is how things stand with {topic}, though it might be otherwise.",
)
_CAUTIOUS_CLOSINGS: Final = (
    "Other accounts may differ, and they could perhaps be right.",
    "It might be wise not to rely on this, as the picture may change.",
    "Possibly there are exceptions, and some of this could turn out otherwise.",
    "Whether that holds everywhere is uncertain; it probably depends on the case.",
)
_BE: Final = {
    "is": "may be",
    "are": "may be",
    "was": "may have been",
    "were": "may have been",
    "will": "might",
    "has": "may have",
    "have": "may have",
}
_BE_PATTERN: Final = re.compile(
    r"(?<=[a-z] )(?:is|are|was|were|will)(?= (?!not\b|it\b|there\b|they\b|you\b|the\b)[a-z])"
)
_FIRM_CLOSINGS: Final = (
    "There is no doubt about it.",
    "This is certain and beyond dispute.",
    "That is a fact, without exception.",
    "It is as simple and as definite as that.",
)

_SOURCES: Final = (
    "the national institute for the field",
    "a leading handbook",
    "the Journal of Applied Research",
    "Dr. Helen Marsh",
    "a report by the city's university",
    "the standard textbook",
)
_FURTHER_SOURCES: Final = (
    "A recent survey on {topic} says the same.",
    "Professor Alan Brook, who has studied {topic} for decades, said so in an interview.",
    "The association's yearbook reported that nothing about {topic} has changed since.",
    "An editor of the subject's main journal wrote that this view of {topic} is the accepted one.",
)
_ACCORDING: Final = re.compile(r"\b[Aa]ccording to [^,.;()\n]{1,70}(?:, |(?=[.;)\n])|$)")
_SAYS: Final = re.compile(r",? (?:he|she|they|[A-Z]\w+(?: [A-Z]\w+){0,2}) (?:says|said)\b(?! to\b)")
_PLAIN: Final = {
    "says": "has it",
    "said": "had it",
    "according to": "in line with",
    "as stated by": "as with",
    "as reported by": "as with",
    "in the words of": "in the manner of",
}


def ask(task: Task) -> str:
    """A question before the passage and one after it."""
    return framed(fill(task, _QUESTIONS), task.passage, fill(task, _LAST_QUESTIONS))


def ask_nothing(task: Task) -> str:
    """Questions dropped where enough remains, else turned into a topic followed by a full stop."""
    text = without_sentences(task, lambda part: questions(part) > 0, keep_share=0.4)
    text = re.sub(r"\s*\?+[?!]*", ".", text)
    return framed("", tidy(re.sub(r"\.(?:\s*\.)+", ".", text)), "This is the answer in plain terms.")


def quote(task: Task) -> str:
    """One of the passage's own sentences in somebody's mouth, and a second voice."""
    parts = sentences(task.passage)
    wanted = [i for i, part in enumerate(parts) if 5 <= word_count(part) <= 30 and '"' not in part]
    text = closed(task.passage)
    if wanted and "\n" not in task.passage:
        i = task.chance.pick(wanted)
        parts[i] = f'"{parts[i].rstrip(" .!?")}," {task.chance.pick(_SPEAKERS)}.'
        text = closed(" ".join(parts))
    return f"{text} {fill(task, _SECOND_QUOTES)}"


def unquote(task: Task) -> str:
    """What was said stays, the quotation marks go."""
    return framed("", tidy(re.sub(r"[\"“”„]|''|``", "", task.passage)), "That is the gist of it, put in neutral terms.")


def hedge(task: Task) -> str:
    """Up to four plain verbs made cautious, in a cautious frame."""
    text = _BE_PATTERN.sub(lambda match: _BE[match.group()], task.passage, count=4)
    return framed(fill(task, _CAUTIOUS_OPENINGS), text, fill(task, _CAUTIOUS_CLOSINGS))


def assert_firmly(task: Task) -> str:
    """May, might and could become will, the cautious adverbs go."""
    text = re.sub(
        r"\b(?:may|[Mm]ight|[Cc]ould)\b", lambda m: "Will" if m.group()[0].isupper() else "will", task.passage
    )
    text = re.sub(rf"((?:^|[.!?] ){HEDGE.pattern},? )([a-z])", lambda m: f"{m[1]}{m[2].upper()}", text)
    text = tidy(HEDGE.sub("", text))
    return framed("", opened(text), fill(task, _FIRM_CLOSINGS))


def attribute(task: Task) -> str:
    """The passage laid in the mouth of one source, and backed by another."""
    return framed(
        "",
        f"According to {task.chance.pick(_SOURCES)}, {continued(unmarked(task.passage))}",
        fill(task, _FURTHER_SOURCES),
    )


def drop_attribution(task: Task) -> str:
    """Sources removed; a verb of saying that is left becomes a neutral one."""
    text = without_sentences(task, lambda part: attributions(part) > 0, keep_share=0.6)
    text = _SAYS.sub("", _ACCORDING.sub("", text))

    def neutral(match: re.Match[str]) -> str:
        word = match.group()
        return _PLAIN.get(word.lower(), "shows" if word.endswith("s") else "showed")

    return framed("", opened(tidy(ATTRIBUTION.sub(neutral, text))), "This speaks for itself.")
