"""`python benchmarks/near_duplicates.py`: what it costs to find near-duplicates, and whether all are found.

Synthetic passages of MS MARCO's lengths, one in twenty an earlier one with a few words changed. Each step runs in a process of
its own, so that its peak memory is its own. `--datasketch` adds that library on the first passages, where it is installed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.curate import FRAMES, QUERIES, words
from benchmarks.measuring import measured
from pipeline.measures.overlap import jaccard, trigrams
from pipeline.near_duplicates import DEFAULT, PassageIndex, Twins, near_pairs
from pipeline.records import Seed
from pipeline.splits import assign_splits

TWINS = 20
"""One passage in so many is a changed copy."""


def passages(number: int) -> list[str]:
    """30 to 120 words each; the words of each sentence are its own."""
    return [text for text, _ in copied(number)]


def copied(number: int, seed: int = 0) -> list[tuple[str, int]]:
    """Passages, and which one each is a copy of: itself, mostly."""
    rng = random.Random(seed)
    made: list[tuple[str, int]] = []
    for i in range(number):
        if i and i % TWINS == 0:
            text, origin = made[rng.randrange(len(made))]
            copy = text.split()
            for _ in range(rng.randint(1, 6)):
                copy[rng.randrange(len(copy))] = rng.choice(copy) + "s"
            made.append((" ".join(copy), origin))
        else:
            frames = (rng.choice(FRAMES).format(**words(rng)) for _ in range(rng.randint(3, 8)))
            made.append((" ".join(frames), i))
    return made


def seeds(number: int) -> list[Seed]:
    """Every other copy has the query of its original too."""
    rng = random.Random(1)
    queries = [rng.choice(QUERIES).format(**words(rng)) for _ in range(number)]
    return [
        Seed(f"{i}-{i}", str(i), str(i), queries[origin if i // TWINS % 2 else i], text)
        for i, (text, origin) in enumerate(copied(number))
    ]


def with_rensa(number: int) -> str:
    texts = passages(number)
    began = time.perf_counter()
    found = sum(1 for _ in near_pairs(texts, PassageIndex(DEFAULT)))
    return f"{found:,} pairs, {time.perf_counter() - began:.1f} s"


def with_datasketch(number: int) -> str:
    from datasketch import MinHash, MinHashLSH

    texts = passages(number)
    began = time.perf_counter()
    lsh = MinHashLSH(num_perm=120, params=(24, 5))
    found = 0
    for i, text in enumerate(texts):
        sketch = MinHash(num_perm=120, seed=1)
        sketch.update_batch([gram.encode() for gram in trigrams(text)])
        found += any(jaccard(trigrams(text), trigrams(texts[j])) >= DEFAULT for j in lsh.query(sketch))
        lsh.insert(i, sketch, check_duplication=False)
    return f"{found:,} texts with an earlier twin, {time.perf_counter() - began:.1f} s"


def against_brute_force(number: int) -> str:
    texts = passages(number)
    index = PassageIndex(DEFAULT)
    found, brute = set(), set()
    holding: dict[str, list[int]] = defaultdict(list)
    sets = [trigrams(text) for text in texts]
    proposed = 0
    for i, text in enumerate(texts):
        sketch = index.sketch(text)
        for j in index.proposed(sketch):
            proposed += 1
            if index.alike(text, texts[j]):
                found.add((j, i))
        index.add(sketch)
        shared = Counter(j for gram in sets[i] for j in holding[gram])
        brute |= {(j, i) for j, n in shared.items() if n / (len(sets[i]) + len(sets[j]) - n) >= DEFAULT}
        for gram in sets[i]:
            holding[gram].append(i)
    assert found <= brute
    return (
        f"{len(brute):,} pairs by brute force, {len(brute - found)} missed, {proposed - len(found):,} proposed in vain"
    )


def twins(number: int) -> str:
    made = seeds(number)
    began = time.perf_counter()
    kept = Twins(DEFAULT)
    dropped = sum(kept.of(seed) is not None for seed in made)
    return f"{dropped:,} dropped, {time.perf_counter() - began:.1f} s"


def splits(number: int) -> str:
    found = Twins(DEFAULT)
    kept = [seed for seed in seeds(number) if found.of(seed) is None]
    began = time.perf_counter()
    assign_splits(kept, DEFAULT, found.near_passages)
    return f"{len(found.near_passages):,} pairs of passages known, {time.perf_counter() - began:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=500_000)
    parser.add_argument("--brute-force", type=int, default=5_000, help="passages of the comparison with brute force")
    parser.add_argument("--datasketch", type=int, default=0, metavar="PASSAGES")
    options = parser.parse_args()
    table = Table(title=f"near-duplicates at a Jaccard of {DEFAULT:g}")
    for column in ("step", "passages", "found", "peak MB, texts included"):
        table.add_column(column, justify="left" if column in ("step", "found") else "right")
    steps: list[tuple[str, Callable[[int], str], int]] = [
        ("pairs among passages", with_rensa, options.passages),
        ("twins among seeds", twins, options.passages),
        ("twins, then splits: its time alone", splits, options.passages),
        ("against brute force", against_brute_force, options.brute_force),
    ]
    if options.datasketch:
        steps += [
            ("pairs, datasketch", with_datasketch, options.datasketch),
            ("pairs, rensa", with_rensa, options.datasketch),
        ]
    for name, step, number in steps:
        done = measured(step, number)
        table.add_row(name, f"{number:,}", done.said, f"{done.peak_mb:,.0f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
