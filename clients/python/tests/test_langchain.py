"""The LangChain adapter against a real server: LangChain's own kit, and who asks on each way through LangChain."""

# LangChain is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from langchain_tests.integration_tests import RetrieversIntegrationTests

from ragward import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    F,
    Forbidden,
    Identity,
    IdentityMissing,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    RagwardError,
    Unavailable,
    acting_as,
)
from ragward.langchain import ObservationEnded, RagwardFilter, RagwardRetriever, observe
from tests import wiki
from tests.script import ANSWER, URL, Script, json_answer
from tests.wiki import ANNE, BOB, COLLECTION, NOBODY, OF_ANNE, OF_BOB, QUESTION, SECRET, USERS, Wiki

TOKEN = "a-very-secret-token"
FAR = date(9999, 12, 31)


@pytest.fixture
def retriever(world: Wiki) -> Iterator[RagwardRetriever]:
    made = RagwardRetriever(collection=COLLECTION, url=world.url, k=20)
    yield made
    made.close()


def _ids(documents: list[Document]) -> set[str | None]:
    return {document.id for document in documents}


def _config(user: str) -> RunnableConfig:
    return {"configurable": {"ragward_identity": Identity.user(user)}}


class TestLangChainsKit(RetrieversIntegrationTests):
    client: Client

    @pytest.fixture(autouse=True)
    def _with_a_client(self, world: Wiki) -> Iterator[None]:
        with Client(world.url) as self.client:
            yield

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RagwardRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"collection": COLLECTION, "client": self.client, "identity": Identity.user(ANNE)}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION


def _context(found: dict[str, Any]) -> Any:
    return found["context"]


# Each way asks as one user through a retriever that all rows share.
def _in_a_dict(retriever: RagwardRetriever) -> Runnable[Any, Any]:
    # The well-known form of a chain: the retriever is one value of a dict, far away from whoever calls.
    chain: Runnable[Any, Any] = RunnableParallel({"context": retriever, "question": RunnablePassthrough()})
    return chain | RunnableLambda(_context)


def _in_a_function(retriever: RagwardRetriever) -> Runnable[Any, Any]:
    return RunnableLambda(lambda question: retriever.invoke(question))


def _owned(retriever: RagwardRetriever, user: str) -> RagwardRetriever:
    return retriever.model_copy(update={"identity": Identity.user(user)})


def _acting(retriever: Runnable[Any, Any], user: str) -> Any:
    return wiki.acting(lambda: retriever.invoke(QUESTION), user)


async def _acting_async(retriever: Runnable[Any, Any], user: str) -> Any:
    return await wiki.acting_async(lambda: retriever.ainvoke(QUESTION), user)


