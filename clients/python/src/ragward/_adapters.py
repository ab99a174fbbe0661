"""What the adapters for frameworks share: who asks, through which client, and what the metadata of a document holds.

All users of a program share one adapter. So an adapter keeps no user between calls, and an identity that a framework lost on
the way is an error. It is never replaced by somebody else's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

from ragward import Answer, AsyncClient, Chunk, Client, Consistency, Filter, Hybrid, Identity, IdentityMissing, Semantic
from ragward._given import NOT_GIVEN, NotGiven, refuse_lost
from ragward.identity import acting_identity, authorization, authorization_async, user_of
from ragward.requests import Query

#: The most ids that the server takes in one `Recheck`.
IDS_MAX = 1_000

#: The way in which a question is searched: by its words, by its embedding, by both, or by its meaning, which the server's own
#: model embeds.
SearchType: TypeAlias = Literal["text", "vector", "hybrid", "semantic"]

#: The keys that Ragward adds to the metadata of a document. A document's own values under these keys are hidden.
OWN_KEYS = (
    "chunk_id",
    "document_id",
    "title",
    "heading_path",
    "guard",
    "score",
    "rerank_score",
    "completion",
    "recall",
    "consistency_token",
)

_Document = TypeVar("_Document")

#: Finds the id of the chunk for a document of a framework. `None` says that the document is no chunk of ours.
ChunkIdOf: TypeAlias = Callable[[_Document], str | None]


def caller(
    *,
    identity: object = NOT_GIVEN,
    user: str | NotGiven = NOT_GIVEN,
    configured: object = NOT_GIVEN,
    own: Identity | None = None,
) -> Identity:
    """Return who asks.

    That is the identity of the call, else the one in its configuration, else that of `acting_as`, else the adapter's own.
    `user` names the user that this identity asks for. The identity of the client does not count, because all users share it.
    An argument that is `None` has lost its user, and raises.
    """
    refuse_lost("user", user)
    of_call = (_checked("identity", identity), _checked("ragward_identity", configured), acting_identity(), own)
    found = next((one for one in of_call if one is not None), None)
    if not isinstance(user, NotGiven):
        return _named(found, user)
    if found is None:
        raise IdentityMissing(
            "nobody said who asks: pass `identity=` to the call or to the adapter, or use `acting_as`; the identity of the "
            "client does not count here, because all users share the client"
        )
    return found


def _checked(place: str, value: object) -> Identity | None:
    refuse_lost(place, value)
    if isinstance(value, NotGiven):
        return None
    if isinstance(value, Identity):
        return value
    raise TypeError(
        f"`{place}` must be an `Identity`, such as `Identity.bearer(token)`, and not a `{type(value).__name__}`: frameworks "
        "copy plain texts into traces"
    )


def _named(identity: Identity | None, user: str) -> Identity:
    if identity is None:
        return Identity.user(user)
    try:
        return identity.on_behalf_of(user)
    except ValueError:
        # Without a token, the name alone says who asks.
        return Identity.user(user)


def captured(identity: Identity) -> Identity:
    """Return the identity with the token of this moment, for a question that is asked later and elsewhere.

    A function that gives tokens may look at the request that its thread serves. Later, in another thread, it would find no
    request, or another user's.
    """
    return _with_token(identity, authorization(identity))


async def acaptured(identity: Identity) -> Identity:
    """Like `captured`, and also calls asynchronous functions that give a token."""
    return _with_token(identity, await authorization_async(identity))


def _with_token(identity: Identity, header: str | None) -> Identity:
    if header is None:
        return identity
    bearer = Identity.bearer(header.removeprefix("Bearer "))
    user = user_of(identity)
    return bearer.on_behalf_of(user) if user else bearer


class Clients:
    """The clients of an adapter: given ones, or ones of its own for a URL, which it closes."""

    def __init__(self, url: str | None, client: Client | None, async_client: AsyncClient | None) -> None:
        if url is not None and (client is not None or async_client is not None):
            raise ValueError("give `url`, or `client` and `async_client`, not both")
        self._url = url
        self._client = client
        self._async_client = async_client
        self._is_given = client is not None or async_client is not None
        self._lock = threading.Lock()
        # The connections of an async client belong to the loop that opened them.
        self._of_loops: dict[asyncio.AbstractEventLoop, AsyncClient] = {}

    def are_of(self, url: str | None, client: Client | None, async_client: AsyncClient | None) -> bool:
        """Return whether these are the clients for such arguments."""
        given = (self._client, self._async_client) if self._is_given else (None, None)
        return self._url == url and given[0] is client and given[1] is async_client

    def still_of(self, url: str | None, client: Client | None, async_client: AsyncClient | None) -> Clients:
        """Return these clients. Raises `TypeError` if the adapter has other arguments by now.

        A copy by pydantic's `model_copy`, or an assignment, changes them without the constructor. The server at the old address
        must not get the questions and tokens for the new one.
        """
        if not self.are_of(url, client, async_client):
            raise TypeError("`url`, `client` or `async_client` was changed; make a new adapter instead")
        return self

    def blocking(self) -> Client:
        """Return the client for calls that block."""
        with self._lock:
            if self._client is None:
                if self._is_given:
                    raise TypeError("a call that blocks needs `client=`; only `async_client=` was given")
                self._client = Client(self._url)
            return self._client

    def awaited(self) -> AsyncClient | None:
        """Return the client for calls in the running loop, or `None` if a thread must use the one that blocks."""
        if self._is_given:
            return self._async_client
        loop = asyncio.get_running_loop()
        with self._lock:
            # A program may make a loop for each call. The connections of a closed loop can neither be used nor closed.
            for closed in [one for one in self._of_loops if one.is_closed()]:
                del self._of_loops[closed]
            if loop not in self._of_loops:
                self._of_loops[loop] = AsyncClient(self._url)
            return self._of_loops[loop]

    def close(self) -> None:
        """Close the client that blocks, unless it was given."""
        if self._is_given:
            return
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the clients that were not given: the one of the running loop, and the one that blocks."""
        with self._lock:
            of_loop = self._of_loops.pop(asyncio.get_running_loop(), None)
        if of_loop is not None:
            await of_loop.aclose()
        self.close()


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The options of a search. They mean what they mean for `Client.retrieve`."""

    k: int = 10
    filter: Filter | None = None
    min_score: float | None = None
    per_document_max: int | None = None
    consistency: Consistency | None = None
    consistency_token: str | None = None
    classification_max: str | None = None
    context: Mapping[str, Any] | None = None
    timeout: float | None = None

    def with_those_of(self, call: Mapping[str, object]) -> SearchOptions:
        """Return these options, replaced by those that a call gives. `None` leaves an option as it is."""
        given: dict[str, Any] = {name: value for name, value in call.items() if value is not None}
        return replace(self, **given)

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `retrieve`."""
        return {name: getattr(self, name) for name in self.__slots__}


