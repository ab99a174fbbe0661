"""The Haystack adapter against a real server: who asks on each way through Haystack, and what its documents hold."""

# Haystack is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

# Haystack would tell its makers of each run.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import httpx
import pytest
from haystack import Document, Pipeline, component
from haystack.components.retrievers import InMemoryBM25Retriever
from haystack.core.errors import PipelineConnectError
from haystack.dataclasses.breakpoints import Breakpoint
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ragward import (
    Client,
    Consistency,
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
from ragward.haystack import ObservationEnded, RagwardDocumentFilter, RagwardRetriever, observe
from tests import wiki
from tests.script import ANSWER, CHUNK, URL, Script, json_answer
from tests.wiki import ANNE, BOB, COLLECTION, NOBODY, OF_ANNE, OF_BOB, QUESTION, SECRET, USERS, Wiki

TOKEN = "a-very-secret-token"
FAR = date(9999, 12, 31)


@pytest.fixture
def retriever(world: Wiki) -> Iterator[RagwardRetriever]:
    made = RagwardRetriever(COLLECTION, url=world.url, k=20)
    yield made
    made.close()


def _ids(documents: list[Document]) -> set[str]:
    return {document.id for document in documents}


@component
class Join:
    """Passes documents on, so that a pipeline has a second step."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        return {"documents": documents}


def _pipeline(first: Any, *others: Any) -> Pipeline:
    pipeline = Pipeline()
    steps = [first, *others, Join()]
    for number, step in enumerate(steps):
        pipeline.add_component(f"step{number}", step)
    for number in range(len(steps) - 1):
        pipeline.connect(f"step{number}.documents", f"step{number + 1}.documents")
    return pipeline


def _last(outputs: dict[str, Any]) -> list[Document]:
    return next(found["documents"] for found in outputs.values() if "documents" in found)


def _inputs(**inputs: Any) -> dict[str, Any]:
    return {"step0": {"query": QUESTION, **inputs}}


def test_each_user_gets_what_they_may_see(retriever: RagwardRetriever) -> None:
    pipeline = _pipeline(retriever)
    ways: dict[str, Callable[[str], list[Document]]] = {
        "the input `identity`": lambda user: retriever.run(QUESTION, identity=Identity.user(user))["documents"],
        "the input `user`": lambda user: retriever.run(QUESTION, user=user)["documents"],
        "`acting_as`": lambda user: wiki.acting(lambda: retriever.run(QUESTION), user)["documents"],
        "a pipeline": lambda user: _last(pipeline.run(_inputs(identity=Identity.user(user)))),
        "a pipeline, by its user": lambda user: _last(pipeline.run(_inputs(user=user))),
        "a pipeline, by `acting_as`": lambda user: _last(wiki.acting(lambda: pipeline.run(_inputs()), user)),
    }
    for row, ask in ways.items():
        assert _ids(ask(ANNE)) == OF_ANNE, row
        assert _ids(ask(BOB)) == OF_BOB, row
        assert ask(NOBODY) == [], row


async def test_each_user_gets_what_they_may_see_without_blocking(retriever: RagwardRetriever) -> None:
    pipeline = _pipeline(retriever)
    ways: dict[str, Callable[[str], Any]] = {
        "the input `identity`": lambda user: retriever.run_async(QUESTION, identity=Identity.user(user)),
        "`acting_as`": lambda user: wiki.acting_async(lambda: retriever.run_async(QUESTION), user),
        "a pipeline": lambda user: pipeline.run_async(_inputs(identity=Identity.user(user))),
        "a pipeline, by `acting_as`": lambda user: wiki.acting_async(lambda: pipeline.run_async(_inputs()), user),
    }
    for row, ask in ways.items():
        for user, expected in ((ANNE, OF_ANNE), (BOB, OF_BOB), (NOBODY, set[str]())):
            outputs = await ask(user)
            documents = outputs["documents"] if "documents" in outputs else _last(outputs)
            assert _ids(documents) == expected, (row, user)
    await retriever.aclose()


def test_fifty_users_at_once_are_never_mixed_in_threads(retriever: RagwardRetriever) -> None:
    pipeline = _pipeline(retriever)

    def ask(user: str) -> list[Document]:
        return _last(pipeline.run(_inputs(identity=Identity.user(user))))

    with ThreadPoolExecutor(max_workers=len(USERS)) as pool:
        for round_ in range(4):
            answers = list(pool.map(ask, USERS))
            assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS], round_


async def test_fifty_users_at_once_are_never_mixed_in_tasks(retriever: RagwardRetriever) -> None:
    pipeline = _pipeline(retriever)

    async def ask(user: str) -> list[Document]:
        return _last(await wiki.acting_async(lambda: pipeline.run_async(_inputs()), user))

    for round_ in range(4):
        answers = await asyncio.gather(*(ask(user) for user in USERS))
        assert [_ids(answer) for answer in answers] == [wiki.ids_of_user(user) for user in USERS], round_
    await retriever.aclose()


def test_without_an_identity_nothing_is_asked(world: Wiki) -> None:
    # The identity of a client is never used in silence: it would be everybody's.
    with Client(world.url, identity=Identity.user(ANNE)) as client:
        retriever = RagwardRetriever(COLLECTION, client=client)
        filtering = RagwardDocumentFilter(COLLECTION, client=client)
        documents = [Document(id="shared#0", content="a")]
        # It remembers nobody.
        assert retriever.run(QUESTION, user=ANNE)["documents"]
        assert asyncio.run(retriever.run_async(QUESTION, user=ANNE))["documents"]
        rows: dict[str, Callable[[], Any]] = {
            "a run": lambda: retriever.run(QUESTION),
            "a run in a loop": lambda: asyncio.run(retriever.run_async(QUESTION)),
            "a filter": lambda: filtering.run(documents),
            "a filter in a loop": lambda: asyncio.run(filtering.run_async(documents)),
        }
        for row, ask in rows.items():
            wiki.assert_raises(row, IdentityMissing, ask)
        with pytest.raises(Exception, match="nobody said who asks"):
            _pipeline(retriever).run(_inputs())


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
        filtering = RagwardDocumentFilter("c", client=client, identity=own)
        observed = observe(RagwardRetriever("c", client=client), collection="c", until=FAR, client=client, identity=own)
        documents = [Document(id="a#0", content="a")]
        rows: dict[str, Callable[[], Any]] = {
            "a run": lambda: retriever.run(QUESTION, **lost),
            "a run in a loop": lambda: asyncio.run(retriever.run_async(QUESTION, **lost)),
            "a filter": lambda: filtering.run(documents, **lost),
            "a filter in a loop": lambda: asyncio.run(filtering.run_async(documents, **lost)),
            "shadow mode": lambda: observed.run(query=QUESTION, **lost),
            "shadow mode in a loop": lambda: asyncio.run(observed.run_async(query=QUESTION, **lost)),
        }
        for row, ask in rows.items():
            wiki.assert_raises(row, IdentityMissing, partial(wiki.acting, ask, ANNE))
        for step in (retriever, observed):
            with acting_as(Identity.user(ANNE)), pytest.raises(Exception, match="of the call is `None`"):
                _pipeline(step).run(_inputs(**lost))
        observed.close()
    assert script.requests == []


@component
class _Session:
    """Says who asks, as far as it knows."""

    def __init__(self, outputs: dict[str, Any], kind: Any = Identity) -> None:
        self._outputs = outputs
        component.set_output_types(self, identity=kind, user=str)

    def run(self, query: str) -> dict[str, Any]:
        return self._outputs


SESSIONS: dict[str, dict[str, Any]] = {
    "an identity that is None": {"identity": None},
    "a user that is None": {"user": None},
    "no output": {},
}


@pytest.mark.parametrize("place", ["identity", "user"])
@pytest.mark.parametrize("outputs", SESSIONS.values(), ids=SESSIONS)
def test_a_session_that_a_pipeline_lost_asks_as_nobody_else(outputs: dict[str, Any], place: str) -> None:
    script = Script(json_answer(ANSWER))
    with Client(URL, transport=script.transport, identity=Identity.user(BOB)) as client:
        retriever = RagwardRetriever("c", client=client, identity=Identity.user(BOB))
        pipeline = _pipeline(retriever)
        pipeline.add_component("session", _Session(outputs))
        pipeline.connect(f"session.{place}", f"step0.{place}")
        run = {"session": {"query": QUESTION}, **_inputs()}
        with acting_as(Identity.user(ANNE)):
            for ask in (lambda: pipeline.run(run), lambda: asyncio.run(pipeline.run_async(run))):
                failed = wiki.assert_raises(place, Exception, ask)
                assert "is `None`" in str(failed) or "nothing came" in str(failed)
    assert script.requests == []


def test_a_session_that_may_know_nobody_is_not_connected(retriever: RagwardRetriever) -> None:
    pipeline = _pipeline(retriever)
    pipeline.add_component("session", _Session({}, Identity | None))
    with pytest.raises(PipelineConnectError):
        pipeline.connect("session.identity", "step0.identity")


def test_a_session_says_who_asks(world: Wiki) -> None:
    sessions: dict[str, Any] = {"identity": Identity.user(ANNE), "user": ANNE}
    for place, value in sessions.items():
        with Client(world.url) as client:
            pipeline = _pipeline(RagwardRetriever(COLLECTION, client=client, k=20))
            pipeline.add_component("session", _Session({place: value}))
            pipeline.connect(f"session.{place}", f"step0.{place}")
            found = pipeline.run({"session": {"query": QUESTION}, **_inputs()})
            assert _ids(_last(found)) == OF_ANNE, place


def test_a_document_has_its_id_and_what_ragward_says(retriever: RagwardRetriever) -> None:
    outputs = retriever.run(QUESTION, user=BOB)
    assert SECRET not in _ids(outputs["documents"])
    one = next(document for document in outputs["documents"] if document.id == "bob#0")
    meta = dict(one.meta)
    assert meta.pop("consistency_token") == outputs["consistency_token"]
    assert meta.pop("score") == one.score
    assert meta == {
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
    assert (outputs["completion"], outputs["recall"]) == ("EXHAUSTED", "EXACT")
    # An empty answer says why it is empty, too.
    assert retriever.run(QUESTION, user=NOBODY)["completion"] == "EXHAUSTED"
    again = retriever.run(QUESTION, user=BOB, consistency_token=outputs["consistency_token"])
    assert _ids(again["documents"]) == OF_BOB


def test_options_hold_for_the_component_and_for_the_run(world: Wiki) -> None:
    only_shared = F("area") == "shared"
    with Client(world.url) as client:
        narrow = RagwardRetriever(COLLECTION, client=client, k=1, filter=only_shared)
        wide = RagwardRetriever(COLLECTION, client=client, k=20)
        rows: list[tuple[str, dict[str, Any], int]] = [
            ("k of the component", narrow.run(QUESTION, user=ANNE), 1),
            ("k of the run", narrow.run(QUESTION, user=ANNE, k=2), 2),
            ("a filter of the run", wide.run(QUESTION, user=ANNE, filter=only_shared), 2),
            ("a score that none has", wide.run(QUESTION, user=ANNE, min_score=1e9), 0),
        ]
        for row, outputs, count in rows:
            assert len(outputs["documents"]) == count, row
        hybrid = RagwardRetriever(COLLECTION, client=client, search_type="hybrid")
        with pytest.raises(ValueError, match="needs the embedding"):
            hybrid.run(QUESTION, user=ANNE)


def test_a_model_of_the_server_embeds_and_orders() -> None:
    script = Script(json_answer({**ANSWER, "chunks": [{**CHUNK, "score": 1, "rerankScore": 0.25}]}))
    with Client(URL, transport=script.transport) as client:
        retriever = RagwardRetriever(COLLECTION, client=client, search_type="semantic", identity=Identity.none())
        (found,) = retriever.run("q")["documents"]
    assert json.loads(script.requests[0].content)["semantic"] == {"text": "q"}
    assert (found.score, found.meta["rerank_score"]) == (1, 0.25)


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
    documents = [Document(id="shared#0", content="a")]
    for row, status, code, error in rows:
        with Client(transport=wiki.refusing(status, code), retries=0) as client:
            retriever = RagwardRetriever(COLLECTION, client=client, identity=Identity.none())
            filtering = RagwardDocumentFilter(COLLECTION, client=client, identity=Identity.none())
            for ask in _asks(retriever, filtering, documents):
                wiki.assert_raises(row, error, ask)
            # A pipeline wraps the error of its component, and keeps the reason.
            with pytest.raises(Exception, match="refused"):
                _pipeline(retriever).run(_inputs())
    with wiki.undecided() as world, Client(world.url, retries=0) as client:
        with pytest.raises(Unavailable):
            RagwardRetriever(COLLECTION, client=client).run(QUESTION, user=ANNE)
        with pytest.raises(Unavailable):
            RagwardDocumentFilter(COLLECTION, client=client).run(documents, user=ANNE)


def _asks(
    retriever: RagwardRetriever, filtering: RagwardDocumentFilter, documents: list[Document]
) -> list[Callable[[], object]]:
    return [
        lambda: retriever.run(QUESTION),
        lambda: asyncio.run(retriever.run_async(QUESTION)),
        lambda: filtering.run(documents),
        lambda: asyncio.run(filtering.run_async(documents)),
    ]


def test_a_saved_pipeline_has_its_options_and_no_identity(world: Wiki) -> None:
    bearer = Identity.bearer(TOKEN)
    retriever = RagwardRetriever(
        COLLECTION,
        url=world.url,
        identity=bearer,
        k=3,
        filter=F("area") == "shared",
        consistency=Consistency.HIGHER_CONSISTENCY,
    )
    filtering = RagwardDocumentFilter(COLLECTION, url=world.url, identity=bearer)
    saved = _pipeline(retriever, filtering).dumps()
    assert TOKEN not in saved
    # Haystack makes only components of modules that the program trusts.
    loaded = Pipeline.loads(saved, allowed_modules=["ragward.haystack", "tests.*"])
    assert loaded.dumps() == saved
    found = _last(wiki.acting(lambda: loaded.run(_inputs()), ANNE))
    assert _ids(found) == wiki.SHARED
    with pytest.raises(Exception, match="nobody said who asks"):
        loaded.run(_inputs())
    for name in ("step0", "step1"):
        step: Any = loaded.get_component(name)
        step.close()
    with Client(world.url, identity=bearer) as client:
        # A client cannot be saved, and another one in its place might trust other authorities.
        for refused in (
            RagwardRetriever(COLLECTION, client=client),
            RagwardDocumentFilter(COLLECTION, client=client),
            RagwardDocumentFilter(COLLECTION, chunk_id=lambda document: document.id),
        ):
            with pytest.raises(ValueError, match="cannot be saved"):
                refused.to_dict()


def test_a_token_is_never_shown(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    bearer = Identity.bearer(TOKEN)
    with Client(transport=wiki.refusing(401, "unauthenticated"), identity=bearer) as client:
        retriever = RagwardRetriever("c", client=client, identity=bearer)
        observed = observe(retriever, collection="c", until=FAR, client=client, identity=bearer)
        pipeline = _pipeline(observed)
        with pytest.raises(Exception, match="refused") as told:
            pipeline.run(_inputs(identity=bearer))
        # A breakpoint writes the inputs of a run to a file.
        stop = Breakpoint("step0", snapshot_file_path=str(tmp_path))
        stopped = wiki.assert_raises(
            "a stop", Exception, lambda: pipeline.run(_inputs(identity=bearer), break_point=stop)
        )
        observed.close()
        files = [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()]
        shown = {
            "a snapshot": "".join(files) + repr(stopped) + repr(vars(stopped)),
            "the error": repr(told.value) + str(told.value),
            "repr": repr(retriever) + repr(observed) + repr(pipeline),
            "what the error carries along": repr(vars(told.value)) + repr(vars(told.value.__cause__ or told.value)),
            "the log": caplog.text,
        }
        for way, text in shown.items():
            assert TOKEN not in text, way
        with pytest.raises(TypeError):
            pickle.dumps(retriever)


def test_the_filter_keeps_what_may_be_seen(world: Wiki) -> None:
    ids = ["bob#0", SECRET, "shared#1", "gone#7", "anne#0"]
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=one, content=f"{QUESTION}: {one}") for one in ids])
    documents = [Document(id=one, content=one) for one in ids]
    with Client(world.url) as client:
        filtering = RagwardDocumentFilter(COLLECTION, client=client)
        pipeline = _pipeline(InMemoryBM25Retriever(store), filtering)
        for user, expected in ((ANNE, {"shared#1", "anne#0"}), (BOB, {"bob#0", "shared#1"}), (NOBODY, set[str]())):
            answers = [
                filtering.run(documents, user=user)["documents"],
                asyncio.run(filtering.run_async(documents, user=user))["documents"],
                _last(pipeline.run({"step0": {"query": QUESTION}, "step1": {"user": user}})),
                _last(wiki.acting(lambda: pipeline.run(_inputs()), user)),
            ]
            for answer in answers:
                assert _ids(answer) == expected, user
        kept = filtering.run(documents, user=ANNE)["documents"]
        assert [document.id for document in kept] == ["shared#1", "anne#0"]
        by_key = RagwardDocumentFilter(COLLECTION, client=client, chunk_id=lambda document: document.meta.get("chunk"))
        foreign = [Document(content="a", meta={"chunk": "anne#0"}), Document(content="b")]
        assert by_key.run(foreign, user=ANNE)["documents"] == foreign[:1]


@pytest.mark.parametrize("has_async", [True, False], ids=["an asynchronous retriever", "a blocking retriever"])
def test_shadow_mode_changes_no_answer_and_knows_who_asked(has_async: bool) -> None:
    asked: list[tuple[str, list[str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        message = json.loads(request.content)
        assert message["purpose"] == "PURPOSE_OBSERVE"
        asked.append((message["user"], message["chunkIds"]))
        return httpx.Response(200, json={"chunkIds": [], "consistencyToken": "t"})

    store = InMemoryDocumentStore()
    store.write_documents([Document(id=one, content=f"{QUESTION} {one}") for one in ("a", "b")])
    inner = InMemoryBM25Retriever(store) if has_async else _Blocking(store)
    plain = _last(_pipeline(InMemoryBM25Retriever(store)).run(_inputs(top_k=2)))
    with Client(transport=httpx.MockTransport(answer)) as client:
        observed = observe(inner, collection="c", until=FAR, client=client)
        pipeline = _pipeline(observed)
        answers = [_last(pipeline.run(_inputs(top_k=2, user=user))) for user in USERS]
        answers.append(_last(wiki.acting(lambda: pipeline.run(_inputs(top_k=2)), ANNE)))
        answers.append(_last(asyncio.run(pipeline.run_async(_inputs(top_k=2, identity=Identity.user(BOB))))))
        assert all(found == plain for found in answers)
        with pytest.raises(IdentityMissing):
            observed.run(query=QUESTION)
        with pytest.raises(IdentityMissing):
            asyncio.run(observed.run_async(query=QUESTION))
        observed.close()
        assert sorted((user, sorted(ids)) for user, ids in asked) == sorted(
            (user, ["a", "b"]) for user in (*USERS, ANNE, BOB)
        )
        with pytest.raises(ObservationEnded):
            observed.run(query=QUESTION, user=ANNE)
        with pytest.raises(ValueError, match="cannot be saved"):
            observed.to_dict()


@component
class _Blocking:
    """A retriever that can only block."""

    def __init__(self, store: InMemoryDocumentStore) -> None:
        self._inner = InMemoryBM25Retriever(store)

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int = 10) -> dict[str, Any]:
        return self._inner.run(query=query, top_k=top_k)
