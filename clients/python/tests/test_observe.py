"""Shadow mode without a framework: what is asked, what is dropped, what is told, and when it ends."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from functools import partial
from typing import Any

import httpx
import pytest

from ragward import Client, Identity, IdentityMissing, RagwardError, acting_as
from ragward._adapters import acaptured, caller, captured
from ragward._observe import WARNING_INTERVAL_SECONDS, Counts, ObservationEnded, Observer
from tests import wiki
from tests.wiki import assert_raises

LAST_DAY = date(2026, 12, 31)
ANNE = Identity.user("user:anne")
#: Longer than any step of these tests takes. It only keeps a broken test from hanging.
PATIENCE_SECONDS = 60.0


@dataclass
class Server:
    """A server that answers each recheck once it is let."""

    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    authorizations: list[str | None] = field(default_factory=list[str | None])
    may_answer: threading.Event = field(default_factory=threading.Event)
    is_asked: threading.Event = field(default_factory=threading.Event)

    def client(self) -> Client:
        return Client(transport=httpx.MockTransport(self._answer), retries=0)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        self.authorizations.append(request.headers.get("authorization"))
        self.is_asked.set()
        assert self.may_answer.wait(PATIENCE_SECONDS)
        return httpx.Response(self.status, json={"chunkIds": [], "consistencyToken": "t"})


class Clock:
    """A clock and a calendar that tests turn."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.day = date(2026, 11, 30)

    def now(self) -> float:
        return self.seconds

    def today(self) -> date:
        return self.day


def _observer(server: Server, clock: Clock, queue_max: int = 10) -> Observer:
    return Observer(server.client(), "wiki", until=LAST_DAY, queue_max=queue_max, clock=clock.now, today=clock.today)


def _same(document: str | None) -> str | None:
    return document


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ragward.observe"]


def test_the_server_is_asked_in_the_background() -> None:
    server, clock = Server(), Clock()
    with _observer(server, clock) as observer:
        # The server does not answer yet, and nobody waits for it.
        observer.observed(ANNE, ["a", None, "b", "a", ""], _same)
        assert server.is_asked.wait(PATIENCE_SECONDS)
        server.may_answer.set()
    assert server.asked == [
        {"collection": "wiki", "chunkIds": ["a", "b"], "purpose": "PURPOSE_OBSERVE", "user": "user:anne"}
    ]
    assert observer.counts == Counts(answers=1, asked=2, unknown=2)


def test_a_server_keeps_apart_what_it_would_withhold_and_what_it_does_not_know() -> None:
    with wiki.served('[audit]\nobserved = "ids"\n') as served, Client(served.url) as client:
        with Observer(client, wiki.COLLECTION, until=date(9999, 12, 31)) as observer:
            observer.observed(ANNE, ["anne#0", wiki.SECRET, "wiki-page-7", None], _same)
        assert observer.counts == Counts(answers=1, asked=3, unknown=1)
        report = served.observed()
    assert {name: report[name] for name in ("calls", "ids", "withheld", "unknown")} == {
        "calls": 1,
        "ids": 3,
        "withheld": 1,
        "unknown": 1,
    }
    names = {(row["by"], row["name"]) for row in report["rows"]}
    assert {("user", wiki.ANNE), ("document", "secret"), ("unknown_id", "wiki-page-7")} <= names


def test_an_answer_without_chunks_is_counted_and_not_asked_about() -> None:
    server, clock = Server(), Clock()
    with _observer(server, clock) as observer:
        observer.observed(ANNE, [], _same)
        observer.observed(ANNE, [None], _same)
    assert server.asked == []
    assert observer.counts == Counts(answers=2, unknown=1)


def test_many_ids_are_asked_in_parts() -> None:
    server, clock = Server(), Clock()
    server.may_answer.set()
    ids = [f"c#{number}" for number in range(2_345)]
    with _observer(server, clock) as observer:
        observer.observed(ANNE, ids, _same)
    assert [len(message["chunkIds"]) for message in server.asked] == [1_000, 1_000, 345]
    assert [one for message in server.asked for one in message["chunkIds"]] == ids
    assert observer.counts == Counts(answers=1, asked=2_345)


