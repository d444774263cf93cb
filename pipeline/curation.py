"""The Beam graph: seeds in, staged outcomes out. It reads like the flow of the job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam

from pipeline.accounts import Find
from pipeline.chat.config import ChatConfig
from pipeline.checks import check, check_whole
from pipeline.conversing import ENDED, GOING_ON, Converse
from pipeline.judging import judge, judge_mined
from pipeline.live import open_counts
from pipeline.near_duplicates import SEARCHES
from pipeline.recipe import Recipe
from pipeline.records import Deferred, Rejected, Seed, Tuple
from pipeline.shards import Gone, Shard, write_shard
from pipeline.staging import Wave, part_of, write_part
from pipeline.synthesis import Outcome, instruct, poison


def curate(
    pipeline: beam.Pipeline, seeds: Sequence[Seed], wave: Wave, recipe: Recipe, chat: ChatConfig, source: str
) -> None:
    """Draw, instruct, poison, check, judge and grade what was mined.

    Every outcome is written to a part of the wave's unfinished folder.
    """
    drawn = pipeline | "Seeds" >> beam.Create(seeds) | "Draw" >> beam.Map(recipe.start)
    instructed = drawn | "Instruct" >> Converse(instruct, recipe, chat)
    poisoned = instructed[GOING_ON] | "Poison" >> Converse(poison, recipe, chat)
    checked = poisoned[GOING_ON] | "Check" >> beam.Map(check).with_output_types(Outcome) | "Pass" >> Sort()
    judged = checked[GOING_ON] | "Judge" >> Converse(judge, recipe, chat)
    graded = judged[GOING_ON] | "Judge mined" >> Converse(judge_mined, recipe, chat)
    accepted = graded[GOING_ON] | "Check whole" >> beam.Map(check_whole, recipe.prompt_hashes, source)
    ended = {
        "instructed": instructed[ENDED],
        "poisoned": poisoned[ENDED],
        "checked": checked[ENDED],
        "judged": judged[ENDED],
        "graded": graded[ENDED],
        "accepted": accepted,
    }
    # Counted before they flow together: a Flatten is a barrier in process, and the display must not wait for it.
    counted = [branch | f"Count {name}" >> beam.Map(count, chat.live_folder) for name, branch in ended.items()]
    (
        counted
        | beam.Flatten()
        | "By part" >> beam.Map(lambda outcome: (part_of(id_of(outcome)), outcome))
        | beam.GroupByKey()
        | "Write parts" >> beam.Map(write_part, str(wave.unfinished_folder), recipe.prompt_hashes, source)
    )


def search_near(pipeline: beam.Pipeline, find: Find, folder: Path) -> None:
    """Make all searches for near-duplicates; what they find is written to the folder."""
    pipeline | "Searches" >> beam.Create(list(SEARCHES)) | "Find" >> beam.Map(_write_found, find, folder)


def _write_found(name: str, find: Find, folder: Path) -> None:
    found_file(folder, name).write_text(json.dumps(find(name)))


def found_file(folder: Path, name: str) -> Path:
    """Where the findings of a search lie."""
    return folder / f"near-{name}.json"


def write_shards(
    pipeline: beam.Pipeline, shards: Sequence[Shard], waves: Sequence[Path], gone: Gone, folder: Path
) -> None:
    """Write every shard of a data set from the staged waves."""
    pipeline | "Shards" >> beam.Create(shards) | "Write" >> beam.Map(write_shard, waves, gone, folder)


class Sort(beam.PTransform):
    """Tuples to `going_on`, the rejected to `ended`."""

    def expand(self, outcomes: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Apply to outcomes."""
        return outcomes | beam.Map(_tagged).with_outputs(ENDED, main=GOING_ON)


def _tagged(outcome: Outcome) -> Outcome | beam.pvalue.TaggedOutput:
    return outcome if isinstance(outcome, Tuple) else beam.pvalue.TaggedOutput(ENDED, outcome)


def count(outcome: Outcome, live_folder: str) -> Outcome:
    """Count an outcome for the display."""
    counts = open_counts(live_folder)
    counts.add("done")
    counts.add("accepted" if isinstance(outcome, Tuple) else type(outcome).__name__.lower())
    return outcome


def id_of(outcome: Outcome) -> str:
    """The row id of an outcome."""
    return outcome.tuple.id if isinstance(outcome, Rejected | Deferred) else outcome.id
