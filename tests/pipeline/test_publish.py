"""Publishing by the real client, in a process of its own, to a local Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from curated import ROOT

from tests.fakes.hub import TOKEN, Hub, serving

LOAD = """
import sys
from datasets import load_dataset
rows = load_dataset("me/tuples", cache_dir=sys.argv[1])
print({split: rows[split].num_rows for split in rows})
"""


@pytest.fixture
def output(sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "infir", ignore=shutil.ignore_patterns(".work")))


def in_a_process(hub: Hub, *command: str, token: str | None = TOKEN, home: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    env |= {"HF_TOKEN": token} if token else {}
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=100, check=False)


def publish(
    hub: Hub, output: Path, *more: str, repo: str = "me/tuples", token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    command = ("-m", "pipeline.publish", str(output), "--repo-id", repo, "--allow-offline-rules", *more)
    return in_a_process(hub, *command, token=token, home=output.parent / "hf")


def test_a_published_data_set_is_private_tagged_and_opened_by_its_name_and_a_second_time_sends_nothing(
    output: Path,
) -> None:
    with serving(Hub()) as hub:
        done = publish(hub, output, "--tag", "v1")
        assert done.returncode == 0, done.stderr
        repo = hub.repos["me/tuples"]
        assert repo.private
        assert repo.commits == 1
        assert repo.trees["v1"].keys() == repo.trees["main"].keys()
        assert not [path for path in repo.trees["main"] if ".work" in path]
        assert {"README.md", "manifest.json", "report/index.html"} < set(repo.trees["main"])
        assert b'load_dataset("me/tuples")' in repo.trees["main"]["README.md"][0]
        loaded = in_a_process(hub, "-c", LOAD, str(output.parent / "cache"), home=output.parent / "hf")
        assert loaded.returncode == 0, loaded.stderr[-2000:]
        splits = json.loads((output / "manifest.json").read_text("utf-8"))["splits"]
        assert str(splits) in loaded.stdout
        sent = sum(hub.uploads.values())
        again = publish(hub, output, "--tag", "v1")
        assert again.returncode == 0, again.stderr
        assert "nothing to send" in again.stdout
        assert (sum(hub.uploads.values()), repo.commits) == (sent, 1)
        assert not set(hub.unknown) - {"GET /api/agent-harnesses"}, (
            "the client called what the real Hub would have answered"
        )
        assert TOKEN not in done.stdout + done.stderr + again.stdout + again.stderr


def test_a_cut_in_the_middle_goes_on_and_nothing_is_sent_twice(output: Path) -> None:
    with serving(Hub(cut_after=4)) as hub:
        cut = publish(hub, output)
        assert cut.returncode == 1
        assert "the same command goes on" in cut.stderr
        assert "Traceback" not in cut.stderr
        assert len(hub.objects) == 4
        assert not hub.repos["me/tuples"].trees["main"], "no half data set is ever seen"
        hub.cut_after = None
        done = publish(hub, output)
        assert done.returncode == 0, done.stderr
        assert max(hub.uploads.values()) == 1


def test_another_branch_is_made_and_main_is_left_alone(output: Path) -> None:
    with serving(Hub()) as hub:
        done = publish(hub, output, "--revision", "second-try", "--public")
        assert done.returncode == 0, done.stderr
        repo = hub.repos["me/tuples"]
        assert not repo.private
        assert not repo.trees["main"]
        assert "README.md" in repo.trees["second-try"]


def test_other_content_is_refused_and_replaced_only_by_force(output: Path) -> None:
    with serving(Hub()) as hub:
        assert publish(hub, output).returncode == 0
        tree = hub.repos["me/tuples"].trees["main"]
        tree["data/old.parquet"] = (b"old", True)
        before = dict(tree)
        refused = publish(hub, output)
        assert refused.returncode == 2
        assert "data/old.parquet" in refused.stderr
        assert hub.repos["me/tuples"].trees["main"] == before
        assert publish(hub, output, "--force").returncode == 0
        assert "data/old.parquet" not in hub.repos["me/tuples"].trees["main"]


def test_a_wrong_token_and_no_token_are_one_sentence(output: Path) -> None:
    with serving(Hub()) as hub:
        for token in ("hf_wrong_token_1234", None):
            refused = publish(hub, output, token=token)
            assert refused.returncode == 1
            assert refused.stderr.startswith("error: the Hub refused the token")
            assert len(refused.stderr.strip().split("\n")) == 1
            assert "hf_wrong" not in refused.stderr
        assert not hub.repos


def test_nothing_goes_up_that_is_not_what_the_manifest_says(output: Path) -> None:
    def damage(file: str, text: bytes | None) -> None:
        path = output / file
        whole = path.read_bytes()
        path.unlink() if text is None else path.write_bytes(text)
        refused = publish(hub, output)
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.startswith("error: ")
        path.write_bytes(whole)

    with serving(Hub()) as hub:
        damage("data/train-00002-of-00008.parquet", b"PAR1 other bytes")
        damage("data/train-00002-of-00008.parquet", None)
        counts = json.loads((output / "manifest.json").read_text("utf-8"))
        counts["counts"]["accepted"] += 1
        damage("manifest.json", json.dumps(counts).encode())
        assert not hub.repos


def test_a_dry_run_lists_and_sends_nothing_and_a_bad_name_or_offline_rules_are_refused(output: Path) -> None:
    with serving(Hub()) as hub:
        dry = publish(hub, output, "--dry-run", token=None)
        assert dry.returncode == 0
        assert "data/train-00000-of-00008.parquet" in dry.stdout
        bad = publish(hub, output, repo="not a name/x")
        assert bad.returncode == 2
        assert len(bad.stderr.strip().split("\n")) == 1
        command = ("-m", "pipeline.publish", str(output), "--repo-id", "me/tuples")
        offline = in_a_process(hub, *command, home=output.parent / "hf")
        assert offline.returncode == 2
        assert "--allow-offline-rules" in offline.stderr
        assert not hub.repos
