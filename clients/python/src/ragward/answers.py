"""The answers of the server, as immutable values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from ragward.filters import MetadataValue


class Completion(str, Enum):
    """The reason why an answer has no more chunks."""

    #: The answer has as many chunks as were asked for.
    COMPLETE = "COMPLETE"
    #: The user may see no further chunk that matches, or that was asked for by id.
    EXHAUSTED = "EXHAUSTED"
    #: There may be more, because a work limit of the server stopped the search.
    LIMITED = "LIMITED"


class Recall(str, Enum):
    """Whether the chunks of an answer are certainly the best ones."""

    #: The answer does not say, because nothing was ranked. Only answers to `fetch` are so.
    UNSPECIFIED = "UNSPECIFIED"
    #: No chunk that the user may see scores better than the returned ones.
    EXACT = "EXACT"
    #: The vector store searches approximately.
    APPROXIMATE = "APPROXIMATE"


class SearchPlan(str, Enum):
    """A way to search. All of them release only chunks that were checked."""

    #: Only chunks under guards that the user may see were searched.
    VISIBLE_SET_SEARCH = "VISIBLE_SET_SEARCH"
    #: Every guard was checked first, and only chunks under the visible ones were searched.
    LIST_THEN_SEARCH = "LIST_THEN_SEARCH"
    #: Everything was searched, and the chunks that were found were checked.
    SEARCH_THEN_CHECK = "SEARCH_THEN_CHECK"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document that the user may see."""

    #: The id of the chunk, unique in its collection.
    id: str
    #: The id of its document.
    document_id: str
    #: The OpenFGA object that the user was checked against.
    guard: str
    #: The title of its document. It may be empty.
    title: str
    text: str
    #: The score. Higher is better, and each kind of query has its own scale. It is 0 in an answer to `fetch`.
    score: float
    metadata: Mapping[str, MetadataValue]
    #: The headings above the text in its document, the outermost first. It may be empty.
    heading_path: tuple[str, ...] = ()
    #: The score by which a model ordered the answer; `None` if no model has looked at the chunk. Then it has kept its place.
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class PlanRound:
    """One step of search and enforcement."""

    search_plan: SearchPlan
    #: The number of candidates that the round asked for.
    limit: int
    #: The number of candidates that it found.
    candidates: int
    #: The number of them that are permitted, as far as they were looked at.
    permitted: int
    #: The duration of the round.
    milliseconds: float


@dataclass(frozen=True, slots=True)
class PlanReport:
    """How a search was made."""

    #: The share of candidates that was expected to be permitted; `None` if nothing was known.
    estimated_share: float | None
    rounds: tuple[PlanRound, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Chunks that the user may see. It can be iterated like a list of them."""

    #: Best first. After `fetch`, they are in the order of the request.
    chunks: tuple[Chunk, ...]
    completion: Completion
    recall: Recall
    #: The token of the next page; empty if there is none. `pages` sends it back by itself.
    next_page_token: str
    #: A later call with this token counts everything that was written before this answer.
    consistency_token: str
    #: The lag of the copy of an OpenFGA server's tuples; `None` if no copy was used.
    replica_lag: timedelta | None = None
    #: The description of the search, if the call asked and the server allows it.
    plan: PlanReport | None = None

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


@dataclass(frozen=True, slots=True)
class Rechecked:
    """Which of the asked chunks the user may still see."""

    #: In the order of the request. Chunks that are gone and chunks that are forbidden are both left out.
    chunk_ids: tuple[str, ...]
    consistency_token: str


@dataclass(frozen=True, slots=True)
class RequestedApproval:
    """An approval that the person was asked for."""

    #: The approval, for the same call. It is of use only to the same caller.
    approval: str
    #: The code that the person sees on their device. Show it to them.
    code: str
    #: The time until which the person can say yes, and the approval can be used.
    expires_at: datetime
    #: The time to wait before the call is made with the approval, in seconds.
    poll_after_seconds: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a user holds a relation on an object, or not."""

    #: The decision. A question that could not be decided is not allowed.
    allowed: bool
    #: Why the question could not be decided; empty if it was.
    undecided: str
    user: str
    relation: str
    #: The object; the guard if the question named a chunk.
    object: str
    authorization_model_id: str
    #: The step that answers the question, with the steps that it rests on under `steps`: the JSON of `ExplanationStep`.
    root: Mapping[str, Any]
    #: The moment as of which the explanation holds.
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Embedded:
    """The model that made the embeddings of documents, and what it was sent."""

    #: The name of the model in the server's settings.
    model: str
    #: The host that the texts were sent to; empty if the model computes in the server itself.
    host: str
    #: The number of chunks that have got an embedding.
    chunks: int


@dataclass(frozen=True, slots=True)
class Upserted:
    """The outcome of an upload."""

    #: The number of documents that this call took in.
    documents: int
    #: The number of their chunks.
    chunks: int
    #: Why nobody will see some of them, for people.
    warnings: tuple[str, ...]
    consistency_token: str
    #: What was sent to a model; `None` if the collection has none.
    embedded: Embedded | None = None


@dataclass(frozen=True, slots=True)
class PutResult:
    """The outcome of `put_document`."""

    #: The number of chunks of the document.
    chunks: int
    consistency_token: str
    #: Why nobody will see some of them, for people.
    warnings: tuple[str, ...]
    #: What was sent to a model; `None` if the collection has none.
    embedded: Embedded | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The outcome of `delete_documents`."""

    #: The number of documents that were there and that the caller may write.
    documents: int
    consistency_token: str


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document of a collection."""

    document_id: str
    #: The title. It may be empty.
    title: str
    #: The number of its chunks.
    chunks: int
    #: The source that `ragward ingest --source` recorded. It may be empty.
    source: str


@dataclass(frozen=True, slots=True)
class ListedCollection:
    """A collection. Its numbers are 0 for callers with a token who may not administer."""

    name: str
    documents: int
    chunks: int
    #: The dimension of its vectors.
    dimension: int


@dataclass(frozen=True, slots=True)
class DocumentStatus:
    """A document that is there."""

    document_id: str
    #: The number of its chunks.
    chunks: int


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """How much a collection holds. The totals are 0 for callers with a token who may not administer."""

    documents: int
    chunks: int
    #: The dimension of its vectors.
    dimension: int
    #: Those of the named documents that are there.
    found: tuple[DocumentStatus, ...]
