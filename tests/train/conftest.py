"""Shards and encoders small enough to train in a test."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from pipeline.records import SPLITS, TEXT_COLUMNS
from train.versions import quiet

quiet()

TOPICS = ("bridge", "river", "engine", "garden", "comet", "violin", "harbor", "forest", "candle", "mirror", "desert")
DIMENSIONS = ("length", "layout", "figures")


def record(number: int, query: str | None = None, **changed: Any) -> dict[str, Any]:
    """A row as shards hold it. Its texts differ from those of every other number."""
    topic, other = TOPICS[number % len(TOPICS)], TOPICS[(number * 5 + 3) % len(TOPICS)]
    asked = query or f"what is the {topic} {number}"
    return {
        "id": f"q{number}-d{number}",
        "query_id": f"q{number}",
        "query_positive": asked,
        "query_negative": f"what is the {other} x{number}",
        "instruction_positive": f"in few words, please {number % 7}",
        "instruction_negative": f"at great length, please {number % 7}",
        "document": f"the {topic} {number} is short",
        "hard_negative_document_1": f"the {topic} {number} is explained here at great length and with every detail",
        "hard_negative_document_2": f"the {other} x{number} is short",
        "dimension": DIMENSIONS[number % 3],
        "form": "sentence",
        "wording_group": "abcd"[number % 4],
        "relevance": [[3, 1, 0], [1, 3, 0], [0, 0, 3]],
        **changed,
    }


def records(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows in a shuffled order."""
    rows = [record(index) for index in range(number)]
    random.Random(seed).shuffle(rows)
    return rows


def write_shards(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> Path:
    """An output folder of the pipeline, as far as training reads it."""
    for split, rows in splits.items():
        where = folder / ("rejected" if split == "rejected" else "data")
        where.mkdir(parents=True, exist_ok=True)
        half = len(rows) // 2 + 1
        for shard in range(2):
            table = pa.Table.from_pylist(
                rows[shard * half : (shard + 1) * half], schema=pa.Table.from_pylist(rows).schema
            )
            pq.write_table(table, where / f"{split}-{shard:05d}-of-00002.parquet")
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """24 training rows, 8 for validation, 8 for test."""
    rows = [record(index) for index in range(40)]
    return write_shards(tmp_path / "shards", dict(zip(SPLITS, (rows[:24], rows[24:32], rows[32:]), strict=True)))


def tokenizer(texts: list[str], *, special: bool = True) -> PreTrainedTokenizerFast:
    """Words as tokens; [CLS] … [SEP] around a text where an encoder wants them."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for text in texts for word in text.lower().replace(",", " , ").split()})
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names + words)}, unk_token="[UNK]"))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        fast.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64,
    )  # fmt: skip


def vocabulary(rows: list[dict[str, Any]]) -> list[str]:
    return [row[name] for row in rows for name in TEXT_COLUMNS]


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a two-layer encoder with random weights, BERT or Llama."""

    def make(texts: list[str], *, kind: str = "bert", hidden: int = 32, dropout: float = 0.1) -> Path:
        base = tmp_path_factory.mktemp(kind)
        words = tokenizer(texts, special=kind == "bert")
        torch.manual_seed(0)
        if kind == "bert":
            network: Any = BertModel(
                BertConfig(
                    vocab_size=len(words), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4,
                    intermediate_size=2 * hidden, max_position_embeddings=64, hidden_dropout_prob=dropout,
                    attention_probs_dropout_prob=dropout,
                )
            )  # fmt: skip
        else:
            network = LlamaModel(
                LlamaConfig(
                    vocab_size=len(words), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, intermediate_size=2 * hidden, max_position_embeddings=64, pad_token_id=0,
                )
            )  # fmt: skip
        network.save_pretrained(base)
        if kind == "llama":  # saved from the bare network, which forgets that it is a decoder's
            config = json.loads((base / "config.json").read_text())
            (base / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
        words.save_pretrained(base)
        return base

    return make


@pytest.fixture(scope="session")
def tiny(make_encoder: Callable[..., Path]) -> Path:
    """A folder with a tiny BERT that knows the words of `record`."""
    return make_encoder(vocabulary([record(index) for index in range(60)]))


@pytest.fixture
def model(tiny: Path) -> SentenceTransformer:
    """The tiny BERT, loaded."""
    transformer = Transformer(str(tiny))
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])
