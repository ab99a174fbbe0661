"""What the client gets from a real server, by both of its forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ragward import (
    Answer,
    Completion,
    Consistency,
    Document,
    F,
    Filter,
    Forbidden,
    Identity,
    InvalidRequest,
    LocalServer,
    NewChunk,
    NotFound,
    Purpose,
    Recall,
    RelationshipTuple,
    Unavailable,
    acting_as,
    local,
)
from tests.world import LONG, LONG_BYTES, LONG_CHUNKS, NOTES, PEOPLE, Asking

ANNE, BOB, CAROL = Identity.user("user:anne"), Identity.user("user:bob"), Identity.user("user:carol")
NINA = Identity.user("user:nina")


def ids(answer: Answer) -> list[str]:
    return [chunk.id for chunk in answer]


async def test_of_two_documents_only_the_permitted_one_comes(asking: Asking) -> None:
    rows = [("anne", ANNE, "roadmap#0", "salaries#0"), ("bob", BOB, "salaries#0", "roadmap#0")]
    for row, identity, seen, hidden in rows:
        answer = await asking.call("retrieve", NOTES, "leave", k=100, identity=identity)
        assert seen in ids(answer), row
        assert hidden not in ids(answer), row
        assert all(chunk.id for chunk in answer), row


async def test_a_chunk_is_whole(asking: Asking) -> None:
    answer = await asking.call("retrieve", NOTES, "coast", k=1, identity=ANNE)
    assert (answer.completion, answer.recall) == (Completion.COMPLETE, Recall.EXACT)
    assert (answer.next_page_token, answer.replica_lag, answer.plan) == ("", None, None)
    assert answer.consistency_token
    (chunk,) = answer
    assert (chunk.id, chunk.document_id, chunk.guard) == ("roadmap#0", "roadmap", "document:roadmap")
    assert (chunk.title, chunk.text) == ("Roadmap", "leave for the coast in may")
    assert chunk.score > 0
    assert chunk.metadata == {"area": "plans", "year": 2024}
    assert isinstance(chunk.metadata["year"], int)


async def test_who_may_see_nothing_gets_an_empty_answer(asking: Asking) -> None:
    answer = await asking.call("retrieve", NOTES, "leave", k=100, identity=NINA)
    assert (ids(answer), answer.completion) == ([], Completion.EXHAUSTED)
    fetched = await asking.call("fetch", NOTES, document_ids=["roadmap", "absent"], identity=NINA)
    assert (ids(fetched), fetched.completion) == ([], Completion.EXHAUSTED)
    rechecked = await asking.call("recheck", NOTES, ["roadmap#0", "absent#0"], identity=NINA)
    assert rechecked.chunk_ids == ()
    assert [ids(page) for page in await asking.each("pages", NOTES, "leave", k=2, identity=NINA)] == [[]]


async def test_two_relations_on_one_object_give_each_chunk_once(asking: Asking) -> None:
    assert ids(await asking.call("retrieve", NOTES, "leave", k=100, identity=CAROL)) == ["roadmap#0"]


async def test_all_chunks_of_a_document_come(asking: Asking) -> None:
    manual = [f"manual#{number}" for number in range(5)]
    found = await asking.call("retrieve", NOTES, "leave part", k=100, filter=F("weight") > 0, identity=BOB)
    assert sorted(ids(found)) == manual
    assert ids(await asking.call("fetch", NOTES, document_ids=["manual"], identity=BOB)) == manual
    one = await asking.call("retrieve", NOTES, "leave", k=100, per_document_max=1, identity=BOB)
    assert sorted(chunk.document_id for chunk in one) == ["manual", "salaries"]


@pytest.mark.parametrize("form", ["threads", "asyncio"])
async def test_http2_gives_the_same(server: LocalServer, form: str) -> None:
    asking = Asking(server.client(http2=True) if form == "threads" else server.async_client(http2=True))
    answer = await asking.call("retrieve", LONG, "leave", k=LONG_CHUNKS, identity=ANNE)
    assert len(answer) == LONG_CHUNKS
    assert (await asking.call("recheck", NOTES, ["roadmap#0"], identity=ANNE)).chunk_ids == ("roadmap#0",)
    await asking.close()


async def test_a_page_of_long_chunks_comes_whole(asking: Asking) -> None:
    answer = await asking.call("retrieve", LONG, "leave", k=LONG_CHUNKS, identity=ANNE)
    assert len(answer) == LONG_CHUNKS
    assert sum(len(chunk.text) for chunk in answer) > LONG_CHUNKS * LONG_BYTES > 4 * 1024 * 1024


FILTERS: list[tuple[str, Filter, list[int]]] = [
    ("equal texts", (F("area") == "people") & (F("weight") > 0), [0, 1, 2, 3, 4]),
    ("other texts", (F("area") != "people") & (F("weight") > 0), []),
    ("not the same", ~(F("year") == 2022) & (F("area") == "people") & (F("weight") > 0), [0, 1, 3, 4]),
    ("truth", F("is_old") == True, [0, 1]),  # noqa: E712
    ("one of several", F("year").one_of(2021, 2023), [1, 3]),
    ("one of none", F("year").one_of(), []),
    ("none, or one", F("year").one_of() | (F("weight") == 0.5), [0]),
    ("at least", F("year") >= 2023, [3, 4]),
    ("more than", F("year") > 2023, [4]),
    ("at most", F("weight") <= 1.5, [0, 1]),
    ("less than", F("weight") < 1.5, [0]),
    ("between", F("year").between(2021, 2023), [1, 2, 3]),
    ("either", (F("year") == 2020) | (F("year") == 2024), [0, 4]),
    ("three of them", (F("year") >= 2021) & (F("year") <= 2023) & (F("weight") > 2), [2, 3]),
]


@pytest.mark.parametrize(("row", "condition", "expected"), FILTERS, ids=[row for row, _, _ in FILTERS])
async def test_filters_mean_what_they_say(asking: Asking, row: str, condition: Filter, expected: list[int]) -> None:
    within = condition & F("area").one_of("people", "plans")
    answer = await asking.call("retrieve", NOTES, "leave", k=100, filter=within, identity=BOB)
    found = [chunk.id for chunk in answer if chunk.document_id == "manual"]
    assert sorted(found) == [f"manual#{number}" for number in expected], row


async def test_a_filter_that_matches_nothing_is_no_missing_filter(asking: Asking) -> None:
    answer = await asking.call("retrieve", NOTES, "leave", filter=F("area").one_of(), identity=ANNE)
    assert ids(answer) == []


async def test_pages_hold_each_chunk_once(asking: Asking) -> None:
    pages = await asking.each("pages", NOTES, "leave", k=2, identity=ANNE)
    found = [chunk.id for page in pages for chunk in page]
    whole = await asking.call("retrieve", NOTES, "leave", k=100, identity=ANNE)
    assert found == ids(whole)
    # A full page may be the last one, which only the next one shows.
    assert [len(page) for page in pages] == [2, 2, 2, 0]


async def test_who_asks_for_pages_is_settled_at_their_start(asking: Asking) -> None:
    with acting_as(ANNE):
        pages = asking.client.pages(NOTES, "leave", k=2)
    with acting_as(BOB):
        collected = [page async for page in pages] if isinstance(pages, AsyncIterator) else list(pages)
    found = [chunk.id for page in collected for chunk in page]
    assert "roadmap#0" in found
    assert "salaries#0" not in found


async def test_recheck_keeps_the_order_and_leaves_out_what_is_hidden_or_gone(asking: Asking) -> None:
    asked = ["manual#3", "salaries#0", "absent#0", "roadmap#0"]
    rechecked = await asking.call("recheck", NOTES, asked, identity=ANNE, purpose=Purpose.ANSWER)
    assert rechecked.chunk_ids == ("manual#3", "roadmap#0")
    assert rechecked.consistency_token


async def test_freshness_may_be_asked_for(asking: Asking) -> None:
    first = await asking.call("retrieve", NOTES, "leave", identity=ANNE)
    rows: list[tuple[str, dict[str, Any]]] = [
        ("a token", {"consistency_token": first.consistency_token}),
        ("the authority", {"consistency": Consistency.HIGHER_CONSISTENCY}),
        ("speed", {"consistency": Consistency.MINIMIZE_LATENCY}),
    ]
    for row, options in rows:
        again = await asking.call("retrieve", NOTES, "leave", identity=ANNE, **options)
        assert ids(again) == ids(first), row
        assert (await asking.call("recheck", NOTES, ids(first), identity=ANNE, **options)).chunk_ids == tuple(
            ids(first)
        )
        assert ids(await asking.call("fetch", NOTES, chunk_ids=ids(first), identity=ANNE, **options)) == ids(first)


async def test_a_plan_is_told_where_the_server_allows_it(asking: Asking) -> None:
    answer = await asking.call("retrieve", NOTES, "leave", explain_plan=True, identity=ANNE)
    assert answer.plan is not None
    assert answer.plan.rounds
    assert answer.plan.rounds[-1].permitted <= answer.plan.rounds[-1].candidates


async def test_min_score_leaves_out_weak_chunks(asking: Asking) -> None:
    whole = await asking.call("retrieve", NOTES, "leave coast", k=100, identity=ANNE)
    scores = [chunk.score for chunk in whole]
    least = (scores[0] + scores[1]) / 2
    best = await asking.call("retrieve", NOTES, "leave coast", k=100, min_score=least, identity=ANNE)
    assert ids(best) == ids(whole)[:1]


async def test_explain_tells_why(asking: Asking) -> None:
    allowed = await asking.call("explain", "user:anne", object="document:roadmap", identity=Identity.none())
    assert (allowed.allowed, allowed.undecided, allowed.relation) == (True, "", "can_read")
    assert allowed.root["outcome"] == "EXPLANATION_OUTCOME_HOLDS"
    assert allowed.as_of is not None
    denied = await asking.call("explain", "user:bob", collection=NOTES, chunk_id="roadmap#0", identity=Identity.none())
    assert (denied.allowed, denied.object) == (False, "document:roadmap")
    what_if = await asking.call(
        "explain",
        "user:bob",
        object="document:roadmap",
        relation="owner",
        contextual_tuples=[RelationshipTuple("user:bob", "owner", "document:roadmap")],
        identity=Identity.none(),
    )
    assert what_if.allowed
    # This server takes no tokens, so nobody else can say who the user is.
    with pytest.raises(InvalidRequest) as raised:
        await asking.call("explain", object="document:roadmap", identity=Identity.none())
    assert [violation.field for violation in raised.value.violations] == ["user"]


async def test_refusals_are_errors_and_never_empty_answers(asking: Asking) -> None:
    async def refused(kind: type[Exception], method: str, *arguments: Any, **options: Any) -> Any:
        with pytest.raises(kind) as raised:
            await asking.call(method, *arguments, **options)
        return raised.value

    wrong = await refused(InvalidRequest, "retrieve", NOTES, " ", k=0, identity=ANNE)
    assert {violation.field for violation in wrong.violations} == {"text", "top_k"}
    assert (wrong.code, wrong.reason) == ("invalid_argument", "INVALID_ARGUMENT")
    gone = await refused(NotFound, "retrieve", "absent", "leave", identity=ANNE)
    assert gone.code == "not_found"
    user = await refused(InvalidRequest, "retrieve", NOTES, "leave", identity=Identity.user("anne"))
    assert [violation.field for violation in user.violations] == ["user"]
    nobody = await refused(InvalidRequest, "retrieve", NOTES, "leave", identity=Identity.none())
    assert [violation.field for violation in nobody.violations] == ["user"]
    parameter = await refused(InvalidRequest, "retrieve", NOTES, "leave", context={"no": 1}, identity=ANNE)
    assert parameter.violations


#: An OpenFGA server that nobody reaches decides.
NO_AUTHORIZER = """
[authorizer]
kind = "openfga"

