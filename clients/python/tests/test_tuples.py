"""OpenFGA's own SDK changes who sees what, and the next answer heeds it."""

from __future__ import annotations

from pathlib import Path

from openfga_sdk.client.configuration import ClientConfiguration
from openfga_sdk.client.models import ClientTuple, ClientWriteRequest
from openfga_sdk.sync import OpenFgaClient

from ragward import Client, Document, Identity, NewChunk, local

ANNE = Identity.user("user:anne")
READS = ClientTuple(user="user:anne", relation="can_read", object="document:leave")
MODEL = """
model
  schema 1.1
type user
type document
  relations
    define can_read: [user]
"""


def seen(client: Client) -> list[str]:
    return [chunk.id for chunk in client.retrieve("handbook", "leave", identity=ANNE)]


def test_a_tuple_of_openfgas_sdk_counts_at_once(tmp_path: Path) -> None:
    model = tmp_path / "model.fga"
    model.write_text(MODEL)
    with local(tmp_path / "data", model=model) as server, server.client() as client:
        document = Document("leave", [NewChunk("leave#0", "document:leave", "leave")])
        client.upsert_documents("handbook", [document], identity=Identity.none())
        with OpenFgaClient(ClientConfiguration(api_url=server.url)) as openfga:
            (store,) = openfga.list_stores().stores
        with OpenFgaClient(ClientConfiguration(api_url=server.url, store_id=store.id)) as openfga:
            assert seen(client) == []
            openfga.write(ClientWriteRequest(writes=[READS]))
            assert seen(client) == ["leave#0"]
            openfga.delete_tuples([READS])
            assert seen(client) == []