def test_a_full_queue_drops_answers_and_tells_the_number(caplog: pytest.LogCaptureFixture) -> None:
    server, clock = Server(), Clock()
    observer = _observer(server, clock, queue_max=3)
    observer.observed(ANNE, ["first"], _same)
    # The first one has left the queue and waits for the server. So three more fit.
    assert server.is_asked.wait(PATIENCE_SECONDS)
    for number in range(8):
        observer.observed(ANNE, [f"c#{number}"], _same)
    assert observer.counts == Counts(answers=9, dropped=5)
    server.may_answer.set()
    observer.close()
    assert [message["chunkIds"] for message in server.asked] == [["first"], ["c#0"], ["c#1"], ["c#2"]]
    assert observer.counts == Counts(answers=9, asked=4, dropped=5)
    assert "closed: 5; questions failed: 0" in _warnings(caplog)[-1]


def test_one_warning_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    server, clock = Server(), Clock()
    server.may_answer.set()
    observer = _observer(server, clock)
    rows = [
        ("the first answer", 0.0, 1),
        ("right after", 1.0, 1),
        ("almost an hour later", WARNING_INTERVAL_SECONDS - 1.0, 1),
        ("an hour later", WARNING_INTERVAL_SECONDS, 2),
        ("right after that", WARNING_INTERVAL_SECONDS + 1.0, 2),
        ("a day later", 24 * WARNING_INTERVAL_SECONDS, 3),
    ]
    for row, seconds, count in rows:
        clock.seconds = seconds
        observer.observed(ANNE, ["a", None], _same)
        assert len(_warnings(caplog)) == count, row
    first, second, third = _warnings(caplog)
    assert "not filtered" in first
    assert "2026-12-31" in first
    assert "answers: 1; documents that are no chunks: 1;" in first
    assert "answers: 3; documents that are no chunks: 3;" in second
    assert "answers: 2; documents that are no chunks: 2;" in third
    # Nothing was lost since, so there is nothing to tell at the end.
    observer.close()
    assert len(_warnings(caplog)) == 3


def test_a_failed_question_is_counted_and_named_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    server, clock = Server(status=503), Clock()
    server.may_answer.set()

    def fails(_: str | None) -> str | None:
        raise LookupError("a text that could hold a secret")

    observer = _observer(server, clock)
    observer.observed(ANNE, ["a"], _same)
    observer.observed(ANNE, ["b"], fails)
    observer.close()
    assert observer.counts == Counts(answers=2, failed=2)
    assert "questions failed: 2 (LookupError, Unavailable)" in _warnings(caplog)[-1]
    assert "secret" not in caplog.text


def test_it_ends_with_its_last_day() -> None:
    server, clock = Server(), Clock()
    with _observer(server, clock) as observer:
        clock.day = LAST_DAY
        observer.check()
        clock.day = date(2027, 1, 1)
        with pytest.raises(ObservationEnded, match="2026-12-31"):
            observer.check()
        # It cannot be made any more, either.
        with pytest.raises(ObservationEnded):
            _observer(server, clock)
    rows: dict[str, tuple[Any, type[Exception]]] = {
        "no date": (None, TypeError),
        "a moment": (datetime(2026, 12, 31, tzinfo=timezone.utc), TypeError),
        "a text": ("2026-12-31", TypeError),
        "a day that is over": (date(2020, 1, 1), ObservationEnded),
    }
    client = server.client()

    def made(until: Any) -> Observer:
        return Observer(client, "wiki", until=until)

    for row, (until, error) in rows.items():
        assert_raises(row, error, partial(made, until))
    with pytest.raises(ValueError, match="queue_max"):
        _observer(server, clock, queue_max=0)
    assert issubclass(ObservationEnded, RagwardError)


def test_a_closed_observer_refuses() -> None:
    server, clock = Server(), Clock()
    observer = _observer(server, clock)
    observer.close()
    with pytest.raises(ObservationEnded, match="closed"):
        observer.check()
    # An answer that was under way while it was closed is counted as dropped.
    observer.observed(ANNE, ["late"], _same)
    assert observer.counts == Counts(answers=1, dropped=1)


