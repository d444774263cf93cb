"""The grading page: a local server that a person opens in a browser."""

from __future__ import annotations

import errno
import socket
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.audit.annotations import Annotations
from pipeline.audit.sample import Sample
from pipeline.errors import UsageError

HOST = "127.0.0.1"
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'"
)


class Answer(BaseModel):
    """A grade for a cell, as the page sends it."""

    row: str
    context: int
    passage: int
    grade: int


def make_app(folder: Path, sample: Sample) -> FastAPI:
    """The page and its three calls. State lies in the annotators' files alone."""
    # No interactive documentation: it would load its scripts from the network.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # Another site's name that resolves to this machine must not reach the grades.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    people: dict[str, Annotations] = {}
    rows = {row.id: row for row in sample.rows}

    def person(annotator: str) -> Annotations:
        if annotator not in people:
            try:
                people[annotator] = Annotations(folder, sample, annotator)
            except UsageError as error:
                raise HTTPException(422, str(error)) from error
        return people[annotator]

    def state(annotations: Annotations) -> dict[str, Any]:
        grades = annotations.grades
        done = {"done": len(grades), "total": len(sample.cells)}
        cell = annotations.next_cell
        if cell is None:
            return done | {"cell": None}
        row = rows[cell[0]]
        return done | {
            "cell": {"row": cell[0], "context": cell[1], "passage": cell[2]},
            "row_number": [r.id for r in sample.rows].index(row.id) + 1,
            "rows": len(sample.rows),
            "instruction": row.contexts[cell[1]][0],
            "query": row.contexts[cell[1]][1],
            "text": row.passages[cell[2]],
            "grades": [[grades.get((row.id, c, p)) for p in range(3)] for c in range(3)],
        }

    @app.get("/", response_class=HTMLResponse)
    def page() -> HTMLResponse:
        text = resources.files("pipeline.audit").joinpath("page.html").read_text("utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})

    @app.get("/api/{annotator}")
    def now(annotator: str) -> dict[str, Any]:
        return state(person(annotator))

    @app.post("/api/{annotator}/grade")
    def grade(annotator: str, answer: Answer) -> dict[str, Any]:
        annotations = person(annotator)
        try:
            annotations.grade((answer.row, answer.context, answer.passage), answer.grade)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return state(annotations)

    @app.post("/api/{annotator}/undo")
    def undo(annotator: str) -> dict[str, Any]:
        annotations = person(annotator)
        annotations.undo()
        return state(annotations)

    return app


def serve(folder: Path, sample: Sample, port: int) -> None:
    """Serve on the loopback interface until Ctrl-C. A port in use is a UsageError."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # before the address is printed: who reads it may come at once
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
        raise UsageError(f"port {port} {why}; choose another with --port, or 0 for any free one") from error
    print(
        f"Grade at http://{HOST}:{listening.getsockname()[1]}/ . Ctrl-C ends; every answer is kept at once.", flush=True
    )
    uvicorn.Server(uvicorn.Config(make_app(folder, sample), log_level="warning")).run(sockets=[listening])
