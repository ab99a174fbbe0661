"""LlamaIndex's tools for MCP: an agent gets its tools from the server, which finds what the bearer of the token may see.

    MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKEN=... python3 mcp_llama_index.py
"""

import asyncio
import json
import os

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

URL = os.environ["MCP_URL"]
SIGNED = {"authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
WELCOME = ["handbook/document%3Awelcome%230", "handbook/document%3Awelcome%231"]


async def main():
    tools = await McpToolSpec(BasicMCPClient(URL, headers=SIGNED)).to_tool_list_async()
    search, fetch = tools
    assert [tool.metadata.name for tool in tools] == ["search", "fetch"], tools
    assert "query" in search.metadata.get_parameters_dict()["properties"], search.metadata
    found = (await search.acall(query="leave")).raw_output
    results = json.loads(found.content[0].text)["results"]
    assert [result["id"] for result in results] == WELCOME, found
    fetched = (await fetch.acall(id=WELCOME[0])).raw_output
    assert json.loads(fetched.content[0].text)["text"] == results[0]["text"], fetched
    hidden = (await fetch.acall(id="handbook/document%3Asalaries%230")).raw_output
    assert hidden.is_error, hidden


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
