"""Ragward in LlamaIndex: a retriever, a postprocessor that filters the nodes of other retrievers, and shadow mode.

LlamaIndex passes no arguments from a query engine to its retriever. So say who asks around the call:

    with acting_as(Identity.bearer(token)):
        engine.query("How much parental leave do I get?")
"""

# LlamaIndex's base class has a parameter that is a dict of unknown things.
# pyright: reportUnknownMemberType=false

# LlamaIndex reads the annotations of these classes while the program runs, so they are not postponed.

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    QueryType,
    RelatedNodeInfo,
    TextNode,
)
from pydantic import PrivateAttr

from ragward import Answer, AsyncClient, Chunk, Client, Consistency, Filter, Identity, acting_as
from ragward._adapters import (
    OWN_KEYS,
    CheckOptions,
    ChunkIdOf,
    Clients,
    SearchOptions,
    SearchType,
    acaptured,
    apermitted,
    aretrieve,
    caller,
    captured,
    ids_of,
    kept,
    metadata_of,
    needs_embedding,
    permitted,
    query_of,
    retrieve,
)
from ragward._given import NOT_GIVEN, NotGiven
from ragward._observe import QUEUE_MAX, Counts, ObservationEnded, Observer
from ragward._pydantic import STRICT_CONFIG, hidden_field

__all__ = ["Counts", "ObservationEnded", "ObservedRetriever", "RagwardNodeFilter", "RagwardRetriever", "observe"]

# LlamaIndex shows all metadata to the model. These keys are for programs; a title and headings help a model.
_KEYS_FOR_PROGRAMS = [key for key in OWN_KEYS if key not in ("title", "heading_path")]


