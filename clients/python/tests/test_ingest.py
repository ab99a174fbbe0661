"""Documents go in and out of a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from ragward import AsyncClient, Document, F, Hybrid, Identity, InvalidRequest, NewChunk, NotFound
from tests.world import Asking

ANNE, OPERATOR = Identity.user("user:anne"), Identity.none()
ROADMAP = "document:roadmap"
#: More than the sockets of both sides hold, so that the server has to read while the client still writes.
MANY, BYTES = 400, 20_000


def document(name: str, text: str = "leave", **chunk: Any) -> Document:
    return Document(name, [NewChunk(f"{name}#0", ROADMAP, text, **chunk)])


def collection(asking: Asking, name: str) -> str:
    return f"{name}-{type(asking.client).__name__}"


class Breaks(Exception):
    pass


async def test_any_number_of_documents_streams_through(asking: Asking) -> None:
    to = collection(asking, "stream")
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for number in range(MANY):
            read += 1
            yield document(f"d{number}", "leave " + "x" * BYTES)

    upserted = await asking.call("upsert_documents", to, documents(), identity=OPERATOR)
    assert (upserted.documents, upserted.chunks, upserted.warnings, read) == (MANY, MANY, (), MANY)
    listed = await asking.each("list_documents", to, page_size=150, identity=OPERATOR)
    assert len({one.document_id for one in listed}) == MANY
    again = await asking.call("retrieve", to, "leave", k=1, consistency_token=upserted.consistency_token, identity=ANNE)
    assert len(again) == 1


async def test_an_asynchronous_iterator_is_read_as_it_gives(server_async_client: AsyncClient) -> None:
    async def documents() -> AsyncIterator[Document]:
        for number in range(3):
            yield document(f"d{number}")

    upserted = await server_async_client.upsert_documents("asynchronous", documents())
    assert upserted.documents == 3


@pytest.fixture
async def server_async_client(server: Any) -> AsyncIterator[AsyncClient]:
    async with server.async_client(identity=OPERATOR) as client:
        yield client


async def test_nothing_to_send_is_no_error(asking: Asking) -> None:
    upserted = await asking.call("upsert_documents", collection(asking, "empty"), [], identity=OPERATOR)
    assert (upserted.documents, upserted.chunks) == (0, 0)


async def test_an_error_of_the_source_is_the_callers_own(asking: Asking) -> None:
    to = collection(asking, "source")

    def documents(number: int) -> Iterator[Document]:
        for position in range(number):
            yield document(f"d{position}", "x" * BYTES)
        raise Breaks

    for number in (0, 1, MANY):
        with pytest.raises(Breaks):
            await asking.call("upsert_documents", to, documents(number), identity=OPERATOR)
    status = await asking.call("upsert_documents", to, [document("last")], identity=OPERATOR)
    assert status.documents == 1


async def test_a_refused_document_is_named(asking: Asking) -> None:
    to = collection(asking, "refused")
    rows: list[tuple[str, Iterable[Document], str]] = [
        ("a guard that is none", [document("a"), Document("b", [NewChunk("b#0", "nobody", "x")])], "guard"),
        ("no chunks", [Document("b", [])], "b"),
        ("in the midst of many", (document(f"d{n}" if n != 3 else "", "x" * BYTES) for n in range(MANY)), "document"),
    ]
    for row, documents, told in rows:
        with pytest.raises(InvalidRequest) as refused:
            await asking.call("upsert_documents", to, documents, identity=OPERATOR)
        fields = [violation.field for violation in refused.value.violations]
        assert told in f"{refused.value.message} {fields}", row


async def test_what_is_not_json_is_refused_before_it_is_sent(asking: Asking) -> None:
    rows: list[tuple[str, dict[str, Any], type[Exception]]] = [
        ("no number", {"vector": [0.1, float("nan")]}, InvalidRequest),
        ("an infinite one", {"metadata": {"a": float("inf")}}, ValueError),
        ("a number that is too large", {"metadata": {"a": 2**63}}, ValueError),
        ("a list inside of a list", {"metadata": {"a": [[1]]}}, TypeError),
    ]
    for row, chunk, kind in rows:
        with pytest.raises(kind):
            await asking.call("upsert_documents", "never", [document("a", **chunk)], identity=OPERATOR)
        with pytest.raises(NotFound):
            await asking.call("ingest_status", "never", identity=OPERATOR)
        assert row


async def test_vectors_are_asked_by_vectors_words_and_both(asking: Asking) -> None:
    to = collection(asking, "vectors")
    documents = [document("east", "go east", vector=[1.0, 0.0]), document("north", "go north", vector=(0.0, 1.0))]
    await asking.call("upsert_documents", to, documents, identity=OPERATOR)
    rows: list[tuple[str, Any, list[str]]] = [
        ("a list", [0.9, 0.1], ["east", "north"]),
        ("a tuple of whole numbers", (0, 1), ["north", "east"]),
        ("words", "north", ["north"]),
        ("both", Hybrid("north", [0.1, 0.9]), ["north", "east"]),
    ]
    for row, query, expected in rows:
        answer = await asking.call("retrieve", to, query, identity=ANNE)
        assert [chunk.document_id for chunk in answer] == expected, row


async def test_a_document_is_put_listed_and_deleted(asking: Asking) -> None:
    to = collection(asking, "single")
    put = await asking.call(
        "put_document",
        to,
        "hr/pay",
        guard=ROADMAP,
        title="Pay",
        metadata={"area": "people", "ratio": 0.5, "is_new": True, "year": 2026},
        text="# Pay\n\nPay goes on during leave.",
        identity=OPERATOR,
    )
    assert (put.chunks, put.warnings) == (1, ())
    (chunk,) = await asking.call("retrieve", to, "pay", filter=F("is_new") == True, identity=ANNE)  # noqa: E712
    assert (chunk.id, chunk.title) == ("hr/pay#0", "Pay")
    assert {key: chunk.metadata[key] for key in ("area", "ratio", "is_new", "year")} == {
        "area": "people",
        "ratio": 0.5,
        "is_new": True,
        "year": 2026,
    }
    chunks = [NewChunk("", "", "first"), NewChunk("own", ROADMAP, "second")]
    await asking.call("put_document", to, "two", guard=ROADMAP, chunks=chunks, identity=OPERATOR)
    fetched = await asking.call("fetch", to, document_ids=["two"], identity=ANNE)
    assert [chunk.id for chunk in fetched] == ["two#0", "own"]

    listed = await asking.each("list_documents", to, identity=OPERATOR)
    assert {(one.document_id, one.chunks) for one in listed} == {("hr/pay", 1), ("two", 2)}
    status = await asking.call("ingest_status", to, ["two", "absent"], identity=OPERATOR)
    assert (status.documents, status.chunks, status.dimension) == (2, 3, 0)
    assert [(one.document_id, one.chunks) for one in status.found] == [("two", 2)]
    collections = await asking.call("list_collections", identity=OPERATOR)
    assert (to, 2, 3) in [(one.name, one.documents, one.chunks) for one in collections]

    deleted = await asking.call("delete_documents", to, ["two", "absent"], identity=OPERATOR)
    assert deleted.documents == 1
    gone = await asking.call("fetch", to, document_ids=["two"], identity=ANNE)
    assert len(gone) == 0
