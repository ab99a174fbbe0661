"""The small wiki that the tests of the framework adapters ask: a real server with many users, who see little of it each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

import ragward
from ragward import Client, Document, Identity, NewChunk, acting_as

COLLECTION = "wiki"
#: Everybody's question. Every chunk of the wiki matches it.
QUESTION = "parental leave"
#: The users of the tests about many users at once.
USERS = tuple(f"user:u{number}" for number in range(50))
ANNE, BOB, NOBODY = "user:anne", "user:bob", "user:nobody"

#: The chunks of the wiki that Anne and Bob see.
SHARED = {"shared#0", "shared#1"}
OF_ANNE = SHARED | {"anne#0", "twins#0", "twins#1"}
OF_BOB = SHARED | {"bob#0"}
#: A chunk that nobody sees, and that matches best.
SECRET = "secret#0"

_MODEL = """
model: |
  model
    schema 1.1
  type user
  type document
    relations
      define can_read: [user, user with in_region]
  condition in_region(region: string) {
    region == "eu"
  }
tuples:
"""


@dataclass(frozen=True)
class Wiki:
    """A server with the wiki."""

    url: str
    data: Path

    def observed(self) -> dict[str, Any]:
        """Return what the server would have withheld, as the operator sees it."""
        program = os.environ.get("RAGWARD_BIN", "ragward")
        command = [program, "audit", "report", "--data", str(self.data), "--format", "json"]
        report: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return report

    def client(self) -> Client:
        return Client(self.url)


def ids_of_user(user: str) -> set[str]:
    """Return the ids of the chunks that one of `USERS` sees."""
    return SHARED | {f"{user.removeprefix('user:')}#0"}


@contextmanager
def served(settings: str = "") -> Generator[Wiki]:
    """Serve the wiki until the block ends."""
    with TemporaryDirectory(prefix="ragward-wiki-") as folder:
        store = Path(folder, "store.fga.yaml")
        store.write_text(_MODEL + "".join(_tuples()), encoding="utf-8")
        with _filled(Path(folder), settings=settings, model=store) as wiki:
            yield wiki


@contextmanager
def undecided() -> Generator[Wiki]:
    """Serve a wiki whose checks all fail, because the OpenFGA server that decides does not answer."""
    # Nobody listens on port 1.
    settings = '[authorizer]\nkind = "openfga"\nopenfga.address = "http://127.0.0.1:1"\n'
    with (
        TemporaryDirectory(prefix="ragward-wiki-") as folder,
        _filled(Path(folder), settings=settings, model=None) as wiki,
    ):
        yield wiki


@contextmanager
def _filled(folder: Path, *, settings: str, model: Path | None) -> Generator[Wiki]:
    """Serve the documents of the wiki from a folder."""
    config = folder / "ragward.toml"
    config.write_text(settings, encoding="utf-8")
    data = folder / "data"
    with ragward.local(data, model=model, config=config) as server:
        with server.client(identity=Identity.none()) as client:
            client.upsert_documents(COLLECTION, _documents())
        yield Wiki(server.url, data)


def _tuples() -> Iterator[str]:
    readers: dict[str, list[str]] = {
        "shared": [ANNE, BOB, *USERS],
        "anne": [ANNE],
        "bob": [BOB],
        "twins": [ANNE],
        **{user.removeprefix("user:"): [user] for user in USERS},
    }
    for document, users in readers.items():
        for user in users:
            yield f"  - {{ user: {user}, relation: can_read, object: document:{document} }}\n"
    # No request of the tests says a region, so this tuple never counts.
    condition = "{ name: in_region }"
    yield f"  - {{ user: {ANNE}, relation: can_read, object: document:regional, condition: {condition} }}\n"


def _documents() -> Iterator[Document]:
    yield _document("shared", [f"{QUESTION} for all", f"more on {QUESTION} for all"])
    yield _document("anne", [f"{QUESTION} of Anne"])
    yield _document("bob", [f"{QUESTION} of Bob"])
    yield _document("regional", [f"{QUESTION} in some regions"])
    yield _document("secret", [f"{QUESTION} {QUESTION} {QUESTION}"])
    yield _document("twins", [f"{QUESTION}, said twice", f"{QUESTION}, said twice"])
    for user in USERS:
        yield _document(user.removeprefix("user:"), [f"{QUESTION} of {user}"])


def _document(name: str, texts: list[str]) -> Document:
    # The metadata has names of Ragward's own, which must not hide what Ragward says.
    metadata = {"area": name, "guard": "document:forged", "completion": "FORGED"}
    chunks = [NewChunk(f"{name}#{n}", f"document:{name}", text=text, metadata=metadata) for n, text in enumerate(texts)]
    return Document(name, chunks, title=f"On {name}")


def acting(ask: Callable[[], Any], user: str) -> Any:
    """Ask as a user whom only `acting_as` names."""
    with acting_as(Identity.user(user)):
        return ask()


async def acting_async(ask: Callable[[], Awaitable[Any]], user: str) -> Any:
    """Like `acting`, for questions that are awaited."""
    with acting_as(Identity.user(user)):
        return await ask()


def in_a_bare_thread(ask: Callable[[], Any]) -> Any:
    """Ask within `acting_as`, but in a thread that does not inherit the context."""
    with acting_as(Identity.user(ANNE)), ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(ask).result()


def assert_raises(row: str, error: type[BaseException], ask: Callable[[], object]) -> BaseException:
    """Return the error that a row of a test expects."""
    try:
        found = ask()
    except error as raised:
        return raised
    raise AssertionError(f"{row}: nothing was raised, and this came back: {found!r}")


def refusing(status: int, code: str) -> httpx.MockTransport:
    """Return a server that refuses every call."""
    return httpx.MockTransport(lambda _: httpx.Response(status, json={"code": code, "message": "refused"}))
