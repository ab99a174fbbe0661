"""A client of Ragward, the retrieval proxy for RAG: it answers with only the chunks that this user may see.

Each call says who asks:

    from ragward import Client, Identity

    with Client("http://127.0.0.1:8980") as client:
        for chunk in client.retrieve("handbook", "parental leave", k=3, identity=Identity.user("user:anne")):
            print(chunk.guard, chunk.title)
"""

from ragward._local import LocalServer, local
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
from ragward.async_client import AsyncClient
from ragward.client import Client
from ragward.errors import (
    ApprovalRequired,
    DeadlineExceeded,
    FieldViolation,
    Forbidden,
    IdentityMissing,
    InvalidAnswer,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    RagwardError,
    Unavailable,
)
from ragward.filters import F, Filter, MetadataScalar, MetadataValue
from ragward.identity import Identity, acting_as, acting_identity
from ragward.requests import Consistency, Document, Hybrid, NewChunk, Purpose, Query, RelationshipTuple, Semantic

__all__ = [
    "Answer",
    "ApprovalRequired",
    "AsyncClient",
    "Chunk",
    "Client",
    "Completion",
    "Consistency",
    "DeadlineExceeded",
    "Deleted",
    "Document",
    "DocumentStatus",
    "Embedded",
    "Explanation",
    "F",
    "FieldViolation",
    "Filter",
    "Forbidden",
    "Hybrid",
    "Identity",
    "IdentityMissing",
    "IngestStatus",
    "InvalidAnswer",
    "InvalidRequest",
    "ListedCollection",
    "ListedDocument",
    "LocalServer",
    "MetadataScalar",
    "MetadataValue",
    "NewChunk",
    "NotAuthenticated",
    "NotFound",
    "PlanReport",
    "PlanRound",
    "Purpose",
    "PutResult",
    "Query",
    "RagwardError",
    "Recall",
    "Rechecked",
    "RelationshipTuple",
    "RequestedApproval",
    "SearchPlan",
    "Semantic",
    "Unavailable",
    "Upserted",
    "acting_as",
    "acting_identity",
    "local",
]
