"""A finished tuple that passes every check, for tests to break."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.records import Tuple

GOOD = Tuple(
    id="q1-d1",
    query_id="q1",
    document_id="d1",
    split="train",
    query_positive="how does a heat pump warm a house",
    document="A heat pump moves heat from the outside air into the house. A fan draws air over a coil, a liquid in "
    "the coil boils, and a compressor squeezes the vapour until it is hot enough to warm the rooms.",
    dimension="audience",
    form="sentence",
    query_negative="how does a gas boiler warm a house",
    instruction_positive="Describe the mechanism for somebody who wants to know how it works.",
    instruction_negative="Only tell me what it costs to run over a winter.",
    hard_negative_document_1="Running a heat pump over a winter typically costs a family less than oil would, since each "
    "unit of electricity brings in several of heat; bills depend on insulation and the tariff.",
    hard_negative_document_2="A gas boiler burns gas in a sealed chamber. The flame heats water in an exchanger, and a pump "
    "sends that water through radiators in every room before it returns to be heated again.",
    relevance=((3, 1, 0), (1, 3, 0), (0, 0, 3)),
    rationale="Only the first explains the mechanism.",
    generator="writer-1",
    generator_version="writer-1-2026",
    judge="judge-1",
    judge_version="judge-1-2026",
)


def broken(**changes: Any) -> Tuple:
    """The good tuple with changes."""
    return replace(GOOD, **changes)
