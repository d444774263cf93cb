"""The offline model's instructions: written from `wordings.yaml`, and recognised again exactly.

A wording is written out, or composed of its group's frame and its pole's phrase. It has up to four slots: {n} a number,
{term} a phrase in straight double quotes, {persona} and {purpose} from its group's lists. Recognising replaces what
fills the slots by their names and looks the remainder up, so it costs the same however many wordings there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from pipeline.measures.claim import POLES, Claim
from pipeline.yaml_text import parse_yaml

FORMS: Final = ("keywords", "sentence", "paragraph", "profile")
COMPOSED: Final = (*"ghijklmnopqrstuvwxyz", *("aa", "ab", "ac", "ad", "ae", "af", "ag", "ah"))
GROUPS: Final = (*"abcdef", *COMPOSED)
HELD_OUT: Final = {"validation": ("e", "l", "h", "s"), "test": ("f", "x", "ad", "af")}
"""Groups that training never sees: e and f were written in other words than all before them; the composed ones were drawn
by lot among the composed before anything was trained on them, in the order of SHA-256 of `held out:NAME`."""
TRAINED: Final = tuple(g for g in GROUPS if g not in {*HELD_OUT["validation"], *HELD_OUT["test"]})

_TERM: Final = re.compile(r'"([^"]+)"')
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Wording:
    """One way of saying a pole of a dimension, with its slots."""

    dimension: str
    pole: str
    group: str
    form: str
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
    """All wordings, loaded once; see `wordings()`."""

    def __init__(self, raw: dict[str, Any]) -> None:
        groups = raw["groups"]
        self.personas: dict[str, tuple[str, ...]] = {}
        self.purposes: dict[str, tuple[str, ...]] = {}
        for together in (TRAINED, *HELD_OUT.values()):
            lenders = [groups[g] for g in together if g in groups]
            for g in together:
                own = [groups[g]] if g in groups else lenders
                self.personas[g] = tuple(text for group in own for text in group["persona"])
                self.purposes[g] = tuple(text for group in own for text in group["purpose"])
        self.all: dict[tuple[str, str, str, str], Wording] = {}
        self._by_template: dict[str, Wording] = {}
        for dimension, poles in raw["dimensions"].items():
            if set(poles) != set(POLES[dimension]):
                raise ValueError(
                    f"wordings.yaml: {dimension} has the poles {sorted(poles)}, expected {POLES[dimension]}"
                )
            for pole, by_group in poles.items():
                for group, phrase in zip(COMPOSED, by_group["phrases"], strict=True):
                    by_group[group] = {f: raw["frames"][group][f].replace("{ask}", phrase) for f in FORMS}
                for group in GROUPS:
                    for form in FORMS:
                        self._add(Wording(dimension, pole, group, form, " ".join(by_group[group][form].split())))
        self._fillers = {
            **{text: ("{persona}", text) for texts in self.personas.values() for text in texts},
            **{text: ("{purpose}", text) for texts in self.purposes.values() for text in texts},
        }
        longest_first = sorted(self._fillers, key=lambda text: (-len(text), text))
        self._filler = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")

    def _add(self, wording: Wording) -> None:
        twin = self._by_template.get(wording.template)
        if twin is not None:
            raise ValueError(f"wordings.yaml: {wording.template!r} stands in two places: {twin} and {wording}")
        self._by_template[wording.template] = wording
        self.all[wording.dimension, wording.pole, wording.group, wording.form] = wording

    @property
    def dimensions(self) -> frozenset[str]:
        """The dimensions that have wordings."""
        return frozenset(dimension for dimension, *_ in self.all)

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
        wording = self._by_template.get(skeleton)
        persona = purpose = None
        if wording is None:
            filler = self._filler.search(skeleton)
            if filler is None:
                return None
            slot, filled = self._fillers[filler.group()]
            skeleton = f"{skeleton[: filler.start()]}{slot}{skeleton[filler.end() :]}"
            wording = self._by_template.get(skeleton)
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
