"""The official client for MCP in Python starts `ragward mcp --stdio` over a data folder, as programs on a desktop do.

    RAGWARD=target/debug/ragward RAGWARD_DATA=... python3 mcp_stdio.py
"""

import asyncio
import json
import os

from mcp import Client, StdioServerParameters

REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
CHUNKS = {
    "anne": ["handbook/document%3Awelcome%230", "handbook/document%3Awelcome%231"],
    "bob": ["handbook/document%3Asalaries%230", "handbook/document%3Asalaries%231"],
    "carl": [],
}


async def asks(mode, name):
    row = f"{REVISIONS[mode]}, {name}"
    arguments = ["mcp", "--stdio", "--data", os.environ["RAGWARD_DATA"], "--user", f"user:{name}"]
    async with Client(StdioServerParameters(command=os.environ["RAGWARD"], args=arguments), mode=mode) as client:
        assert client.protocol_version == REVISIONS[mode], f"{row}: {client.protocol_version}"
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["search", "fetch"], f"{row}: {tools}"
        found = await client.call_tool("search", {"query": "leave", "collection": "handbook"})
        results = found.structured_content["results"]
        assert not found.is_error and [result["id"] for result in results] == CHUNKS[name], f"{row}: {found}"
        assert json.loads(found.content[0].text) == found.structured_content, f"{row}: the two forms differ: {found}"
        for result in results:
            fetched = await client.call_tool("fetch", {"id": result["id"]})
            assert fetched.structured_content["text"] == result["text"], f"{row}: {fetched}"
            [read] = (await client.read_resource(result["url"])).contents
            assert read.text == result["text"], f"{row}: {read}"
        for hidden in (chunks[0] for other, chunks in CHUNKS.items() if other != name and chunks):
            fetched = await client.call_tool("fetch", {"id": hidden})
            assert fetched.is_error and "nothing has this id" in fetched.content[0].text, f"{row}: {fetched}"


async def main():
    for mode in REVISIONS:
        for name in CHUNKS:
            await asks(mode, name)


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
