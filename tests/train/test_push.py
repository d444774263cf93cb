"""A model goes to a local Hub by the real client and comes back by its name."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.hub import READ_TOKEN, Hub, in_a_process, serving
from tests.train.test_fit import COMMON

USE = """
from sentence_transformers import SentenceTransformer
from train.encoder import Encoder, EncoderOptions
from train.inputs import Context
model = SentenceTransformer("me/tuned")
ours = Encoder.load("me/tuned", EncoderOptions())
print(ours.format.instruction_vectors, model.encode("as a list", task="instruction").shape)
print(ours.contexts([Context("a query", "as a list")]).shape)
"""


def test_a_pushed_model_is_private_and_is_loaded_by_its_name(shards: Path, tiny: Path, tmp_path: Path) -> None:
    fit = ("-m", "train.fit", str(shards), "--model", str(tiny), *COMMON)
    fit += ("--instruction-vectors", "--max-steps", "2", "--push", "me/tuned")
    with serving(Hub()) as hub:
        done = in_a_process(hub, *fit, "--output", str(tmp_path / "model"), home=tmp_path / "hf")
        assert done.returncode == 0, done.stderr
        repo = hub.repos["models/me/tuned"]
        assert repo.private
        kept = {str(file.relative_to(tmp_path / "model")) for file in (tmp_path / "model").rglob("*") if file.is_file()}
        assert set(repo.trees["main"]) == kept | {".gitattributes"}
        used = in_a_process(hub, "-c", USE, home=tmp_path / "other")
        assert used.returncode == 0, used.stderr[-2000:]
        assert used.stdout.splitlines()[0].startswith("True (")
        assert not [asked for asked in hub.unknown if "me/tuned" in asked]

        refused = in_a_process(
            hub, *fit, "--output", str(tmp_path / "again"), token=READ_TOKEN, home=tmp_path / "third"
        )
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: --push me/tuned: the Hub did not take it")
    assert (tmp_path / "again" / "fit.json").is_file()