WAYS: dict[str, Callable[[RagwardRetriever, str], Any]] = {
    "the argument `identity`": lambda one, user: one.invoke(QUESTION, identity=Identity.user(user)),
    "the argument `user`": lambda one, user: one.invoke(QUESTION, user=user),
    "the configuration": lambda one, user: one.invoke(QUESTION, _config(user)),
    "`with_config`": lambda one, user: one.with_config(_config(user)).invoke(QUESTION),
    "`bind`": lambda one, user: one.bind(user=user).invoke(QUESTION),
    "`acting_as`": _acting,
    "a dict, by its configuration": lambda one, user: _in_a_dict(one).invoke(QUESTION, _config(user)),
    "a dict, by `acting_as`": lambda one, user: _acting(_in_a_dict(one), user),
    "a function, by its configuration": lambda one, user: _in_a_function(one).invoke(QUESTION, _config(user)),
    "a function, by `acting_as`": lambda one, user: _acting(_in_a_function(one), user),
    "a stream": lambda one, user: next(iter(_in_a_dict(one).stream(QUESTION, _config(user)))),
    "`configurable_fields`": lambda one, user: one.configurable_fields(identity=ConfigurableField(id="who")).invoke(
        QUESTION, {"configurable": {"who": Identity.user(user)}}
    ),
    "a copy with an identity of its own": lambda one, user: _owned(one, user).invoke(QUESTION),
    "the call before an identity of its own": lambda one, user: _owned(one, NOBODY).invoke(QUESTION, user=user),
    "the argument before the configuration": lambda one, user: one.invoke(
        QUESTION, _config(NOBODY), identity=Identity.user(user)
    ),
    "the configuration before `acting_as`": lambda one, user: _acting(one.with_config(_config(user)), NOBODY),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_user_gets_what_they_may_see(retriever: RagwardRetriever, way: Callable[..., list[Document]]) -> None:
    assert _ids(way(retriever, ANNE)) == OF_ANNE
    assert _ids(way(retriever, BOB)) == OF_BOB
    assert way(retriever, NOBODY) == []


async def _async_stream(retriever: Runnable[Any, Any], user: str) -> Any:
    (found,) = [one async for one in retriever.astream(QUESTION, _config(user))]
    return found


ASYNC_WAYS: dict[str, Callable[[RagwardRetriever, str], Awaitable[Any]]] = {
    "the argument `identity`": lambda one, user: one.ainvoke(QUESTION, identity=Identity.user(user)),
    "the argument `user`": lambda one, user: one.ainvoke(QUESTION, user=user),
    "the configuration": lambda one, user: one.ainvoke(QUESTION, _config(user)),
    "`acting_as`": _acting_async,
    "a dict, by its configuration": lambda one, user: _in_a_dict(one).ainvoke(QUESTION, _config(user)),
    "a dict, by `acting_as`": lambda one, user: _acting_async(_in_a_dict(one), user),
    "a blocking function, by its configuration": lambda one, user: _in_a_function(one).ainvoke(QUESTION, _config(user)),
    "a blocking function, by `acting_as`": lambda one, user: _acting_async(_in_a_function(one), user),
    "`astream`": _async_stream,
    "`astream` of a dict": lambda one, user: _async_stream(_in_a_dict(one), user),
    "`configurable_fields`": lambda one, user: one.configurable_fields(identity=ConfigurableField(id="who")).ainvoke(
        QUESTION, {"configurable": {"who": Identity.user(user)}}
    ),
}


@pytest.mark.parametrize("way", ASYNC_WAYS.values(), ids=ASYNC_WAYS)
async def test_each_user_gets_what_they_may_see_without_blocking(
    retriever: RagwardRetriever, way: Callable[..., Awaitable[list[Document]]]
) -> None:
    assert _ids(await way(retriever, ANNE)) == OF_ANNE
    assert _ids(await way(retriever, BOB)) == OF_BOB
    assert await way(retriever, NOBODY) == []
    await retriever.aclose()


def test_a_batch_asks_for_each_user_by_itself(retriever: RagwardRetriever) -> None:
    chain = _in_a_dict(retriever)
    answers = chain.batch([QUESTION] * len(USERS), [_config(user) for user in USERS])
    assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS]


async def test_an_async_batch_asks_for_each_user_by_itself(retriever: RagwardRetriever) -> None:
    chain = _in_a_dict(retriever)
    answers = await chain.abatch([QUESTION] * len(USERS), [_config(user) for user in USERS])
    assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS]
    await retriever.aclose()


@pytest.mark.parametrize("by", ["configuration", "acting_as"])
def test_fifty_users_at_once_are_never_mixed_in_threads(retriever: RagwardRetriever, by: str) -> None:
    chain = _in_a_dict(retriever)

    def ask(user: str) -> Any:
        return chain.invoke(QUESTION, _config(user)) if by == "configuration" else _acting(chain, user)

    with ThreadPoolExecutor(max_workers=len(USERS)) as pool:
        for round_ in range(4):
            answers = list(pool.map(ask, USERS))
            assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS], round_


