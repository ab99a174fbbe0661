"""The client for programs of asyncio. It is `Client`, awaited."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from ragward import _calls, _core
from ragward._calls import Call, Pages
from ragward._core import BodyReader, Deadline, Failed, Settings, Tries
from ragward._given import NOT_GIVEN, NotGiven
from ragward._upload import Upload
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
from ragward.filters import Filter, MetadataValue
from ragward.identity import Identity, authorization_async, who_asks
from ragward.requests import Consistency, Document, NewChunk, Purpose, Query, RelationshipTuple

if TYPE_CHECKING:
    # `typing` has it since Python 3.11.
    from typing_extensions import Self

T = TypeVar("T")


class AsyncClient:
    """A client of one server for asyncio. Tasks may share it, and one client serves many users.

    The arguments are those of `Client`. Like its connections, it belongs to one event loop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        identity: Identity | None = None,
        timeout: float = _core.DEFAULT_TIMEOUT,
        retries: int = _core.DEFAULT_RETRIES,
        ca_file: str | None = None,
        client_certificate: tuple[str, str] | None = None,
        http2: bool = False,
        plain_http_tokens: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = Settings(
            url=url,
            timeout=timeout,
            retries=retries,
            ca_file=ca_file,
            client_certificate=client_certificate,
            http2=http2,
            plain_http_tokens=plain_http_tokens,
        )
        self._identity = identity
        self._http = httpx.AsyncClient(transport=transport, **self._settings.http_options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.url!r})"

    async def aclose(self) -> None:
        """Close the connections. The client cannot be used any more."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._settings.url

    async def retrieve(
        self,
        collection: str,
        query: Query,
        *,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word of the API.
        min_score: float | None = None,
        per_document_max: int | None = None,
        consistency: Consistency | None = None,
        consistency_token: str | None = None,
        classification_max: str | None = None,
        context: Mapping[str, Any] | None = None,
        explain_plan: bool = False,
        approval: str | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Answer:
        """Like `Client.retrieve`."""
        call = _calls.retrieve(
            collection,
            query,
            k=k,
            filter=filter,
            min_score=min_score,
            per_document_max=per_document_max,
            consistency=consistency,
            consistency_token=consistency_token,
            classification_max=classification_max,
            context=context,
            explain_plan=explain_plan,
            page_token=None,
            approval=approval,
        )
        return await self._ask(call, self._asker(identity), timeout)

    def pages(
        self,
        collection: str,
        query: Query,
        *,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word of the API.
        min_score: float | None = None,
        consistency: Consistency | None = None,
        consistency_token: str | None = None,
        classification_max: str | None = None,
        context: Mapping[str, Any] | None = None,
        explain_plan: bool = False,
        approval: str | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> AsyncIterator[Answer]:
        """Like `Client.pages`. It is not awaited itself: `async for answer in client.pages(...)`."""
        asker = self._asker(identity)

        async def page(token: str) -> Answer:
            call = _calls.retrieve(
                collection,
                query,
                k=k,
                filter=filter,
                min_score=min_score,
                per_document_max=None,
                consistency=consistency,
                consistency_token=consistency_token,
                classification_max=classification_max,
                context=context,
                explain_plan=explain_plan,
                page_token=token,
                approval=approval,
            )
            return await self._ask(call, asker, timeout)

        async def turned() -> AsyncIterator[Answer]:
            pages = Pages()
            while pages.token is not None:
                answer = await page(pages.token)
                pages.turn(answer.next_page_token)
                yield answer

        return turned()

    async def fetch(
        self,
        collection: str,
        *,
        chunk_ids: Iterable[str] = (),
        document_ids: Iterable[str] = (),
        consistency: Consistency | None = None,
        consistency_token: str | None = None,
        classification_max: str | None = None,
        context: Mapping[str, Any] | None = None,
        approval: str | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Answer:
        """Like `Client.fetch`."""
        call = _calls.fetch(
            collection,
            chunk_ids=chunk_ids,
            document_ids=document_ids,
            consistency=consistency,
            consistency_token=consistency_token,
            classification_max=classification_max,
            context=context,
            approval=approval,
        )
        return await self._ask(call, self._asker(identity), timeout)

    async def request_approval(
        self,
        collection: str,
        query: Query | None = None,
        *,
        chunk_ids: Iterable[str] = (),
        document_ids: Iterable[str] = (),
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word of the API.
        min_score: float | None = None,
        per_document_max: int | None = None,
        classification_max: str | None = None,
        context: Mapping[str, Any] | None = None,
        in_pages: bool = False,
        purpose: str = "",
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> RequestedApproval:
        """Like `Client.request_approval`."""
        call = _calls.request_approval(
            collection,
            query,
            chunk_ids=chunk_ids,
            document_ids=document_ids,
            k=k,
            filter=filter,
            min_score=min_score,
            per_document_max=per_document_max,
            classification_max=classification_max,
            context=context,
            in_pages=in_pages,
            purpose=purpose,
        )
        return await self._ask(call, self._asker(identity), timeout)

    async def recheck(
        self,
        collection: str,
        chunk_ids: Iterable[str],
        *,
        purpose: Purpose = Purpose.ANSWER,
        consistency: Consistency | None = None,
        consistency_token: str | None = None,
        context: Mapping[str, Any] | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Rechecked:
        """Like `Client.recheck`."""
        call = _calls.recheck(
            collection,
            chunk_ids,
            purpose=purpose,
            consistency=consistency,
            consistency_token=consistency_token,
            context=context,
        )
        return await self._ask(call, self._asker(identity), timeout)

    async def explain(
        self,
        user: str = "",
        *,
        object: str | None = None,  # noqa: A002 - the word of the API.
        collection: str | None = None,
        chunk_id: str | None = None,
        relation: str = "",
        contextual_tuples: Iterable[RelationshipTuple] = (),
        context: Mapping[str, Any] | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Explanation:
        """Like `Client.explain`."""
        call = _calls.explain(
            user,
            object=object,
            collection=collection,
            chunk_id=chunk_id,
            relation=relation,
            contextual_tuples=contextual_tuples,
            context=context,
        )
        return await self._ask(call, self._asker(identity), timeout)

    async def upsert_documents(
        self,
        collection: str,
        documents: Iterable[Document] | AsyncIterable[Document],
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Upserted:
        """Like `Client.upsert_documents`. The documents may come from an asynchronous iterator."""
        call = _calls.upsert_documents(collection)
        asker = self._asker(identity)
        call.body(asker)  # Refuses an identity that the request cannot carry.
        deadline = Deadline(math.inf if timeout is None else _core.checked_timeout(timeout))
        upload, source = Upload(deadline), _each(documents)

        async def lines() -> AsyncIterator[bytes]:
            try:
                if first := upload.begin():
                    yield first
                async for document in source:
                    line = upload.line(document)
                    if line is None:
                        return
                    yield line
                upload.end()
            except Exception as error:
                upload.failure = error
                raise

        async def sent() -> Upserted:
            fields = _core.headers(
                await authorization_async(asker),
                None if timeout is None else deadline.remaining_or_raise(),
                _core.LINES,
            )
            return await self._exchange(call, lines(), fields, deadline, self._settings.timeout)

        whole: Upserted | None = None
        try:
            while whole is None:  # The documents bound it.
                whole = upload.answered(
                    await _within(sent(), None if timeout is None else deadline.remaining_or_raise())
                )
        except Failed as failed:
            # The documents come from the caller, and so do the errors of reading them.
            raise (upload.failure or failed.error) from failed.__cause__
        finally:
            await source.aclose()
        return whole

    async def put_document(
        self,
        collection: str,
        document_id: str,
        *,
        guard: str = "",
        title: str = "",
        metadata: Mapping[str, MetadataValue] | None = None,
        text: str | None = None,
        chunks: Iterable[NewChunk] | None = None,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> PutResult:
        """Like `Client.put_document`."""
        call = _calls.put_document(
            collection, document_id, guard=guard, title=title, metadata=metadata, text=text, chunks=chunks
        )
        return await self._ask(call, self._asker(identity), timeout)

    async def delete_documents(
        self,
        collection: str,
        document_ids: Iterable[str],
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Deleted:
        """Like `Client.delete_documents`."""
        return await self._ask(_calls.delete_documents(collection, document_ids), self._asker(identity), timeout)

    def list_documents(
        self,
        collection: str,
        *,
        page_size: int = 0,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> AsyncIterator[ListedDocument]:
        """Like `Client.list_documents`. It is not awaited itself: `async for document in client.list_documents(...)`."""
        asker = self._asker(identity)

        async def turned() -> AsyncIterator[ListedDocument]:
            pages = Pages()
            while pages.token is not None:
                call = _calls.list_documents(collection, page_size=page_size, page_token=pages.token)
                documents, next_token = await self._ask(call, asker, timeout)
                pages.turn(next_token)
                for document in documents:
                    yield document

        return turned()

    async def list_collections(
        self,
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> tuple[ListedCollection, ...]:
        """Like `Client.list_collections`."""
        return await self._ask(_calls.list_collections(), self._asker(identity), timeout)

    async def ingest_status(
        self,
        collection: str,
        document_ids: Iterable[str] = (),
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> IngestStatus:
        """Like `Client.ingest_status`."""
        return await self._ask(_calls.ingest_status(collection, document_ids), self._asker(identity), timeout)

    def _asker(self, identity: Identity | NotGiven) -> Identity:
        return self._settings.admitted(who_asks(identity, self._identity))

    async def _ask(self, call: Call[T], asker: Identity, seconds: float | None) -> T:
        """Send a call, again where that is safe, until there is an answer or no time is left."""
        deadline = Deadline(self._settings.timeout if seconds is None else _core.checked_timeout(seconds))
        tries = Tries(call.effect, self._settings.retries, deadline)
        body = call.body(asker)
        while True:  # `tries` bounds it.
            left = deadline.remaining_or_raise()
            try:
                return await _within(self._once(call, body, asker, deadline), left)
            except Failed as failed:
                await asyncio.sleep(tries.wait_after(failed))

    async def _once(self, call: Call[T], body: bytes, asker: Identity, deadline: Deadline) -> T:
        fields = _core.headers(await authorization_async(asker), deadline.remaining_or_raise(), _core.JSON)
        return await self._exchange(call, body, fields, deadline, math.inf)

    async def _exchange(
        self,
        call: Call[T],
        body: bytes | AsyncIterator[bytes],
        fields: httpx.Headers,
        deadline: Deadline,
        pause_max: float,
    ) -> T:
        """Send a request once and read its answer. A single pause of the server takes `pause_max` seconds at most."""
        url = self._settings.url + call.path
        seconds = min(deadline.remaining_or_raise(), pause_max)
        reader = BodyReader(deadline)
        try:
            async with self._http.stream("POST", url, content=body, headers=fields, timeout=seconds) as response:
                _core.refuse_encoding(response)
                async for piece in response.aiter_bytes():
                    reader.add(piece)
        except _core.TRANSPORT_ERRORS as error:
            raise _core.transport_failure(error, self._settings.url) from error
        return _core.answer_of(call, reader.received(response))


async def _within(answering: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Wait for an answer, as long as there is time."""
    try:
        return await asyncio.wait_for(answering, seconds)
    except asyncio.TimeoutError as error:
        raise _core.late() from error


async def _each(documents: Iterable[Document] | AsyncIterable[Document]) -> AsyncGenerator[Document, None]:
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield document
    else:
        for document in documents:
            yield document
