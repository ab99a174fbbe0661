"""One session of the official client for MCP in Python: tokens and relationships change between its calls, in both revisions.

    MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKENS='{"anne": ..., "bob": ...}' RAGWARD_URL=http://127.0.0.1:8980 RAGWARD_TOKEN=... \
        python3 mcp_session.py

`RAGWARD_TOKEN` may write relationships.
"""

import asyncio
import json
import os
from contextlib import AsyncExitStack

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

URL = os.environ["MCP_URL"]
TOKENS = json.loads(os.environ["MCP_TOKENS"])
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
CHUNKS = {"anne": ["handbook/document%3Awelcome%230", "handbook/document%3Awelcome%231"]}
CHUNKS["bob"] = [chunk.replace("welcome", "salaries") for chunk in CHUNKS["anne"]]
RIGHT = {"user": "user:anne", "relation": "reader", "object": "document:welcome"}
# The calls of each person that run at the same time.
CALLS = 8


class Session:
    """A session in which each call has the token of whoever asks."""

    def __init__(self, mode):
        self.mode = mode
        self.person = "anne"
        self.client = None

    async def open(self, stack):
        http = await stack.enter_async_context(httpx2.AsyncClient(event_hooks={"request": [self.sign]}))
        transport = streamable_http_client(URL, http_client=http)
        self.client = await stack.enter_async_context(Client(transport, mode=self.mode))
        assert self.client.protocol_version == REVISIONS[self.mode], self.client.protocol_version
        return self

    async def sign(self, request):
        request.headers["authorization"] = f"Bearer {TOKENS[self.person]}"

    async def found(self):
        answer = await self.client.call_tool("search", {"query": "leave"})
        assert not answer.is_error, answer
        return [result["id"] for result in answer.structured_content["results"]]

    async def answers(self, chunk):
        """Returns what a chunk's id brings as a tool and as a resource, in a form that is equal for equal answers."""
        fetched = await self.client.call_tool("fetch", {"id": chunk})
        try:
            read = [part.text for part in (await self.client.read_resource(f"ragward://{chunk}")).contents]
        except MCPError as refused:
            # The error repeats the URI that was asked for. Everything else is equal for equal answers.
            assert refused.error.data == {"uri": f"ragward://{chunk}"}, refused.error
            read = (refused.error.code, refused.error.message)
        return fetched.is_error, fetched.content, read

    async def sees(self, row, expected):
        """Asserts that the person finds these chunks, and that all others look like one that is not there."""
        nothing = await self.answers("handbook/absent")
        assert nothing[0], f"{row}: {nothing}"
        found = await self.found()
        assert found == expected, f"{row}: {found}"
        for chunk in CHUNKS["anne"] + CHUNKS["bob"]:
            answers = await self.answers(chunk)
            if chunk in expected:
                assert not answers[0] and answers[2] == [json.loads(answers[1][0].text)["text"]], f"{row}: {answers}"
            else:
                assert answers == nothing, f"{row}: {answers}"


async def write(change):
    headers = {"authorization": f"Bearer {os.environ['RAGWARD_TOKEN']}"}
    async with httpx2.AsyncClient(base_url=os.environ["RAGWARD_URL"], headers=headers) as http:
        [store] = (await http.get("/stores")).json()["stores"]
        answer = await http.post(f"/stores/{store['id']}/write", json={change: {"tuple_keys": [RIGHT]}})
        assert answer.status_code == 200, answer.text


async def is_used_by_two(mode):
    async with AsyncExitStack() as stack:
        session = await Session(mode).open(stack)
        for turn, person in enumerate(("anne", "bob", "anne")):
            session.person = person
            await session.sees(f"{REVISIONS[mode]}, {person}, turn {turn}", CHUNKS[person])


async def two_ask_at_the_same_time(mode):
    async with AsyncExitStack() as stack:
        sessions = {person: await Session(mode).open(stack) for person in CHUNKS}
        for person, session in sessions.items():
            session.person = person
        asked = [person for _ in range(CALLS) for person in CHUNKS]
        found = await asyncio.gather(*(sessions[person].found() for person in asked))
        for person, chunks in zip(asked, found, strict=True):
            assert chunks == CHUNKS[person], f"{REVISIONS[mode]}, {person}, at the same time: {chunks}"


async def loses_a_right(mode):
    async with AsyncExitStack() as stack:
        session = await Session(mode).open(stack)
        await session.sees(f"{REVISIONS[mode]}, with the right", CHUNKS["anne"])
        await write("deletes")
        await session.sees(f"{REVISIONS[mode]}, without the right", [])
        session.person = "bob"
        await session.sees(f"{REVISIONS[mode]}, somebody else's right", CHUNKS["bob"])
        await write("writes")
        session.person = "anne"
        await session.sees(f"{REVISIONS[mode]}, with the right again", CHUNKS["anne"])


async def main():
    for mode in REVISIONS:
        await is_used_by_two(mode)
        await two_ask_at_the_same_time(mode)
        await loses_a_right(mode)


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