@pytest.mark.parametrize("by", ["configuration", "acting_as"])
async def test_fifty_users_at_once_are_never_mixed_in_tasks(retriever: RagwardRetriever, by: str) -> None:
    chain = _in_a_dict(retriever)

    async def ask(user: str) -> Any:
        return await (chain.ainvoke(QUESTION, _config(user)) if by == "configuration" else _acting_async(chain, user))

    for round_ in range(4):
        answers = await asyncio.gather(*(ask(user) for user in USERS))
        assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS], round_
    await retriever.aclose()


def test_one_retriever_serves_several_loops(retriever: RagwardRetriever) -> None:
    async def ask() -> list[Document]:
        try:
            return await retriever.ainvoke(QUESTION, user=ANNE)
        finally:
            await retriever.aclose()

    for round_ in range(3):
        assert _ids(asyncio.run(ask())) == OF_ANNE, round_


def test_without_an_identity_nothing_is_asked(world: Wiki) -> None:
    # The identity of a client is never used in silence: it would be everybody's.
    with Client(world.url, identity=Identity.user(ANNE)) as client:
        retriever = RagwardRetriever(collection=COLLECTION, client=client)
        filtering = RagwardFilter(collection=COLLECTION, client=client)
        # It remembers nobody.
        assert retriever.invoke(QUESTION, user=ANNE)
        assert asyncio.run(retriever.ainvoke(QUESTION, user=ANNE))
        assert retriever.invoke(QUESTION, _config(ANNE))
        rows: dict[str, Callable[[], Any]] = {
            "a call": lambda: retriever.invoke(QUESTION),
            "a call in a loop": lambda: asyncio.run(retriever.ainvoke(QUESTION)),
            "a dict": lambda: _in_a_dict(retriever).invoke(QUESTION),
            "a batch": lambda: _in_a_dict(retriever).batch([QUESTION, QUESTION]),
            "a configuration of somebody else's": lambda: retriever.invoke(QUESTION, {"configurable": {"user": ANNE}}),
            "an identity that was lost": lambda: retriever.invoke(
                QUESTION, {"configurable": {"ragward_identity": None}}
            ),
            "an identity that was lost, within another's block": lambda: _lost(retriever),
            "a thread that does not inherit the context": lambda: wiki.in_a_bare_thread(
                lambda: retriever.invoke(QUESTION)
            ),
            "a filter": lambda: filtering.compress_documents([Document("a", id="shared#0")], QUESTION),
        }
        for row, ask in rows.items():
            wiki.assert_raises(row, IdentityMissing, ask)


