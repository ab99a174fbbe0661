"""Two people ask the same question of a small handbook, and each gets what they may see.

It needs `pip install ./clients/python` and the program `ragward`; no key, and no network.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import ragward
from ragward import Identity

HANDBOOK = Path(__file__).parents[2] / "schema/handbook"

with (
    TemporaryDirectory() as data,
    ragward.local(data, model=HANDBOOK / "store.fga.yaml") as server,
    server.client() as client,
):
    for page in map(json.loads, (HANDBOOK / "catalog.jsonl").read_text().splitlines()):
        text = (HANDBOOK / page["path"]).read_text()
        client.put_document(
            "handbook", page["id"], guard=page["id"], title=page["title"], text=text, identity=Identity.none()
        )

    for user in ("user:anne", "user:bob"):
        answer = client.retrieve("handbook", "pay bands", k=3, per_document_max=1, identity=Identity.user(user))
        print(user, [chunk.title for chunk in answer])
