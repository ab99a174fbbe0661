"""The calls of the API, without any input or output: what each one sends, and how its answer is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, SupportsFloat, TypeVar, cast
from urllib.parse import quote

from ragward import _wire
from ragward.answers import (
    Answer,
    Deleted,
    Explanation,
    IngestStatus,
    ListedCollection,
    ListedDocument,
    PutResult,
    Rechecked,
    RequestedApproval,
    Upserted,
)
from ragward.errors import FieldViolation, InvalidAnswer, InvalidRequest
from ragward.filters import Filter, MetadataValue, metadata_wire
from ragward.identity import Identity, user_of
from ragward.requests import Consistency, Document, Hybrid, NewChunk, Purpose, Query, RelationshipTuple, Semantic

#: The most pages of one search or list. The server's own tokens end sooner: a search has at most 10,000 chunks by vector.
PAGES_MAX = 100_000

_RETRIEVAL = "/ragward.retrieval.v1.RetrievalService/"
_INGEST = "/ragward.ingest.v1.IngestService/"

T = TypeVar("T")


class Effect(Enum):
    """The change that a call makes. It decides when the call may be sent again."""

    #: The call changes nothing. It may be sent again after any failure that may pass.
    READS = auto()
    #: The call leaves the same state however often it is made. It may be sent again only if no connection was made: an old
    #: copy that arrives late could undo what another program did meanwhile.
    REPLACES = auto()
    #: The body of the call is a stream of documents, which can be read once. It is never sent again.
    UPLOADS = auto()


class Asker(Enum):
    """Where a request says who asks."""

    #: In its field `user`, unless the token says it all.
    USER_FIELD = auto()
    #: In its token alone. The bearer itself is meant.
    TOKEN = auto()


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of an RPC."""

    path: str
    message: Mapping[str, Any]
    effect: Effect
    asker: Asker
    read: Callable[[_wire.Fields], T]

    def body(self, identity: Identity) -> bytes:
        """Return the JSON to send. It names the user of the identity where the request has a field for that."""
        message = dict(self.message)
        if self.asker is Asker.TOKEN:
            _refuse_assertion(identity)
        elif user := user_of(identity):
            message["user"] = user
        return encoded(message)


class Pages:
    """The place within a sequence of pages."""

    __slots__ = ("_left", "token")

    def __init__(self) -> None:
        #: The token of the page that comes next; `None` after the last one. An empty one asks for the first page.
        self.token: str | None = ""
        self._left = PAGES_MAX

    def turn(self, next_token: str) -> None:
        """Go on to the page with this token, or end if there is none."""
        self._left -= 1
        if next_token and (next_token == self.token or self._left <= 0):
            raise InvalidAnswer("the pages of the server do not end")
        self.token = next_token or None


def retrieve(
    collection: str,
    query: Query,
    *,
    k: int,
    filter: Filter | None,  # noqa: A002 - the word of the API.
    min_score: float | None,
    per_document_max: int | None,
    consistency: Consistency | None,
    consistency_token: str | None,
    classification_max: str | None,
    context: Mapping[str, Any] | None,
    explain_plan: bool,
    page_token: str | None,
    approval: str | None,
) -> Call[Answer]:
    """Return a call of `Retrieve`."""
    message: dict[str, Any] = {"collection": collection, "topK": k, **_query(query)}
    message |= _freshness(consistency, consistency_token)
    if filter is not None:
        message["filter"] = _filter(filter)
    if min_score is not None:
        message["minScore"] = min_score
    if per_document_max is not None:
        message["perDocumentMax"] = per_document_max
    if classification_max is not None:
        message["classificationMax"] = classification_max
    if context is not None:
        message["context"] = context
    if explain_plan:
        message["explainPlan"] = True
    if page_token is not None:
        message["pageToken"] = page_token
    if approval is not None:
        message["approval"] = approval
    return Call(_RETRIEVAL + "Retrieve", message, Effect.READS, Asker.USER_FIELD, _wire.answer)


def recheck(
    collection: str,
    chunk_ids: Iterable[str],
    *,
    purpose: Purpose,
    consistency: Consistency | None,
    consistency_token: str | None,
    context: Mapping[str, Any] | None,
) -> Call[Rechecked]:
    """Return a call of `Recheck`."""
    message: dict[str, Any] = {"collection": collection, "chunkIds": _ids(chunk_ids, "chunk_ids")}
    message |= _freshness(consistency, consistency_token)
    if context is not None:
        message["context"] = context
    if purpose is not Purpose.ANSWER:
        message["purpose"] = f"PURPOSE_{purpose.value}"
    return Call(_RETRIEVAL + "Recheck", message, Effect.READS, Asker.USER_FIELD, _wire.rechecked)


