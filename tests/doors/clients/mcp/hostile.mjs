// The official client for MCP in JavaScript reads documents whose authors want more than to be quoted, in both revisions.
//
//     MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKEN=... node hostile.mjs
//
// `hostile.json` has the documents, and what a client may see of each.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { MCP_URL: url, MCP_TOKEN: token } = process.env;
const REVISIONS = { legacy: "2025-11-25", auto: "2026-07-28" };
const { documents, absent, no_uris: noUris } = JSON.parse(readFileSync("../hostile.json", "utf8"));
// The guard of the documents that the bearer of the token may see.
const SEEN = "document:welcome";
const [seen, hidden] = [true, false].map((is) => documents.filter(({ guard }) => (guard === SEEN) === is));

/** Encodes all but the characters that RFC 3986 reserves for nothing. */
const escape = (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
const encoded = (text) => encodeURIComponent(text).replace(/[!'()*]/g, escape);
const identifier = ({ chunk }) => `hostile/${encoded(chunk)}`;

/** What a result says of a document; nothing else may hold its text. */
function expected(document) {
  const id = identifier(document);
  return { id, title: document.shown_title, url: document.shown_url ?? `ragward://${id}`, text: document.text };
}

function structured(row, answer) {
  assert.ok(!answer.isError && answer.content.length === 1, `${row}: ${JSON.stringify(answer)}`);
  assert.deepEqual(JSON.parse(answer.content[0].text), answer.structuredContent, `${row}: the two forms differ`);
  return answer.structuredContent;
}

async function quotesEach(revision, client) {
  const asked = { query: "leave", collection: "hostile", top_k: documents.length };
  const found = structured(revision, await client.callTool({ name: "search", arguments: asked }));
  assert.deepEqual(Object.keys(found).sort(), ["completion", "results"], revision);
  const ids = found.results.map(({ id }) => id);
  assert.deepEqual(ids.sort(), seen.map(identifier).sort(), revision);
  for (const document of seen) {
    const row = `${revision}, ${document.row}`;
    const quoted = expected(document);
    const { score, ...searched } = found.results.find(({ id }) => id === quoted.id);
    assert.equal(typeof score, "number", row);
    assert.deepEqual(searched, quoted, `${row}, searched`);
    // Controls, what changes direction, separators of lines, and what nobody sees.
    assert.doesNotMatch(searched.title, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|^$/u, row);
    const fetched = structured(row, await client.callTool({ name: "fetch", arguments: { id: searched.id } }));
    assert.deepEqual(fetched, { ...quoted, metadata: { url: document.metadata_url } }, `${row}, fetched`);
    const uri = `ragward://${searched.id}`;
    const { contents } = await client.readResource({ uri });
    assert.deepEqual(contents, [{ uri, mimeType: "text/plain", text: document.text }], `${row}, read`);
  }
}

/** What is hidden, what is gone and what is no id have one answer. */
async function showsNothingOfTheRest(revision, client) {
  const fetched = (id) => client.callTool({ name: "fetch", arguments: { id } });
  const gone = await fetched("hostile/gone");
  assert.ok(gone.isError && gone.structuredContent === undefined, revision);
  const refused = await refusal(client, "ragward://hostile/gone");
  for (const { row, id } of [...hidden.map((document) => ({ ...document, id: identifier(document) })), ...absent]) {
    assert.deepEqual(await fetched(id), gone, `${revision}, ${row}, fetched`);
    assert.deepEqual(await refusal(client, `ragward://${id}`), refused, `${revision}, ${row}, read`);
  }
  for (const uri of noUris) {
    assert.deepEqual(await refusal(client, uri), refused, `${revision}, \`${uri}\`, read`);
  }
}

/** How a resource is refused. */
async function refusal(client, uri) {
  const read = await client.readResource({ uri }).catch(({ code, message }) => [code, message]);
  assert.ok(Array.isArray(read), `${uri}: ${JSON.stringify(read)}`);
  return read;
}

assert.ok(seen.length > 0 && hidden.length > 0);
for (const [mode, revision] of Object.entries(REVISIONS)) {
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  const client = new Client({ name: "a test", version: "1" }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
  assert.equal(client.getNegotiatedProtocolVersion(), revision);
  await quotesEach(revision, client);
  await showsNothingOfTheRest(revision, client);
  await client.close();
}
console.log("done");
