"""The offline model's instructions: written from `wordings.yaml`, and recognised again exactly.

A wording is written out, or composed: its group's phrase for the pole, set in a frame. Any phrase meets any frame, but for those
that are held out together, so that training can't learn a phrase by the frame around it. A wording has up to four slots: {n} a
number, {term} a phrase in straight double quotes, {persona} and {purpose} from its group's lists. Recognising replaces what
fills the slots by their names, takes the frame off and looks the remainder up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product
from typing import Any, Final

from pipeline.measures.claim import POLES, Claim
from pipeline.yaml_text import parse_yaml

FORMS: Final = ("keywords", "sentence", "paragraph", "profile")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_NAMES: Final = (*_LETTERS, *(first + second for first in _LETTERS for second in _LETTERS))
WRITTEN: Final = _NAMES[:6]
COMPOSED: Final = _NAMES[6:294]
FRAMES: Final = _NAMES[6:34]
GROUPS: Final = WRITTEN + COMPOSED
HELD_OUT: Final = {
    "validation": ("e", "dj", "x", "bv", "dy", "ai", "ad", "ax", "ep", "af"),
    "test": ("f", "bl", "cu", "cd", "bj", "do", "eb", "dz", "df", "ed"),
}
"""Groups that training never sees: e and f were written in other words than all before them; the composed ones were drawn by lot
among the first 144 composed, before anything was trained on that pool, in the order of SHA-256 of `held out:NAME`. The composed
groups after those were written for training alone, by writers who had not seen these."""
HELD_OUT_FRAMES: Final = {"validation": ("y", "l", "m"), "test": ("w", "x", "s")}
"""Frames that held-out groups alone are set in, and no other: by SHA-256 of `held out frame:NAME`."""


def _rest(names: tuple[str, ...], held_out: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for name in names if all(name not in held for held in held_out.values()))


TRAINED: Final = _rest(GROUPS, HELD_OUT)
TRAINED_FRAMES: Final = _rest(FRAMES, HELD_OUT_FRAMES)

_TERM: Final = re.compile(r'"([^"]+)"')
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Wording:
    """One way of saying a pole of a dimension, with its slots. frame: of a composed group's; "" where it is written out."""

    dimension: str
    pole: str
    group: str
    form: str
    frame: str
    template: str


@dataclass(frozen=True, slots=True)
class Slots:
    """What fills a wording's slots."""

    number: int | None = None
    term: str | None = None
    persona: str | None = None
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class Recognised:
    """An instruction that is a wording of ours, taken apart."""

    wording: Wording
    slots: Slots

    @property
    def claim(self) -> Claim:
        """What the instruction asks for."""
        return Claim(self.wording.dimension, self.wording.pole, self.slots.number, self.slots.term)


