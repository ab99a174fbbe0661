"""The client has a place for every RPC and every field of the contracts, and writes and reads them as the contracts say."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import Any, cast

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

import ragward
from ragward import (
    AsyncClient,
    Client,
    Consistency,
    Document,
    F,
    Hybrid,
    Identity,
    LocalServer,
    MetadataValue,
    NewChunk,
    Purpose,
    Query,
    RelationshipTuple,
    Semantic,
    _calls,
    _wire,
)
from tests.contract import INGEST, RETRIEVAL, ROOT, descriptor, message, pool, services

#: The RPCs, and the methods that call them.
METHODS = {
    "Retrieve": ["retrieve", "pages"],
    "Recheck": ["recheck"],
    "Fetch": ["fetch"],
    "RequestApproval": ["request_approval"],
    "Explain": ["explain"],
    "UpsertDocuments": ["upsert_documents"],
    "PutDocument": ["put_document"],
    "ListDocuments": ["list_documents"],
    "ListCollections": ["list_collections"],
    "DeleteDocuments": ["delete_documents"],
    "GetIngestStatus": ["ingest_status"],
}

#: The messages of answers, with the values that they become.
ANSWERS: list[tuple[str, type[Any]]] = [
    (f"{RETRIEVAL}.RetrieveResponse", ragward.Answer),
    (f"{RETRIEVAL}.FetchResponse", ragward.Answer),
    (f"{RETRIEVAL}.Chunk", ragward.Chunk),
    (f"{RETRIEVAL}.PlanReport", ragward.PlanReport),
    (f"{RETRIEVAL}.PlanRound", ragward.PlanRound),
    (f"{RETRIEVAL}.RecheckResponse", ragward.Rechecked),
    (f"{RETRIEVAL}.RequestApprovalResponse", ragward.RequestedApproval),
    (f"{RETRIEVAL}.ExplainResponse", ragward.Explanation),
    (f"{RETRIEVAL}.RelationshipTuple", ragward.RelationshipTuple),
    (f"{RETRIEVAL}.Hybrid", ragward.Hybrid),
    (f"{RETRIEVAL}.Semantic", ragward.Semantic),
    (f"{INGEST}.Embedded", ragward.Embedded),
    (f"{INGEST}.UpsertDocumentsResponse", ragward.Upserted),
    (f"{INGEST}.PutDocumentResponse", ragward.PutResult),
    (f"{INGEST}.ListedDocument", ragward.ListedDocument),
    (f"{INGEST}.ListedCollection", ragward.ListedCollection),
    (f"{INGEST}.DeleteDocumentsResponse", ragward.Deleted),
    (f"{INGEST}.GetIngestStatusResponse", ragward.IngestStatus),
    (f"{INGEST}.DocumentStatus", ragward.DocumentStatus),
    (f"{INGEST}.Document", ragward.Document),
    (f"{INGEST}.Chunk", ragward.NewChunk),
]
#: Fields that have another name here, because they have a richer type.
RENAMED = {"replica_lag_milliseconds": "replica_lag"}
#: Fields of a value that one of its messages lacks.
LACKING = {
    f"{RETRIEVAL}.FetchResponse": {"recall", "next_page_token", "plan", "replica_lag"},
    f"{RETRIEVAL}.RelationshipTuple": {"condition_context"},
}
#: Messages without a value of their own, each with the reason.
WITHOUT_VALUE = {
    "UpsertDocumentsRequest": "a line of the body is its document",
    "ListDocumentsResponse": "an iterator over its documents, which turns the pages itself",
    "ListCollectionsResponse": "a tuple of its collections",
    "Vector": "a sequence of numbers",
    "Filter": "F and the operators of Filter",
    "FilterList": "F and the operators of Filter",
    "OneOf": "F and the operators of Filter",
    "Range": "F and the operators of Filter",
    "TimeRange": "F and the operators of Filter",
    "ValueList": "a sequence of values",
    "ChunkReference": "two arguments of explain",
    "TupleCondition": "two fields of RelationshipTuple",
    "ExplanationStep": "its JSON: people read the steps",
}


def test_the_version_is_that_of_the_server() -> None:
    versions = [
        re.search(r'^version = "([^"]+)"', (ROOT / path).read_text(), re.MULTILINE)
        for path in ("Cargo.toml", "clients/python/pyproject.toml")
    ]
    assert all(versions)
    assert len({found.group(1) for found in versions if found}) == 1


def test_every_rpc_has_a_method_in_both_clients() -> None:
    rpcs = [method.name for service in services() for method in service.methods]
    assert sorted(rpcs) == sorted(METHODS)
    methods = {name for names in METHODS.values() for name in names}
    for client in (Client, AsyncClient):
        public = {name for name, _ in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}
        assert public - {"close", "aclose"} == methods, client


def test_both_clients_take_the_same_arguments() -> None:
    for name in ["__init__", *(name for names in METHODS.values() for name in names)]:
        arguments = [inspect.signature(getattr(client, name)).parameters for client in (Client, AsyncClient)]
        shown = [
            {
                key: (one.kind, one.default, "" if key in ("documents", "transport") else one.annotation)
                for key, one in of_client.items()
            }
            for of_client in arguments
        ]
        assert shown[0] == shown[1], name


@pytest.mark.parametrize(("name", "value"), ANSWERS, ids=[name for name, _ in ANSWERS])
def test_every_field_of_a_message_has_a_place(name: str, value: type[Any]) -> None:
    fields = {RENAMED.get(field.name, field.name) for field in descriptor(name).fields}
    places = {field.name for field in dataclasses.fields(value)}
    assert fields == places - LACKING.get(name, set())


def requests() -> list[tuple[str, list[Any]]]:
    """Returns calls of each RPC that together use every field of its request."""
    freshness: dict[str, Any] = {"consistency": Consistency.AT_LEAST_AS_FRESH, "consistency_token": "t"}
    condition = (F("a") == "b") & ((F("c") >= 1) | ~F("d").between(1, 2)) & F("e").one_of(1, 2.5, True)
    search: dict[str, Any] = {
        "k": 3,
        "filter": condition,
        "min_score": 0.5,
        "per_document_max": 2,
        "classification_max": "internal",
        "context": {"now": "2026-01-01T00:00:00Z"},
        "explain_plan": True,
        "page_token": "p",
        "approval": "sealed",
        **freshness,
    }
    queries: list[Query] = ["leave", [0.5, 0.25], Hybrid("leave", [0.5]), Hybrid("leave"), Semantic("leave")]
    new_chunk = NewChunk("a#0", "document:a", "leave", [0.5], {"year": 2024, "tags": ["a", 1]}, ["Leave"])
    condition_tuple = RelationshipTuple("user:anne", "reader", "document:a", "in_hours", {"hour": 9})
    return [
        (f"{RETRIEVAL}.RetrieveRequest", [_calls.retrieve("notes", query, **search) for query in queries]),
        (
            f"{RETRIEVAL}.RecheckRequest",
            [_calls.recheck("notes", ["a#0"], purpose=Purpose.OBSERVE, context={"a": 1}, **freshness)],
        ),
        (
            f"{RETRIEVAL}.FetchRequest",
            [
                _calls.fetch(
                    "notes",
                    chunk_ids=["a#0"],
                    document_ids=["a"],
                    classification_max="internal",
                    context={"a": 1},
                    approval="sealed",
                    **freshness,
                )
            ],
        ),
        (
            f"{RETRIEVAL}.RequestApprovalRequest",
            [
                _calls.request_approval(
                    "notes",
                    query,
                    chunk_ids=["a#0"],
                    document_ids=["a"],
                    k=3,
                    filter=condition,
                    min_score=0.5,
                    per_document_max=2,
                    classification_max="internal",
                    context={"a": 1},
                    in_pages=False,
                    purpose="answer a question",
                )
                for query in ("leave", None)
            ],
        ),
        (
            f"{RETRIEVAL}.ExplainRequest",
            [
                _calls.explain(
                    "user:anne",
                    relation="reader",
                    contextual_tuples=[condition_tuple],
                    context={"a": 1},
                    **target,
                )
                for target in (
                    {"object": "document:a", "collection": None, "chunk_id": None},
                    {"object": None, "collection": "notes", "chunk_id": "a#0"},
                )
            ],
        ),
        (
            f"{INGEST}.PutDocumentRequest",
            [
                _calls.put_document(
                    "notes", "a", guard="document:a", title="A", metadata={"a": 1}, text="leave", chunks=[new_chunk]
                )
            ],
        ),
        (f"{INGEST}.DeleteDocumentsRequest", [_calls.delete_documents("notes", ["a"])]),
        (f"{INGEST}.ListDocumentsRequest", [_calls.list_documents("notes", page_size=1, page_token="p")]),
        (f"{INGEST}.ListCollectionsRequest", [_calls.list_collections()]),
        (f"{INGEST}.GetIngestStatusRequest", [_calls.ingest_status("notes", ["a"])]),
    ]


@pytest.mark.parametrize(("name", "calls"), requests(), ids=[name for name, _ in requests()])
def test_a_request_is_its_message_with_every_field(name: str, calls: list[Any]) -> None:
    used: set[str] = set()
    for call in calls:
        body = json.loads(call.body(Identity.user("user:anne")))
        request = json_format.ParseDict(body, message(name))
        used |= {field.name for field, _ in request.ListFields()}
    # A request of the IngestService has no user, and that of Explain is about another one.
    assert used == {field.name for field in descriptor(name).fields}


def test_a_line_of_an_upload_is_a_document() -> None:
    metadata: dict[str, MetadataValue] = {"year": 2024, "area": "é", "ratio": 0.5, "is_old": True, "tags": ("a", 1)}
    chunk = NewChunk("a#0", "document:a", "leave", [0.5], metadata, ["Leave"])
    line = _calls.document_line(Document("a", [chunk], "A"))
    assert line.count(b"\n") == 1
    document = json_format.Parse(line, message(f"{INGEST}.Document"))
    assert {field.name for field, _ in document.ListFields()} == {"id", "title", "chunks"}
    assert {field.name for field, _ in document.chunks[0].ListFields()} == {  # type: ignore[attr-defined]
        field.name for field in descriptor(f"{INGEST}.Chunk").fields
    }


def filled(of: Descriptor | None, depth: int = 3) -> Message:
    """Returns a message with a value in every field."""
    assert of is not None
    made = message(of.full_name)
    for field in of.fields:
        if field.containing_oneof and field.containing_oneof.fields[0] is not field and not _is_optional(field):
            continue
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            getattr(made, field.name)["key"].CopyFrom(filled(kind.fields_by_name["value"].message_type))
        elif kind is not None and depth > 0:
            inner = filled(kind, depth - 1)
            if field.is_repeated:
                getattr(made, field.name).append(inner)
            else:
                getattr(made, field.name).CopyFrom(inner)
        elif kind is None:
            value = _sample(field)
            if field.is_repeated:
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
    return made


def _is_optional(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None and field.containing_oneof.name.startswith("_")


def _sample(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[1].number
    return {
        FieldDescriptor.CPPTYPE_STRING: "text",
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: 1.5,
        FieldDescriptor.CPPTYPE_FLOAT: 1.5,
    }.get(field.cpp_type, 7)


READERS: list[tuple[str, Any]] = [
    (f"{RETRIEVAL}.RetrieveResponse", _wire.answer),
    (f"{RETRIEVAL}.FetchResponse", _wire.fetched),
    (f"{RETRIEVAL}.RecheckResponse", _wire.rechecked),
    (f"{RETRIEVAL}.RequestApprovalResponse", _wire.requested_approval),
    (f"{RETRIEVAL}.ExplainResponse", _wire.explanation),
    (f"{INGEST}.UpsertDocumentsResponse", _wire.upserted),
    (f"{INGEST}.PutDocumentResponse", _wire.put_result),
    (f"{INGEST}.DeleteDocumentsResponse", _wire.deleted),
    (f"{INGEST}.ListDocumentsResponse", _wire.listed_documents),
    (f"{INGEST}.ListCollectionsResponse", _wire.listed_collections),
    (f"{INGEST}.GetIngestStatusResponse", _wire.ingest_status),
]


@pytest.mark.parametrize(("name", "read"), READERS, ids=[name for name, _ in READERS])
def test_every_field_of_an_answer_is_read(name: str, read: Any) -> None:
    shown = json_format.MessageToDict(filled(descriptor(name)), always_print_fields_with_no_presence=True)
    answer = read(_wire.Fields(shown))
    for value in _values(answer):
        assert value not in ("", 0, None, (), {}, False), (name, answer)


def _values(answer: Any) -> list[Any]:
    """Returns the leaves of an answer, apart from what its message lacks."""
    if isinstance(answer, tuple):
        return [leaf for item in cast("tuple[Any, ...]", answer) for leaf in _values(item)]
    if not dataclasses.is_dataclass(answer):
        return [answer]
    is_fetched = isinstance(answer, ragward.Answer) and answer.recall is ragward.Recall.UNSPECIFIED
    lacking = LACKING[f"{RETRIEVAL}.FetchResponse"] if is_fetched else set[str]()
    kept = [getattr(answer, field.name) for field in dataclasses.fields(answer) if field.name not in lacking]
    return [leaf for value in kept for leaf in (_values(value) or [()])]


def test_every_message_has_a_value_or_a_reason() -> None:
    def reached(of: Descriptor | None, seen: set[str]) -> None:
        if of is None or of.full_name in seen or of.full_name.startswith("google.") or of.GetOptions().map_entry:
            return
        seen.add(of.full_name)
        if of.name in WITHOUT_VALUE and of.name == "ExplanationStep":
            return
        for field in of.fields:
            if field.message_type is not None:
                inner: Descriptor | None = field.message_type
                if field.message_type.GetOptions().map_entry:
                    inner = field.message_type.fields_by_name["value"].message_type
                reached(inner, seen)

    seen: set[str] = set()
    for service in services():
        for method in service.methods:
            reached(method.input_type, seen)
            reached(method.output_type, seen)
    known = {name for name, _ in ANSWERS} | {name for name, _ in requests()} | {"ragward.metadata.v1.Value"}
    unknown = {name for name in seen - known if name.rsplit(".", 1)[-1] not in WITHOUT_VALUE}
    assert unknown == set()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Completion", ragward.Completion),
        ("Recall", ragward.Recall),
        ("Plan", ragward.SearchPlan),
        ("Consistency", ragward.Consistency),
        ("Purpose", ragward.Purpose),
    ],
)
def test_every_name_of_an_enum_is_known(name: str, kind: Any) -> None:
    prefix = f"{name.upper()}_"
    names = {one.name.removeprefix(prefix) for one in pool().FindEnumTypeByName(f"{RETRIEVAL}.{name}").values}
    assert names - {"UNSPECIFIED"} == {one.value for one in kind} - {"UNSPECIFIED"}


def test_the_routes_are_those_that_the_server_describes(server: LocalServer) -> None:
    import httpx

    with httpx.Client(trust_env=False) as http:
        described = http.get(f"{server.url}/openapi.json").json()
    route = described["paths"]["/v1/collections/{collection}/documents"]["post"]
    assert route["operationId"] == "IngestService_UpsertDocuments"
    assert "application/x-ndjson" in route["requestBody"]["content"]
