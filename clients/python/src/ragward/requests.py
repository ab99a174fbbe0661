"""The values that requests are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from ragward.filters import MetadataValue


class Consistency(str, Enum):
    """The freshness that the relationship tuples must have."""

    #: Caches and copies may decide.
    MINIMIZE_LATENCY = "MINIMIZE_LATENCY"
    #: The authority itself decides.
    HIGHER_CONSISTENCY = "HIGHER_CONSISTENCY"
    #: Everything that was written before the consistency token was given out counts.
    AT_LEAST_AS_FRESH = "AT_LEAST_AS_FRESH"


class Purpose(str, Enum):
    """The purpose of a re-check."""

    #: The caller will release only the chunks that come back.
    ANSWER = "ANSWER"
    #: The caller releases its chunks anyway, and asks the server to record what it would have withheld.
    OBSERVE = "OBSERVE"


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Words and an embedding. The chunks are ranked by each, and both rankings are merged."""

    text: str
    #: The embedding. Without one, the model of the collection makes it of the words (`embedding` in the server's settings).
    vector: Iterable[float] | None = None


@dataclass(frozen=True, slots=True)
class Semantic:
    """Words whose meaning is searched for. The collection needs a model, which gets the words (`embedding`)."""

    text: str


#: Words, an embedding, both, or the meaning of words.
Query: TypeAlias = str | Sequence[float] | Hybrid | Semantic


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk of a document that is put in."""

    #: The id of the chunk, unique in its collection. `put_document` makes one up where it is empty.
    id: str
    #: The OpenFGA object that decides who sees the chunk, such as `document:handbook`.
    guard: str
    #: The text. It may be empty if there is a vector.
    text: str = ""
    #: The embedding. It may be missing if there is a text. It must be where the server makes those of the collection.
    vector: Iterable[float] | None = None
    #: The metadata, which filters look at.
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])
    #: The headings above the text in its document, the outermost first.
    heading_path: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A document with its chunks. It replaces all chunks of the document that has its id."""

    #: The id of the document, unique in its collection.
    id: str
    #: The chunks in their order, at least one.
    chunks: Sequence[NewChunk]
    #: The title, for people.
    title: str = ""


@dataclass(frozen=True, slots=True)
class RelationshipTuple:
    """A tuple that counts for one explanation alone."""

    user: str
    relation: str
    object: str
    #: The name of the condition under which the tuple counts; empty if it always counts.
    condition: str = ""
    #: The values that the tuple holds for the parameters of its condition.
    condition_context: Mapping[str, Any] | None = None