class RagwardRetriever(BaseRetriever):
    """A retriever that returns only the chunks that the asking user may see.

    It keeps no user: each call says who asks, by `acting_as`, or by `identity=` or `user=` where a program calls `retrieve`
    itself. An `identity` that the retriever itself is given counts where a call says nothing. Without any, a call raises
    `IdentityMissing`. Errors raise, and never look like an empty answer.

    A search by `vector` or `hybrid` needs `embed_model`, the model that embedded the chunks, unless each question brings its
    embedding. The other options mean what they mean for `Client.retrieve`.
    """

    def __init__(
        self,
        collection: str,
        *,
        url: str | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        identity: Identity | None = None,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word of the API.
        min_score: float | None = None,
        per_document_max: int | None = None,
        consistency: Consistency | None = None,
        classification_max: str | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        search_type: SearchType = "text",
        embed_model: BaseEmbedding | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self._collection = collection
        self._clients = Clients(url, client, async_client)
        self._identity = identity
        self._search_type: SearchType = search_type
        self._embed_model = embed_model
        self._options = SearchOptions(
            k=k,
            filter=filter,
            min_score=min_score,
            per_document_max=per_document_max,
            consistency=consistency,
            classification_max=classification_max,
            context=context,
            timeout=timeout,
        )

    def retrieve(
        self,
        str_or_query_bundle: QueryType,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> list[NodeWithScore]:
        """Return the nodes for a question, as far as the asking user may see them."""
        with _asking(identity, user, self._identity):
            return super().retrieve(str_or_query_bundle)

    async def aretrieve(
        self,
        str_or_query_bundle: QueryType,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> list[NodeWithScore]:
        """Like `retrieve`, without blocking the loop."""
        with _asking(identity, user, self._identity):
            return await super().aretrieve(str_or_query_bundle)

    def close(self) -> None:
        """Close the connections that the retriever opened itself."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connections that the retriever opened itself, also those of the running loop."""
        await self._clients.aclose()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        who = caller(own=self._identity)
        embedding = query_bundle.embedding
        if embedding is None and self._embed_model is not None and needs_embedding(self._search_type):
            embedding = self._embed_model.get_agg_embedding_from_queries(query_bundle.embedding_strs)
        query = query_of(self._search_type, query_bundle.query_str, embedding)
        return _nodes(retrieve(self._clients, self._collection, query, self._options, who))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        who = caller(own=self._identity)
        embedding = query_bundle.embedding
        if embedding is None and self._embed_model is not None and needs_embedding(self._search_type):
            embedding = await self._embed_model.aget_agg_embedding_from_queries(query_bundle.embedding_strs)
        query = query_of(self._search_type, query_bundle.query_str, embedding)
        return _nodes(await aretrieve(self._clients, self._collection, query, self._options, who))


class RagwardNodeFilter(BaseNodePostprocessor):
    """Removes from another retriever's nodes those that the asking user may not see.

    It can only take away, so an answer may have fewer nodes than were asked for; Ragward's own retriever goes on searching.
    What Ragward does not know is removed, too.
    """

    model_config = STRICT_CONFIG

    #: The collection that has the chunks.
    collection: str
    #: The address of the server. Give it, or clients.
    url: str | None = None
    #: The freshness that the relationship tuples must have.
    consistency: Consistency | None = None
    #: Values for parameters of the model's conditions.
    context: dict[str, Any] | None = None
    #: The seconds that one request may take.
    timeout: float | None = None

    #: The client for calls that block, and for others in a thread if there is no `async_client`.
    client: Client | None = hidden_field(None)
    #: The client for calls that are awaited.
    async_client: AsyncClient | None = hidden_field(None)
    #: The identity that asks where a call names none.
    identity: Identity | None = hidden_field(None)
    #: Returns the id of the chunk for a node, or `None` if the node is no chunk. By default, it is the node's id.
    chunk_id: ChunkIdOf[NodeWithScore] | None = hidden_field(None)

    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401 - pydantic's own signature.
        """Check the arguments, and make the clients."""
        super().model_post_init(context)
        self._clients = Clients(self.url, self.client, self.async_client)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes it."""
        return "RagwardNodeFilter"

    def close(self) -> None:
        """Close the connections that the filter opened itself."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connections that the filter opened itself, also those of the running loop."""
        await self._clients.aclose()

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,  # noqa: ARG002 - what may be seen does not depend on the question.
    ) -> list[NodeWithScore]:
        who = caller(own=self.identity)
        ids = ids_of(nodes, self.chunk_id, _id)
        return kept(nodes, ids, permitted(self._unchanged(), self.collection, ids, self._options(), who))

    async def _apostprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,  # noqa: ARG002 - what may be seen does not depend on the question.
    ) -> list[NodeWithScore]:
        who = caller(own=self.identity)
        ids = ids_of(nodes, self.chunk_id, _id)
        return kept(nodes, ids, await apermitted(self._unchanged(), self.collection, ids, self._options(), who))

    def _unchanged(self) -> Clients:
        return self._clients.still_of(self.url, self.client, self.async_client)

    def _options(self) -> CheckOptions:
        return CheckOptions(consistency=self.consistency, context=self.context, timeout=self.timeout)


class ObservedRetriever(BaseRetriever):
    """A retriever in shadow mode: its answers are unfiltered. `observe` makes one."""

    def __init__(
        self,
        retriever: BaseRetriever,
        observer: Observer,
        clients: Clients,
        *,
        identity: Identity | None = None,
        chunk_id: ChunkIdOf[NodeWithScore] | None = None,
    ) -> None:
        super().__init__(callback_manager=retriever.callback_manager)
        self._retriever = retriever
        self._observer = observer
        self._clients = clients
        self._identity = identity
        self._chunk_id = chunk_id or _id

    @property
    def counts(self) -> Counts:
        """Return what was observed so far."""
        return self._observer.counts

    def retrieve(
        self,
        str_or_query_bundle: QueryType,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> list[NodeWithScore]:
        """Return the other retriever's answer, unchanged."""
        self._observer.check()
        who = captured(caller(identity=identity, user=user, own=self._identity))
        nodes = self._retriever.retrieve(str_or_query_bundle)
        self._observer.observed(who, nodes, self._chunk_id)
        return nodes

    async def aretrieve(
        self,
        str_or_query_bundle: QueryType,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> list[NodeWithScore]:
        """Like `retrieve`, without blocking the loop."""
        self._observer.check()
        who = await acaptured(caller(identity=identity, user=user, own=self._identity))
        nodes = await self._retriever.aretrieve(str_or_query_bundle)
        self._observer.observed(who, nodes, self._chunk_id)
        return nodes

    def close(self) -> None:
        """Ask about the answers that still wait, for a bounded time, and end the thread."""
        self._observer.close()
        self._clients.close()

    async def aclose(self) -> None:
        """Like `close`, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # `retrieve` does not come here: it leaves the events to the other retriever.
        return self.retrieve(query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self.aretrieve(query_bundle)


def observe(
    retriever: BaseRetriever,
    *,
    collection: str,
    until: date,
    url: str | None = None,
    client: Client | None = None,
    identity: Identity | None = None,
    chunk_id: ChunkIdOf[NodeWithScore] | None = None,
    queue_max: int = QUEUE_MAX,
) -> ObservedRetriever:
    """Watch an unfiltered retriever: it answers as before, and Ragward records what it would have withheld.

    Nothing is filtered. After the day `until` (in UTC), each call raises `ObservationEnded`. Each call says who asks, as with
    `RagwardRetriever`. `chunk_id` returns the id of the chunk for a node, or `None` if the node is no chunk; it is the
    node's id by default. Of answers that come while `queue_max` others wait, only the number is kept.
    """
    clients = Clients(url, client, None)
    observer = Observer(clients.blocking(), collection, until=until, queue_max=queue_max)
    return ObservedRetriever(retriever, observer, clients, identity=identity, chunk_id=chunk_id)


@contextmanager
def _asking(identity: Identity | NotGiven, user: str | NotGiven, own: Identity | None) -> Generator[None]:
    with acting_as(caller(identity=identity, user=user, own=own)):
        yield


def _id(node: NodeWithScore) -> str | None:
    return node.node.node_id


def _nodes(answer: Answer) -> list[NodeWithScore]:
    return [NodeWithScore(node=_node(chunk, answer), score=chunk.score) for chunk in answer]


def _node(chunk: Chunk, answer: Answer) -> TextNode:
    # The metadata has the id of the chunk. Otherwise a fusion would take two chunks of a document with equal texts for one.
    hidden = _KEYS_FOR_PROGRAMS if chunk.heading_path else [*_KEYS_FOR_PROGRAMS, "heading_path"]
    return TextNode(
        id_=chunk.id,
        text=chunk.text,
        metadata=metadata_of(chunk, answer),
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=hidden,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id)},
    )
