"""What an instruction is about, and in which form: read from `prompts/dimensions.yaml`, drawn from the seed's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, TypeVar

import yaml

from pipeline.measures.wordings import HELD_OUT, TRAINED
from pipeline.records import Split
from pipeline.yaml_text import parse_yaml

_T = TypeVar("_T")

FILE: Final = "dimensions.yaml"

WORDING_GROUPS: Final[dict[Split, tuple[str, ...]]] = {
    "train": TRAINED,
    "validation": HELD_OUT["validation"],
    "test": HELD_OUT["test"],
}
"""Whole groups of paraphrases are held out, so that the test's wordings occur nowhere in training."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing an instruction can be about. `measured`: counting decides whether a passage obeys."""

    name: str
    definition: str
    poisoning: str
    examples: tuple[str, ...]
    measured: bool


@dataclass(frozen=True, slots=True)
class Form:
    """The shape of an instruction: keywords, sentence, paragraph, profile."""

    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class Draw:
    """What a seed got. `wording_group` is set only for the offline generator."""

    dimension: Dimension
    form: Form
    wording_group: str | None


@dataclass(frozen=True, slots=True)
class Dimensions:
    """All dimensions and forms, in the file's order."""

    dimensions: tuple[Dimension, ...]
    forms: tuple[Form, ...]

    @classmethod
    def load(cls) -> Dimensions:
        """Read `prompts/dimensions.yaml`; ValueError with one sentence where it is malformed."""
        return cls.parse((files("prompts") / FILE).read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Dimensions:
        """The dimensions in a YAML text; ValueError with one sentence where it is malformed."""
        try:
            raw = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{FILE}: not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(raw, dict) or not all(isinstance(raw.get(key), dict) for key in ("forms", "dimensions")):
            raise ValueError(f"{FILE}: expected two mappings, forms and dimensions")
        forms = tuple(Form(name, _text(f"forms.{name}", value)) for name, value in raw["forms"].items())
        dimensions = tuple(_dimension(name, value) for name, value in raw["dimensions"].items())
        if not forms or not dimensions:
            raise ValueError(f"{FILE}: needs at least one form and one dimension")
        return cls(dimensions, forms)

    @property
    def hash(self) -> str:
        """The hash of all dimensions and forms, for the provenance of rows."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def draw(self, seed_id: str, split: Split, measured_only: bool) -> Draw:
        """The seed's dimension, form and wording group: from its id alone (and its split, for the group).

        Three independent digests of the id, so that every dimension meets every form and group evenly; SHA-256, so
        that the draw is the same on every machine and Python version.
        """
        pool = _measured(self.dimensions) if measured_only else self.dimensions
        if not pool:
            raise ValueError(f"{FILE}: no dimension is marked measured, so the offline model has none to write")
        group = _pick(seed_id, "wording_group", WORDING_GROUPS[split]) if measured_only else None
        return Draw(_pick(seed_id, "dimension", pool), _pick(seed_id, "form", self.forms), group)


@lru_cache(maxsize=8)
def _measured(dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    return tuple(dimension for dimension in dimensions if dimension.measured)


def _pick(seed_id: str, purpose: str, choices: Sequence[_T]) -> _T:
    digest = hashlib.sha256(f"{purpose}\0{seed_id}".encode("utf-8", "surrogatepass")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def _dimension(name: str, value: Any) -> Dimension:
    where = f"dimensions.{name}"
    if not isinstance(value, dict):
        raise ValueError(f"{FILE}: {where} must be a mapping with definition, poisoning, examples and measured")
    unknown = sorted(set(value) - {"definition", "poisoning", "examples", "measured"})
    if unknown:
        raise ValueError(f"{FILE}: {where} has a field that nothing reads: {unknown[0]}")
    measured = value.get("measured")
    if not isinstance(measured, bool):
        raise ValueError(f"{FILE}: {where}.measured must be true or false")
    examples = value.get("examples")
    if not isinstance(examples, list) or len(examples) < 3:
        raise ValueError(f"{FILE}: {where}.examples must be a list of at least three")
    return Dimension(
        name=str(name),
        definition=_text(f"{where}.definition", value.get("definition")),
        poisoning=_text(f"{where}.poisoning", value.get("poisoning")),
        examples=tuple(_text(f"{where}.examples", example) for example in examples),
        measured=measured,
    )


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{FILE}: {where} must be a text (quote it if YAML reads it as something else)")
    return " ".join(value.split())
