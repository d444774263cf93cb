from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

from tests.train.conftest import record, write_shards
from train import fit, training
from train.data import load_rows
from train.encoder import Encoder, EncoderOptions
from train.errors import UsageError
from train.inputs import Context
from train.keeping import Untuned, drift

COMMON = ("--batch-size", "4", "--epochs", "2", "--learning-rate", "1e-3")


def run(shards: Path, tiny: Path, output: Path, *flags: str) -> int:
    return fit.main([str(shards), "--model", str(tiny), "--output", str(output), *COMMON, *flags])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """By place and name: a model with two encoders has two files."""
    files = sorted(folder.glob("**/model.safetensors"))
    return {f"{file.parent.relative_to(folder)}/{name}": t for file in files for name, t in load_file(file).items()}


def far(ours: Path, theirs: Path) -> float:
    a, b = weights(ours), weights(theirs)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


class Killed(BaseException):
    pass


def test_a_fit_leaves_a_model_that_says_what_it_is(
    shards: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    assert run(shards, tiny, output, "--objective", "multi:P,I", "--plain-pairs", "0.5") == 0
    said = capsys.readouterr().out
    assert "24 tuples of 3 dimensions" in said
    assert "strict accuracy" in said
    assert "python -m train.evaluate" in said
    assert SentenceTransformer(str(output)).encode("the bridge").shape == (32,)
    made = json.loads((output / "fit.json").read_text())
    assert made["settings"]["objective"] == "multi:P,I"
    assert made["data"]["rows"] == 24
    assert set(made["validation"]["after"]) == set(made["validation"]["before"])
    assert (output / "README.md").is_file()
    assert (output / "context_format.json").is_file()
    assert not (output / "checkpoints").exists()
    assert far(output, tiny_saved(tiny, tmp_path)) > 1e-4


def tiny_saved(tiny: Path, tmp_path: Path) -> Path:
    SentenceTransformer(str(tiny)).save(str(tmp_path / "untuned"))
    return tmp_path / "untuned"


def test_the_same_command_gives_the_same_weights_and_another_seed_others(
    shards: Path, tiny: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(shards, tiny, tmp_path / name, "--seed", seed) == 0
    assert far(tmp_path / "a", tmp_path / "b") == 0
    assert far(tmp_path / "a", tmp_path / "c") > 1e-4
    losses = [json.loads((tmp_path / name / "fit.json").read_text())["losses"] for name in "ab"]
    assert [entry["loss"] for entry in losses[0]] == [entry["loss"] for entry in losses[1]]


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--mini-batch-size", "32", "--objective", "multi:P,I"),
        ("--lora", "4"),
        ("--freeze-passages", "--plain-pairs", "1", "--keep", "1"),
        ("--instruction-vectors", "--objective", "multi:P,I"),
        ("--instruction-vectors", "--style-layers", "1"),
    ],
)
def test_a_killed_run_ends_at_the_weights_of_an_unbroken_one(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second epoch, past a checkpoint; the encoder has dropout, so random states matter."""
    flags = (*flags, "--save-steps", "4")
    assert run(shards, tiny, tmp_path / "whole", *flags) == 0

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if state.global_step == 10:
                raise Killed

    real = training.make_trainer
    monkeypatch.setattr(training, "make_trainer", lambda s, e, r, c, m: real(s, e, r, [*c, Kill()], m))
    with pytest.raises(Killed):
        run(shards, tiny, tmp_path / "broken", *flags)
    monkeypatch.setattr(training, "make_trainer", real)
    assert (tmp_path / "broken" / "checkpoints" / "checkpoint-8").is_dir()
    assert run(shards, tiny, tmp_path / "broken", *flags) == 0
    assert far(tmp_path / "whole", tmp_path / "broken") <= 1e-6


def test_checkpoints_of_other_settings_are_not_gone_on_from(
    shards: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model" / "checkpoints"
    assert run(shards, tiny, tmp_path / "model") == 0
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"seed": 5}))
    capsys.readouterr()
    assert run(shards, tiny, tmp_path / "model") == 2
    assert "--restart to discard them" in capsys.readouterr().err
    assert run(shards, tiny, tmp_path / "model", "--restart") == 0


def test_a_model_that_keeps_ranks_plain_passages_more_like_the_untuned_one(
    shards: Path, tiny: Path, tmp_path: Path
) -> None:
    rows = load_rows(str(shards), "train")
    untuned = Untuned.of(Encoder.load(str(tiny), EncoderOptions()), rows)
    queries, passages = rows["query_positive"][:12], rows["document"][:12]
    moved = []
    for name, flags in (("free", ()), ("kept", ("--keep", "5"))):
        assert run(shards, tiny, tmp_path / name, "--plain-pairs", "1", "--dropout", "0", *flags) == 0
        tuned = Untuned.of(Encoder.load(str(tmp_path / name), EncoderOptions()), rows)
        moved.append(float(drift(tuned.cosines(queries, passages), untuned.cosines(queries, passages), 0.05)))
    assert moved[1] < moved[0] / 2


@pytest.mark.parametrize("flags", [(), ("--mini-batch-size", "8", "--objective", "multi:P,I", "--lora", "4")])
def test_frozen_passages_leave_an_index_valid(shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    output = tmp_path / "model"
    assert run(shards, tiny, output, "--freeze-passages", "--context-length", "20", *flags) == 0
    tuned, untuned = SentenceTransformer(str(output)), SentenceTransformer(str(tiny))
    passages, query = load_rows(str(shards), "train")["document"][:4], "the bridge, as a list"
    assert np.allclose(tuned.encode_document(passages), untuned.encode_document(passages), atol=1e-6)
    assert not np.allclose(tuned.encode_query(query), untuned.encode_query(query), atol=1e-3)
    loaded = Encoder.load(str(output), EncoderOptions())
    both = zip(
        (loaded.contexts([Context("the bridge,", "as a list")])[0], *loaded.passages(passages)),
        (tuned.encode_query(query), *tuned.encode_document(passages)),
        strict=True,
    )
    for ours, theirs in both:
        assert np.allclose(ours, theirs / np.linalg.norm(theirs), atol=1e-6)
    assert json.loads((output / "fit.json").read_text())["settings"]["freeze_passages"]
    assert run(shards, output, tmp_path / "again", "--max-steps", "2") == 0  # begun from two encoders, it keeps them
    again = SentenceTransformer(str(tmp_path / "again"))
    assert np.allclose(again.encode_document(passages), untuned.encode_document(passages), atol=1e-6)


@pytest.mark.parametrize("flags", [(), ("--mini-batch-size", "8", "--objective", "multi:P,IQ,I", "--lora", "4")])
def test_an_instruction_vector_is_added_to_the_untuned_query(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    output = tmp_path / "model"
    assert run(shards, tiny, output, "--instruction-vectors", "--context-length", "20", *flags) == 0
    tuned, untuned = SentenceTransformer(str(output)), SentenceTransformer(str(tiny))
    passages, query = load_rows(str(shards), "train")["document"][:4], "the bridge"
    assert np.allclose(tuned.encode_document(passages), untuned.encode_document(passages), atol=1e-6)
    assert np.allclose(tuned.encode_query(query), untuned.encode_query(query), atol=1e-6)
    vector, before = (model.encode("as a list", task="instruction") for model in (tuned, untuned))
    assert not np.allclose(vector, before, atol=1e-3)
    plain = untuned.encode_query(query, normalize_embeddings=True)
    loaded = Encoder.load(str(output), EncoderOptions())
    alone, both = loaded.contexts([Context(query), Context(query, "as a list")])
    assert np.allclose(alone, plain, atol=1e-6)
    assert np.allclose(both, (plain + vector) / np.linalg.norm(plain + vector), atol=1e-6)
    assert len({file.stat().st_ino for file in output.rglob("model.safetensors")}) == 2  # queries' and passages' is one
    assert run(shards, output, tmp_path / "again", "--max-steps", "2") == 0  # begun from vectors, it keeps them
    again = Encoder.load(str(tmp_path / "again"), EncoderOptions())
    assert np.allclose(again.contexts([Context(query)])[0], plain, atol=1e-6)
    assert run(shards, output, tmp_path / "plain", "--plain-pairs", "1") == 2  # which the folder's own format rules out
    assert not np.allclose(again.contexts([Context(query, "as a list")])[0], both, atol=1e-4)


@pytest.mark.parametrize("flags", [(), ("--mini-batch-size", "8", "--objective", "multi:P,IQ,I", "--lora", "4")])
def test_an_instruction_stands_against_the_style_of_a_passage(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    styled = ("--instruction-vectors", "--style-layers", "0", "--context-length", "20", "--passage-length", "8")
    assert run(shards, tiny, output, *styled, *flags) == 0
    said = " ".join(capsys.readouterr().out.split())
    tuned, untuned = SentenceTransformer(str(output)), Encoder.load(str(tiny), EncoderOptions(passage_length=8))
    rows = load_rows(str(shards), "train")
    query, instruction, passage = "the bridge", "as a list", rows["hard_negative_document_1"][:4]
    loaded = Encoder.load(str(output), EncoderOptions())
    alone, both = loaded.contexts([Context(query), Context(query, instruction)])
    ranks = np.argsort(loaded.passages(passage) @ alone)
    assert (ranks == np.argsort(untuned.passages(passage) @ untuned.contexts([Context(query)])[0])).all()
    card = (output / "README.md").read_text()
    assert all(code in card for code in loaded.format.usage())
    known = {"model": tuned, "query": query, "instruction": instruction, "passage": passage, "np": np}
    context, passages = (
        eval(code, known) for code in said.split("Use it: ")[1].split(", by cosine")[0].split(" against ")
    )
    assert np.allclose(both, context / np.linalg.norm(context), atol=1e-6)
    assert np.allclose(loaded.passages(passage), passages / np.linalg.norm(passages, axis=1, keepdims=True), atol=1e-6)
    longer = [text + " and more detail" for text in passage]  # cut at 8 tokens
    assert np.allclose(loaded.passages(longer), loaded.passages(passage), atol=1e-6)
    before = Encoder.load(str(tiny), EncoderOptions(passage_length=8))
    before.part(instruction_vectors=True, style_layers=0)
    half = before.passages(passage).shape[1] // 2
    assert np.allclose(loaded.passages(passage)[:, :half], before.passages(passage)[:, :half], atol=1e-6)
    assert not np.allclose(loaded.passages(passage)[:, half:], before.passages(passage)[:, half:], atol=1e-3)
    assert not np.allclose(both, before.contexts([Context(query, instruction)])[0], atol=1e-3)
    assert run(shards, output, tmp_path / "again", "--max-steps", "2") == 0  # begun from styles, it keeps them
    again = Encoder.load(str(tmp_path / "again"), EncoderOptions())
    assert np.allclose(again.contexts([Context(query)])[0], alone, atol=1e-6)
    assert not np.allclose(again.passages(passage)[:, half:], loaded.passages(passage)[:, half:], atol=1e-5)
    for wrong in (("--style-layers", "0", "--instruction-vectors"), ("--blend", "0.5")):
        assert run(shards, output, tmp_path / "wrong", *wrong) == 2
        assert "leave it out" in capsys.readouterr().err
    (output / "context_format.json").unlink()
    with pytest.raises(UsageError, match="disagree on instruction or style vectors"):
        Encoder.load(str(output), EncoderOptions())


@pytest.mark.parametrize("flags", [(), ("--lora", "4")])
def test_a_blend_lies_between_the_untuned_and_the_tuned_weights(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    for share in ("1", "0.25"):
        assert run(shards, tiny, tmp_path / share, "--max-steps", "2", "--blend", share, *flags) == 0
    untuned, tuned = weights(tiny_saved(tiny, tmp_path)), weights(tmp_path / "1")
    for name, blended in weights(tmp_path / "0.25").items():
        assert torch.allclose(blended, untuned[name] + 0.25 * (tuned[name] - untuned[name]), atol=1e-6)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("flags", [(), ("--mini-batch-size", "8")])
def test_two_processes_end_at_the_weights_of_one_with_both_batches(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """With style vectors, whose two encoders make a step of two parts."""
    flags = ("--instruction-vectors", "--style-layers", "0", "--dropout", "0", "--device", "cpu", *flags)
    assert run(shards, tiny, tmp_path / "one", *flags, "--batch-size", "8") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = (
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(port),
    )
    fitted = ("-m", "train.fit", str(shards), "--model", str(tiny), "--output", str(tmp_path / "two"), *COMMON, *flags)
    done = subprocess.run(
        [sys.executable, *start, *fitted, "--batch-size", "4", "--gather"],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tuples of 3 dimensions" in done.stdout
    assert far(tmp_path / "one", tmp_path / "two") < 1e-4


def test_curves_for_tensorboard_outlast_the_checkpoints(shards: Path, tiny: Path, tmp_path: Path) -> None:
    assert run(shards, tiny, tmp_path / "model", "--report-to", "tensorboard") == 0
    (curve,) = (tmp_path / "model" / "runs").iterdir()
    events = EventAccumulator(str(curve))
    events.Reload()
    losses = json.loads((tmp_path / "model" / "fit.json").read_text())["losses"]
    drawn = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert drawn == [(entry["step"], pytest.approx(entry["loss"], rel=1e-6)) for entry in losses]


@pytest.mark.parametrize("ablation", ["--no-mask", "--no-instructions", "--unfiltered", "--instruction-attention"])
def test_the_ablations_train(shards: Path, tiny: Path, tmp_path: Path, ablation: str) -> None:
    write_shards(shards, {"rejected": [record(100, split="train", relevance=None)]})
    assert run(shards, tiny, tmp_path / "model", ablation, "--max-steps", "2") == 0
    made = json.loads((tmp_path / "model" / "fit.json").read_text())
    assert made["data"]["rows"] == (25 if ablation == "--unfiltered" else 24)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--objective", "uni:X"), "expected uni: or multi:"),
        (("--no-instructions", "--objective", "uni:I"), "choose an objective without I"),
        (("--plain-pairs", "2"), "expected a share"),
        (("--batch-size", "0"), "expected a number above 0"),
        (("--keep", "1"), "and with it --plain-pairs"),
        (("--blend", "1.5"), "expected a share"),
        (("--freeze-layers", "-1"), "expected a number of layers"),
        (("--template", "{query}"), "must hold both"),
        (("--mined-negatives", "4", "--objective", "multi:IQ,I"), "choose an objective with P"),
        (("--mined-negatives", "-1"), "expected a number of passages from 0"),
        (("--mined-negatives", "4"), "pipeline.run --mine"),
        (("--hold-out-group", "z"), "there are a, b, c, d"),
        (("--instruction-attention", "--mini-batch-size", "3"), "even --mini-batch-size"),
        (("--instruction-vectors", "--plain-pairs", "1"), "--plain-pairs can't go with instruction vectors"),
        (("--report-to", "nowhere"), "--report-to nowhere: the trainer doesn't know it"),
        (("--report-to", "clearml"), "it can log to tensorboard here"),
        (("--style-layers", "0"), "and with it --instruction-vectors"),
        (("--instruction-vectors", "--style-layers", "-1"), "expected a number of layers from 0"),
        (("--instruction-vectors", "--style-layers", "3"), "this model has 2 layers"),
        (("--instruction-vectors", "--no-instructions"), "--no-instructions can't go with instruction vectors"),
    ],
)
def test_bad_arguments_are_one_sentence(
    shards: Path, tiny: Path, tmp_path: Path, flags: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shards, tiny, tmp_path / "model", *flags) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_a_batch_too_large_for_memory_names_the_flag(
    shards: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("sentence_transformers.SentenceTransformerTrainer.train", exhausted)
    assert run(shards, tiny, tmp_path / "model") == 2
    assert "--mini-batch-size 8 or less" in capsys.readouterr().err


def test_no_shards_is_one_sentence(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, tiny, tmp_path / "model") == 2
    assert "holds no data/train-" in capsys.readouterr().err


def test_ctrl_c_leaves_with_a_sentence_and_checkpoints(shards: Path, tiny: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "train.fit",
        str(shards),
        "--model",
        str(tiny),
        "--output",
        str(tmp_path / "model"),
    ]
    with subprocess.Popen(
        [*command, "--epochs", "5000", "--batch-size", "4", "--save-steps", "5"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while "step " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The same command goes on" in said
    assert "Traceback" not in said