def test_close_asks_what_waits_and_is_bounded() -> None:
    server, clock = Server(), Clock()
    observer = _observer(server, clock)
    for number in range(5):
        observer.observed(ANNE, [f"c#{number}"], _same)
    assert server.is_asked.wait(PATIENCE_SECONDS)
    # The server does not answer, so nothing can be asked in no time. Nobody waits for it.
    observer.close(timeout=0.0)
    assert observer.counts == Counts(answers=5, dropped=4)
    server.may_answer.set()


def test_nobody_holds_it_any_more() -> None:
    server, clock = Server(), Clock()
    server.may_answer.set()
    # The thread of another test may still be about to end.
    before = threading.enumerate()
    observer: Observer | None = _observer(server, clock)
    assert observer is not None
    observer.observed(ANNE, ["a"], _same)
    thread = next(one for one in threading.enumerate() if one.name == "ragward-observe" and one not in before)
    observer = None
    gc.collect()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert [message["chunkIds"] for message in server.asked] == [["a"]]


def test_the_token_is_that_of_the_call() -> None:
    server, clock = Server(), Clock()
    server.may_answer.set()
    # A function that gives the token of the request which this thread serves, as web frameworks have it.
    request = threading.local()
    request.token = "token-of-anne"
    provider = Identity.bearer(lambda: request.token)
    with _observer(server, clock) as observer:
        observer.observed(captured(provider), ["a"], _same)
        request.token = "token-of-bob"
        observer.observed(captured(provider.on_behalf_of("user:carol")), ["b"], _same)
    assert server.authorizations == ["Bearer token-of-anne", "Bearer token-of-bob"]
    assert [message.get("user") for message in server.asked] == [None, "user:carol"]


async def test_an_asynchronous_function_gives_the_token() -> None:
    async def provider() -> str:
        return "token-of-anne"

    who = await acaptured(Identity.bearer(provider))
    assert captured(who) is not who
    assert "token-of-anne" not in repr(who)
    with pytest.raises(TypeError, match="asynchronous"):
        captured(Identity.bearer(provider))


def test_who_asks() -> None:
    user, service = Identity.user, Identity.bearer("t")
    rows: dict[str, tuple[Callable[[], Identity], str]] = {
        "the call": (lambda: caller(identity=user("a"), configured=user("b"), own=user("c")), "Identity.user('a')"),
        "the configuration": (lambda: caller(configured=user("b"), own=user("c")), "Identity.user('b')"),
        "its own": (lambda: caller(own=user("c")), "Identity.user('c')"),
        "a user": (lambda: caller(user="d"), "Identity.user('d')"),
        "a user in place of its own": (lambda: caller(user="d", own=user("c")), "Identity.user('d')"),
        "a user for whom a service asks": (
            lambda: caller(user="d", own=service),
            "Identity.bearer(...).on_behalf_of('d')",
        ),
        "nobody, and that is meant": (lambda: caller(identity=Identity.none(), own=user("c")), "Identity.none()"),
    }
    for row, (ask, expected) in rows.items():
        assert repr(ask()) == expected, row
    with acting_as(user("e")):
        assert repr(caller(own=user("c"))) == "Identity.user('e')"
        assert repr(caller(configured=user("b"))) == "Identity.user('b')"
    with pytest.raises(IdentityMissing):
        caller()
    with pytest.raises(ValueError, match="user:anne"):
        caller(user="")
    for value in ("token", 7, b"token"):
        with pytest.raises(TypeError, match="must be an `Identity`"):
            caller(identity=value)
    lost: dict[str, dict[str, Any]] = {
        "an identity": {"identity": None},
        "a user": {"user": None},
        "an identity, with a user": {"identity": None, "user": "user:d"},
        "a user, with an identity": {"identity": user("a"), "user": None},
        "an identity in the configuration": {"configured": None},
    }
    for row, arguments in lost.items():
        with acting_as(user("e")):
            wiki.assert_raises(row, IdentityMissing, partial(caller, own=user("c"), **arguments))
