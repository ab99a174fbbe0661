"""LangChain's tools for MCP: an agent gets its tools from the server, which finds what the bearer of the token may see.

    MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKEN=... python3 mcp_langchain.py
"""

import asyncio
import json
import os

from langchain_mcp_adapters.client import MultiServerMCPClient

SIGNED = {"authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
WELCOME = ["handbook/document%3Awelcome%230", "handbook/document%3Awelcome%231"]


async def main():
    server = {"transport": "streamable_http", "url": os.environ["MCP_URL"], "headers": SIGNED}
    tools = await MultiServerMCPClient({"ragward": server}).get_tools()
    search, fetch = tools
    assert [tool.name for tool in tools] == ["search", "fetch"], tools
    called = {"type": "tool_call", "id": "1"}
    found = await search.ainvoke({**called, "name": "search", "args": {"query": "leave"}})
    results = found.artifact["structured_content"]["results"]
    assert [result["id"] for result in results] == WELCOME, found
    assert json.loads(found.content[0]["text"])["results"] == results, f"the two forms differ: {found}"
    fetched = await fetch.ainvoke({**called, "name": "fetch", "args": {"id": WELCOME[0]}})
    assert fetched.artifact["structured_content"]["text"] == results[0]["text"], fetched
    hidden = await fetch.ainvoke({**called, "name": "fetch", "args": {"id": "handbook/document%3Asalaries%230"}})
    assert "nothing has this id" in str(hidden.content), hidden


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