def fetch(
    collection: str,
    *,
    chunk_ids: Iterable[str],
    document_ids: Iterable[str],
    consistency: Consistency | None,
    consistency_token: str | None,
    classification_max: str | None,
    context: Mapping[str, Any] | None,
    approval: str | None,
) -> Call[Answer]:
    """Return a call of `Fetch`."""
    message: dict[str, Any] = {
        "collection": collection,
        "chunkIds": _ids(chunk_ids, "chunk_ids"),
        "documentIds": _ids(document_ids, "document_ids"),
    }
    message |= _freshness(consistency, consistency_token)
    if classification_max is not None:
        message["classificationMax"] = classification_max
    if context is not None:
        message["context"] = context
    if approval is not None:
        message["approval"] = approval
    return Call(_RETRIEVAL + "Fetch", message, Effect.READS, Asker.USER_FIELD, _wire.fetched)


def request_approval(
    collection: str,
    query: Query | None,
    *,
    chunk_ids: Iterable[str],
    document_ids: Iterable[str],
    k: int,
    filter: Filter | None,  # noqa: A002 - the word of the API.
    min_score: float | None,
    per_document_max: int | None,
    classification_max: str | None,
    context: Mapping[str, Any] | None,
    in_pages: bool,
    purpose: str,
) -> Call[RequestedApproval]:
    """Return a call of `RequestApproval` for a search, or for a fetch if there is no query."""
    message: dict[str, Any] = {"purpose": purpose}
    if query is None:
        message["fetch"] = fetch(
            collection,
            chunk_ids=chunk_ids,
            document_ids=document_ids,
            consistency=None,
            consistency_token=None,
            classification_max=classification_max,
            context=context,
            approval=None,
        ).message
    else:
        message["retrieve"] = retrieve(
            collection,
            query,
            k=k,
            filter=filter,
            min_score=min_score,
            per_document_max=per_document_max,
            consistency=None,
            consistency_token=None,
            classification_max=classification_max,
            context=context,
            explain_plan=False,
            page_token="" if in_pages else None,
            approval=None,
        ).message
    # A copy that arrives late could ring the person once more.
    return Call(_RETRIEVAL + "RequestApproval", message, Effect.REPLACES, Asker.TOKEN, _wire.requested_approval)


def explain(
    user: str,
    *,
    object: str | None,  # noqa: A002 - the word of the API.
    collection: str | None,
    chunk_id: str | None,
    relation: str,
    contextual_tuples: Iterable[RelationshipTuple],
    context: Mapping[str, Any] | None,
) -> Call[Explanation]:
    """Return a call of `Explain`."""
    message: dict[str, Any] = {"user": user, "relation": relation}
    if object is not None:
        message["object"] = object
    if collection is not None or chunk_id is not None:
        message["chunk"] = {"collection": collection or "", "chunkId": chunk_id or ""}
    message["contextualTuples"] = [_tuple(one) for one in contextual_tuples]
    if context is not None:
        message["context"] = context
    return Call(_RETRIEVAL + "Explain", message, Effect.READS, Asker.TOKEN, _wire.explanation)


def upsert_documents(collection: str) -> Call[Upserted]:
    """Return a call of `UpsertDocuments`, whose body has a line for each document."""
    path = f"/v1/collections/{quote(collection, safe='')}/documents"
    return Call(path, {}, Effect.UPLOADS, Asker.TOKEN, _wire.upserted)


def document_line(document: Document) -> bytes:
    """Return the line of a document in the body of `UpsertDocuments`."""
    chunks = [_new_chunk(chunk) for chunk in document.chunks]
    return encoded({"id": document.id, "title": document.title, "chunks": chunks}) + b"\n"


def put_document(
    collection: str,
    document_id: str,
    *,
    guard: str,
    title: str,
    metadata: Mapping[str, MetadataValue] | None,
    text: str | None,
    chunks: Iterable[NewChunk] | None,
) -> Call[PutResult]:
    """Return a call of `PutDocument`."""
    message: dict[str, Any] = {
        "collection": collection,
        "documentId": document_id,
        "guard": guard,
        "title": title,
        "metadata": metadata_wire(metadata or {}),
    }
    if text is not None:
        message["text"] = text
    if chunks is not None:
        message["chunks"] = [_new_chunk(chunk) for chunk in chunks]
    return Call(_INGEST + "PutDocument", message, Effect.REPLACES, Asker.TOKEN, _wire.put_result)


