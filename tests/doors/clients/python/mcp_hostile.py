"""The official client for MCP in Python reads documents whose authors want more than to be quoted, in both revisions.

    MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKEN=... python3 mcp_hostile.py

`hostile.json` has the documents, and what a client may see of each.
"""

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

URL = os.environ["MCP_URL"]
SIGNED = {"authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
HOSTILE = json.loads(Path("../hostile.json").read_text(encoding="utf-8"))
# The guard of the documents that the bearer of the token may see.
SEEN = "document:welcome"
DOCUMENTS = [document for document in HOSTILE["documents"] if document["guard"] == SEEN]
HIDDEN = [document for document in HOSTILE["documents"] if document["guard"] != SEEN]


def identifier(document):
    return f"hostile/{quote(document['chunk'], safe='-._~')}"


def expected(document):
    """Returns what a result says of a document, and nothing else may hold its text."""
    one = identifier(document)
    shown = document["shown_url"] or f"ragward://{one}"
    return {"id": one, "title": document["shown_title"], "url": shown, "text": document["text"]}


def structured(row, answer):
    assert not answer.is_error and len(answer.content) == 1, f"{row}: {answer}"
    assert json.loads(answer.content[0].text) == answer.structured_content, f"{row}: the two forms differ: {answer}"
    return answer.structured_content


async def quotes_each(revision, client):
    asked = {"query": "leave", "collection": "hostile", "top_k": len(HOSTILE["documents"])}
    found = structured(revision, await client.call_tool("search", asked))
    assert set(found) == {"results", "completion"}, f"{revision}: {found}"
    results = {result["id"]: result for result in found["results"]}
    assert len(results) == len(found["results"]), f"{revision}: an id comes twice: {found}"
    differ = set(results) ^ set(map(identifier, DOCUMENTS))
    assert not differ, f"{revision}: {differ}"
    for document in DOCUMENTS:
        row = f"{revision}, {document['row']}"
        quoted = expected(document)
        searched = results[quoted["id"]]
        assert isinstance(searched.pop("score"), float), f"{row}: {searched}"
        assert searched == quoted, f"{row}, searched: {searched}"
        assert len(searched["title"].splitlines()) == 1 and searched["title"].isprintable(), f"{row}: {searched}"
        fetched = structured(row, await client.call_tool("fetch", {"id": searched["id"]}))
        assert fetched == {**quoted, "metadata": {"url": document["metadata_url"]}}, f"{row}, fetched: {fetched}"
        uri = f"ragward://{searched['id']}"
        read = await client.read_resource(uri)
        parts = [(str(part.uri), part.mime_type, part.text) for part in read.contents]
        assert parts == [(uri, "text/plain", document["text"])], f"{row}, read: {read}"


async def shows_nothing_of_the_rest(revision, client):
    """What is hidden, what is gone and what is no id have one answer."""
    gone = await client.call_tool("fetch", {"id": "hostile/gone"})
    refused = await refusal(client, "ragward://hostile/gone")
    assert gone.is_error and gone.structured_content is None, f"{revision}: {gone}"
    hidden = [{"row": document["row"], "id": identifier(document)} for document in HIDDEN]
    for nothing in hidden + HOSTILE["absent"]:
        row = f"{revision}, {nothing['row']}"
        fetched = await client.call_tool("fetch", {"id": nothing["id"]})
        assert fetched == gone, f"{row}, fetched: {fetched}"
        read = await refusal(client, f"ragward://{nothing['id']}")
        assert read == refused, f"{row}, read: {read}"
    for uri in HOSTILE["no_uris"]:
        row = f"{revision}, `{uri}`"
        read = await refusal(client, uri)
        assert read == refused, f"{row}, read: {read}"


async def refusal(client, uri):
    """Returns how a resource is refused, without the URI that was asked for."""
    try:
        raise AssertionError(f"{uri}: {await client.read_resource(uri)}")
    except MCPError as refused:
        data = refused.error.data
        assert data in (None, {"uri": uri}), f"{uri}: {data}"
        return refused.error.code, refused.error.message, data is None


async def main():
    assert DOCUMENTS and HIDDEN
    for mode, revision in REVISIONS.items():
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=SIGNED))
            transport = streamable_http_client(URL, http_client=http)
            client = await stack.enter_async_context(Client(transport, mode=mode))
            assert client.protocol_version == revision, client.protocol_version
            await quotes_each(revision, client)
            await shows_nothing_of_the_rest(revision, client)


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