LOST: dict[str, dict[str, Any]] = {
    "a lost identity": {"identity": None},
    "a lost user": {"user": None},
    "a lost identity, with a user": {"identity": None, "user": ANNE},
    "a lost user, with an identity": {"identity": Identity.user(ANNE), "user": None},
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_a_lost_identity_asks_as_nobody_else(lost: dict[str, Any]) -> None:
    script = Script(json_answer(ANSWER))
    own = Identity.user(BOB)
    with Client(URL, transport=script.transport, identity=own) as client:
        retriever = RagwardRetriever(collection="c", client=client, identity=own)
        filtering = RagwardFilter(collection="c", client=client, identity=own)
        observed = observe(RunnableLambda(_nothing), collection="c", until=FAR, client=client, identity=own)
        documents = [Document("a", id="a#0")]
        rows: dict[str, Callable[[], Any]] = {
            "a call": lambda: retriever.invoke(QUESTION, **lost),
            "a call in a loop": lambda: asyncio.run(retriever.ainvoke(QUESTION, **lost)),
            "a batch": lambda: retriever.batch([QUESTION, QUESTION], **lost),
            "bound arguments": lambda: retriever.bind(**lost).invoke(QUESTION),
            "a filter": lambda: filtering.compress_documents(documents, QUESTION, **lost),
            "a filter in a loop": lambda: asyncio.run(filtering.acompress_documents(documents, QUESTION, **lost)),
            "a filter in a chain": lambda: filtering.as_runnable().invoke(
                documents, {"configurable": {"ragward_identity": None}}
            ),
            "shadow mode": lambda: observed.invoke(QUESTION, **lost),
            "shadow mode in a loop": lambda: asyncio.run(observed.ainvoke(QUESTION, **lost)),
        }
        for row, ask in rows.items():
            wiki.assert_raises(row, IdentityMissing, partial(wiki.acting, ask, ANNE))
        observed.close()
    assert script.requests == []


def _nothing(_: str) -> list[Document]:
    return []


def _lost(retriever: RagwardRetriever) -> Any:
    with acting_as(Identity.user(ANNE)):
        return retriever.invoke(QUESTION, {"configurable": {"ragward_identity": None}})


def test_a_text_is_no_identity(retriever: RagwardRetriever) -> None:
    # LangChain copies texts of the configuration into the metadata of traces.
    with pytest.raises(TypeError, match="must be an `Identity`"):
        retriever.invoke(QUESTION, {"configurable": {"ragward_identity": TOKEN}})


@pytest.mark.parametrize("kind", [RagwardRetriever, RagwardFilter])
def test_a_token_in_a_wrong_place_is_not_repeated(kind: Any) -> None:
    for place in ("identity", "token"):
        with pytest.raises(ValueError, match=place) as told:
            kind(collection=COLLECTION, **{place: TOKEN})
        assert TOKEN not in str(told.value)


def test_a_copy_for_another_server_does_not_ask_the_first(world: Wiki, retriever: RagwardRetriever) -> None:
    filtering = RagwardFilter(collection=COLLECTION, url=world.url)
    copies = retriever.model_copy(update={"url": "http://127.0.0.1:1"}), filtering.model_copy(update={"url": None})
    with pytest.raises(TypeError, match="was changed"):
        copies[0].invoke(QUESTION, user=ANNE)
    with pytest.raises(TypeError, match="was changed"):
        copies[1].compress_documents(_foreign("shared#0"), QUESTION, user=ANNE)
    filtering.close()


def test_a_misspelt_argument_is_refused(world: Wiki, retriever: RagwardRetriever) -> None:
    misspelt: dict[str, Any] = {"filters": F("area") == "shared"}
    with pytest.raises(ValueError, match="filters"):
        RagwardRetriever(collection=COLLECTION, url=world.url, **misspelt)
    with pytest.raises(TypeError, match="filters"):
        retriever.invoke(QUESTION, user=ANNE, **misspelt)


def test_a_document_has_its_id_and_what_ragward_says(retriever: RagwardRetriever) -> None:
    documents = retriever.invoke(QUESTION, user=BOB)
    assert SECRET not in _ids(documents)
    one = next(document for document in documents if document.id == "bob#0")
    token = one.metadata.pop("consistency_token")
    score = one.metadata.pop("score")
    assert one.metadata == {
        "area": "bob",
        "chunk_id": "bob#0",
        "document_id": "bob",
        "title": "On bob",
        "heading_path": [],
        "rerank_score": None,
        "guard": "document:bob",
        "completion": "EXHAUSTED",
        "recall": "EXACT",
    }
    assert score > 0
    # The token of one answer makes the next one as fresh.
    again = retriever.invoke(QUESTION, user=BOB, consistency_token=token)
    assert _ids(again) == OF_BOB


def test_options_hold_for_the_retriever_and_for_the_call(world: Wiki, retriever: RagwardRetriever) -> None:
    only_shared = F("area") == "shared"
    narrow = RagwardRetriever(collection=COLLECTION, url=world.url, k=1, filter=only_shared)
    high = retriever.invoke(QUESTION, user=ANNE)[0].metadata["score"]
    rows: list[tuple[str, list[Document], int]] = [
        ("k of the retriever", narrow.invoke(QUESTION, user=ANNE), 1),
        ("k of the call", narrow.invoke(QUESTION, user=ANNE, k=2), 2),
        ("no more than there are", narrow.invoke(QUESTION, user=ANNE, k=20), 2),
        ("filter of the call", retriever.invoke(QUESTION, user=ANNE, filter=only_shared), 2),
        ("per document", retriever.invoke(QUESTION, user=ANNE, per_document_max=1), 3),
        ("a score that none has", retriever.invoke(QUESTION, user=ANNE, min_score=high + 1), 0),
    ]
    for row, documents, count in rows:
        assert len(documents) == count, row
    narrow.close()


class _Axis(Embeddings):
    """Embeds every text alike."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, float(len(text) == 0)]


def test_vectors_and_hybrid_go_through_the_embeddings() -> None:
    sent: list[dict[str, Any]] = []
    with Client(transport=_answering(sent)) as client:
        for search_type in ("text", "vector", "hybrid", "semantic"):
            retriever = RagwardRetriever(
                collection="c", client=client, search_type=search_type, embeddings=_Axis(), identity=Identity.none()
            )
            assert retriever.invoke("q") == []
    assert [sorted(set(message) & {"text", "vector", "hybrid", "semantic"}) for message in sent] == [
        ["text"],
        ["vector"],
        ["hybrid"],
        ["semantic"],
    ]
    assert sent[1]["vector"] == {"values": [1.0, 0.0]}
    assert sent[2]["hybrid"] == {"text": "q", "vector": {"values": [1.0, 0.0]}}
    assert sent[3]["semantic"] == {"text": "q"}
    with pytest.raises(ValueError, match="needs `embeddings`"):
        RagwardRetriever(collection="c", search_type="vector")


def _answering(sent: list[dict[str, Any]]) -> httpx.MockTransport:
    empty = {"chunks": [], "completion": "COMPLETION_EXHAUSTED", "recall": "RECALL_EXACT", "nextPageToken": ""}

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={**empty, "consistencyToken": "t"})

    return httpx.MockTransport(answer)


def test_errors_raise_and_are_never_an_empty_answer() -> None:
    rows: list[tuple[str, int, str, type[RagwardError]]] = [
        ("no token", 401, "unauthenticated", NotAuthenticated),
        ("a token without the scope", 403, "permission_denied", Forbidden),
        ("no such collection", 404, "not_found", NotFound),
        ("a wrong request", 400, "invalid_argument", InvalidRequest),
        ("a backend that does not answer", 503, "unavailable", Unavailable),
        ("too late", 504, "deadline_exceeded", DeadlineExceeded),
        ("a defect", 500, "internal", RagwardError),
    ]
    documents = [Document("a", id="shared#0")]
    for row, status, code, error in rows:
        with Client(transport=wiki.refusing(status, code), retries=0) as client:
            retriever = RagwardRetriever(collection=COLLECTION, client=client, identity=Identity.none())
            filtering = RagwardFilter(collection=COLLECTION, client=client, identity=Identity.none())
            for ask in _asks(retriever, filtering, documents):
                wiki.assert_raises(row, error, ask)
    with wiki.undecided() as world, Client(world.url, retries=0) as client:
        undecided = RagwardRetriever(collection=COLLECTION, client=client, identity=Identity.user(ANNE))
        with pytest.raises(Unavailable):
            undecided.invoke(QUESTION)
        with pytest.raises(Unavailable):
            RagwardFilter(collection=COLLECTION, client=client).compress_documents(documents, QUESTION, user=ANNE)


def _asks(
    retriever: RagwardRetriever, filtering: RagwardFilter, documents: list[Document]
) -> list[Callable[[], object]]:
    return [
        lambda: retriever.invoke(QUESTION),
        lambda: asyncio.run(retriever.ainvoke(QUESTION)),
        lambda: filtering.compress_documents(documents, QUESTION),
        lambda: asyncio.run(filtering.acompress_documents(documents, QUESTION)),
    ]


class _Recorder(BaseCallbackHandler):
    """Writes down everything that LangChain tells a handler."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_retriever_start(self, *args: Any, **kwargs: Any) -> None:
        self.told.append(repr((args, kwargs)))

    def on_retriever_error(self, *args: Any, **kwargs: Any) -> None:
        self.told.append(repr((args, kwargs)))

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.told.append(repr((args, kwargs)))


class _Tracer(BaseTracer):
    """Keeps the runs as a tracing service would get them."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run.model_dump_json(fallback=repr))


def test_a_token_is_never_shown() -> None:
    recorder, tracer = _Recorder(), _Tracer()
    with Client(transport=wiki.refusing(401, "unauthenticated"), identity=Identity.bearer(TOKEN)) as client:
        bearer = Identity.bearer(TOKEN)
        retriever = RagwardRetriever(collection="c", client=client, identity=bearer)
        filtering = RagwardFilter(collection="c", client=client, identity=bearer)
        observed = observe(retriever, collection="c", until=FAR, client=client, identity=bearer)
        chain = _in_a_dict(retriever)
        config: RunnableConfig = {
            "callbacks": [recorder, tracer],
            "configurable": {"ragward_identity": Identity.bearer(TOKEN)},
        }
        for asked in (retriever, chain, observed, retriever.bind(identity=bearer), filtering.as_runnable()):
            question: Any = [Document("a", id="a")] if asked.get_name() == "RagwardFilter" else QUESTION
            with pytest.raises(NotAuthenticated) as told:
                asked.invoke(question, config)
            assert TOKEN not in repr(told.value)
            shown = {
                "repr": repr(asked),
                "str": str(asked),
                "dumps": dumps(asked),
                "json": str(asked.to_json()) if isinstance(asked, BaseRetriever) else "",
                "graph": str(asked.get_graph().to_json()),
            }
            for way, text in shown.items():
                assert TOKEN not in text, (asked.get_name(), way)
        for model in (retriever, filtering, observed):
            assert TOKEN not in model.model_dump_json()
            assert TOKEN not in repr(model.model_dump())
        with pytest.raises(TypeError):
            pickle.dumps(retriever)
        observed.close()
    assert recorder.told
    assert tracer.runs
    assert TOKEN not in "".join(recorder.told)
    assert TOKEN not in "".join(tracer.runs)


class _Unfiltered(BaseRetriever):
    """Another team's retriever, which knows nothing of rights."""

    documents: list[Document]

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
    ) -> list[Document]:
        return self.documents


