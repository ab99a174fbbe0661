"""The handbook of this repository on a server of the example's own, which ends with the example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import ragward
from ragward import Client, Identity

COLLECTION = "handbook"
QUESTION = "How much parental leave do I get, and what will change next year?"

_FOLDER = Path(__file__).parents[2] / "schema/handbook"


@contextmanager
def served() -> Iterator[str]:
    """Serve the handbook until the block ends, and yield the server's address."""
    with TemporaryDirectory() as data, loaded(Path(data)) as url:
        yield url


@contextmanager
def loaded(data: Path) -> Iterator[str]:
    """Load the handbook into a data directory, and serve it until the block ends."""
    with ragward.local(data, model=_FOLDER / "store.fga.yaml") as server:
        with server.client() as client:
            _put(client)
        yield server.url


def _put(client: Client) -> None:
    for line in (_FOLDER / "catalog.jsonl").read_text(encoding="utf-8").splitlines():
        page = json.loads(line)
        text = (_FOLDER / page["path"]).read_text(encoding="utf-8")
        # The guard of each page is the page itself: the tuples of the handbook say who reads which page.
        client.put_document(
            COLLECTION, page["id"], guard=page["id"], title=page["title"], text=text, identity=Identity.none()
        )