class Wordings:
    """All wordings, loaded once; see `wordings()`.

    personas, purposes: what fills those slots, by group. frames: what a group's phrase may be set in, by group; a group
    that is written out has the frame "" alone.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        groups = raw["groups"]
        self.personas: dict[str, tuple[str, ...]] = {}
        self.purposes: dict[str, tuple[str, ...]] = {}
        self.frames: dict[str, tuple[str, ...]] = {}
        sets = ((TRAINED, TRAINED_FRAMES), *((HELD_OUT[split], HELD_OUT_FRAMES[split]) for split in HELD_OUT))
        for together, frames in sets:
            lenders = [groups[g] for g in together if g in groups]
            for g in together:
                own = [groups[g]] if g in groups else lenders
                self.personas[g] = tuple(text for group in own for text in group["persona"])
                self.purposes[g] = tuple(text for group in own for text in group["purpose"])
                self.frames[g] = ("",) if g in WRITTEN else frames
        self._written: dict[tuple[str, str, str, str], str] = {}
        self._phrases: dict[tuple[str, str, str], str] = {}
        self._by_text: dict[str, tuple[str, str, str, str]] = {}
        for dimension, poles in raw["dimensions"].items():
            if set(poles) != set(POLES[dimension]):
                raise ValueError(
                    f"wordings.yaml: {dimension} has the poles {sorted(poles)}, expected {POLES[dimension]}"
                )
            for pole, by_group in poles.items():
                for group, phrase in zip(COMPOSED, by_group["phrases"], strict=True):
                    self._phrases[dimension, pole, group] = phrase
                    self._add(phrase, (dimension, pole, group, ""))
                for group, form in product(WRITTEN, FORMS):
                    text = " ".join(by_group[group][form].split())
                    self._written[dimension, pole, group, form] = text
                    self._add(text, (dimension, pole, group, form))
        self._around = {
            (frame, form): " ".join(raw["frames"][frame][form].split()).split("{ask}")
            for frame, form in product(FRAMES, FORMS)
        }
        self._fillers = {
            **{text: ("{persona}", text) for texts in self.personas.values() for text in texts},
            **{text: ("{purpose}", text) for texts in self.purposes.values() for text in texts},
        }
        longest_first = sorted(self._fillers, key=lambda text: (-len(text), text))
        self._filler = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")

    def _add(self, text: str, place: tuple[str, str, str, str]) -> None:
        if text in self._by_text:
            raise ValueError(f"wordings.yaml: {text!r} stands in two places: {self._by_text[text]} and {place}")
        self._by_text[text] = place

    @property
    def dimensions(self) -> frozenset[str]:
        """The dimensions that have wordings."""
        return frozenset(dimension for dimension, *_ in self._phrases)

    def wording(self, dimension: str, pole: str, group: str, form: str, frame: str) -> Wording:
        """The wording of a pole; KeyError where there is none."""
        if frame:
            before, after = self._around[frame, form]
            template = before + self._phrases[dimension, pole, group] + after
        else:
            template = self._written[dimension, pole, group, form]
        return Wording(dimension, pole, group, form, frame, template)

    def _of_template(self, template: str) -> Wording | None:
        """The wording with this template: one that is written out, or a frame around a phrase that may be set in it."""
        place = self._by_text.get(template)
        if place and place[3]:
            return self.wording(*place, frame="")
        for (frame, form), (before, after) in self._around.items():
            if template.startswith(before) and template.endswith(after):
                place = self._by_text.get(template[len(before) : len(template) - len(after)])
                if place and frame in self.frames[place[2]]:
                    return self.wording(*place[:3], form, frame)
        return None

    def write(self, wording: Wording, slots: Slots) -> str:
        """The instruction's text. The term's own double quotes are left out, so that it can be recognised."""
        return (
            wording.template.replace("{n}", str(slots.number))
            .replace("{persona}", slots.persona or "")
            .replace("{purpose}", slots.purpose or "")
            .replace("{term}", (slots.term or "").replace('"', ""))
        )

    def recognise(self, instruction: str) -> Recognised | None:
        """The wording and slots that wrote this instruction, or None where none of ours did."""
        term = _TERM.search(instruction)
        skeleton = _TERM.sub('"{term}"', instruction, count=1) if term else instruction
        number = _NUMBER.search(skeleton)
        skeleton = _NUMBER.sub("{n}", skeleton) if number else skeleton
        wording = self._of_template(skeleton)
        persona = purpose = None
        if wording is None:
            filler = self._filler.search(skeleton)
            if filler is None:
                return None
            slot, filled = self._fillers[filler.group()]
            skeleton = f"{skeleton[: filler.start()]}{slot}{skeleton[filler.end() :]}"
            wording = self._of_template(skeleton)
            if wording is None:
                return None
            persona, purpose = (filled, None) if slot == "{persona}" else (None, filled)
        slots = Slots(int(number.group()) if number else None, term.group(1) if term else None, persona, purpose)
        return Recognised(wording, slots) if self.write(wording, slots) == instruction else None


@lru_cache(maxsize=1)
def wordings() -> Wordings:
    """The wordings of `wordings.yaml`, parsed once a process."""
    raw = files("pipeline.measures").joinpath("wordings.yaml").read_text(encoding="utf-8")
    return Wordings(parse_yaml(raw))


def group_of(instruction: str) -> tuple[str, str, str, str] | None:
    """(dimension, pole, group, form) of an instruction that the offline model wrote, else None."""
    found = wordings().recognise(instruction)
    return (found.wording.dimension, found.wording.pole, found.wording.group, found.wording.form) if found else None
