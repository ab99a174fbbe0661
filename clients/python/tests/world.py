"""A small world on a real server: its model, tuples and documents, and clients that ask in it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx

from ragward import AsyncClient, Client, Document, Identity, LocalServer, NewChunk

NOTES = "notes"
LONG = "long"
#: The people who each may see one private document.
PEOPLE = [f"user:u{number}" for number in range(50)]

#: As large as one chunk may be, and all of them together larger than 4 MiB, the largest message of gRPC by default.
LONG_CHUNKS, LONG_BYTES = 100, 60_000

CONFIG = """
[server]
explain = true

[retrieval]
explain_plan = true
"""

_DIRECT = {"directly_related_user_types": [{"type": "user"}]}
MODEL: dict[str, Any] = {
    "schema_version": "1.1",
    "type_definitions": [
        {"type": "user"},
        {
            "type": "document",
            "relations": {
                "owner": {"this": {}},
                "reader": {"this": {}},
                # Two relations on one object: either is enough, and neither hides the other.
                "can_edit": {"computedUserset": {"relation": "owner"}},
                "can_read": {
                    "union": {
                        "child": [
                            {"computedUserset": {"relation": "owner"}},
                            {"computedUserset": {"relation": "reader"}},
                        ]
                    }
                },
            },
            "metadata": {"relations": {"owner": _DIRECT, "reader": _DIRECT}},
        },
    ],
}

TUPLES = [
    ("user:anne", "reader", "document:roadmap"),
    ("user:bob", "reader", "document:salaries"),
    ("user:anne", "reader", "document:manual"),
    ("user:bob", "reader", "document:manual"),
    ("user:carol", "owner", "document:roadmap"),
    ("user:carol", "reader", "document:roadmap"),
    ("user:anne", "reader", "document:long"),
    *((person, "owner", f"document:private-{person.removeprefix('user:')}") for person in PEOPLE),
]


def _documents() -> Iterator[Document]:
    yield Document(
        "roadmap",
        [
            NewChunk(
                "roadmap#0", "document:roadmap", "leave for the coast in may", metadata={"area": "plans", "year": 2024}
            )
        ],
        title="Roadmap",
    )
    yield Document(
        "salaries",
        [NewChunk("salaries#0", "document:salaries", "pay during leave", metadata={"area": "people", "year": 2025})],
    )
    yield Document(
        "manual",
        [
            NewChunk(
                f"manual#{number}",
                "document:manual",
                f"leave it on, part {number}",
                metadata={"area": "people", "year": 2020 + number, "weight": number + 0.5, "is_old": number < 2},
            )
            for number in range(5)
        ],
        title="Manual",
    )
    for person in PEOPLE:
        name = f"private-{person.removeprefix('user:')}"
        yield Document(name, [NewChunk(f"{name}#0", f"document:{name}", f"what {person} did on leave")])


def _long_document() -> Document:
    text = "leave " + "x" * LONG_BYTES
    return Document("long", [NewChunk(f"long#{number}", "document:long", text) for number in range(LONG_CHUNKS)])


def fill(server: LocalServer) -> None:
    """Load the model and the tuples through OpenFGA's HTTP API, and put the documents in."""
    with httpx.Client(base_url=server.url, trust_env=False) as openfga:
        store = _posted(openfga, "/stores", {"name": "ragward"})["id"]
        _posted(openfga, f"/stores/{store}/authorization-models", MODEL)
        keys = [{"user": user, "relation": relation, "object": object_} for user, relation, object_ in TUPLES]
        _posted(openfga, f"/stores/{store}/write", {"writes": {"tuple_keys": keys}})
    with server.client(identity=Identity.none()) as client:
        assert client.upsert_documents(NOTES, _documents()).warnings == ()
        assert client.upsert_documents(LONG, [_long_document()]).chunks == LONG_CHUNKS


def _posted(openfga: httpx.Client, path: str, body: object) -> Any:
    answer = openfga.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


class Asking:
    """One of the two clients, called in one way, so that a test holds both."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    def __repr__(self) -> str:
        return type(self.client).__name__

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method, and await its answer if there is something to await."""
        answer = getattr(self.client, method)(*arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def each(self, method: str, *arguments: Any, **options: Any) -> list[Any]:
        """Call a method that returns an iterator, and collect its items."""
        items = getattr(self.client, method)(*arguments, **options)
        if isinstance(items, AsyncIterator):
            return [item async for item in cast("AsyncIterator[Any]", items)]
        return list(items)

    async def close(self) -> None:
        """Close the client."""
        if isinstance(self.client, AsyncClient):
            await self.client.aclose()
        else:
            self.client.close()