def _foreign(*ids: str | None) -> list[Document]:
    return [Document(f"text of {one}", id=one, metadata={"key": one}) for one in ids]


def test_the_filter_keeps_what_may_be_seen(world: Wiki) -> None:
    with Client(world.url) as client:
        filtering = RagwardFilter(collection=COLLECTION, client=client)
        documents = _foreign("bob#0", SECRET, "shared#1", "gone#7", "anne#0", "shared#1")
        rows = {
            ANNE: ["shared#1", "anne#0", "shared#1"],
            BOB: ["bob#0", "shared#1", "shared#1"],
            NOBODY: [],
        }
        chain = _Unfiltered(documents=documents) | filtering.as_runnable()
        for user, expected in rows.items():
            found = [
                filtering.compress_documents(documents, QUESTION, user=user),
                asyncio.run(filtering.acompress_documents(documents, QUESTION, user=user)),
                chain.invoke(QUESTION, _config(user)),
                asyncio.run(chain.ainvoke(QUESTION, _config(user))),
                _acting(chain, user),
            ]
            for answer in found:
                assert [document.id for document in answer] == expected, user
        # The documents are those that came in.
        assert filtering.compress_documents(documents, QUESTION, user=ANNE)[1] is documents[4]


def test_the_filter_finds_the_chunk_of_a_foreign_document(world: Wiki) -> None:
    with Client(world.url) as client:
        documents = _foreign(None, None)
        documents[0].metadata["key"] = "anne#0"
        by_key = RagwardFilter(collection=COLLECTION, client=client, chunk_id=lambda document: document.metadata["key"])
        assert by_key.compress_documents(documents, QUESTION, user=ANNE) == documents[:1]
        # Without the function, nobody would ever get anything, and nobody would know why.
        with pytest.raises(ValueError, match="chunk_id="):
            RagwardFilter(collection=COLLECTION, client=client).compress_documents(documents, QUESTION, user=ANNE)


