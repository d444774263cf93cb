"""`python -m pipeline.publish OUTPUT --repo-id ORG/NAME`: the data set goes to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console

from pipeline import manifest as manifests
from pipeline.card import made_offline
from pipeline.errors import UsageError
from pipeline.shards import file_sha256

PLACEHOLDER = "PATH/OF/THIS/FOLDER"
"""What the card in the folder says in its load_dataset line; the card on the Hub names the repository."""

EPILOG = """\
examples:
  what would go, without sending anything:
    python -m pipeline.publish data/infir --repo-id my-org/my-tuples --dry-run
  send it, private, with a tag:
    python -m pipeline.publish data/infir --repo-id my-org/my-tuples --tag v1

The token comes from HF_TOKEN or from `hf auth login`, and from nowhere else. Nothing goes up whose checksums or counts do not fit
manifest.json. Cut in the middle, the same command goes on: what has arrived is not sent again.

exit status: 0 published, or already there; 1 the Hub refused or could not be reached; 2 unusable arguments or folder
"""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the commit: where it goes, and its bytes or where they lie."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def sha256(self) -> str:
        """As the Hub names large files."""
        return hashlib.sha256(self._bytes()).hexdigest()

    @property
    def blob_id(self) -> str:
        """As git, and so the Hub, names small files."""
        return hashlib.sha1(b"blob %d\0" % self.size + self._bytes(), usedforsecurity=False).hexdigest()

    def _bytes(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = build_parser().parse_args(argv)
    try:
        publish(options, Console(stderr=True))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx2.HTTPError, OSError, RuntimeError) as error:
        print(f"error: {told(error, options.repo_id)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. What has arrived stays; the same command goes on.", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.publish",
        description="Publish an output folder as a data set on the Hugging Face Hub: shards, rejected rows, card, manifest and "
        "report, in one commit; private unless you say otherwise.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="an output folder of pipeline.run")
    parser.add_argument("--repo-id", required=True, help="ORG/NAME on the Hub")
    parser.add_argument("--public", action="store_true", help="create the repository public (default: private)")
    parser.add_argument("--revision", default="main", help="branch to commit to (default: %(default)s)")
    parser.add_argument("--tag", help="tag the commit with this name")
    parser.add_argument("--dry-run", action="store_true", help="list what would go, and send nothing")
    parser.add_argument("--force", action="store_true", help="write into a repository that holds other content")
    parser.add_argument(
        "--allow-offline-rules",
        action="store_true",
        help="publish rows that rules, not a language model, wrote or graded",
    )
    parser.add_argument(
        "--allow-deferred", action="store_true", help="publish although some seeds still wait for answers"
    )
    return parser


def publish(options: argparse.Namespace, console: Console) -> None:
    """Check, compare with what is there, and commit what is new."""
    files = collect(options)
    if options.dry_run:
        for file in files:
            print(f"{file.size:>12,}  {file.path}")
        total = sum(file.size for file in files)
        print(f"{total:>12,}  bytes in {len(files)} files would go to {options.repo_id}; nothing was sent")
        return
    api = HfApi()
    api.create_repo(options.repo_id, repo_type="dataset", private=not options.public, exist_ok=True)
    there = remote_files(api, options.repo_id, options.revision)
    new = [file for file in files if there.get(file.path) not in (file.sha256, file.blob_id)]
    stale = sorted(set(there) - {file.path for file in files} - {".gitattributes"})
    foreign = stale + [file.path for file in new if file.path in there]
    if foreign and not options.force:
        raise UsageError(
            f"{options.repo_id} holds other content ({foreign[0]} and {len(foreign) - 1} more files); "
            "choose another --repo-id, or replace it with --force"
        )
    if not new and not stale:
        print(f"{options.repo_id} holds this very data set already: nothing to send.")
    else:
        commit(api, options, new, stale, console)
    if options.tag:
        api.create_tag(options.repo_id, tag=options.tag, revision=options.revision, repo_type="dataset", exist_ok=True)
    print(f"{api.endpoint}/datasets/{options.repo_id}" + (f"/tree/{options.tag}" if options.tag else ""))
    print(f'load_dataset("{options.repo_id}")')


def collect(options: argparse.Namespace) -> list[File]:
    """The files of a folder that may be published. Anything wrong with it is a UsageError."""
    try:
        validate_repo_id(options.repo_id)
    except HFValidationError as error:
        raise UsageError(f"--repo-id: {' '.join(str(error).split())}") from error
    folder: Path = options.output
    made = manifests.read_output(folder)
    check_rows(made, options)
    for file in made["files"]:
        path = folder / file["path"]
        if not path.is_file():
            raise UsageError(
                f"{path} is missing; run the same pipeline.run command again, it restores it without a call"
            )
        if file_sha256(path) != file["sha256"]:
            raise UsageError(
                f"{path} is not the file that manifest.json describes; run the same pipeline.run command again"
            )
    card = (folder / "README.md").read_text("utf-8").replace(PLACEHOLDER, options.repo_id)
    files = [File("README.md", card.encode()), File("manifest.json", folder / "manifest.json")]
    files += [File(file["path"], folder / file["path"]) for file in made["files"]]
    if (folder / "report" / "index.html").is_file():
        files.append(File("report/index.html", folder / "report" / "index.html"))
    return files


def check_rows(made: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Refuse rows that should not leave the machine unasked."""
    if made_offline(made) and not options.allow_offline_rules:
        raise UsageError(
            "rules, not a language model, wrote or graded these rows; to publish them so, add --allow-offline-rules"
        )
    waiting = made["counts"]["deferred"]
    if waiting and not options.allow_deferred:
        raise UsageError(f"{waiting:,} seeds still wait for answers; finish the run, or add --allow-deferred")
    if not made["counts"]["accepted"]:
        raise UsageError("there is no accepted row to publish")


