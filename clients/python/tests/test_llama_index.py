"""The LlamaIndex adapter against a real server: who asks on each way through LlamaIndex, and what its nodes hold."""

# LlamaIndex is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import date
from functools import partial
from typing import Any

import httpx
import pytest
from llama_index.core import get_response_synthesizer
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from pydantic import Field

from ragward import (
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
from ragward.llama_index import ObservationEnded, RagwardNodeFilter, RagwardRetriever, observe
from tests import wiki
from tests.script import ANSWER, URL, Script, json_answer
from tests.wiki import ANNE, BOB, COLLECTION, NOBODY, OF_ANNE, OF_BOB, QUESTION, SECRET, USERS, Wiki

TOKEN = "a-very-secret-token"
FAR = date(9999, 12, 31)


@pytest.fixture
def retriever(world: Wiki) -> Iterator[RagwardRetriever]:
    made = RagwardRetriever(COLLECTION, url=world.url, k=20)
    yield made
    made.close()


def _ids(nodes: list[NodeWithScore]) -> set[str]:
    return {node.node.node_id for node in nodes}


def _engine(retriever: BaseRetriever, *filters: RagwardNodeFilter) -> RetrieverQueryEngine:
    # The model echoes what reaches it.
    synthesizer = get_response_synthesizer(llm=MockLLM(), response_mode=ResponseMode.COMPACT)
    return RetrieverQueryEngine(retriever, synthesizer, node_postprocessors=list(filters))


def _fused(retriever: BaseRetriever, *, is_async: bool) -> QueryFusionRetriever:
    # It asks its retrievers in threads or tasks of its own.
    return QueryFusionRetriever(
        [retriever],
        llm=MockLLM(),
        num_queries=1,
        mode=FUSION_MODES.RECIPROCAL_RANK,
        similarity_top_k=20,
        use_async=is_async,
    )


WAYS: dict[str, Callable[[RagwardRetriever, str], Any]] = {
    "the argument `identity`": lambda one, user: one.retrieve(QUESTION, identity=Identity.user(user)),
    "the argument `user`": lambda one, user: one.retrieve(QUESTION, user=user),
    "`acting_as`": lambda one, user: wiki.acting(lambda: one.retrieve(QUESTION), user),
    "a bundle": lambda one, user: one.retrieve(QueryBundle(QUESTION), user=user),
    "a query engine": lambda one, user: wiki.acting(lambda: _engine(one).query(QUESTION), user).source_nodes,
    "a fusion": lambda one, user: wiki.acting(lambda: _fused(one, is_async=False).retrieve(QUESTION), user),
    "the argument before `acting_as`": lambda one, user: wiki.acting(lambda: one.retrieve(QUESTION, user=user), NOBODY),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_user_gets_what_they_may_see(retriever: RagwardRetriever, way: Callable[..., list[NodeWithScore]]) -> None:
    assert _ids(way(retriever, ANNE)) == OF_ANNE
    assert _ids(way(retriever, BOB)) == OF_BOB
    assert way(retriever, NOBODY) == []


ASYNC_WAYS: dict[str, Callable[[RagwardRetriever, str], Awaitable[Any]]] = {
    "the argument `identity`": lambda one, user: one.aretrieve(QUESTION, identity=Identity.user(user)),
    "the argument `user`": lambda one, user: one.aretrieve(QUESTION, user=user),
    "`acting_as`": lambda one, user: wiki.acting_async(lambda: one.aretrieve(QUESTION), user),
    "a query engine": lambda one, user: _async_sources(one, user),
    "a fusion": lambda one, user: wiki.acting_async(lambda: _fused(one, is_async=True).aretrieve(QUESTION), user),
}


async def _async_sources(retriever: RagwardRetriever, user: str) -> list[NodeWithScore]:
    response = await wiki.acting_async(lambda: _engine(retriever).aquery(QUESTION), user)
    nodes: list[NodeWithScore] = response.source_nodes
    return nodes


@pytest.mark.parametrize("way", ASYNC_WAYS.values(), ids=ASYNC_WAYS)
async def test_each_user_gets_what_they_may_see_without_blocking(
    retriever: RagwardRetriever, way: Callable[..., Awaitable[list[NodeWithScore]]]
) -> None:
    assert _ids(await way(retriever, ANNE)) == OF_ANNE
    assert _ids(await way(retriever, BOB)) == OF_BOB
    assert await way(retriever, NOBODY) == []
    await retriever.aclose()


def test_fifty_users_at_once_are_never_mixed_in_threads(retriever: RagwardRetriever) -> None:
    engine = _engine(retriever)

    def ask(user: str) -> list[NodeWithScore]:
        nodes: list[NodeWithScore] = wiki.acting(lambda: engine.query(QUESTION), user).source_nodes
        return nodes

    with ThreadPoolExecutor(max_workers=len(USERS)) as pool:
        for round_ in range(4):
            answers = list(pool.map(ask, USERS))
            assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS], round_


async def test_fifty_users_at_once_are_never_mixed_in_tasks(retriever: RagwardRetriever) -> None:
    for round_ in range(4):
        answers = await asyncio.gather(*(_async_sources(retriever, user) for user in USERS))
        assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS], round_
    await retriever.aclose()