def test_the_filter_asks_about_more_than_one_request_takes(world: Wiki) -> None:
    with Client(world.url) as client:
        documents = _foreign(*(f"gone#{number}" for number in range(1_500)), "anne#0")
        filtering = RagwardFilter(collection=COLLECTION, client=client, identity=Identity.user(ANNE))
        assert filtering.compress_documents(documents, QUESTION) == documents[-1:]
        assert filtering.compress_documents([], QUESTION) == []


def test_a_given_async_client_is_used_in_its_loop(world: Wiki) -> None:
    async def ask() -> list[Document]:
        async with AsyncClient(world.url) as client:
            retriever = RagwardRetriever(collection=COLLECTION, async_client=client, k=20)
            # Nothing is there for a call that blocks.
            with pytest.raises(TypeError, match="`client=`"):
                retriever.invoke(QUESTION, user=ANNE)
            return await retriever.ainvoke(QUESTION, user=ANNE)

    assert _ids(asyncio.run(ask())) == OF_ANNE
    with pytest.raises(ValueError, match="not both"):
        RagwardRetriever(collection=COLLECTION, url=world.url, client=Client(world.url))


def test_shadow_mode_changes_no_answer_and_knows_who_asked() -> None:
    asked: list[tuple[str, list[str]]] = []
    documents = _foreign("a", None, "b")
    with Client(transport=_rechecking(asked)) as client:
        unfiltered = _Unfiltered(documents=documents)
        observed = observe(unfiltered, collection="c", until=FAR, client=client)
        chain: Runnable[Any, Any] = RunnableParallel({"context": observed}) | RunnableLambda(_context)
        # A thousand users at once would be no different.
        with ThreadPoolExecutor(max_workers=8) as pool:
            answers = list(pool.map(lambda user: chain.invoke(QUESTION, _config(user)), USERS))
        answers.append(asyncio.run(observed.ainvoke(QUESTION, user=ANNE)))
        answers.append(observed.invoke(QUESTION, user=BOB))
        assert all(answer is unfiltered.documents for answer in answers[-2:])
        assert all(answer == documents for answer in answers)
        with pytest.raises(IdentityMissing):
            observed.invoke(QUESTION)
        with pytest.raises(IdentityMissing):
            asyncio.run(observed.ainvoke(QUESTION))
        observed.close()
        assert sorted(asked) == sorted((user, ["a", "b"]) for user in (*USERS, ANNE, BOB))
        assert observed.counts.unknown == len(answers)
        assert observed.counts.asked == 2 * len(answers)
        with pytest.raises(ObservationEnded):
            observed.invoke(QUESTION, user=ANNE)


