"""The client for programs that wait for their answers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
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
from ragward.identity import Identity, authorization, who_asks
from ragward.requests import Consistency, Document, NewChunk, Purpose, Query, RelationshipTuple

if TYPE_CHECKING:
    # `typing` has it since Python 3.11.
    from typing_extensions import Self

T = TypeVar("T")


class Client:
    """A client of one server. Threads may share it, and one client serves many users.

    - `url`: the address; without it the variable `RAGWARD_SERVER`, or `http://127.0.0.1:8980`.
    - `identity`: who asks, where neither the call nor `acting_as` says so.
    - `timeout`: the seconds that a call may take, all tries together.
    - `retries`: the further tries after a failure that may pass, at most 10. Only calls that change nothing are sent again, and
      also `put_document` and `delete_documents` if there was no connection.
    - `ca_file`: a PEM file with the only authorities that may vouch for the server; without it the variable `RAGWARD_CA_FILE`.
    - `client_certificate`: the PEM files of a certificate and its key, if the server asks for one.
    - `http2`: speak HTTP/2. It needs the extra `ragward[http2]`.
    - `plain_http_tokens`: send tokens also over `http:` to other machines, for where something else encrypts the way.
    - `transport`: a transport of httpx in place of the network, for tests.
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
        transport: httpx.BaseTransport | None = None,
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
        self._http = httpx.Client(transport=transport, **self._settings.http_options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.url!r})"

    def close(self) -> None:
        """Close the connections. The client cannot be used any more."""
        self._http.close()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._settings.url

    def retrieve(
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
        """Return the `k` best chunks for a query among those that the user may see.

        A user who may see nothing gets an empty answer.

        - `query`: words, an embedding, `Hybrid` for both, or `Semantic` for the meaning of words.
        - `min_score`: leave out chunks with a lower score.
        - `per_document_max`: the most chunks of one document.
        - `consistency_token`: count everything that was written before the answer that brought this token.
        - `classification_max`: leave out chunks of a higher classification.
        - `context`: values for the parameters of conditions, as far as the server takes them.
        - `explain_plan`: ask how the search was made; a server answers that only if it is configured to.
        - `approval`: the approval of this very search, from `request_approval`.
        """
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
        return self._ask(call, self._asker(identity), timeout)

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
    ) -> Iterator[Answer]:
        """Return the answer page by page, with `k` chunks each. The arguments are those of `retrieve`.

        Who asks is settled now, for all pages. `timeout` bounds each page.
        """
        asker = self._asker(identity)

        def page(token: str) -> Answer:
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
            return self._ask(call, asker, timeout)

        def turned() -> Iterator[Answer]:
            pages = Pages()
            while pages.token is not None:
                answer = page(pages.token)
                pages.turn(answer.next_page_token)
                yield answer

        return turned()

    def fetch(
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
        """Return chunks by their ids, or all chunks of documents, as far as the user may see them.

        What is gone and what is forbidden is left out.
        """
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
        return self._ask(call, self._asker(identity), timeout)

    def request_approval(
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
        """Ask the person behind the token to approve one search, or one fetch if there is no `query`.

        Show them the `code` of the answer. Then make the same call with its `approval`: it raises `ApprovalRequired` with the
        reason `APPROVAL_PENDING` until the person has answered.

        - `in_pages`: the search is made with `pages`.
        - `purpose`: a few words that the person reads.
        """
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
        return self._ask(call, self._asker(identity), timeout)

    def recheck(
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
        """Return those of the chunks that the user may still see."""
        call = _calls.recheck(
            collection,
            chunk_ids,
            purpose=purpose,
            consistency=consistency,
            consistency_token=consistency_token,
            context=context,
        )
        return self._ask(call, self._asker(identity), timeout)

    def explain(
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
        """Explain why `user` may see a chunk, or holds a relation on an object, or not. It is for administrators.

        Name either `object`, or `collection` and `chunk_id`. `identity` is the administrator's. Without `user`, the question is
        about the bearer of its token, and what the token tells counts, too.
        """
        call = _calls.explain(
            user,
            object=object,
            collection=collection,
            chunk_id=chunk_id,
            relation=relation,
            contextual_tuples=contextual_tuples,
            context=context,
        )
        return self._ask(call, self._asker(identity), timeout)

    def upsert_documents(
        self,
        collection: str,
        documents: Iterable[Document],
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Upserted:
        """Put documents in, each in place of the one that has its id.

        They are sent while they are read, so any number of them passes through, in requests of about a mebibyte. After a
        failure, each document is either wholly in or wholly absent; `ingest_status` tells which. Without `timeout`, only the
        pauses of the server are bounded, by the client's timeout.
        """
        call = _calls.upsert_documents(collection)
        asker = self._asker(identity)
        call.body(asker)  # Refuses an identity that the request cannot carry.
        deadline = Deadline(math.inf if timeout is None else _core.checked_timeout(timeout))
        upload, source = Upload(deadline), iter(documents)

        def lines() -> Iterator[bytes]:
            try:
                if first := upload.begin():
                    yield first
                for document in source:
                    line = upload.line(document)
                    if line is None:
                        return
                    yield line
                upload.end()
            except Exception as error:
                upload.failure = error
                raise

        whole: Upserted | None = None
        while whole is None:  # The documents bound it.
            left = None if timeout is None else deadline.remaining_or_raise()
            fields = _core.headers(authorization(asker), left, _core.LINES)
            try:
                whole = upload.answered(self._exchange(call, lines(), fields, deadline, self._settings.timeout))
            except Failed as failed:
                # The documents come from the caller, and so do the errors of reading them.
                raise (upload.failure or failed.error) from failed.__cause__
        return whole

    def put_document(
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
        """Put one document in, in place of the one that has its id.

        Its content is a `text`, plain or Markdown, which the server cuts into chunks, or `chunks`.
        """
        call = _calls.put_document(
            collection, document_id, guard=guard, title=title, metadata=metadata, text=text, chunks=chunks
        )
        return self._ask(call, self._asker(identity), timeout)

    def delete_documents(
        self,
        collection: str,
        document_ids: Iterable[str],
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Deleted:
        """Delete documents with all of their chunks. Ids that are not there are passed over."""
        return self._ask(_calls.delete_documents(collection, document_ids), self._asker(identity), timeout)

    def list_documents(
        self,
        collection: str,
        *,
        page_size: int = 0,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> Iterator[ListedDocument]:
        """Return the documents of a collection that the caller may write. `timeout` bounds each page.

        `page_size` is the number of documents that come with one request; 0 leaves it to the server.
        """
        asker = self._asker(identity)

        def turned() -> Iterator[ListedDocument]:
            pages = Pages()
            while pages.token is not None:
                call = _calls.list_documents(collection, page_size=page_size, page_token=pages.token)
                documents, next_token = self._ask(call, asker, timeout)
                pages.turn(next_token)
                yield from documents

        return turned()

    def list_collections(
        self, *, identity: Identity | NotGiven = NOT_GIVEN, timeout: float | None = None
    ) -> tuple[ListedCollection, ...]:
        """Return the collections by name."""
        return self._ask(_calls.list_collections(), self._asker(identity), timeout)

    def ingest_status(
        self,
        collection: str,
        document_ids: Iterable[str] = (),
        *,
        identity: Identity | NotGiven = NOT_GIVEN,
        timeout: float | None = None,
    ) -> IngestStatus:
        """Return how much a collection holds, and which of the named documents it holds."""
        return self._ask(_calls.ingest_status(collection, document_ids), self._asker(identity), timeout)

    def _asker(self, identity: Identity | NotGiven) -> Identity:
        return self._settings.admitted(who_asks(identity, self._identity))

    def _ask(self, call: Call[T], asker: Identity, timeout: float | None) -> T:
        """Send a call, again where that is safe, until there is an answer or no time is left."""
        deadline = Deadline(self._settings.timeout if timeout is None else _core.checked_timeout(timeout))
        tries = Tries(call.effect, self._settings.retries, deadline)
        body = call.body(asker)
        while True:  # `tries` bounds it.
            try:
                fields = _core.headers(authorization(asker), deadline.remaining_or_raise(), _core.JSON)
                return self._exchange(call, body, fields, deadline, math.inf)
            except Failed as failed:
                time.sleep(tries.wait_after(failed))

    def _exchange(
        self,
        call: Call[T],
        body: bytes | Iterator[bytes],
        fields: httpx.Headers,
        deadline: Deadline,
        pause_max: float,
    ) -> T:
        """Send a request once and read its answer. A single pause of the server takes `pause_max` seconds at most."""
        url = self._settings.url + call.path
        seconds = min(deadline.remaining_or_raise(), pause_max)
        reader = BodyReader(deadline)
        try:
            with self._http.stream("POST", url, content=body, headers=fields, timeout=seconds) as response:
                _core.refuse_encoding(response)
                for piece in response.iter_bytes():
                    reader.add(piece)
        except _core.TRANSPORT_ERRORS as error:
            raise _core.transport_failure(error, self._settings.url) from error
        return _core.answer_of(call, reader.received(response))
