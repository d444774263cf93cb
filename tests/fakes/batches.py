"""The local endpoint's files and batch jobs: strict about the files it takes, slow and unreliable where a test wants it so."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from tests.fakes.endpoint import Endpoint


@dataclass
class Batches:
    """polls: how often a job is asked for before it has ended. fails: share of lines that fail. expires: jobs, by number, that
    expire with half of their lines done; cancelled: jobs that somebody cancels.
    """

    polls: int = 1
    fails: float = 0.0
    expires: tuple[int, ...] = ()
    cancelled: tuple[int, ...] = ()
    lines: int = 50_000
    size: int = 200_000_000
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def add_routes(self, app: web.Application, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files/{id}/content", self.content)
        app.router.add_post("/v1/batches", self.create)
        app.router.add_get("/v1/batches", self.list)
        app.router.add_get("/v1/batches/{id}", self.retrieve)

    def refused(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self._endpoint.key}":
            return web.json_response({"error": {"message": "Incorrect API key provided", "type": "error"}}, status=401)
        return None

    async def upload(self, request: web.Request) -> web.Response:
        if refused := self.refused(request):
            return refused
        form = await request.post()
        upload = form["file"]
        assert form["purpose"] == "batch"
        assert isinstance(upload, web.FileField)
        name = f"file-{len(self.files)}"
        self.files[name] = upload.file.read()
        return web.json_response(self.file(name, upload.filename))

    def file(self, name: str, filename: str) -> dict[str, Any]:
        size = len(self.files[name])
        return {
            "id": name,
            "object": "file",
            "bytes": size,
            "created_at": 0,
            "filename": filename,
            "purpose": "batch",
            "status": "processed",
        }

    async def content(self, request: web.Request) -> web.Response:
        return self.refused(request) or web.Response(body=self.files[request.match_info["id"]])

    async def create(self, request: web.Request) -> web.Response:
        if refused := self.refused(request):
            return refused
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions"
        assert body["completion_window"] == "24h"
        name = f"batch_{len(self.jobs)}"
        problem = self.malformed(self.files[body["input_file_id"]])
        job = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": "failed" if problem else "in_progress",
            "created_at": 0,
            "metadata": body.get("metadata"),
            "output_file_id": None,
            "error_file_id": None,
            "errors": {"object": "list", "data": [{"message": problem}]} if problem else None,
        }
        self.jobs[name] = job
        return web.json_response(job)

    def malformed(self, content: bytes) -> str | None:
        from tests.fakes.endpoint import malformed

        lines = [json.loads(line) for line in content.decode().split("\n") if line]
        if not lines or len(lines) > self.lines or len(content) > self.size:
            return "the file is empty or too large"
        if len({line["custom_id"] for line in lines}) != len(lines):
            return "a custom_id stands twice"
        if len({line["body"]["model"] for line in lines}) != 1:
            return "more than one model in a file"
        if any(line["method"] != "POST" or line["url"] != "/v1/chat/completions" for line in lines):
            return "method or url"
        return next((problem for line in lines if (problem := malformed(line["body"]))), None)

    async def list(self, request: web.Request) -> web.Response:
        data = [*self.jobs.values()]
        return self.refused(request) or web.json_response({"object": "list", "data": data, "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        if refused := self.refused(request):
            return refused
        name = request.match_info["id"]
        job = self.jobs[name]
        self.asked[name] = self.asked.get(name, 0) + 1
        if job["status"] == "in_progress" and self.asked[name] > self.polls:
            self.finish(name, job)
        return web.json_response(job)

    def finish(self, name: str, job: dict[str, Any]) -> None:
        number = int(name.split("_")[1])
        lines = [json.loads(line) for line in self.files[job["input_file_id"]].decode().split("\n") if line]
        chance = random.Random(name)
        chance.shuffle(lines)
        job["status"] = (
            "expired" if number in self.expires else "cancelled" if number in self.cancelled else "completed"
        )
        done = lines if job["status"] == "completed" else lines[: len(lines) // 2]
        good, bad = [], []
        for line in done:
            raw = json.dumps(line["body"], ensure_ascii=False, separators=(",", ":")).encode()  # as it comes online
            key = hashlib.sha256(raw).hexdigest()
            if chance.random() < self.fails:
                response = {"status_code": 500, "request_id": "r", "body": {"error": {"message": "failed"}}}
                bad.append({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None})
                continue
            self._endpoint.log.served[key] += 1
            response = {"status_code": 200, "request_id": "r", "body": self._endpoint._answer(line["body"], key)}
            good.append({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None})
        expired = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
        bad += [
            {"id": "x", "custom_id": line["custom_id"], "response": None, "error": expired}
            for line in lines
            if line not in done
        ]
        for field_, entries in (("output_file_id", good), ("error_file_id", bad)):
            if entries:
                job[field_] = f"file-{name}-{field_}"
                self.files[job[field_]] = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