def test_without_an_identity_nothing_is_asked(world: Wiki) -> None:
    # The identity of a client is never used in silence: it would be everybody's.
    with Client(world.url, identity=Identity.user(ANNE)) as client:
        retriever = RagwardRetriever(COLLECTION, client=client)
        filtering = RagwardNodeFilter(collection=COLLECTION, client=client)
        nodes = _foreign("shared#0")
        # It remembers nobody.
        assert retriever.retrieve(QUESTION, user=ANNE)
        assert asyncio.run(retriever.aretrieve(QUESTION, user=ANNE))
        rows: dict[str, Callable[[], Any]] = {
            "a call": lambda: retriever.retrieve(QUESTION),
            "a call in a loop": lambda: asyncio.run(retriever.aretrieve(QUESTION)),
            "a query engine": lambda: _engine(retriever).query(QUESTION),
            "a thread that does not inherit the context": lambda: wiki.in_a_bare_thread(
                lambda: retriever.retrieve(QUESTION)
            ),
            "a filter": lambda: filtering.postprocess_nodes(nodes),
            "a filter in a loop": lambda: asyncio.run(filtering.apostprocess_nodes(nodes)),
        }
        for row, ask in rows.items():
            wiki.assert_raises(row, IdentityMissing, ask)
        # A thread that inherits the context has the identity.
        with acting_as(Identity.user(ANNE)), ThreadPoolExecutor(max_workers=1) as pool:
            found = pool.submit(copy_context().run, retriever.retrieve, QUESTION).result()
        assert _ids(found) <= OF_ANNE


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
        retriever = RagwardRetriever("c", client=client, identity=own)
        observed = observe(retriever, collection="c", until=FAR, client=client, identity=own)
        rows: dict[str, Callable[[], Any]] = {
            "a call": lambda: retriever.retrieve(QUESTION, **lost),
            "a call in a loop": lambda: asyncio.run(retriever.aretrieve(QUESTION, **lost)),
            "shadow mode": lambda: observed.retrieve(QUESTION, **lost),
            "shadow mode in a loop": lambda: asyncio.run(observed.aretrieve(QUESTION, **lost)),
        }
        for row, ask in rows.items():
            wiki.assert_raises(row, IdentityMissing, partial(wiki.acting, ask, ANNE))
        observed.close()
    assert script.requests == []


