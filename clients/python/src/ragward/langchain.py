"""Ragward in LangChain: a retriever, a filter for other retrievers, and shadow mode."""

# LangChain reads the annotations of these classes while the program runs, so they are not postponed.

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, ensure_config
from pydantic import Field, PrivateAttr

from ragward import Answer, AsyncClient, Client, Consistency, Filter, Identity
from ragward._adapters import (
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

__all__ = ["Counts", "ObservationEnded", "ObservedRetriever", "RagwardFilter", "RagwardRetriever", "observe"]

#: The key of `config["configurable"]` that holds the identity of a call.
IDENTITY_KEY = "ragward_identity"


class RagwardRetriever(BaseRetriever):
    """A retriever that returns only the chunks that the asking user may see.

    It keeps no user. Each call says who asks: by `identity=` or `user=`, by `ragward_identity` in the `configurable` of its
    configuration, or by `acting_as`. Where a call says nothing, the retriever's own `identity` counts. Without any, a call
    raises `IdentityMissing`. Errors raise, and never look like an empty answer.
    """

    model_config = STRICT_CONFIG

    #: The collection to search.
    collection: str
    #: The address of the server. Give it, or clients.
    url: str | None = None
    #: The client for calls that block, and for others in a thread if there is no `async_client`.
    client: Client | None = hidden_field(None)
    #: The client for calls that are awaited.
    async_client: AsyncClient | None = hidden_field(None)
    #: The identity that asks where a call names none.
    identity: Identity | None = hidden_field(None)
    #: The number of documents to return.
    k: int = 10
    #: Restricts the search to chunks that match.
    filter: Filter | None = None
    #: Leaves out chunks with a lower score.
    min_score: float | None = None
    #: The most chunks of one document.
    per_document_max: int | None = None
    #: The freshness that the relationship tuples must have.
    consistency: Consistency | None = None
    #: Restricts the search to chunks of this classification or a lower one.
    classification_max: str | None = None
    #: Values for parameters of the model's conditions.
    context: Mapping[str, Any] | None = None
    #: The seconds that one call may take.
    timeout: float | None = None
    #: The way in which a question is searched. `vector` and `hybrid` need `embeddings`.
    search_type: SearchType = "text"
    #: The model that embedded the chunks.
    embeddings: Embeddings | None = hidden_field(None)
    #: The connections, which copies of the retriever share.
    connections: Clients | None = hidden_field(None)

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401 - pydantic's own signature.
        """Check the arguments, and make the clients unless this is a copy that has them."""
        super().model_post_init(context)
        if needs_embedding(self.search_type) and self.embeddings is None:
            raise ValueError(f"a search of the type `{self.search_type}` needs `embeddings`")
        arguments = (self.url, self.client, self.async_client)
        if self.connections is None or not self.connections.are_of(*arguments):
            self.connections = Clients(*arguments)

    def invoke(
        self,
        input: str,  # noqa: A002 - LangChain's own name.
        config: RunnableConfig | None = None,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
        **kwargs: object,
    ) -> list[Document]:
        """Return the documents for a question, as far as the asking user may see them."""
        who = self._caller(identity, user, config)
        return super().invoke(input, config, identity=who, **kwargs)

    async def ainvoke(
        self,
        input: str,  # noqa: A002 - LangChain's own name.
        config: RunnableConfig | None = None,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
        **kwargs: object,
    ) -> list[Document]:
        """Like `invoke`, without blocking the loop."""
        who = self._caller(identity, user, config)
        return await super().ainvoke(input, config, identity=who, **kwargs)

    def close(self) -> None:
        """Close the connections that the retriever opened itself."""
        if self.connections is not None:
            self.connections.close()

    async def aclose(self) -> None:
        """Close the connections that the retriever opened itself, also those of the running loop."""
        if self.connections is not None:
            await self.connections.aclose()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain calls it so.
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
        **options: object,
    ) -> list[Document]:
        who = self._caller(identity, user, None)
        embedding = (
            self.embeddings.embed_query(query)
            if self.embeddings is not None and needs_embedding(self.search_type)
            else None
        )
        question = query_of(self.search_type, query, embedding)
        return _documents(retrieve(self._clients(), self.collection, question, self._options(options), who))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain calls it so.
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
        **options: object,
    ) -> list[Document]:
        who = self._caller(identity, user, None)
        embedding = None
        if self.embeddings is not None and needs_embedding(self.search_type):
            embedding = await self.embeddings.aembed_query(query)
        question = query_of(self.search_type, query, embedding)
        return _documents(await aretrieve(self._clients(), self.collection, question, self._options(options), who))

    def _caller(self, identity: Identity | NotGiven, user: str | NotGiven, config: RunnableConfig | None) -> Identity:
        return caller(identity=identity, user=user, configured=_configured(config), own=self.identity)

    def _clients(self) -> Clients:
        if self.connections is None:
            raise TypeError("the retriever was made without its constructor")
        return self.connections.still_of(self.url, self.client, self.async_client)

    def _options(self, of_call: Mapping[str, object]) -> SearchOptions:
        own = SearchOptions(
            k=self.k,
            filter=self.filter,
            min_score=self.min_score,
            per_document_max=self.per_document_max,
            consistency=self.consistency,
            classification_max=self.classification_max,
            context=self.context,
            timeout=self.timeout,
        )
        return own.with_those_of(of_call)


