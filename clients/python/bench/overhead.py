"""Measures what the client adds to a call over direct gRPC, and what that time goes to.

    RAGWARD_BIN=../../target/release/ragward .venv/bin/python -m bench.overhead

It starts a server, and asks the same question in turn by gRPC (`grpcio`), by the client, and by bare httpx.
"""

from __future__ import annotations

import asyncio
import json
import operator
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx

from ragward import Identity, LocalServer, _wire, local
from tests.contract import RETRIEVAL, message
from tests.world import LONG, NOTES, fill

CALLS = 1_000
#: The calls before the measured ones, which open connections and fill caches.
WARM_UP_CALLS = 50
#: The largest acceptable difference of the medians, in milliseconds.
GOAL_MILLISECONDS = 2.0
RETRIEVE = f"/{RETRIEVAL}.RetrievalService/Retrieve"


def milliseconds(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return (time.perf_counter() - started) * 1_000


def report(name: str, times: list[float], base: float | None = None) -> float:
    p50 = statistics.median(times)
    p99 = statistics.quantiles(times, n=100)[-1]
    difference = "" if base is None else f"   {p50 - base:+.2f} ms"
    print(f"  {name:<44} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms{difference}")
    return p50


def measure(server: LocalServer, row: str, collection: str, user: str, k: int) -> bool:
    """Measures one question, and returns whether the goal is met."""
    request: Any = message(f"{RETRIEVAL}.RetrieveRequest")
    request.user, request.collection, request.text, request.top_k = user, collection, "leave", k
    answer_kind: Any = type(message(f"{RETRIEVAL}.RetrieveResponse"))
    # grpcio has no types.
    channel: Any = grpc.insecure_channel(
        server.url.removeprefix("http://"), options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)]
    )
    retrieve = channel.unary_unary(
        RETRIEVE,
        request_serializer=operator.methodcaller("SerializeToString"),
        response_deserializer=answer_kind.FromString,
    )
    body = json.dumps({"user": user, "collection": collection, "text": "leave", "topK": k}).encode()
    headers = {"content-type": "application/json"}
    identity = Identity.user(user)
    with server.client(identity=identity) as client, httpx.Client(trust_env=False) as http:

        def bare() -> bytes:
            return http.post(server.url + RETRIEVE, content=body, headers=headers).content

        ways: list[tuple[str, Callable[[], object]]] = [
            ("gRPC (grpcio)", lambda: retrieve(request)),
            ("ragward.Client", lambda: client.retrieve(collection, "leave", k=k)),
            ("bare httpx, the answer unread", bare),
        ]
        times: dict[str, list[float]] = {name: [] for name, _ in ways}
        for call in range(WARM_UP_CALLS + CALLS):
            # In turn, so that whatever else this machine does meanwhile falls on all of them.
            for name, ask in ways:
                took = milliseconds(ask)
                if call >= WARM_UP_CALLS:
                    times[name].append(took)
        received = bare()
        reading = [milliseconds(lambda: _wire.answer(_wire.parsed(received))) for _ in range(CALLS)]
    channel.close()

    async def by_asyncio() -> list[float]:
        found: list[float] = []
        async with server.async_client(identity=identity) as client:
            for call in range(WARM_UP_CALLS + CALLS):
                started = time.perf_counter()
                await client.retrieve(collection, "leave", k=k)
                if call >= WARM_UP_CALLS:
                    found.append((time.perf_counter() - started) * 1_000)
        return found

    print(f"{row}: {len(received):,} bytes of JSON")
    base = report("gRPC (grpcio)", times["gRPC (grpcio)"])
    p50 = report("ragward.Client", times["ragward.Client"], base)
    asynchronous = report("ragward.AsyncClient", asyncio.run(by_asyncio()), base)
    report("of which: bare httpx, the answer unread", times["bare httpx, the answer unread"], base)
    report("of which: reading and checking the answer", reading)
    return max(p50, asynchronous) - base <= GOAL_MILLISECONDS


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, local(Path(folder) / "data") as server:
        fill(server)
        met = measure(server, "6 short chunks", NOTES, "user:anne", 10)
        measure(server, "10 chunks of 60 KB", LONG, "user:anne", 10)
    print(f"goal for short chunks: at most {GOAL_MILLISECONDS} ms more than gRPC: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
