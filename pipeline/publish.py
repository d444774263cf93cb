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
from pipeline.commandline import Parser
from pipeline.errors import UsageError
from pipeline.shards import RESTORE, file_sha256, read_shard

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

    def is_at(self, there: RepoFile) -> bool:
        """Whether the Hub holds these very bytes: it names large files by SHA-256, small ones as git does."""
        if self.size != there.size:
            return False
        return there.lfs.sha256 == self._digest(hashlib.sha256()) if there.lfs else there.blob_id == self._blob_id()

    def _blob_id(self) -> str:
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False))

    def _digest(self, begun: Any) -> str:
        if isinstance(self.content, bytes):
            begun.update(self.content)
            return str(begun.hexdigest())
        with self.content.open("rb") as file:
            return hashlib.file_digest(file, lambda: begun).hexdigest()


@dataclass(frozen=True, slots=True)
class There:
    """What a branch of the repository holds. fresh: this command made the branch, so whatever it inherited is no loss."""

    head: str
    files: Mapping[str, RepoFile]
    fresh: bool


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
    parser = Parser(
        prog="python -m pipeline.publish",
        description="Publish an output folder as a data set on the Hugging Face Hub: shards, rejected rows, card, manifest and "
        "report, in one commit; private unless you say otherwise.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="an output folder of pipeline.run")
    parser.add_argument("--repo-id", required=True, help="ORG/NAME on the Hub")
    parser.add_argument(
        "--public", action="store_true", help="make the repository public, or publish to one that is (default: private)"
    )
    parser.add_argument("--revision", default="main", help="branch to commit to (default: %(default)s)")
    parser.add_argument("--tag", help="tag the commit with this name; one that names another commit is refused")
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
    if not options.public and not api.repo_info(options.repo_id, repo_type="dataset").private:
        raise UsageError(f"{options.repo_id} is public; add --public to publish there, or choose another --repo-id")
    there = look(api, options.repo_id, options.revision)
    new = [file for file in files if file.path not in there.files or not file.is_at(there.files[file.path])]
    stale = sorted(set(there.files) - {file.path for file in files} - {".gitattributes"})
    foreign = [] if there.fresh else stale + [file.path for file in new if file.path in there.files]
    if foreign and not options.force:
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise UsageError(
            f"{options.repo_id} holds other content ({foreign[0]}{more}); choose another --repo-id, or replace it with --force"
        )
    check_tag(api, options, there.head if not new and not stale else None)
    if not new and not stale:
        print(f"{options.repo_id} holds this very data set already: nothing to send.")
    else:
        commit(api, options, there.head, new, stale, console)
    if options.tag:
        api.create_tag(options.repo_id, tag=options.tag, revision=options.revision, repo_type="dataset", exist_ok=True)
    shown = options.tag or (options.revision if options.revision != "main" else None)
    print(f"{api.endpoint}/datasets/{options.repo_id}" + (f"/tree/{shown}" if shown else ""))
    print(f'load_dataset("{options.repo_id}"' + (f', revision="{shown}")' if shown else ")"))


def collect(options: argparse.Namespace) -> list[File]:
    """The files of a folder that may be published. Anything wrong with it is a UsageError."""
    try:
        validate_repo_id(options.repo_id)
    except HFValidationError as error:
        raise UsageError(f"--repo-id: {' '.join(str(error).split())}") from error
    if "/" not in options.repo_id:
        raise UsageError(
            f"--repo-id {options.repo_id}: expected ORG/NAME, with your own name or an organisation's before it"
        )
    folder: Path = options.output
    made = manifests.read_output(folder)
    check_rows(made, options)
    try:
        for file in made["files"]:
            check_shard(folder, file)
        card = (folder / "README.md").read_text("utf-8").replace(PLACEHOLDER, options.repo_id)
    except OSError as error:
        raise UsageError(f"can't read {error.filename}: {error.strerror}; {RESTORE}") from error
    files = [File("README.md", card.encode()), File("manifest.json", folder / "manifest.json")]
    files += [File(file["path"], folder / file["path"]) for file in made["files"]]
    if (folder / "report" / "index.html").is_file():
        files.append(File("report/index.html", folder / "report" / "index.html"))
    return files


def check_shard(folder: Path, file: Mapping[str, Any]) -> None:
    """Refuse a shard that is not the one of the manifest, by its checksum and its rows."""
    path = folder / file["path"]
    if file_sha256(path) != file["sha256"]:
        raise UsageError(f"{path} is not the file that manifest.json describes; {RESTORE}")
    for _ in read_shard(folder, file, []):
        break  # its rows are counted before the first batch


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


def look(api: HfApi, repo_id: str, revision: str) -> There:
    """What a branch holds; one that is not there is made, from the main branch as the Hub does."""
    fresh = False
    try:
        info = api.repo_info(repo_id, revision=revision, repo_type="dataset")
    except RevisionNotFoundError:
        api.create_branch(repo_id, branch=revision, repo_type="dataset")
        info, fresh = api.repo_info(repo_id, revision=revision, repo_type="dataset"), True
    tree = api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type="dataset")
    return There(str(info.sha), {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}, fresh)


def check_tag(api: HfApi, options: argparse.Namespace, head: str | None) -> None:
    """Refuse a tag that names something else. head: the commit that it would name, None for one that is not made yet."""
    if not options.tag:
        return
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(options.repo_id, repo_type="dataset").tags}
    if options.tag in tags and tags[options.tag] != head:
        raise UsageError(f"--tag {options.tag} names another commit of {options.repo_id} already; choose another tag")


def commit(
    api: HfApi, options: argparse.Namespace, head: str, new: Sequence[File], stale: Sequence[str], console: Console
) -> None:
    """Send large files one by one, so that a cut loses one at most, then commit everything at once, upon `head` alone."""
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
            parent_commit=head,
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
    if status in (409, 412):
        return f"{repo_id} changed while this was being sent ({status}); look at it, then run the same command again"
    if isinstance(error, HfHubHTTPError):
        return f"the Hub refused ({status}): {' '.join((error.server_message or str(error)).split())[:200]}"
    cause = " ".join(str(error.__cause__ or error).split())[:200] or type(error).__name__
    return f"the connection to the Hub failed: {cause}. What has arrived stays; the same command goes on."


if __name__ == "__main__":
    sys.exit(main())