class RagwardFilter(BaseDocumentCompressor):
    """Removes from another retriever's documents those that the asking user may not see.

    It can only take away, so an answer may have fewer documents than were asked for; Ragward's own retriever goes on searching.
    What Ragward does not know is removed, too.
    """

    model_config = STRICT_CONFIG

    #: The collection that has the chunks.
    collection: str
    #: The address of the server. Give it, or clients.
    url: str | None = None
    #: The client for calls that block, and for others in a thread if there is no `async_client`.
    client: Client | None = hidden_field(None)
    #: The client for calls that are awaited.
    async_client: AsyncClient | None = hidden_field(None)
    #: The identity that asks where a call names none.
    identity: Identity | None = hidden_field(None)
    #: Returns the id of the chunk for a document, or `None` if the document is no chunk. By default, it is the document's id.
    chunk_id: ChunkIdOf[Document] | None = hidden_field(None)
    #: The freshness that the relationship tuples must have.
    consistency: Consistency | None = None
    #: Values for parameters of the model's conditions.
    context: Mapping[str, Any] | None = None
    #: The seconds that one request may take.
    timeout: float | None = None

    _connections: Clients = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401 - pydantic's own signature.
        """Check the arguments, and make the clients."""
        super().model_post_init(context)
        self._connections = Clients(self.url, self.client, self.async_client)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,  # noqa: ARG002 - what may be seen does not depend on the question.
        callbacks: Callbacks | None = None,  # noqa: ARG002 - nothing runs that they could watch.
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> list[Document]:
        """Return the documents that the asking user may see, in their order."""
        return self._filtered(documents, self._caller(identity, user, None))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,  # noqa: ARG002 - what may be seen does not depend on the question.
        callbacks: Callbacks | None = None,  # noqa: ARG002 - nothing runs that they could watch.
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> list[Document]:
        """Like `compress_documents`, without blocking the loop."""
        return await self._afiltered(documents, self._caller(identity, user, None))

    def as_runnable(self) -> Runnable[list[Document], list[Document]]:
        """Return the filter as a step of a chain: `retriever | filter.as_runnable()`."""

        def run(documents: list[Document], config: RunnableConfig) -> list[Document]:
            return self._filtered(documents, self._caller(NOT_GIVEN, NOT_GIVEN, config))

        async def arun(documents: list[Document], config: RunnableConfig) -> list[Document]:
            return await self._afiltered(documents, self._caller(NOT_GIVEN, NOT_GIVEN, config))

        return RunnableLambda(run, arun, name="RagwardFilter")

    def close(self) -> None:
        """Close the connections that the filter opened itself."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the connections that the filter opened itself, also those of the running loop."""
        await self._connections.aclose()

    def _clients(self) -> Clients:
        return self._connections.still_of(self.url, self.client, self.async_client)

    def _filtered(self, documents: Sequence[Document], who: Identity) -> list[Document]:
        ids = ids_of(documents, self.chunk_id, _id)
        return kept(documents, ids, permitted(self._clients(), self.collection, ids, self._options(), who))

    async def _afiltered(self, documents: Sequence[Document], who: Identity) -> list[Document]:
        ids = ids_of(documents, self.chunk_id, _id)
        return kept(documents, ids, await apermitted(self._clients(), self.collection, ids, self._options(), who))

    def _caller(self, identity: Identity | NotGiven, user: str | NotGiven, config: RunnableConfig | None) -> Identity:
        return caller(identity=identity, user=user, configured=_configured(config), own=self.identity)

    def _options(self) -> CheckOptions:
        return CheckOptions(consistency=self.consistency, context=self.context, timeout=self.timeout)


