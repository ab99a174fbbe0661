"""Reads the JSON of answers.

Every field that the server always writes has to be there, with a value of its type. Otherwise nothing of the answer is used: an
answer that was cut or came from somebody else must not look like one without chunks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, NoReturn, TypeVar, cast

from ragward.answers import (
    Answer,
    Chunk,
    Completion,
    Deleted,
    DocumentStatus,
    Embedded,
    Explanation,
    IngestStatus,
    ListedCollection,
    ListedDocument,
    PlanReport,
    PlanRound,
    PutResult,
    Recall,
    Rechecked,
    RequestedApproval,
    SearchPlan,
    Upserted,
)
from ragward.errors import InvalidAnswer
from ragward.filters import MetadataScalar, MetadataValue

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)


class Fields:
    """The fields of a message that arrived."""

    __slots__ = ("_object",)

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise InvalidAnswer("the server's answer has something else in place of a message")
        self._object = cast("dict[str, Any]", value)

    def has(self, name: str) -> bool:
        """Return whether an optional field is set."""
        return name in self._object

    def value(self, name: str) -> Any:  # noqa: ANN401 - the JSON may be anything; the methods below look at it.
        """Return the JSON of a field."""
        try:
            return self._object[name]
        except KeyError:
            raise InvalidAnswer(f"the server's answer lacks the field `{name}`") from None

    def text(self, name: str) -> str:
        """Return a field that is a text."""
        value = self.value(name)
        return value if isinstance(value, str) else _wrong(name)

    def truth(self, name: str) -> bool:
        """Return a field that is true or false."""
        value = self.value(name)
        return value if isinstance(value, bool) else _wrong(name)

    def number(self, name: str) -> float:
        """Return a field that is a finite number."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            _wrong(name)
        return float(value)

    def whole(self, name: str) -> int:
        """Return a field that is a whole number. Those of 64 bits are texts."""
        value = self.value(name)
        if isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                _wrong(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else _wrong(name)

    def enum(self, name: str, prefix: str, kind: type[_E]) -> _E:
        """Return a field that is one of the known names of an enum."""
        value = self.text(name)
        try:
            return kind(value.removeprefix(prefix))
        except ValueError:
            _wrong(name)

    def items(self, name: str) -> list[Any]:
        """Return a field that is a list."""
        value = self.value(name)
        return cast("list[Any]", value) if isinstance(value, list) else _wrong(name)

    def messages(self, name: str, read: Callable[[Fields], _T]) -> tuple[_T, ...]:
        """Return a list of messages, each of them read."""
        return tuple(read(Fields(item)) for item in self.items(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        items = self.items(name)
        return tuple(items) if all(isinstance(item, str) for item in items) else _wrong(name)

    def entries(self, name: str) -> Mapping[str, Any]:
        """Return a field that is an object."""
        return Fields(self.value(name))._object


def parsed(body: bytes) -> Fields:
    """Return the message of a body."""
    try:
        return Fields(json.loads(body, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        raise InvalidAnswer("the server's answer is not JSON") from None


def answer(fields: Fields) -> Answer:
    """Read a `RetrieveResponse`."""
    lag, plan = None, None
    if fields.has("replicaLagMilliseconds"):
        lag = timedelta(milliseconds=fields.number("replicaLagMilliseconds"))
    if fields.has("plan"):
        plan = _plan(Fields(fields.value("plan")))
    return Answer(
        chunks=fields.messages("chunks", _chunk),
        completion=fields.enum("completion", "COMPLETION_", Completion),
        recall=_recall(fields),
        next_page_token=fields.text("nextPageToken"),
        consistency_token=fields.text("consistencyToken"),
        replica_lag=lag,
        plan=plan,
    )


def fetched(fields: Fields) -> Answer:
    """Read a `FetchResponse`."""
    return Answer(
        chunks=fields.messages("chunks", _chunk),
        completion=fields.enum("completion", "COMPLETION_", Completion),
        recall=Recall.UNSPECIFIED,
        next_page_token="",
        consistency_token=fields.text("consistencyToken"),
    )


def rechecked(fields: Fields) -> Rechecked:
    """Read a `RecheckResponse`."""
    return Rechecked(chunk_ids=fields.texts("chunkIds"), consistency_token=fields.text("consistencyToken"))


def requested_approval(fields: Fields) -> RequestedApproval:
    """Read a `RequestApprovalResponse`."""
    return RequestedApproval(
        approval=fields.text("approval"),
        code=fields.text("code"),
        expires_at=_moment("expiresAt", fields.text("expiresAt")),
        poll_after_seconds=fields.whole("pollAfterSeconds"),
    )


def explanation(fields: Fields) -> Explanation:
    """Read an `ExplainResponse`."""
    return Explanation(
        allowed=fields.truth("allowed"),
        undecided=fields.text("undecided"),
        user=fields.text("user"),
        relation=fields.text("relation"),
        object=fields.text("object"),
        authorization_model_id=fields.text("authorizationModelId"),
        root=fields.entries("root"),
        as_of=_moment("asOf", fields.text("asOf")) if fields.has("asOf") else None,
    )


def upserted(fields: Fields) -> Upserted:
    """Read an `UpsertDocumentsResponse`."""
    return Upserted(
        documents=fields.whole("documents"),
        chunks=fields.whole("chunks"),
        warnings=fields.texts("warnings"),
        consistency_token=fields.text("consistencyToken"),
        embedded=_embedded(fields),
    )


def put_result(fields: Fields) -> PutResult:
    """Read a `PutDocumentResponse`."""
    return PutResult(
        chunks=fields.whole("chunks"),
        consistency_token=fields.text("consistencyToken"),
        warnings=fields.texts("warnings"),
        embedded=_embedded(fields),
    )


def deleted(fields: Fields) -> Deleted:
    """Read a `DeleteDocumentsResponse`."""
    return Deleted(documents=fields.whole("documents"), consistency_token=fields.text("consistencyToken"))


def listed_documents(fields: Fields) -> tuple[tuple[ListedDocument, ...], str]:
    """Read a `ListDocumentsResponse`: its documents, and the token of the next page."""

    def document(fields: Fields) -> ListedDocument:
        return ListedDocument(
            document_id=fields.text("documentId"),
            title=fields.text("title"),
            chunks=fields.whole("chunks"),
            source=fields.text("source"),
        )

    return fields.messages("documents", document), fields.text("nextPageToken")


def listed_collections(fields: Fields) -> tuple[ListedCollection, ...]:
    """Read a `ListCollectionsResponse`."""

    def collection(fields: Fields) -> ListedCollection:
        return ListedCollection(
            name=fields.text("name"),
            documents=fields.whole("documents"),
            chunks=fields.whole("chunks"),
            dimension=fields.whole("dimension"),
        )

    return fields.messages("collections", collection)


def ingest_status(fields: Fields) -> IngestStatus:
    """Read a `GetIngestStatusResponse`."""

    def status(fields: Fields) -> DocumentStatus:
        return DocumentStatus(document_id=fields.text("documentId"), chunks=fields.whole("chunks"))

    return IngestStatus(
        documents=fields.whole("documents"),
        chunks=fields.whole("chunks"),
        dimension=fields.whole("dimension"),
        found=fields.messages("found", status),
    )


def _chunk(fields: Fields) -> Chunk:
    metadata = {key: _metadata_value(key, Fields(value)) for key, value in fields.entries("metadata").items()}
    return Chunk(
        id=fields.text("id"),
        document_id=fields.text("documentId"),
        guard=fields.text("guard"),
        title=fields.text("title"),
        text=fields.text("text"),
        score=fields.number("score"),
        metadata=metadata,
        # A server of an earlier version knows no headings.
        heading_path=fields.texts("headingPath") if fields.has("headingPath") else (),
        rerank_score=fields.number("rerankScore") if fields.has("rerankScore") else None,
    )


def _embedded(fields: Fields) -> Embedded | None:
    if not fields.has("embedded"):
        return None
    embedded = Fields(fields.value("embedded"))
    return Embedded(model=embedded.text("model"), host=embedded.text("host"), chunks=embedded.whole("chunks"))


def _metadata_value(key: str, fields: Fields) -> MetadataValue:
    if fields.has("listValue"):
        return Fields(fields.value("listValue")).messages("values", lambda item: _metadata_scalar(key, item))
    return _metadata_scalar(key, fields)


def _metadata_scalar(key: str, fields: Fields) -> MetadataScalar:
    if fields.has("stringValue"):
        return fields.text("stringValue")
    if fields.has("intValue"):
        return fields.whole("intValue")
    if fields.has("doubleValue"):
        return fields.number("doubleValue")
    if fields.has("boolValue"):
        return fields.truth("boolValue")
    return _wrong(f"metadata.{key}")


def _recall(fields: Fields) -> Recall:
    recall = fields.enum("recall", "RECALL_", Recall)
    return _wrong("recall") if recall is Recall.UNSPECIFIED else recall


def _plan(fields: Fields) -> PlanReport:
    def round_(fields: Fields) -> PlanRound:
        return PlanRound(
            search_plan=fields.enum("searchPlan", "PLAN_", SearchPlan),
            limit=fields.whole("limit"),
            candidates=fields.whole("candidates"),
            permitted=fields.whole("permitted"),
            milliseconds=fields.number("milliseconds"),
        )

    share = fields.number("estimatedShare") if fields.has("estimatedShare") else None
    return PlanReport(estimated_share=share, rounds=fields.messages("rounds", round_))


def _moment(name: str, text: str) -> datetime:
    # Python 3.10 reads neither `Z` nor fractions of a second other than 3 or 6 digits.
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")
    except ValueError:
        _wrong(name)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is not JSON")


def _wrong(name: str) -> NoReturn:
    raise InvalidAnswer(f"the server's answer has something else in the field `{name}`")
