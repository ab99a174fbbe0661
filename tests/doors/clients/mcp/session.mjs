// One session of the official client for MCP in JavaScript: tokens and relationships change between its calls, in both revisions.
//
//     MCP_URL=http://127.0.0.1:8980/mcp MCP_TOKENS='{"anne": ..., "bob": ...}' RAGWARD_URL=http://127.0.0.1:8980 \
//         RAGWARD_TOKEN=... node session.mjs
//
// `RAGWARD_TOKEN` may write relationships.
import assert from "node:assert/strict";

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { MCP_URL: url, RAGWARD_URL: ragward, RAGWARD_TOKEN: operator } = process.env;
const tokens = JSON.parse(process.env.MCP_TOKENS);
const REVISIONS = { legacy: "2025-11-25", auto: "2026-07-28" };
const chunks = (page) => [0, 1].map((chunk) => `handbook/document%3A${page}%23${chunk}`);
const CHUNKS = { anne: chunks("welcome"), bob: chunks("salaries") };
const RIGHT = { user: "user:anne", relation: "reader", object: "document:welcome" };
// The calls of each person that run at the same time.
const CALLS = 8;

/** A session in which each call has the token of whoever asks. */
class Session {
  #client;

  constructor(person) {
    this.person = person;
  }

  async open(mode) {
    const fetchAs = (to, init) => {
      const headers = new Headers(init?.headers);
      headers.set("authorization", `Bearer ${tokens[this.person]}`);
      return fetch(to, { ...init, headers });
    };
    this.#client = new Client({ name: "a test", version: "1" }, { versionNegotiation: { mode } });
    await this.#client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: fetchAs }));
    assert.equal(this.#client.getNegotiatedProtocolVersion(), REVISIONS[mode]);
    return this;
  }

  close() {
    return this.#client.close();
  }

  async found() {
    const answer = await this.#client.callTool({ name: "search", arguments: { query: "leave" } });
    return answer.structuredContent.results.map(({ id }) => id);
  }

  /** What a chunk's id brings as a tool and as a resource, in a form that is equal for equal answers. */
  async answers(chunk) {
    const { isError = false, content } = await this.#client.callTool({ name: "fetch", arguments: { id: chunk } });
    const read = await this.#client.readResource({ uri: `ragward://${chunk}` }).then(
      ({ contents }) => contents.map(({ text }) => text),
      ({ code, message }) => ({ code, message }),
    );
    return { isError, content, read };
  }

  /** The person finds these chunks, and all others look like one that is not there. */
  async sees(row, expected) {
    const nothing = await this.answers("handbook/absent");
    assert.ok(nothing.isError, row);
    assert.deepEqual(await this.found(), expected, row);
    for (const chunk of [...CHUNKS.anne, ...CHUNKS.bob]) {
      const answers = await this.answers(chunk);
      if (expected.includes(chunk)) {
        assert.deepEqual(answers.read, [JSON.parse(answers.content[0].text).text], `${row}: ${chunk}`);
      } else {
        assert.deepEqual(answers, nothing, `${row}: ${chunk}`);
      }
    }
  }
}

async function write(change) {
  const headers = { authorization: `Bearer ${operator}`, "content-type": "application/json" };
  const { stores: [store] } = await (await fetch(`${ragward}/stores`, { headers })).json();
  const body = JSON.stringify({ [change]: { tuple_keys: [RIGHT] } });
  const answer = await fetch(`${ragward}/stores/${store.id}/write`, { method: "POST", headers, body });
  assert.equal(answer.status, 200, await answer.text());
}

async function isUsedByTwo(mode) {
  const session = await new Session("anne").open(mode);
  for (const [turn, person] of ["anne", "bob", "anne"].entries()) {
    session.person = person;
    await session.sees(`${REVISIONS[mode]}, ${person}, turn ${turn}`, CHUNKS[person]);
  }
  await session.close();
}

async function twoAskAtTheSameTime(mode) {
  const sessions = await Promise.all(Object.keys(CHUNKS).map((person) => new Session(person).open(mode)));
  const asked = Array.from({ length: CALLS }, () => sessions).flat();
  const found = await Promise.all(asked.map((session) => session.found()));
  for (const [at, { person }] of asked.entries()) {
    assert.deepEqual(found[at], CHUNKS[person], `${REVISIONS[mode]}, ${person}, at the same time`);
  }
  await Promise.all(sessions.map((session) => session.close()));
}

async function losesARight(mode) {
  const session = await new Session("anne").open(mode);
  await session.sees(`${REVISIONS[mode]}, with the right`, CHUNKS.anne);
  await write("deletes");
  await session.sees(`${REVISIONS[mode]}, without the right`, []);
  session.person = "bob";
  await session.sees(`${REVISIONS[mode]}, somebody else's right`, CHUNKS.bob);
  await write("writes");
  session.person = "anne";
  await session.sees(`${REVISIONS[mode]}, with the right again`, CHUNKS.anne);
  await session.close();
}

for (const mode of Object.keys(REVISIONS)) {
  await isUsedByTwo(mode);
  await twoAskAtTheSameTime(mode);
  await losesARight(mode);
}
console.log("done");