def test_a_node_has_its_id_and_what_ragward_says(retriever: RagwardRetriever) -> None:
    nodes = retriever.retrieve(QUESTION, user=BOB)
    assert SECRET not in _ids(nodes)
    one = next(node for node in nodes if node.node.node_id == "bob#0")
    metadata = dict(one.node.metadata)
    assert metadata.pop("consistency_token")
    assert metadata.pop("score") == one.score
    assert metadata == {
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
    assert one.node.ref_doc_id == "bob"
    # A model gets the text, the title and the document's own metadata. What is for programs stays away from it.
    shown = one.node.get_content(MetadataMode.LLM)
    assert "On bob" in shown
    for hidden in ("document:bob", "EXHAUSTED", "EXACT", "bob#0"):
        assert hidden not in shown, hidden


def test_two_chunks_of_one_document_with_equal_texts_both_come(retriever: RagwardRetriever) -> None:
    # A fusion takes nodes with equal texts and equal metadata for one node.
    for row, one in (("alone", retriever), ("in a fusion", _fused(retriever, is_async=False))):
        found = _ids(wiki.acting(partial(one.retrieve, QUESTION), ANNE))
        assert {"twins#0", "twins#1"} <= found, row


def test_options_of_the_retriever(world: Wiki) -> None:
    rows: list[tuple[str, dict[str, Any], int]] = [
        ("k", {"k": 1}, 1),
        ("a filter", {"filter": F("area") == "shared"}, 2),
        ("per document", {"per_document_max": 1}, 3),
        ("a score that none has", {"min_score": 1e9}, 0),
    ]
    with Client(world.url) as client:
        for row, options, count in rows:
            nodes = RagwardRetriever(COLLECTION, client=client, **options).retrieve(QUESTION, user=ANNE)
            assert len(nodes) == count, row


def test_vectors_and_hybrid_go_through_the_embedding_model() -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        empty = {"chunks": [], "completion": "COMPLETION_EXHAUSTED", "recall": "RECALL_EXACT", "nextPageToken": ""}
        return httpx.Response(200, json={**empty, "consistencyToken": "t"})

    with Client(transport=httpx.MockTransport(answer)) as client:
        model = MockEmbedding(embed_dim=2)
        vector = RagwardRetriever("c", client=client, search_type="vector", embed_model=model, identity=Identity.none())
        hybrid = RagwardRetriever("c", client=client, search_type="hybrid", identity=Identity.none())
        vector.retrieve("q")
        asyncio.run(vector.aretrieve("q"))
        vector.retrieve(QueryBundle("q", embedding=[0.0, 1.0]))
        hybrid.retrieve(QueryBundle("q", embedding=[0.0, 1.0]))
        # The server's model embeds the question, so no other model does.
        RagwardRetriever("c", client=client, search_type="semantic", identity=Identity.none()).retrieve("q")
        with pytest.raises(ValueError, match="needs the embedding"):
            hybrid.retrieve("q")
    assert [message.get("vector") for message in sent] == [
        {"values": [0.5, 0.5]},
        {"values": [0.5, 0.5]},
        {"values": [0.0, 1.0]},
        None,
        None,
    ]
    assert sent[3]["hybrid"] == {"text": "q", "vector": {"values": [0.0, 1.0]}}
    assert sent[4]["semantic"] == {"text": "q"}


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
    nodes = _foreign("shared#0")
    for row, status, code, error in rows:
        with Client(transport=wiki.refusing(status, code), retries=0) as client:
            retriever = RagwardRetriever(COLLECTION, client=client, identity=Identity.none())
            filtering = RagwardNodeFilter(collection=COLLECTION, client=client, identity=Identity.none())
            for ask in _asks(retriever, filtering, nodes):
                wiki.assert_raises(row, error, ask)
    with wiki.undecided() as world, Client(world.url, retries=0) as client:
        with pytest.raises(Unavailable):
            RagwardRetriever(COLLECTION, client=client).retrieve(QUESTION, user=ANNE)
        with pytest.raises(Unavailable):
            RagwardNodeFilter(collection=COLLECTION, client=client, identity=Identity.user(ANNE)).postprocess_nodes(
                nodes
            )


def _asks(
    retriever: RagwardRetriever, filtering: RagwardNodeFilter, nodes: list[NodeWithScore]
) -> list[Callable[[], object]]:
    return [
        lambda: retriever.retrieve(QUESTION),
        lambda: asyncio.run(retriever.aretrieve(QUESTION)),
        lambda: _engine(retriever).query(QUESTION),
        lambda: filtering.postprocess_nodes(nodes),
        lambda: asyncio.run(filtering.apostprocess_nodes(nodes)),
    ]


class _Recorder(BaseEventHandler):
    """Writes down every event."""

    told: list[str] = Field(default_factory=list[str])

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.told.append(repr(event) + repr(kwargs))


def test_a_token_is_never_shown() -> None:
    recorder, debug = _Recorder(), LlamaDebugHandler(print_trace_on_end=False)
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(recorder)
    bearer = Identity.bearer(TOKEN)
    with Client(transport=wiki.refusing(401, "unauthenticated"), identity=bearer) as client:
        manager = CallbackManager([debug])
        retriever = RagwardRetriever("c", client=client, identity=bearer, callback_manager=manager)
        filtering = RagwardNodeFilter(collection="c", client=client, identity=bearer)
        observed = observe(retriever, collection="c", until=FAR, client=client, identity=bearer)
        asks: dict[str, Callable[[], object]] = {
            "the retriever": lambda: retriever.retrieve(QUESTION, identity=bearer),
            "shadow mode": lambda: observed.retrieve(QUESTION, identity=bearer),
            "the filter": lambda: filtering.postprocess_nodes(_foreign("a")),
        }
        for row, ask in asks.items():
            assert TOKEN not in repr(wiki.assert_raises(row, NotAuthenticated, ask)), row
        observed.close()
        shown = {
            "repr of the retriever": repr(retriever),
            "repr of the filter": repr(filtering),
            "str of the filter": str(filtering),
            "`to_dict`": repr(filtering.to_dict()),
            "`to_json`": filtering.to_json(),
            "`model_dump_json`": filtering.model_dump_json(),
            "a pickle": repr(pickle.dumps(filtering)),
            "events": "".join(recorder.told),
            "callbacks": repr(debug.get_event_pairs()),
        }
    dispatcher.event_handlers.remove(recorder)
    assert recorder.told
    for way, text in shown.items():
        assert TOKEN not in text, way
    # A saved component has no identity, so it asks as nobody.
    assert RagwardNodeFilter.from_json(filtering.to_json()).collection == "c"
    with pytest.raises(IdentityMissing):
        RagwardNodeFilter.from_dict(filtering.to_dict()).postprocess_nodes(_foreign("a"))


def test_a_token_in_a_wrong_place_is_not_repeated() -> None:
    kind: Any = RagwardNodeFilter
    for place in ("identity", "token"):
        with pytest.raises(ValueError, match=place) as told:
            kind(collection="c", **{place: TOKEN})
        assert TOKEN not in str(told.value)


class _Unfiltered(BaseRetriever):
    """Another team's retriever, which knows nothing of rights."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self._nodes = nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._nodes


def _foreign(*ids: str) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=one, text=f"text of {one}"), score=0.5) for one in ids]


def test_the_filter_keeps_what_may_be_seen(world: Wiki) -> None:
    with Client(world.url) as client:
        filtering = RagwardNodeFilter(collection=COLLECTION, client=client)
        nodes = _foreign("bob#0", SECRET, "shared#1", "gone#7", "anne#0")
        engine = _engine(_Unfiltered(nodes), filtering)
        rows = {ANNE: ["shared#1", "anne#0"], BOB: ["bob#0", "shared#1"], NOBODY: []}
        for user, expected in rows.items():
            answers = [
                wiki.acting(lambda: filtering.postprocess_nodes(nodes), user),
                wiki.acting(lambda: asyncio.run(filtering.apostprocess_nodes(nodes)), user),
                wiki.acting(lambda: engine.query(QUESTION), user).source_nodes,
                asyncio.run(wiki.acting_async(lambda: engine.aquery(QUESTION), user)).source_nodes,
            ]
            for answer in answers:
                assert [node.node.node_id for node in answer] == expected, user
            # The model's answer repeats all that the model got, and this user may see all of it.
            said = str(wiki.acting(lambda: engine.query(QUESTION), user))
            assert f"text of {SECRET}" not in said, user


def test_the_filter_finds_the_chunk_of_a_foreign_node(world: Wiki) -> None:
    with Client(world.url) as client:
        nodes = _foreign("x", "y")
        chunks = {"x": "anne#0"}
        filtering = RagwardNodeFilter(
            collection=COLLECTION,
            client=client,
            identity=Identity.user(ANNE),
            chunk_id=lambda node: chunks.get(node.node.node_id),
        )
        assert filtering.postprocess_nodes(nodes) == nodes[:1]


def test_shadow_mode_changes_no_answer_and_knows_who_asked() -> None:
    asked: list[tuple[str, list[str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        message = json.loads(request.content)
        assert message["purpose"] == "PURPOSE_OBSERVE"
        asked.append((message["user"], message["chunkIds"]))
        return httpx.Response(200, json={"chunkIds": [], "consistencyToken": "t"})

    nodes = _foreign("a", "b")
    with Client(transport=httpx.MockTransport(answer)) as client:
        observed = observe(_Unfiltered(nodes), collection="c", until=FAR, client=client)
        engine = _engine(observed)
        with ThreadPoolExecutor(max_workers=8) as pool:
            answers = list(pool.map(lambda user: wiki.acting(lambda: engine.query(QUESTION), user).source_nodes, USERS))
        answers.append(asyncio.run(observed.aretrieve(QUESTION, user=ANNE)))
        answers.append(observed.retrieve(QUESTION, user=BOB))
        assert all(found == nodes for found in answers)
        for ask in (
            lambda: observed.retrieve(QUESTION),
            lambda: asyncio.run(observed.aretrieve(QUESTION)),
            lambda: engine.query(QUESTION),
        ):
            with pytest.raises(IdentityMissing):
                ask()
        observed.close()
        assert sorted(asked) == sorted((user, ["a", "b"]) for user in (*USERS, ANNE, BOB))
        with pytest.raises(ObservationEnded):
            observed.retrieve(QUESTION, user=ANNE)