def delete_documents(collection: str, document_ids: Iterable[str]) -> Call[Deleted]:
    """Return a call of `DeleteDocuments`."""
    message = {"collection": collection, "documentIds": _ids(document_ids, "document_ids")}
    return Call(_INGEST + "DeleteDocuments", message, Effect.REPLACES, Asker.TOKEN, _wire.deleted)


def list_documents(collection: str, *, page_size: int, page_token: str) -> Call[tuple[tuple[ListedDocument, ...], str]]:
    """Return a call of `ListDocuments`."""
    message = {"collection": collection, "pageSize": page_size, "pageToken": page_token}
    return Call(_INGEST + "ListDocuments", message, Effect.READS, Asker.TOKEN, _wire.listed_documents)


def list_collections() -> Call[tuple[ListedCollection, ...]]:
    """Return a call of `ListCollections`."""
    return Call(_INGEST + "ListCollections", {}, Effect.READS, Asker.TOKEN, _wire.listed_collections)


def ingest_status(collection: str, document_ids: Iterable[str]) -> Call[IngestStatus]:
    """Return a call of `GetIngestStatus`."""
    message = {"collection": collection, "documentIds": _ids(document_ids, "document_ids")}
    return Call(_INGEST + "GetIngestStatus", message, Effect.READS, Asker.TOKEN, _wire.ingest_status)


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return the JSON of a message."""
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request is not JSON: {error}") from error


def _refuse_assertion(identity: Identity) -> None:
    # Nothing in the request could name the user, so the bearer would act with its own rights in place of the user's.
    if identity.is_asserted:
        violation = FieldViolation("identity", "asks on behalf of a user, and this call is made by the bearer itself")
        raise InvalidRequest(f"`identity` {violation.description}", violations=[violation])


def _filter(filter_: object) -> Mapping[str, Any]:
    if not isinstance(filter_, Filter):
        raise TypeError('a filter is made with `F`, such as `F("area") == "people"`')
    return filter_.wire


def _query(query: Query) -> dict[str, Any]:
    if isinstance(query, str):
        return {"text": query}
    if isinstance(query, Hybrid):
        vector: dict[str, Any] = {} if query.vector is None else {"vector": {"values": _numbers(query.vector)}}
        return {"hybrid": {"text": query.text, **vector}}
    if isinstance(query, Semantic):
        return {"semantic": {"text": query.text}}
    return {"vector": {"values": _numbers(query)}}


def _numbers(values: object) -> list[float]:
    # Bytes are a sequence of numbers, too, and never an embedding.
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
        raise TypeError("an embedding is a sequence of numbers")
    # Arrays of NumPy and others hold numbers of their own types.
    numbers = [float(value) for value in cast("Iterable[SupportsFloat]", values)]
    if not all(map(math.isfinite, numbers)):
        raise InvalidRequest("the numbers of an embedding must be finite")
    return numbers


def _ids(ids: object, name: str) -> list[str]:
    # One text in place of a list would be taken apart into letters.
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f"`{name}` is a list of ids")
    return list(cast("Iterable[str]", ids))


def _freshness(consistency: Consistency | None, consistency_token: str | None) -> dict[str, str]:
    if consistency is None and consistency_token is not None:
        consistency = Consistency.AT_LEAST_AS_FRESH
    message: dict[str, str] = {}
    if consistency is not None:
        message["consistency"] = f"CONSISTENCY_{consistency.value}"
    if consistency_token is not None:
        message["consistencyToken"] = consistency_token
    return message


def _new_chunk(chunk: NewChunk) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": chunk.id,
        "guard": chunk.guard,
        "text": chunk.text,
        "metadata": metadata_wire(chunk.metadata),
    }
    if chunk.vector is not None:
        message["vector"] = _numbers(chunk.vector)
    if chunk.heading_path:
        message["headingPath"] = list(chunk.heading_path)
    return message


def _tuple(one: RelationshipTuple) -> dict[str, Any]:
    message: dict[str, Any] = {"user": one.user, "relation": one.relation, "object": one.object}
    if one.condition:
        message["condition"] = {"name": one.condition, "context": one.condition_context or {}}
    return message