class ObservedRetriever(BaseRetriever):
    """A retriever in shadow mode: its answers are unfiltered. `observe` makes one."""

    model_config = STRICT_CONFIG

    #: The retriever that answers.
    retriever: RetrieverLike
    #: Asks Ragward in the background.
    observer: Observer = Field(exclude=True, repr=False)
    #: The identity that asks where a call names none.
    identity: Identity | None = hidden_field(None)
    #: Returns the id of the chunk for a document, or `None` if the document is no chunk.
    chunk_id: ChunkIdOf[Document] | None = hidden_field(None)
    #: The connections that are the observer's own.
    connections: Clients | None = hidden_field(None)

    @property
    def counts(self) -> Counts:
        """Return what was observed so far."""
        return self.observer.counts

    def invoke(
        self,
        input: str,  # noqa: A002 - LangChain's own name.
        config: RunnableConfig | None = None,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
        **kwargs: object,
    ) -> list[Document]:
        """Return the other retriever's answer, unchanged."""
        self.observer.check()
        who = captured(self._caller(identity, user, config))
        documents = self.retriever.invoke(input, config, **kwargs)
        self._observed(who, documents)
        return documents

    async def ainvoke(
        self,
        input: str,  # noqa: A002 - LangChain's own name.
        config: RunnableConfig | None = None,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
        **kwargs: object,
    ) -> list[Document]:
        """Like `invoke`, without blocking the loop."""
        self.observer.check()
        who = await acaptured(self._caller(identity, user, config))
        documents = await self.retriever.ainvoke(input, config, **kwargs)
        self._observed(who, documents)
        return documents

    def close(self) -> None:
        """Ask about the answers that still wait, for a bounded time, and end the thread."""
        self.observer.close()
        if self.connections is not None:
            self.connections.close()

    async def aclose(self) -> None:
        """Like `close`, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        # `invoke` does not come here: it leaves the run to the other retriever.
        return self.invoke(query, {"callbacks": run_manager.get_child()})

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return await self.ainvoke(query, {"callbacks": run_manager.get_child()})

    def _caller(self, identity: Identity | NotGiven, user: str | NotGiven, config: RunnableConfig | None) -> Identity:
        return caller(identity=identity, user=user, configured=_configured(config), own=self.identity)

    def _observed(self, who: Identity, documents: Sequence[Document]) -> None:
        self.observer.observed(who, documents, self.chunk_id or _id)


def observe(
    retriever: RetrieverLike,
    *,
    collection: str,
    until: date,
    url: str | None = None,
    client: Client | None = None,
    identity: Identity | None = None,
    chunk_id: ChunkIdOf[Document] | None = None,
    queue_max: int = QUEUE_MAX,
) -> ObservedRetriever:
    """Watch an unfiltered retriever: it answers as before, and Ragward records what it would have withheld.

    Nothing is filtered. After the day `until` (in UTC), each call raises `ObservationEnded`. Each call says who asks, as with
    `RagwardRetriever`. `chunk_id` returns the id of the chunk for a document, or `None` if the document is no chunk. It is
    the document's id by default. Of answers that come while `queue_max` others wait, only the number is kept.
    """
    connections = Clients(url, client, None)
    observer = Observer(connections.blocking(), collection, until=until, queue_max=queue_max)
    return ObservedRetriever(
        retriever=retriever, observer=observer, identity=identity, chunk_id=chunk_id, connections=connections
    )


def _configured(config: RunnableConfig | None) -> object:
    """Return the identity in the configuration of a call, or of the chain that the call is a part of."""
    configurable = ensure_config(config).get("configurable", {})
    return configurable.get(IDENTITY_KEY, NOT_GIVEN)


def _id(document: Document) -> str | None:
    return document.id


def _documents(answer: Answer) -> list[Document]:
    return [Document(id=chunk.id, page_content=chunk.text, metadata=metadata_of(chunk, answer)) for chunk in answer]
