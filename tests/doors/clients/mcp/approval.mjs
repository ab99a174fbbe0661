// The official client for MCP in JavaScript: a call needs an approval, so the client asks its person and repeats the call.
//
//     MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKEN=... APPROVAL_PAGE=https://login.example/requests node approval.mjs
//
// The issuer says that the person approves whatever is asked.
import assert from "node:assert/strict";

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { MCP_URL: url, MCP_TOKEN: token, APPROVAL_PAGE: page } = process.env;

/** Returns the answer to a search, and what a person was asked who says the same to every question. */
async function searched(elicitation, says) {
  const asked = [];
  const capabilities = elicitation ? { elicitation } : {};
  const client = new Client({ name: "a test", version: "1" }, { versionNegotiation: { mode: "auto" }, capabilities });
  if (elicitation) {
    client.setRequestHandler("elicitation/create", ({ params }) => {
      asked.push(params);
      return says;
    });
  }
  const headers = { authorization: `Bearer ${token}` };
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
  const answer = await client.callTool({ name: "search", arguments: { query: "leave" } });
  await client.close();
  return { answer, asked };
}

const rows = [
  ["a form", { form: {} }, { action: "accept", content: {} }, "form"],
  ["a page", { url: {} }, { action: "accept" }, "url"],
  ["both", { form: {}, url: {} }, { action: "accept" }, "url"],
];
for (const [row, elicitation, says, mode] of rows) {
  const { answer, asked } = await searched(elicitation, says);
  assert.deepEqual(asked.map((question) => [question.mode, question.url]), [[mode, mode === "url" ? page : undefined]], row);
  assert.match(asked[0].message, /with the code \S/, row);
  assert.equal(answer.structuredContent?.results.length, 2, `${row}: ${JSON.stringify(answer)}`);
}
const declined = await searched({ form: {} }, { action: "decline" });
assert.deepEqual([declined.answer.isError, declined.asked.length], [true, 1], "a no");
const mute = await searched(undefined, undefined);
assert.equal(JSON.parse(mute.answer.content[1].text).error, "APPROVAL_REQUIRED", "a client that cannot ask");
console.log("done");
