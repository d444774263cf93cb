"""A local Hugging Face Hub: a real HTTP server on loopback that speaks the API's part that our publishing, `datasets` and
sentence-transformers use for data sets and models, and checks what the real one checks: the token, the objects that a commit names, their SHA-256 and size.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.fakes.loopback import on_loopback

ROOT = Path(__file__).parents[2]
TOKEN = "hf_local0123456789"
READ_TOKEN = "hf_readonly0123456789"
LARGE = (".parquet", ".safetensors")
ATTRIBUTES = b"".join(b"*%s filter=lfs diff=lfs merge=lfs -text\n" % ending.encode() for ending in LARGE)
LARGEST_REGULAR = 10_000_000

Tree = dict[str, tuple[bytes, bool]]
"""path -> (bytes, whether it lies in large file storage)"""


@dataclass
class Repo:
    """A repository: commits by their names, branches and tags to commits. It begins with the commit that the Hub makes."""

    private: bool
    history: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add("main", {".gitattributes": (ATTRIBUTES, False)})

    def add(self, branch: str, tree: Tree) -> str:
        name = hashlib.sha1(f"{branch} {len(self.history)}".encode()).hexdigest()
        self.history[name], self.branches[branch] = tree, name
        return name

    @property
    def commits(self) -> int:
        """The commits of users."""
        return len(self.history) - 1

    @property
    def trees(self) -> dict[str, Tree]:
        return {ref: self.history[name] for ref, name in (self.branches | self.tags).items()}

    def named(self, revision: str) -> str | None:
        return revision if revision in self.history else (self.branches | self.tags).get(revision)


@dataclass
class Hub:
    """The server's state. A model's repository is `models/ID`, as the API has it.

    cut_after: connections break after so many large objects have arrived; cut_commit: when the next commit has been made.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    cut_after: int | None = None
    cut_commit: bool = False
    url: str = ""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30, middlewares=[self.authorised])
        app.router.add_post("/api/repos/create", self.create)
        app.router.add_post("/api/validate-yaml", self.validate_card)
        for kind, place in (("datasets", "/datasets"), ("models", "")):
            repo = f"/api/{kind}/{{org}}/{{name}}"
            app.router.add_get(repo, self.info)
            app.router.add_get(f"{repo}/revision/{{rev}}", self.info)
            app.router.add_get(f"{repo}/tree/{{rev}}", self.tree)
            app.router.add_get(f"{repo}/tree/{{rev}}/{{path:.*}}", self.tree)
            app.router.add_post(f"{repo}/paths-info/{{rev}}", self.paths_info)
            app.router.add_post(f"{repo}/preupload/{{rev}}", self.preupload)
            app.router.add_post(f"{repo}/commit/{{rev}}", self.commit)
            app.router.add_get(f"{repo}/refs", self.refs)
            app.router.add_post(f"{repo}/tag/{{rev}}", self.tag)
            app.router.add_post(f"{repo}/branch/{{rev}}", self.branch)
            app.router.add_post(f"{place}/{{org}}/{{name}}.git/info/lfs/objects/batch", self.batch)
            app.router.add_get(f"{place}/{{org}}/{{name}}/resolve/{{rev}}/{{path:.*}}", self.resolve)
        app.router.add_put("/lfs/{oid}", self.upload)
        app.router.add_post("/lfs/verify", self.verify)
        app.router.add_route("*", "/{rest:.*}", self.nothing)
        return app

    @web.middleware
    async def authorised(self, request: web.Request, handler: Any) -> web.StreamResponse:
        writes = (
            request.method in ("POST", "PUT")
            and not request.path.startswith("/lfs/")
            and "paths-info" not in request.path
        )
        given = request.headers.get("Authorization")
        if (given is not None or writes) and given not in (f"Bearer {TOKEN}", f"Bearer {READ_TOKEN}"):
            return web.json_response({"error": "Invalid user token."}, status=401)
        if writes and given == f"Bearer {READ_TOKEN}":
            return web.json_response({"error": "You don't have the rights to write here."}, status=403)
        name = request.match_info.get("name")
        if name and not request.path.startswith("/api/repos"):
            repo = self.repos.get(self.id_of(request))
            if repo is None or (repo.private and given is None):
                headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
                return web.json_response({"error": "Repository not found"}, status=404, headers=headers)
        response: web.StreamResponse = await handler(request)
        return response

    @staticmethod
    def id_of(request: web.Request) -> str:
        name = f"{request.match_info['org']}/{request.match_info['name']}"
        return name if request.path.startswith(("/api/datasets/", "/datasets/")) else f"models/{name}"

    def tree_of(self, request: web.Request) -> Tree | None:
        repo = self.repos[self.id_of(request)]
        name = repo.named(request.match_info.get("rev", "main"))
        return None if name is None else repo.history[name]

    def head(self, request: web.Request) -> str | None:
        return self.repos[self.id_of(request)].named(request.match_info.get("rev", "main"))

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = f"{body.get('organization') or 'me'}/{body['name']}"
        kind = body.get("type") or "model"
        if kind not in ("dataset", "model"):
            return web.json_response({"error": "only data sets and models here"}, status=400)
        url = f"{self.url}/datasets/{name}" if kind == "dataset" else f"{self.url}/{name}"
        key = name if kind == "dataset" else f"models/{name}"
        if key in self.repos:
            return web.json_response({"error": f"You already created this {kind} repo", "url": url}, status=409)
        private = body.get("private", body.get("visibility") == "private")
        self.repos[key] = Repo(bool(private))
        return web.json_response({"url": url, "name": name, "id": name})

    async def validate_card(self, request: web.Request) -> web.Response:
        body = await request.json()
        errors = []
        try:
            header = yaml.safe_load(body["content"].split("---\n")[1])
            wanted = {"license": str, "configs": list} if body["repoType"] == "dataset" else {"tags": list}
            errors += [
                {"message": f'"{k}" must be a {t.__name__}'}
                for k, t in wanted.items()
                if not isinstance(header.get(k), t)
            ]
        except (yaml.YAMLError, IndexError, AttributeError) as error:
            errors.append({"message": f"the header is not YAML: {error}"})
        return web.json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)

    async def info(self, request: web.Request) -> web.Response:
        repo = self.repos[self.id_of(request)]
        tree = self.tree_of(request)
        if tree is None:
            return self.no_revision()
        siblings = [{"rfilename": path} for path in sorted(tree)]
        return web.json_response(
            {
                "id": self.id_of(request).removeprefix("models/"),
                "sha": self.head(request),
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "gated": False,
                "disabled": False,
            }
        )

    @staticmethod
    def no_revision() -> web.Response:
        headers = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
        return web.json_response({"error": "Invalid rev id"}, status=404, headers=headers)

    def entry(self, path: str, content: bytes, large: bool) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        made: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if large:
            made["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return made

    def listed(self, tree: dict[str, tuple[bytes, bool]], under: str, recursive: bool) -> list[dict[str, Any]]:
        prefix = f"{under}/" if under else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, (content, large) in sorted(tree.items()):
            if not path.startswith(prefix):
                continue
            rest = path[len(prefix) :].split("/")
            for depth in range(1, len(rest)):
                folder = prefix + "/".join(rest[:depth])
                if recursive or depth == 1:
                    entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
            if recursive or len(rest) == 1:
                entries[path] = self.entry(path, content, large)
        return list(entries.values())

    async def tree(self, request: web.Request) -> web.Response:
        tree = self.tree_of(request)
        if tree is None:
            return self.no_revision()
        recursive = request.query.get("recursive", "").lower() == "true"
        under = request.match_info.get("path", "")
        found = self.listed(tree, under, recursive)
        if under and not found:
            return web.json_response({"error": "not found"}, status=404, headers={"X-Error-Code": "EntryNotFound"})
        return web.json_response(found)

    async def paths_info(self, request: web.Request) -> web.Response:
        tree = self.tree_of(request)
        if tree is None:
            return self.no_revision()
        text = await request.text()
        body = json.loads(text) if text.startswith("{") else await request.post()
        paths = body["paths"] if isinstance(body["paths"], list) else body.getall("paths")  # type: ignore[union-attr]
        everything = {e["path"]: e for e in self.listed(tree, "", recursive=True)}
        return web.json_response([everything[p] for p in paths if p in everything])

    async def preupload(self, request: web.Request) -> web.Response:
        if self.tree_of(request) is None:
            return self.no_revision()
        files = (await request.json())["files"]
        assert all({"path", "sample", "size"} <= set(file) for file in files)
        modes = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(LARGE) or f["size"] > LARGEST_REGULAR else "regular",
                "shouldIgnore": False,
            }
            for f in files
        ]
        return web.json_response({"files": modes})

    async def batch(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["operation"] == "upload"
        assert body["hash_algo"] == "sha256"
        found = []
        for item in body["objects"]:
            if item["oid"] in self.objects:
                found.append({"oid": item["oid"], "size": item["size"]})
                continue
            href = {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}, "verify": {"href": f"{self.url}/lfs/verify"}}
            found.append({"oid": item["oid"], "size": item["size"], "actions": href})
        return web.json_response({"objects": found, "transfer": "basic"})

    async def upload(self, request: web.Request) -> web.Response:
        content = await request.read()
        if self.cut_after is not None and len(self.objects) >= self.cut_after:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        oid = request.match_info["oid"]
        if hashlib.sha256(content).hexdigest() != oid:
            return web.json_response({"error": "checksum mismatch"}, status=400)
        self.objects[oid] = content
        self.uploads[oid] += 1
        return web.Response()

    async def verify(self, request: web.Request) -> web.Response:
        body = await request.json()
        fits = body["oid"] in self.objects and len(self.objects[body["oid"]]) == body["size"]
        return web.json_response({}, status=200 if fits else 422)

    async def commit(self, request: web.Request) -> web.Response:
        repo, revision = self.repos[self.id_of(request)], request.match_info["rev"]
        if revision not in repo.branches:
            return self.no_revision()
        lines = [json.loads(line) for line in (await request.text()).split("\n") if line]
        if lines[0]["key"] != "header" or not lines[0]["value"]["summary"]:
            return web.json_response({"error": "a commit begins with a header"}, status=400)
        if lines[0]["value"].get("parentCommit") not in (None, repo.branches[revision]):
            return web.json_response(
                {"error": "A commit has happened since. Please refresh and try again."}, status=412
            )
        tree = dict(repo.trees[revision])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"], validate=True)
                if value["encoding"] != "base64" or len(content) > LARGEST_REGULAR or value["path"].endswith(LARGE):
                    return web.json_response({"error": f"{value['path']}: upload it to large file storage"}, status=400)
                tree[value["path"]] = (content, False)
            elif line["key"] == "lfsFile":
                large = self.objects.get(value["oid"])
                if large is None or len(large) != value["size"]:
                    return web.json_response({"error": f"{value['path']}: its object was never uploaded"}, status=400)
                tree[value["path"]] = (large, True)
            elif line["key"] == "deletedFile":
                if tree.pop(value["path"], None) is None:
                    return web.json_response({"error": f"{value['path']}: there is no such file"}, status=400)
            else:
                return web.json_response({"error": f"unknown operation {line['key']}"}, status=400)
        head = repo.add(revision, tree)
        if self.cut_commit:
            self.cut_commit = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(
            {
                "commitUrl": f"{self.url}{request.path.removeprefix('/api')}/{head}",
                "commitOid": head,
                "success": True,
            }
        )

    async def refs(self, request: web.Request) -> web.Response:
        repo = self.repos[self.id_of(request)]

        def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": name} for n, name in names.items()]

        found = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags), "converts": []}
        return web.json_response(found)

    async def tag(self, request: web.Request) -> web.Response:
        repo, name = self.repos[self.id_of(request)], (await request.json())["tag"]
        if name in repo.tags:
            return web.json_response({"error": "Tag reference exists already"}, status=409)
        target = self.head(request)
        if target is None:
            return self.no_revision()
        repo.tags[name] = target
        return web.json_response({})

    async def branch(self, request: web.Request) -> web.Response:
        repo, name = self.repos[self.id_of(request)], request.match_info["rev"]
        if name in repo.branches:
            return web.json_response({"error": "Reference already exists"}, status=409)
        repo.branches[name] = repo.branches[(await request.json()).get("startingPoint", "main")]
        return web.json_response({})

    async def resolve(self, request: web.Request) -> web.Response:
        tree = self.tree_of(request) or {}
        path = request.match_info["path"]
        if path not in tree:
            return web.json_response(
                {"error": "Entry not found"}, status=404, headers={"X-Error-Code": "EntryNotFound"}
            )
        content, large = tree[path]
        digest = (
            hashlib.sha256(content).hexdigest()
            if large
            else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        )
        headers = {
            "X-Repo-Commit": str(self.head(request)),
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
        }
        span = request.http_range
        start, stop = span.start or 0, span.stop if span.stop is not None else len(content)
        status = 206 if "Range" in request.headers else 200
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return web.Response(body=content[start:stop], headers=headers, status=status)

    async def nothing(self, request: web.Request) -> web.Response:
        self.unknown.append(f"{request.method} {request.path}")
        return web.json_response({"error": "not found"}, status=404)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on loopback while the body runs; `url` says where."""
    with on_loopback(hub.app()) as url:
        hub.url = url
        yield hub


def in_a_process(hub: Hub, *command: str, token: str | None = TOKEN, home: Path) -> subprocess.CompletedProcess[str]:
    """A Python process whose Hub is this one."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    env |= {"HF_TOKEN": token} if token else {}
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=100, check=False)
