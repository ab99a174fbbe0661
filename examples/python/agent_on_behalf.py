"""An agent asks for a person, and gets no more than that person may see, and no more than its token allows.

It needs `pip install ./clients/python "pyjwt[crypto]"` and the program `ragward`; no key of yours, and no network. The tokens
are signed with a key that this program makes. In place of the agent's model there is a function that returns its context.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from handbook import COLLECTION, QUESTION, loaded
from issuer import Issuer
from ragward import Answer, Client, Identity, LocalServer

AUDIENCE = "https://rag.example"
CONFIG = """
[identity]
audience = "{audience}"

[[identity.issuers]]
issuer = "{issuer}"

[identity.delegation]
relation = "can_act_for"     # an agent may act for a person if it holds this relation on that person
"""
#: Narrows a token to two pages. It grants nothing: Anne may not read the pay bands.
DETAILS = [
    {
        "type": "ragward_retrieval",
        "identifiers": ["document:parental-leave", "document:pay-bands"],
        "purpose": "answer a question about parental leave",
    }
]


def agent(client: Client, token: str) -> str:
    """Answer the question as an agent would, with the token that it was given for this person."""
    answer = client.retrieve(COLLECTION, QUESTION, k=5, identity=Identity.bearer(token))
    return echo(answer)


def echo(context: Answer) -> str:
    """Stand in for a model: return the context."""
    return "".join(f"  {chunk.title}\n" for chunk in context) or "  (nothing)\n"


def main() -> None:
    """Ask with four tokens."""
    with TemporaryDirectory() as folder, Issuer(AUDIENCE) as issuer:
        data = Path(folder, "data")
        with loaded(data):
            pass  # The handbook is in the data directory now.
        config = Path(folder, "ragward.toml")
        config.write_text(CONFIG.format(audience=AUDIENCE, issuer=issuer.url), encoding="utf-8")
        tokens = {
            "Anne herself": issuer.token("anne"),
            "desk-helper for Anne": issuer.token("anne", act={"sub": "desk-helper"}),
            "desk-helper for Anne, for two pages": issuer.token(
                "anne", act={"sub": "desk-helper"}, authorization_details=DETAILS
            ),
            "inbox-sorter for Anne, which may act for nobody": issuer.token("anne", act={"sub": "inbox-sorter"}),
        }
        with _serving(config, data) as server, server.client() as client:
            for who, token in tokens.items():
                print(f"{who}:\n{agent(client, token)}")


def _serving(config: Path, data: Path) -> LocalServer:
    """Start a server that asks for tokens. `ragward.local` would start one that believes every name."""
    program = os.environ.get("RAGWARD_BIN", "ragward")
    command = [program, "serve", "--config", str(config), "--data", str(data), "--listen", "127.0.0.1:0"]
    return LocalServer(command, {**os.environ, "RUST_LOG": "info"}, ready_seconds=30.0)


if __name__ == "__main__":
    main()
