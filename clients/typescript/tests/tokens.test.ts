/** The client against a server that asks for access tokens. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client, Forbidden, Identity, InvalidRequest, NotAuthenticated, type RetrieveRequest } from "../src/index.js";
import { World } from "./world.js";

const ASKED: RetrieveRequest = { collection: "handbook", query: "leave", k: 2 };
const RETRIEVE = "ragward:retrieve";
/** A minute after the epoch. */
const LONG_AGO = { exp: 60 };

let world: World;
let client: Client;

before(async () => {
  world = await World.withTokens();
  client = new Client({ url: world.url });
});

after(() => world.stop());

async function refused(identity: Identity): Promise<unknown> {
  return client.retrieve({ ...ASKED, identity }).then(() => undefined, (error: unknown) => error);
}

test("a token says who asks", async () => {
  const pages = { ...ASKED, query: "pay bands", k: 1 };
  const bob = await client.retrieve({ ...pages, identity: Identity.bearer(world.token("bob", RETRIEVE)) });
  assert.equal(bob.chunks[0]?.guard, "document:pay-bands");
  const anne = await client.retrieve({ ...pages, identity: Identity.bearer(async () => world.token("anne", RETRIEVE)) });
  assert.equal(anne.chunks[0]?.guard, "document:pay-review");
  const asserting = Identity.bearer(world.token("pipeline", `${RETRIEVE} ragward:assert_user`)).onBehalfOf("user:bob");
  assert.equal((await client.retrieve({ ...pages, identity: asserting })).chunks[0]?.guard, "document:pay-bands");
});

test("a token that is not taken is an error with its challenge", async () => {
  const rows: readonly [string, Identity, typeof NotAuthenticated | typeof Forbidden, string, string][] = [
    ["none", Identity.none(), NotAuthenticated, "UNAUTHENTICATED", "Bearer"],
    ["a user that nobody believes", Identity.user("user:bob"), NotAuthenticated, "UNAUTHENTICATED", "Bearer"],
    ["an expired one", Identity.bearer(world.token("anne", RETRIEVE, LONG_AGO)), NotAuthenticated, "UNAUTHENTICATED",
      'error="invalid_token"'],
    ["one for another server", Identity.bearer(world.token("anne", RETRIEVE, { aud: "https://b.example" })), NotAuthenticated,
      "UNAUTHENTICATED", 'error="invalid_token"'],
    ["no token at all", Identity.bearer("a.b.c"), NotAuthenticated, "UNAUTHENTICATED", 'error="invalid_token"'],
    ["another scope", Identity.bearer(world.token("anne", "ragward:ingest")), Forbidden, "INSUFFICIENT_SCOPE",
      'scope="ragward:retrieve"'],
    ["a user without the scope for that", Identity.bearer(world.token("anne", RETRIEVE)).onBehalfOf("user:bob"), Forbidden,
      "PERMISSION_DENIED", ""],
  ];
  for (const [row, identity, kind, reason, challenge] of rows) {
    const error = await refused(identity);
    assert.ok(error instanceof kind, `${row}: ${String(error)}`);
    assert.equal(error.reason, reason, row);
    assert.ok((error.challenge ?? "").includes(challenge), `${row}: ${error.challenge}`);
  }
});

test("each page asks for a token, and a token that expires between pages ends them with an error", async () => {
  const token = world.token("anne", RETRIEVE);
  let asked = 0;
  const identity = Identity.bearer(() => {
    asked += 1;
    // Each page has another token, as after a renewal.
    return world.token("anne", RETRIEVE);
  });
  let pages = 0;
  const found: string[] = [];
  for await (const page of client.pages({ ...ASKED, identity })) {
    found.push(...page.chunks.map(({ id }) => id));
    pages += 1;
  }
  assert.ok(pages > 1);
  const whole = await client.retrieve({ ...ASKED, k: 100, identity: Identity.bearer(token) });
  assert.deepEqual(found, whole.chunks.map(({ id }) => id));
  assert.equal(asked, pages);

  const tokens = [token, world.token("anne", RETRIEVE, LONG_AGO)];
  const expiring = client.pages({ ...ASKED, identity: Identity.bearer(() => tokens.shift() ?? "none") });
  assert.equal((await expiring.next()).value?.chunks.length, ASKED.k);
  await assert.rejects(expiring.next(), NotAuthenticated, "never a short answer");
  const users = [token, world.token("bob", RETRIEVE)];
  const mixed = client.pages({ ...ASKED, identity: Identity.bearer(() => users.shift() ?? "none") });
  await mixed.next();
  await assert.rejects(mixed.next(), InvalidRequest, "the pages of one user are not another's");
});

test("each batch of an upload asks for a token", async () => {
  let asked = 0;
  const identity = Identity.bearer(() => {
    asked += 1;
    return world.token("anne", "ragward:ingest");
  });
  const documents = Array.from({ length: 2_001 }, (_, index) => ({
    id: `a${index}`, chunks: [{ id: `a${index}#0`, guard: "document:on-call", text: "x" }],
  }));
  const upserted = await client.upsertDocuments({ collection: "notes", documents, identity });
  assert.deepEqual([upserted.documents, asked], [2_001, 3]);
  const forbidden = client.putDocument({ collection: "notes", documentId: "b", guard: "document:pay-bands", content: "x", identity });
  await assert.rejects(forbidden, Forbidden);
});
