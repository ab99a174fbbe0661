// The official client for MCP in JavaScript starts `ragward mcp --stdio` over a data folder, as programs on a desktop do.
//
//     RAGWARD=target/debug/ragward RAGWARD_DATA=... node stdio.mjs
import assert from "node:assert/strict";

import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const { RAGWARD: command, RAGWARD_DATA: data } = process.env;
const REVISIONS = { legacy: "2025-11-25", auto: "2026-07-28" };
const chunks = (page) => [0, 1].map((chunk) => `handbook/document%3A${page}%23${chunk}`);
const CHUNKS = { anne: chunks("welcome"), bob: chunks("salaries"), carl: [] };

async function asks(mode, name) {
  const row = `${REVISIONS[mode]}, ${name}`;
  const client = new Client({ name: "a test", version: "1" }, { versionNegotiation: { mode } });
  const args = ["mcp", "--stdio", "--data", data, "--user", `user:${name}`];
  await client.connect(new StdioClientTransport({ command, args }));
  assert.equal(client.getNegotiatedProtocolVersion(), REVISIONS[mode], row);
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name), ["search", "fetch"], row);

  const call = (tool, given) => client.callTool({ name: tool, arguments: given });
  const found = await call("search", { query: "leave", collection: "handbook" });
  const { results } = found.structuredContent;
  assert.deepEqual(results.map(({ id }) => id), CHUNKS[name], row);
  assert.deepEqual(JSON.parse(found.content[0].text), found.structuredContent, `${row}: the two forms differ`);
  for (const { id, url, text } of results) {
    assert.equal((await call("fetch", { id })).structuredContent.text, text, row);
    assert.deepEqual((await client.readResource({ uri: url })).contents.map((part) => part.text), [text], row);
  }
  const nothing = await call("fetch", { id: "handbook/absent" });
  assert.ok(nothing.isError, row);
  for (const hidden of Object.values(CHUNKS).flat().filter((chunk) => !CHUNKS[name].includes(chunk))) {
    assert.deepEqual(await call("fetch", { id: hidden }), nothing, `${row}: ${hidden}`);
  }
  await client.close();
}

for (const mode of Object.keys(REVISIONS)) {
  for (const name of Object.keys(CHUNKS)) {
    await asks(mode, name);
  }
}
console.log("done");