def remote_files(api: HfApi, repo_id: str, revision: str) -> dict[str, str]:
    """path -> sha256 of a large file, git's id of a small one, for every file of a revision; empty where it is new."""
    try:
        tree = list(api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type="dataset"))
    except RevisionNotFoundError:
        api.create_branch(repo_id, branch=revision, repo_type="dataset")
        return {}
    found = {}
    for entry in tree:
        if isinstance(entry, RepoFile):
            found[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
    return found


def commit(
    api: HfApi, options: argparse.Namespace, new: Sequence[File], stale: Sequence[str], console: Console
) -> None:
    """Send large files one by one, so that a cut loses one at most, then commit everything at once."""
    additions = [CommitOperationAdd(file.path, file.content) for file in new]
    disable_progress_bars()  # a bar a file; ours counts files
    with console.status("sending") as status:
        for number, addition in enumerate(additions, start=1):
            now = f"sending {addition.path_in_repo} ({number} of {len(additions)})"
            status.update(now) if console.is_terminal else console.print(now, highlight=False, soft_wrap=True)
            api.preupload_lfs_files(
                options.repo_id, additions=[addition], repo_type="dataset", revision=options.revision, free_memory=False
            )
        status.update("committing")
        api.create_commit(
            options.repo_id,
            operations=[*additions, *(CommitOperationDelete(path) for path in stale)],
            commit_message=f"Publish {len(new)} files",
            repo_type="dataset",
            revision=options.revision,
        )


def told(error: Exception, repo_id: str) -> str:
    """One sentence for what the Hub said; no token is ever in it."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return "the Hub refused the token (401): set HF_TOKEN to a valid one, or run `hf auth login`"
    if status == 403:
        return f"this token may not write to {repo_id} (403): it needs write access there"
    if isinstance(error, RepositoryNotFoundError):
        return f"the Hub knows no {repo_id}, or this token may not see it"
    if isinstance(error, HfHubHTTPError):
        return f"the Hub refused ({status}): {' '.join((error.server_message or str(error)).split())[:200]}"
    cause = " ".join(str(error.__cause__ or error).split())[:200] or type(error).__name__
    return f"the connection to the Hub failed: {cause}. What has arrived stays; the same command goes on."


if __name__ == "__main__":
    sys.exit(main())
