"""Who speaks to whom, and how casually."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pipeline.chat.offline.edits.task import Task, fill, framed, opened, tidy
from pipeline.measures.text import CONTRACTION, contractions

_READER_OPENINGS: Final = (
    "If you are looking into {topic}, here is what you should know.",
    "You have asked about {topic}, so let this be your starting point.",
    "Before you go any further with {topic}, you had better read this.",
    "You will come across {topic} sooner or later, and this is what awaits you.",
)
_READER_CLOSINGS: Final = (
    "Keep that in mind when you make up your own mind.",
    "What you do with it is up to you, but now you know.",
    "That way you can judge for yourself.",
    "Your own case is the one that counts, so think about what you need.",
)
_NOBODY: Final = {
    "you are": "people are",
    "you're": "people are",
    "you’re": "people are",
    "you'll": "people will",
    "you’ll": "people will",
    "you've": "people have",
    "you’ve": "people have",
    "you'd": "people would",
    "you’d": "people would",
    "are you": "are people",
    "do you": "do people",
    "can you": "can people",
    "yourself": "oneself",
    "yourselves": "themselves",
    "yours": "theirs",
    "your": "their",
    "you": "people",
}
_NOBODY_CLOSINGS: Final = (
    "These statements on {topic} are of a general nature and apply to people at large.",
    "Such is the general description of {topic}, irrespective of who consults it.",
    "This describes {topic} as a matter of record, without regard to any individual.",
)

_FIRST_OPENINGS: Final = (
    "I have dealt with {topic} myself, and this is how I would put it.",
    "When I first came across {topic}, I had to learn this the hard way.",
    "We have had {topic} in our family for years, so I know what I am talking about.",
    "My own dealings with {topic} have taught me the following.",
)
_FIRST_CLOSINGS: Final = (
    "That, at least, is what my own experience has taught me.",
    "I would say the same to my best friend.",
    "We have never regretted it, and my neighbors agree with us.",
    "This is how I see it, and I stand by my view.",
)
_NO_ONE: Final = {
    "i am": "they are",
    "i'm": "they are",
    "i’m": "they are",
    "i was": "they were",
    "i've": "they have",
    "i’ve": "they have",
    "i'll": "they will",
    "i’ll": "they will",
    "i'd": "they would",
    "i’d": "they would",
    "am i": "are they",
    "was i": "were they",
    "we're": "they are",
    "we’re": "they are",
    "we've": "they have",
    "we’ve": "they have",
    "we'll": "they will",
    "we’ll": "they will",
    "we'd": "they would",
    "we’d": "they would",
    "myself": "themselves",
    "ourselves": "themselves",
    "mine": "theirs",
    "ours": "theirs",
    "my": "their",
    "our": "their",
    "me": "them",
    "we": "they",
    "i": "they",
}
_OUTSIDE_CLOSINGS: Final = (
    "This is an outside view of {topic}, and no one involved has a say in it.",
    "The report on {topic} was compiled by observers from the available facts.",
    "Such is the objective account of {topic}, free of anybody's personal history.",
)
_FIRST_WORDS: Final = {"I", "Me", "me"}

_CONTRACTED: Final = {
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "were not": "weren't",
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "cannot": "can't",
    "can not": "can't",
    "will not": "won't",
    "would not": "wouldn't",
    "should not": "shouldn't",
    "could not": "couldn't",
    "has not": "hasn't",
    "have not": "haven't",
    "had not": "hadn't",
    "it is": "it's",
    "that is": "that's",
    "there is": "there's",
    "what is": "what's",
    "who is": "who's",
    "you are": "you're",
    "they are": "they're",
    "we are": "we're",
    "he is": "he's",
    "she is": "she's",
    "you will": "you'll",
    "it will": "it'll",
    "they will": "they'll",
    "you have": "you've",
    "they have": "they've",
    "we have": "we've",
    "i am": "I'm",
    "i have": "I've",
}
_CASUAL_OPENINGS: Final = (
    "Here's the thing about {topic}: it's not as hard as it sounds.",
    "OK, so {topic}, that's what we're on about here.",
    "Let's be honest, {topic} isn't something folks think about every day.",
    "So what's the deal with {topic}? It's pretty simple.",
)
_CASUAL_CLOSINGS: Final = (
    "That's about it, and there's really no reason it shouldn't make sense.",
    "And that's that, so don't worry if it didn't click right away.",
    "It's no big deal once you've got the hang of it.",
    "There's more to it, but that's what's worth knowing.",
)
_SPELLED: Final = {
    "can't": "cannot",
    "won't": "will not",
    "shan't": "shall not",
    "ain't": "is not",
    "let's": "let us",
    "y'all": "all of you",
}
_ENDINGS: Final = {
    "n't": " not",
    "'re": " are",
    "'ve": " have",
    "'d": " would",
    "'ll": " will",
    "'m": " am",
    "'s": " is",
}
_FORMAL_CLOSINGS: Final = (
    "The foregoing is stated for the purpose of information and does not constitute advice.",
    "It is to be noted that further particulars of {topic} are set out elsewhere.",
    "For a comprehensive treatment of {topic}, reference is made to the relevant literature.",
    "The above remarks concerning {topic} are subject to the customary reservations.",
)


def _substituted(text: str, table: Mapping[str, str]) -> str:
    longest_first = sorted(table, key=len, reverse=True)
    pattern = re.compile(
        r"(?<![\w'’])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w])(?!['’]\w)", re.IGNORECASE
    )

    def swap(match: re.Match[str]) -> str:
        new = table[match.group().lower()]
        starts = match.start() == 0 or bool(
            re.search(r"[.!?\n:]\s*[\"“]?$", text[max(0, match.start() - 4) : match.start()])
        )
        capital = match.group()[0].isupper() and (
            starts or (match.group() not in _FIRST_WORDS and match.group()[:2] not in {"I'", "I’", "I "})
        )
        return opened(new) if capital else new

    return pattern.sub(swap, text)


def address_reader(task: Task) -> str:
    """Sentences before and after that turn to the reader."""
    return framed(fill(task, _READER_OPENINGS), task.passage, fill(task, _READER_CLOSINGS))


def address_nobody(task: Task) -> str:
    """The reader becomes people in general, and a sentence keeps the distance."""
    return framed("", tidy(_substituted(task.passage, _NOBODY)), fill(task, _NOBODY_CLOSINGS))


def take_first_person(task: Task) -> str:
    """Sentences before and after in which somebody speaks for themselves."""
    return framed(fill(task, _FIRST_OPENINGS), task.passage, fill(task, _FIRST_CLOSINGS))


def take_third_person(task: Task) -> str:
    """Whoever speaks becomes somebody spoken about, and a sentence says where the view comes from."""
    return framed("", tidy(_substituted(task.passage, _NO_ONE)), fill(task, _OUTSIDE_CLOSINGS))


def contract(task: Task) -> str:
    """Verbs contracted where they can be, in a casual frame."""
    return framed(fill(task, _CASUAL_OPENINGS), _substituted(task.passage, _CONTRACTED), fill(task, _CASUAL_CLOSINGS))


def spell_out(task: Task) -> str:
    """Every contraction spelled out, and a formal close."""

    def spelled(match: re.Match[str]) -> str:
        word = match.group().replace("’", "'")
        known = _SPELLED.get(word.lower())
        if known:
            return opened(known) if word[0].isupper() else known
        for ending, full in _ENDINGS.items():
            if word.lower().endswith(ending):
                return word[: -len(ending)] + full
        return word

    text = CONTRACTION.sub(spelled, task.passage)
    if contractions(text):
        text = text.replace("'", " ").replace("’", " ")
    return framed("", text, fill(task, _FORMAL_CLOSINGS))