[authorizer.openfga]
address = "http://127.0.0.1:1"
store_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
"""


@pytest.mark.parametrize("form", ["threads", "asyncio"])
async def test_a_check_that_fails_is_an_error(tmp_path: Path, form: str) -> None:
    config = tmp_path / "ragward.toml"
    config.write_text(NO_AUTHORIZER)
    with local(tmp_path / "data", config=config) as server:
        asking = Asking(server.client() if form == "threads" else server.async_client())
        document = Document("a", [NewChunk("a#0", "document:a", "leave")])
        await asking.call("upsert_documents", NOTES, [document], identity=Identity.none())
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("retrieve", (NOTES, "leave"), {}),
            ("recheck", (NOTES, ["a#0"]), {}),
            ("fetch", (NOTES,), {"chunk_ids": ["a#0"]}),
        ]
        for method, arguments, options in calls:
            with pytest.raises(Unavailable) as failed:
                await asking.call(method, *arguments, identity=ANNE, **options)
            assert failed.value.reason == "BACKEND_UNAVAILABLE", method
        with pytest.raises(Unavailable):
            await asking.each("pages", NOTES, "leave", identity=ANNE)
        await asking.close()


async def test_a_host_that_the_server_does_not_know_is_forbidden(server: LocalServer) -> None:
    # The name resolves to this machine, and the server knows it by other names.
    with server.client() as client:
        client._http.headers["host"] = "attacker.example"
        with pytest.raises(Forbidden):
            client.retrieve(NOTES, "leave", identity=ANNE)


CALLS, THREADS = 1_000, 50


def owners(answer: Answer) -> set[str]:
    return {chunk.guard.removeprefix("document:private-") for chunk in answer}


@pytest.mark.parametrize("way", ["argument", "acting_as"])
def test_threads_that_share_a_client_never_mix_identities(server: LocalServer, way: str) -> None:
    with server.client(identity=Identity.user("user:nina")) as client:

        def ask(number: int) -> tuple[str, Answer]:
            person = PEOPLE[number % len(PEOPLE)]
            if way == "argument":
                return person, client.retrieve(NOTES, "leave", k=5, identity=Identity.user(person))
            with acting_as(Identity.user(person)):
                return person, client.retrieve(NOTES, "leave", k=5)

        with ThreadPoolExecutor(THREADS) as threads:
            answers = list(threads.map(ask, range(CALLS)))
    assert len(answers) == CALLS
    for person, answer in answers:
        assert owners(answer) == {person.removeprefix("user:")}


@pytest.mark.parametrize("way", ["argument", "acting_as"])
async def test_tasks_that_share_a_client_never_mix_identities(server: LocalServer, way: str) -> None:
    async with server.async_client(identity=Identity.user("user:nina"), timeout=300) as client:

        async def ask(number: int) -> tuple[str, Answer]:
            person = PEOPLE[number % len(PEOPLE)]
            if way == "argument":
                return person, await client.retrieve(NOTES, "leave", k=5, identity=Identity.user(person))
            with acting_as(Identity.user(person)):
                return person, await client.retrieve(NOTES, "leave", k=5)

        answers = await asyncio.gather(*(ask(number) for number in range(CALLS)))
    assert len(answers) == CALLS
    for person, answer in answers:
        assert owners(answer) == {person.removeprefix("user:")}
