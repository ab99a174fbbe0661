"""The official client for MCP in Python: a call needs an approval, so the client asks its person and repeats the call.

    MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKEN=... APPROVAL_PAGE=https://login.example/requests python3 mcp_approval.py

The issuer says that the person approves whatever is asked.
"""

import asyncio
import json
import os

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

URL = os.environ["MCP_URL"]
HEADERS = {"authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
PAGE = os.environ["APPROVAL_PAGE"]


async def searched(action):
    """Returns the answer to a search, and what a person was asked who does this; `None` is a client that cannot ask."""
    asked = []

    async def ask(_context, params):
        asked.append(params)
        return ElicitResult(action=action)

    async with httpx2.AsyncClient(headers=HEADERS) as http:
        transport = streamable_http_client(URL, http_client=http)
        async with Client(transport, mode="auto", elicitation_callback=ask if action else None) as client:
            return await client.call_tool("search", {"query": "leave"}), asked


async def main():
    answer, asked = await searched("accept")
    assert [(question.mode, question.url) for question in asked] == [("url", PAGE)], asked
    assert "with the code " in asked[0].message, asked
    assert len(answer.structured_content["results"]) == 2, answer
    answer, asked = await searched("decline")
    assert answer.is_error and len(asked) == 1, answer
    answer, _ = await searched(None)
    assert json.loads(answer.content[1].text)["error"] == "APPROVAL_REQUIRED", answer
    print("done")


asyncio.run(main())
