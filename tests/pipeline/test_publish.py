"""Publishing by the real client, in a process of its own, to a local Hub."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.publish import main
from tests.fakes.hub import READ_TOKEN, TOKEN, Hub, Repo, in_a_process, serving

LOAD = """
import sys
from datasets import load_dataset
rows = load_dataset("me/tuples", cache_dir=sys.argv[1])
print({split: rows[split].num_rows for split in rows})
"""


@pytest.fixture
def output(sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "infir", ignore=shutil.ignore_patterns(".work")))


PUBLISH = """
import sys, time
time.sleep = lambda _: None  # the client waits longer and longer before it tries again
from pipeline.publish import main
sys.exit(main(sys.argv[1:]))
"""


def publish(hub: Hub, output: Path, *more: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    command = ("-c", PUBLISH, str(output), "--repo-id", "me/tuples", "--allow-offline-rules", *more)
    return in_a_process(hub, *command, token=token, home=output.parent / "hf")


def refused(output: Path, capfd: pytest.CaptureFixture[str], *more: str, repo: str = "me/tuples") -> str:
    """The sentence of a refusal that comes before anything is asked of the Hub."""
    assert main([str(output), "--repo-id", repo, *more]) == 2
    told = capfd.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


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
        repo = hub.repos["me/tuples"]
        assert set(repo.trees["main"]) == {".gitattributes"}, "no half data set is ever seen"
        hub.cut_after, hub.cut_commit = None, True
        assert publish(hub, output).returncode == 1
        done = publish(hub, output)
        assert done.returncode == 0, done.stderr
        assert "nothing to send" in done.stdout, "the commit had arrived, its answer had not"
        assert repo.commits == max(hub.uploads.values()) == 1


def test_another_branch_is_made_without_what_main_held_and_a_public_repository_wants_to_be_named(output: Path) -> None:
    with serving(Hub()) as hub:
        repo = hub.repos["me/tuples"] = Repo(private=False)
        repo.add("main", {"data/old.parquet": (b"old", True)})
        secret = publish(hub, output, "--revision", "second-try")
        assert secret.returncode == 2
        assert "is public" in secret.stderr
        assert set(repo.branches) == {"main"}
        done = publish(hub, output, "--revision", "second-try", "--public")
        assert done.returncode == 0, done.stderr
        assert 'revision="second-try"' in done.stdout
        assert set(repo.trees["main"]) == {"data/old.parquet"}
        assert "README.md" in repo.trees["second-try"]
        assert "data/old.parquet" not in repo.trees["second-try"]


def test_other_content_is_refused_and_replaced_only_by_force(output: Path) -> None:
    with serving(Hub()) as hub:
        assert publish(hub, output, "--tag", "v1").returncode == 0
        tree = hub.repos["me/tuples"].trees["main"]
        tree["data/old.parquet"] = (b"old", True)
        before = dict(tree)
        other = publish(hub, output)
        assert other.returncode == 2
        assert "data/old.parquet" in other.stderr
        tagged = publish(hub, output, "--force", "--tag", "v1")
        assert tagged.returncode == 2
        assert "v1" in tagged.stderr
        assert hub.repos["me/tuples"].trees["main"] == before
        assert publish(hub, output, "--force").returncode == 0
        assert "data/old.parquet" not in hub.repos["me/tuples"].trees["main"]


def test_a_wrong_token_and_no_token_and_one_that_may_only_read_are_one_sentence(output: Path) -> None:
    with serving(Hub()) as hub:
        told = {"hf_wrong_token_1234": "refused the token", None: "refused the token", READ_TOKEN: "may not write"}
        for token, sentence in told.items():
            denied = publish(hub, output, token=token)
            assert denied.returncode == 1
            assert sentence in denied.stderr
            assert denied.stderr.startswith("error: ")
            assert denied.stderr.count("\n") == 1
            assert str(token) not in denied.stderr
        assert not hub.repos


def test_nothing_goes_up_that_is_not_what_the_manifest_says(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def damage(file: str, text: bytes | None) -> None:
        path = output / file
        whole = path.read_bytes()
        path.unlink() if text is None else path.write_bytes(text)
        assert Path(file).name in refused(output, capfd, "--allow-offline-rules")
        path.write_bytes(whole)

    shard = "data/train-00002-of-00008.parquet"
    damage(shard, b"PAR1 other bytes")
    damage(shard, None)
    damage("README.md", None)
    made = json.loads((output / "manifest.json").read_text("utf-8"))
    made["counts"]["accepted"] += 1
    damage("manifest.json", json.dumps(made).encode())
    made["counts"]["accepted"] -= 1
    first, second = made["files"][:2]
    first["rows"], second["rows"] = first["rows"] + 1, second["rows"] - 1  # adds up, and is not true
    (output / "manifest.json").write_text(json.dumps(made))
    assert "the manifest says" in refused(output, capfd, "--allow-offline-rules")


def test_a_dry_run_lists_and_sends_nothing_and_a_bad_name_or_offline_rules_are_refused(
    output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(output), "--repo-id", "me/tuples", "--allow-offline-rules", "--dry-run"]) == 0
    assert "data/train-00000-of-00008.parquet" in capfd.readouterr().out
    for name in ("not a name/x", "tuples", "me/../tuples", "me/tuples.git", "a/b/c"):
        assert "--repo-id" in refused(output, capfd, "--allow-offline-rules", repo=name)
    assert "--allow-offline-rules" in refused(output, capfd)