def needs_embedding(kind: SearchType) -> bool:
    """Return whether the question of such a search needs an embedding from here."""
    return kind in ("vector", "hybrid")


def query_of(kind: SearchType, text: str, embedding: Sequence[float] | None) -> Query:
    """Return what is asked for a question and its embedding."""
    if kind == "text":
        return text
    if kind == "semantic":
        return Semantic(text)
    if embedding is None:
        raise ValueError(f"a search of the type `{kind}` needs the embedding of the question")
    return list(embedding) if kind == "vector" else Hybrid(text, list(embedding))


def retrieve(clients: Clients, collection: str, query: Query, options: SearchOptions, identity: Identity) -> Answer:
    """Ask Ragward for the chunks that `identity` may see."""
    return clients.blocking().retrieve(collection, query, identity=identity, **options.arguments())


async def aretrieve(
    clients: Clients, collection: str, query: Query, options: SearchOptions, identity: Identity
) -> Answer:
    """Like `retrieve`, without blocking the loop."""
    client = clients.awaited()
    if client is None:
        return await asyncio.to_thread(retrieve, clients, collection, query, options, identity)
    return await client.retrieve(collection, query, identity=identity, **options.arguments())


def metadata_of(chunk: Chunk, answer: Answer) -> dict[str, Any]:
    """Return the metadata of a chunk, with what Ragward says of the chunk and of the answer."""
    ours = (
        chunk.id,
        chunk.document_id,
        chunk.title,
        list(chunk.heading_path),
        chunk.guard,
        chunk.score,
        chunk.rerank_score,
        answer.completion.value,
        answer.recall.value,
        answer.consistency_token,
    )
    # Ragward's keys come last, so that the metadata of a document cannot say which guard it has.
    return {**chunk.metadata, **dict(zip(OWN_KEYS, ours, strict=True))}


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of a check. They mean what they mean for `Client.recheck`."""

    consistency: Consistency | None = None
    consistency_token: str | None = None
    context: Mapping[str, Any] | None = None
    timeout: float | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `recheck`."""
        return {name: getattr(self, name) for name in self.__slots__}


def ids_of(
    documents: Sequence[_Document], chunk_id: ChunkIdOf[_Document] | None, own_id: ChunkIdOf[_Document]
) -> list[str | None]:
    """Return the id of the chunk of each document. `None` stands for a document that is no chunk.

    Only the program's own function may say so. If the framework's ids were missing, nothing would ever be permitted, and nobody
    would know why.
    """
    if chunk_id is not None:
        return [chunk_id(document) for document in documents]
    ids = [own_id(document) for document in documents]
    if not all(ids):
        raise ValueError(
            "a document has no id; give `chunk_id=`, a function that returns the id of the chunk of a document"
        )
    return ids


def permitted(
    clients: Clients, collection: str, ids: Iterable[str | None], options: CheckOptions, identity: Identity
) -> frozenset[str]:
    """Return those of the ids that are chunks which `identity` may see."""
    client = clients.blocking()
    found: set[str] = set()
    for part in parts_of(unique_ids(ids)):
        found.update(client.recheck(collection, part, identity=identity, **options.arguments()).chunk_ids)
    return frozenset(found)


async def apermitted(
    clients: Clients, collection: str, ids: Sequence[str | None], options: CheckOptions, identity: Identity
) -> frozenset[str]:
    """Like `permitted`, without blocking the loop."""
    client = clients.awaited()
    if client is None:
        return await asyncio.to_thread(permitted, clients, collection, ids, options, identity)
    found: set[str] = set()
    for part in parts_of(unique_ids(ids)):
        found.update((await client.recheck(collection, part, identity=identity, **options.arguments())).chunk_ids)
    return frozenset(found)


def unique_ids(ids: Iterable[str | None]) -> list[str]:
    """Return each id once, in order, without the documents that are no chunks."""
    return list(dict.fromkeys(one for one in ids if one is not None))


def parts_of(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids into parts that the server takes in one request."""
    for start in range(0, len(ids), IDS_MAX):
        yield ids[start : start + IDS_MAX]


def kept(documents: Sequence[_Document], ids: Sequence[str | None], permitted_ids: frozenset[str]) -> list[_Document]:
    """Return the documents whose chunks are permitted, in their order."""
    return [document for document, one in zip(documents, ids, strict=True) if one in permitted_ids]
