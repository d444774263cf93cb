"""Lists and prose; remarks in brackets."""

from __future__ import annotations

import re
from typing import Final

from pipeline.chat.offline.edits.lengths import short_sentences
from pipeline.chat.offline.edits.task import Task, as_prose, closed, fill, framed, opened, tidy
from pipeline.measures.text import PARENTHESIS, sentences

_PROSE_CLOSINGS: Final = (
    "Taken together, these points give a rounded picture of {topic}.",
    "One thing leads to the next, and so the account of {topic} is complete.",
    "All of this belongs to {topic}, and none of it should be looked at alone.",
)
_HEADINGS: Final = (
    "{topic}, point by point:",
    "The main points on {topic}:",
    "What to know about {topic}:",
    "{topic} at a glance:",
)
_LAST_ITEMS: Final = (
    "These are the points that count for {topic}",
    "There is more to {topic} than these points",
    "The details of {topic} follow from these points",
)
_INNER: Final = (
    "the subject of this note",
    "more on this in a moment",
    "the point in question",
    "as the name is usually given",
)
_OUTER: Final = (
    "(A longer account of {topic} would fill several pages.)",
    "(This is the short version of what there is to say about {topic}.)",
    "(There is more to {topic}, of course, but this is the core.)",
)
_UNINTERRUPTED: Final = (
    "That is all there is to say about {topic}, in one go and with nothing put in between.",
    "So much for {topic}, told straight through without a remark on the side.",
    "The account of {topic} ends here, and no side note is needed.",
)


def to_list(task: Task) -> str:
    """A heading and one bullet for each sentence or clause, three at least."""
    parts = sentences(task.passage)
    if len(parts) < 3:
        parts = sentences(" ".join(short_sentences(task.passage)))
    for item in task.chance.cycle(_LAST_ITEMS):
        if len(parts) < 3:
            parts.append(item.format(topic=task.topic))
    # A list is for the main points; whole passages in another layout would be near-duplicates.
    main = parts[: max(3, -(-7 * len(parts) // 10))]
    if task.still_answers(" ".join(main)):
        parts = main
    heading = opened(task.chance.pick(_HEADINGS).format(topic=task.topic))
    return "\n".join([heading, *(f"- {opened(part.rstrip('.').strip(' -*•'))}" for part in parts)])


def to_prose(task: Task) -> str:
    """The list's items in one paragraph, with a sentence that closes it."""
    return f"{closed(as_prose(task.passage))} {task.chance.pick(_PROSE_CLOSINGS).format(topic=task.topic)}"


def add_brackets(task: Task) -> str:
    """One remark behind the topic's first mention and one at the end."""
    topic = task.topic
    place = re.search(rf"(?<!\w){re.escape(topic)}(?!\w)(?!['’-])", task.passage)
    text = task.passage
    if place:
        text = f"{text[: place.end()]} ({task.chance.pick(_INNER)}){text[place.end() :]}"
    return f"{closed(text)} {task.chance.pick(_OUTER).format(topic=topic)}"


def drop_brackets(task: Task) -> str:
    """What stands in brackets goes, unless the topic goes with it: then only the brackets. A sentence closes it."""
    text = PARENTHESIS.sub("", PARENTHESIS.sub("", task.passage))
    if not task.still_answers(text):
        text = task.passage
    return framed("", tidy(re.sub(r"[()]", "", text)), fill(task, _UNINTERRUPTED))
