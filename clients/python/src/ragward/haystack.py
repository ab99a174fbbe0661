"""Ragward in Haystack: a retriever, a filter for the documents of other retrievers, and shadow mode."""

# Haystack reads the annotations of components while the program runs, so they are not postponed.

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any, cast

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.core.component import Component

from ragward import Answer, AsyncClient, Client, Consistency, Filter, Identity, IdentityMissing
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
    permitted,
    query_of,
    retrieve,
)
from ragward._given import NOT_GIVEN, NotGiven
from ragward._observe import QUEUE_MAX, Counts, ObservationEnded, Observer

__all__ = ["Counts", "ObservationEnded", "ObservedRetriever", "RagwardDocumentFilter", "RagwardRetriever", "observe"]


@component
class RagwardRetriever:
    """A component that returns only the chunks that the asking user may see.

    It keeps no user: each run says who asks, by its input `identity` or `user`, or by `acting_as` around the pipeline. An
    `identity` that the component itself is given counts where a run says nothing. Without any, a run raises `IdentityMissing`.
    Errors raise, and never look like an empty answer.

    A search by `vector` or `hybrid` needs the input `query_embedding`. The other options mean what they mean for
    `Client.retrieve`. The options of a run replace those of the component.

    A saved pipeline has the component's options, but no identity and no token. It can be saved if it was made with a `url`.
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
        context: dict[str, Any] | None = None,
        timeout: float | None = None,
        search_type: SearchType = "text",
    ) -> None:
        self._collection = collection
        self._url = url
        self._clients = Clients(url, client, async_client)
        self._is_saveable = client is None and async_client is None
        self._identity = identity
        self._search_type: SearchType = search_type
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

    @component.output_types(documents=list[Document], completion=str, recall=str, consistency_token=str)
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        k: int | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the API.
        min_score: float | None = None,
        consistency: Consistency | None = None,
        consistency_token: str | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> dict[str, Any]:
        """Return the documents for a question, as far as the asking user may see them."""
        who = _caller(self, identity, user, self._identity)
        options = self._of_run(k, filter, min_score, consistency, consistency_token)
        question = query_of(self._search_type, query, query_embedding)
        return _outputs(retrieve(self._clients, self._collection, question, options, who))

    @component.output_types(documents=list[Document], completion=str, recall=str, consistency_token=str)
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        k: int | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the API.
        min_score: float | None = None,
        consistency: Consistency | None = None,
        consistency_token: str | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> dict[str, Any]:
        """Like `run`, without blocking the loop."""
        who = _caller(self, identity, user, self._identity)
        options = self._of_run(k, filter, min_score, consistency, consistency_token)
        question = query_of(self._search_type, query, query_embedding)
        return _outputs(await aretrieve(self._clients, self._collection, question, options, who))

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a saved pipeline has it: without an identity."""
        _refuse_clients(self, self._is_saveable)
        options = self._options.arguments()
        options.pop("consistency_token")
        return default_to_dict(
            self,
            collection=self._collection,
            url=self._url,
            search_type=self._search_type,
            **{
                **options,
                "filter": None if self._options.filter is None else dict(self._options.filter.wire),
                "consistency": None if self._options.consistency is None else self._options.consistency.value,
            },
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RagwardRetriever":
        """Make the component of a saved pipeline."""
        parameters = data.get("init_parameters", {})
        if parameters.get("filter") is not None:
            parameters["filter"] = Filter(parameters["filter"])
        _read_consistency(parameters)
        return cast("RagwardRetriever", default_from_dict(cls, data))

    def close(self) -> None:
        """Close the connections that the component opened itself."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connections that the component opened itself, also those of the running loop."""
        await self._clients.aclose()

    def _of_run(
        self,
        k: int | None,
        filter: Filter | None,  # noqa: A002 - the word of the API.
        min_score: float | None,
        consistency: Consistency | None,
        consistency_token: str | None,
    ) -> SearchOptions:
        return self._options.with_those_of(
            {
                "k": k,
                "filter": filter,
                "min_score": min_score,
                "consistency": consistency,
                "consistency_token": consistency_token,
            }
        )


@component
class RagwardDocumentFilter:
    """Removes from another retriever's documents those that the asking user may not see.

    It can only take away, so an answer may have fewer documents than were asked for; Ragward's own retriever goes on searching.
    What Ragward does not know is removed, too. `chunk_id` returns the id of the chunk for a document, or `None` if the document
    is no chunk. By default, it is the document's id.
    """

    def __init__(
        self,
        collection: str,
        *,
        url: str | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        identity: Identity | None = None,
        chunk_id: ChunkIdOf[Document] | None = None,
        consistency: Consistency | None = None,
        context: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._collection = collection
        self._url = url
        self._clients = Clients(url, client, async_client)
        self._is_saveable = client is None and async_client is None
        self._identity = identity
        self._chunk_id = chunk_id
        self._options = CheckOptions(consistency=consistency, context=context, timeout=timeout)

    @component.output_types(documents=list[Document])
    def run(
        self,
        documents: list[Document],
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> dict[str, list[Document]]:
        """Return the documents that the asking user may see, in their order."""
        who = _caller(self, identity, user, self._identity)
        ids = ids_of(documents, self._chunk_id, _id)
        return {"documents": kept(documents, ids, permitted(self._clients, self._collection, ids, self._options, who))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        documents: list[Document],
        identity: Identity | NotGiven = NOT_GIVEN,
        user: str | NotGiven = NOT_GIVEN,
    ) -> dict[str, list[Document]]:
        """Like `run`, without blocking the loop."""
        who = _caller(self, identity, user, self._identity)
        ids = ids_of(documents, self._chunk_id, _id)
        seen = await apermitted(self._clients, self._collection, ids, self._options, who)
        return {"documents": kept(documents, ids, seen)}

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a saved pipeline has it: without an identity."""
        _refuse_clients(self, self._is_saveable)
        if self._chunk_id is not None:
            # A pipeline that was loaded without the function would look for the documents under other ids.
            raise ValueError("a `RagwardDocumentFilter` with `chunk_id` cannot be saved")
        consistency = self._options.consistency
        return default_to_dict(
            self,
            collection=self._collection,
            url=self._url,
            consistency=None if consistency is None else consistency.value,
            context=self._options.context,
            timeout=self._options.timeout,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RagwardDocumentFilter":
        """Make the component of a saved pipeline."""
        _read_consistency(data.get("init_parameters", {}))
        return cast("RagwardDocumentFilter", default_from_dict(cls, data))

    def close(self) -> None:
        """Close the connections that the component opened itself."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connections that the component opened itself, also those of the running loop."""
        await self._clients.aclose()


@component
class ObservedRetriever:
    """A retriever in shadow mode: its answers are unfiltered. `observe` makes one.

    It has the inputs and outputs of the other retriever, and the inputs `identity` and `user`.
    """

    def __init__(
        self,
        retriever: Any,  # noqa: ANN401 - Haystack's type of components lacks their sockets.
        observer: Observer,
        clients: Clients,
        *,
        identity: Identity | None = None,
        chunk_id: ChunkIdOf[Document] | None = None,
    ) -> None:
        self._retriever = retriever
        self._observer = observer
        self._clients = clients
        self._identity = identity
        self._chunk_id = chunk_id or _id
        inputs: dict[str, Any] = retriever.__haystack_input__._sockets_dict
        for name, socket in inputs.items():
            if socket.is_mandatory:
                component.set_input_type(self, name, socket.type)
            else:
                component.set_input_type(self, name, socket.type, socket.default_value)
        for name, kind in (("identity", Identity | NotGiven), ("user", str | NotGiven)):
            component.set_input_type(self, name, kind, NOT_GIVEN)
        outputs: dict[str, Any] = retriever.__haystack_output__._sockets_dict
        component.set_output_types(self, **{name: socket.type for name, socket in outputs.items()})

    @property
    def counts(self) -> Counts:
        """Return what was observed so far."""
        return self._observer.counts

    def run(self, **inputs: object) -> dict[str, Any]:
        """Return the other retriever's answer, unchanged."""
        self._observer.check()
        who = captured(self._caller(inputs))
        outputs = cast("dict[str, Any]", self._retriever.run(**inputs))
        self._observer.observed(who, outputs.get("documents", []), self._chunk_id)
        return outputs

    async def run_async(self, **inputs: object) -> dict[str, Any]:
        """Like `run`, without blocking the loop."""
        self._observer.check()
        who = await acaptured(self._caller(inputs))
        run_async: Callable[..., Any] | None = getattr(self._retriever, "run_async", None)
        if run_async is None:
            outputs = cast("dict[str, Any]", await asyncio.to_thread(self._retriever.run, **inputs))
        else:
            outputs = cast("dict[str, Any]", await run_async(**inputs))
        self._observer.observed(who, outputs.get("documents", []), self._chunk_id)
        return outputs

    def to_dict(self) -> dict[str, Any]:
        """Refuse to be saved: shadow mode ends, and a saved pipeline stays."""
        raise ValueError("a retriever in shadow mode cannot be saved; save the pipeline with the retriever itself")

    def close(self) -> None:
        """Ask about the answers that still wait, for a bounded time, and end the thread."""
        self._observer.close()
        self._clients.close()

    async def aclose(self) -> None:
        """Like `close`, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def _caller(self, inputs: dict[str, object]) -> Identity:
        """Take out of the inputs who asks: the other retriever does not know these two."""
        user = cast("str | NotGiven", inputs.pop("user", NOT_GIVEN))
        return _caller(self, inputs.pop("identity", NOT_GIVEN), user, self._identity)


def observe(
    retriever: Component,
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

    Nothing is filtered. After the day `until` (in UTC), each run raises `ObservationEnded`. Each run says who asks, as with
    `RagwardRetriever`. `chunk_id` returns the id of the chunk for a document, or `None` if the document is no chunk. It is
    the document's id by default. Of answers that come while `queue_max` others wait, only the number is kept.
    """
    clients = Clients(url, client, None)
    observer = Observer(clients.blocking(), collection, until=until, queue_max=queue_max)
    return ObservedRetriever(retriever, observer, clients, identity=identity, chunk_id=chunk_id)


def _caller(instance: Any, identity: object, user: str | NotGiven, own: Identity | None) -> Identity:  # noqa: ANN401 - as above.
    """Return who asks. A component that is connected to say so, and said nothing, has lost the user."""
    sockets: dict[str, Any] = instance.__haystack_input__._sockets_dict
    is_connected = any(sockets[name].senders for name in ("identity", "user"))
    if is_connected and identity is NOT_GIVEN and user is NOT_GIVEN:
        raise IdentityMissing("the inputs that say who asks are connected, and nothing came from there")
    return caller(identity=identity, user=user, own=own)


def _refuse_clients(instance: object, is_saveable: bool) -> None:
    if not is_saveable:
        raise ValueError(f"a `{type(instance).__name__}` with clients cannot be saved; give it a `url` instead")


def _read_consistency(parameters: dict[str, Any]) -> None:
    if parameters.get("consistency") is not None:
        parameters["consistency"] = Consistency(parameters["consistency"])


def _id(document: Document) -> str | None:
    return document.id


def _outputs(answer: Answer) -> dict[str, Any]:
    return {
        "documents": [
            Document(id=chunk.id, content=chunk.text, meta=metadata_of(chunk, answer), score=chunk.score)
            for chunk in answer
        ],
        "completion": answer.completion.value,
        "recall": answer.recall.value,
        "consistency_token": answer.consistency_token,
    }
