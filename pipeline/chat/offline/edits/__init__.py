"""Editing a passage so that it takes the other pole of a measured dimension. Rules, one function a pole.

An edit is salient on purpose (whole sentences or many places), so that what changed can be learned. It never takes
text from another passage. Whether it worked is for the caller to measure: no function here is trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.chat.offline.edits import layout, lengths, manner, speech, substance
from pipeline.chat.offline.edits.task import Task

__all__ = ["EDITS", "Task"]

EDITS: Final[dict[tuple[str, str], Callable[[Task], str]]] = {
    ("length", "at_most"): lengths.shorten,
    ("length", "at_least"): lengths.lengthen,
    ("sentence_length", "short"): lengths.split_sentences,
    ("sentence_length", "long"): lengths.join_sentences,
    ("layout", "list"): layout.to_list,
    ("layout", "prose"): layout.to_prose,
    ("parentheses", "some"): layout.add_brackets,
    ("parentheses", "none"): layout.drop_brackets,
    ("address", "reader"): speech.address_reader,
    ("address", "impersonal"): speech.address_nobody,
    ("viewpoint", "first_person"): speech.take_first_person,
    ("viewpoint", "third_person"): speech.take_third_person,
    ("contractions", "casual"): speech.contract,
    ("contractions", "formal"): speech.spell_out,
    ("questions", "some"): manner.ask,
    ("questions", "none"): manner.ask_nothing,
    ("quotation", "some"): manner.quote,
    ("quotation", "none"): manner.unquote,
    ("hedging", "cautious"): manner.hedge,
    ("hedging", "firm"): manner.assert_firmly,
    ("attribution", "some"): manner.attribute,
    ("attribution", "none"): manner.drop_attribution,
    ("figures", "some"): substance.add_figures,
    ("figures", "none"): substance.drop_figures,
    ("years", "some"): substance.add_years,
    ("years", "none"): substance.drop_years,
    ("examples", "some"): substance.add_examples,
    ("examples", "none"): substance.drop_examples,
    ("mention", "present"): substance.bring_in,
    ("mention", "absent"): substance.keep_out,
}
"""(dimension, pole) -> the edit that leads there."""
