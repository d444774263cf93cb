"""Embeddings of passages, their style left out, kept on disk, by the hash of everything that decides them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.encoder import Encoder

REMEMBERED = 3
"""Sets of passages whose embeddings stay in memory: encoders that share their passages' encoder come one after the other,
each with a split and a benchmark or two."""
_last: dict[str, NDArray[np.float32]] = {}

SLICE = 2048
"""Texts between two reports of progress: enough to sort by length within."""


def embed(
    encoder: Encoder, texts: Sequence[str], folder: Path | None, seen: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """(texts, dimensions): from the folder where they lie there, else encoded and kept. seen(done, total) reports."""
    key = _key(encoder, texts)
    file = folder / f"{key}.npy" if folder else None
    if file and file.is_file():
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return kept
    if not file and key in _last:
        return _last[key]
    parts = []
    for start in range(0, len(texts), SLICE):
        parts.append(encoder.passages_without_style(texts[start : start + SLICE]))
        seen(min(start + SLICE, len(texts)), len(texts))
    made = np.concatenate(parts)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, made, allow_pickle=False)
    else:
        if len(_last) == REMEMBERED:
            del _last[next(iter(_last))]
        _last[key] = made
    return made


def _key(encoder: Encoder, texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    model = encoder.passage_model
    settings: list[Any] = [encoder.bf16, model[0].document_length, model.max_seq_length]
    digest.update(repr([*settings, model.prompts, [str(module) for module in model]]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