def test_shadow_mode_asks_with_the_token_of_the_call() -> None:
    asked: list[tuple[str, list[str]]] = []
    may_answer = threading.Event()
    with Client(transport=_rechecking(asked, may_answer)) as client:
        observed = observe(_Unfiltered(documents=_foreign("a")), collection="c", until=FAR, client=client)
        # The token of the request that the program serves. It is another one by the time the question is asked.
        tokens = iter(["first", "second", "third"])

        async def provider() -> str:
            return next(tokens)

        observed.invoke(QUESTION, identity=Identity.bearer(lambda: next(tokens)))
        asyncio.run(observed.ainvoke(QUESTION, identity=Identity.bearer(provider)))
        assert next(tokens) == "third"
        may_answer.set()
        observed.close()
    assert asked == [("Bearer first", ["a"]), ("Bearer second", ["a"])]


def _rechecking(asked: list[tuple[str, list[str]]], may_answer: threading.Event | None = None) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        message = json.loads(request.content)
        assert message["purpose"] == "PURPOSE_OBSERVE"
        assert may_answer is None or may_answer.wait(60)
        asked.append((message.get("user") or request.headers["authorization"], message["chunkIds"]))
        return httpx.Response(200, json={"chunkIds": [], "consistencyToken": "t"})

    return httpx.MockTransport(answer)
