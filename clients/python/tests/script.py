"""A stand-in for the server, whose answers a test writes down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

URL = "http://127.0.0.1:8980"

CHUNK: dict[str, Any] = {
    "id": "a#0",
    "documentId": "a",
    "guard": "document:a",
    "title": "",
    "text": "leave",
    "score": 0.5,
    "metadata": {"year": {"intValue": "2024"}},
}
ANSWER = {
    "chunks": [CHUNK],
    "completion": "COMPLETION_COMPLETE",
    "recall": "RECALL_EXACT",
    "nextPageToken": "",
    "consistencyToken": "t",
}
RECHECKED = {"chunkIds": ["a#0"], "consistencyToken": "t"}


def json_answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


def refusal(status: int, code: str, *, headers: dict[str, str] | None = None, **details: Any) -> httpx.Response:
    shown = [{"type": f"google.rpc.{name}", "value": "", "debug": debug} for name, debug in details.items()]
    return json_answer({"code": code, "message": f"because {code}", "details": shown}, status, headers)


Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Script:
    """A server that answers the requests in turn, and remembers them."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        if callable(step):
            return step(request)
        # A response is read once, so each request gets one of its own.
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]
