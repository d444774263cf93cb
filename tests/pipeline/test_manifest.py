from __future__ import annotations

import copy

import pytest
from curated import Curated

from pipeline import manifest


@pytest.mark.parametrize("count", ["seeds", "accepted", "rejected", "deferred"])
def test_counts_that_do_not_add_up_are_never_written(sample: Curated, count: str) -> None:
    made = copy.deepcopy(sample.manifest)
    manifest.check(made)
    made["counts"][count] += 1
    with pytest.raises(ValueError, match="sum to"):
        manifest.check(made)


def test_a_manifest_that_breaks_its_schema_is_never_written(sample: Curated) -> None:
    made = copy.deepcopy(sample.manifest)
    made["files"][0]["sha256"] = "abc"
    with pytest.raises(ValueError, match="files/0/sha256"):
        manifest.check(made)


def test_a_file_that_changed_is_found(sample: Curated, tmp_path) -> None:
    assert manifest.files_are_intact(sample.manifest, sample.folder)
    made = copy.deepcopy(sample.manifest)
    made["files"][0]["sha256"] = "0" * 64
    assert not manifest.files_are_intact(made, sample.folder)


def test_the_manifest_names_no_place_of_this_machine(sample: Curated) -> None:
    assert str(sample.folder) not in (sample.folder / "manifest.json").read_text("utf-8")
    assert str(sample.folder) not in (sample.folder / "README.md").read_text("utf-8")
