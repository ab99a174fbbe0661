/** The client against a server that believes whom its callers name. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import {
  Client, type Document, F, type Filter, Identity, InvalidRequest, type MetadataValue, NotFound, Unavailable,
} from "../src/index.js";
import { World, unusedUrl } from "./world.js";

const ANNE = Identity.user("user:anne");
const BOB = Identity.user("user:bob");
/** No tuple names this user. */
const NOBODY = Identity.user("user:nobody-knows");
/** A page that all staff reads. */
const STAFF = "document:parental-leave";

let world: World;
let client: Client;

before(async () => {
  world = await World.believing();
  client = new Client({ url: world.url, identity: Identity.none() });
});

after(() => world.stop());

/** Returns a document of one chunk for each text, which all staff sees. */
function document(id: string, texts: readonly string[], metadata: Record<string, MetadataValue> = {}): Document {
  const chunks = texts.map((text, position) => ({ id: `${id}#${position}`, guard: STAFF, text, metadata }));
  return { id, title: id, chunks };
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}

test("two people ask the same, and each gets what they may see", async () => {
  const asked = { collection: "handbook", query: "pay bands", k: 3 };
  const [anne, bob] = await Promise.all([ANNE, BOB].map((identity) => client.retrieve({ ...asked, identity })));
  assert.ok(anne && bob);
  assert.equal(bob.chunks[0]?.guard, "document:pay-bands");
  assert.ok(!anne.chunks.some(({ guard }) => guard === "document:pay-bands"));
  const [first] = anne.chunks;
  assert.ok(first);
  const { id, documentId, title } = first;
  assert.deepEqual([id, documentId, title], ["document:pay-review#1", "document:pay-review", "How the pay review works"]);
  assert.ok(first.text.length > 0 && first.score > 0);
  assert.equal(first.metadata["area"], "people");
  assert.equal(typeof first.metadata["revision"], "number");
  assert.deepEqual([anne.completion, anne.recall, anne.nextPageToken, anne.replicaLagMs], ["complete", "exact", undefined, undefined]);
  assert.ok(anne.consistencyToken.length > 0);
});

test("a user without any rights gets an empty answer, also with a filter", async () => {
  await client.upsertDocuments({ collection: "private", documents: [document("private", ["about leave"])] });
  for (const filter of [undefined, F("area").ne("people"), F("area").eq("people").not()]) {
    const answer = await client.retrieve({ collection: "private", query: "leave", filter, identity: NOBODY });
    assert.deepEqual([answer.chunks, answer.completion], [[], "exhausted"]);
  }
  assert.deepEqual((await client.recheck({ collection: "private", chunkIds: ["private#0"], identity: NOBODY })).chunkIds, []);
  assert.deepEqual((await client.fetch({ collection: "private", documentIds: ["private"], identity: NOBODY })).chunks, []);
});

test("every way to ask is understood", async () => {
  const rows: readonly [string, Parameters<Client["retrieve"]>[0]["query"]][] = [
    ["a vector", [1, 0]],
    ["a typed vector", new Float32Array([1, 0])],
    ["words and a vector", { text: "leave", vector: [1, 0] }],
    ["words", "leave"],
  ];
  const chunks = [
    { id: "a#0", guard: STAFF, text: "leave", vector: [1, 0.1] },
    { id: "a#1", guard: STAFF, text: "other", vector: new Float64Array([0.1, 1]) },
  ];
  await client.upsertDocuments({ collection: "embedded", documents: [{ id: "a", chunks }] });
  for (const [row, query] of rows) {
    const answer = await client.retrieve({ collection: "embedded", query, k: 1, identity: ANNE });
    assert.deepEqual(answer.chunks.map(({ id }) => id), ["a#0"], row);
  }
  const asked = { collection: "embedded", query: [1, 0], identity: ANNE };
  assert.equal((await client.retrieve({ ...asked, minScore: 0.9 })).chunks.length, 1);
  assert.equal((await client.retrieve({ ...asked, perDocumentMax: 1 })).chunks.length, 1);
  const planned = await client.retrieve({ ...asked, explainPlan: true });
  assert.ok((planned.plan?.rounds.length ?? 0) > 0);
  const fresh = await client.retrieve({ ...asked, consistencyToken: planned.consistencyToken });
  assert.equal(fresh.chunks.length, 2);
  assert.equal((await client.retrieve({ ...asked, consistency: "higher_consistency" })).chunks.length, 2);
});

test("pages have every chunk once, in the order of one answer", async () => {
  const asked = { collection: "handbook", query: "leave", identity: ANNE };
  const whole = await client.retrieve({ ...asked, k: 100 });
  assert.ok(whole.chunks.length > 3);
  const pages = await all(client.pages({ ...asked, k: 2 }));
  assert.deepEqual(pages.flatMap(({ chunks }) => chunks.map(({ id }) => id)), whole.chunks.map(({ id }) => id));
  assert.ok(pages.slice(0, -1).every(({ chunks }) => chunks.length === 2));
});

test("a page of 100 long chunks arrives whole", async () => {
  const text = "leave ".repeat(10_000);
  const texts = Array.from({ length: 100 }, (_, position) => `${position} ${text}`);
  await client.upsertDocuments({ collection: "long", documents: [document("long", texts)] });
  const answer = await client.retrieve({ collection: "long", query: "leave", k: 100, identity: ANNE });
  // A difference is not printed: it has megabytes.
  assert.ok(isDeepStrictEqual(answer.chunks.map((chunk) => chunk.text).sort(), [...texts].sort()));
  const fetched = await client.fetch({ collection: "long", documentIds: ["long"], identity: ANNE });
  assert.ok(isDeepStrictEqual(fetched.chunks.map((chunk) => chunk.text), texts), "in the order of the document");
});

test("metadata comes back as it was given", async () => {
  const rows: readonly [string, MetadataValue][] = [
    ["text", "é ☃"],
    ["empty", ""],
    ["flag", false],
    ["int", -7],
    ["float", 0.1],
    ["tiny", 5e-324],
    ["safe", Number.MAX_SAFE_INTEGER],
    ["unsafe", 9_007_199_254_740_993n],
    ["largest", 2n ** 63n - 1n],
    ["least", -(2n ** 63n)],
    ["__proto__", "a name like any other"],
  ];
  const metadata = Object.fromEntries(rows);
  await client.upsertDocuments({ collection: "values", documents: [document("a", ["x"], metadata)] });
  const [chunk] = (await client.fetch({ collection: "values", documentIds: ["a"], identity: ANNE })).chunks;
  assert.ok(chunk);
  for (const [key, value] of rows) {
    assert.ok(Object.hasOwn(chunk.metadata, key), key);
    assert.equal(Object.getOwnPropertyDescriptor(chunk.metadata, key)?.value, value, key);
  }
  const filters: readonly [string, Filter, boolean][] = [
    ["a safe integer", F("safe").eq(Number.MAX_SAFE_INTEGER), true],
    ["an unsafe integer", F("unsafe").eq(9_007_199_254_740_993n), true],
    ["its neighbour", F("unsafe").eq(9_007_199_254_740_992n), false],
    ["a float", F("float").eq(0.1), true],
    ["a text", F("text").eq("é ☃"), true],
    ["another text", F("text").eq("e ☃"), false],
    ["a flag", F("flag").eq(false), true],
    ["another value", F("int").ne(-7), false],
    ["no value", F("absent").ne(1), true],
    ["at least", F("int").gte(-7), true],
    ["above", F("int").gt(-7), false],
    ["above the neighbour", F("int").gt(-7.000000000000001), true],
    ["below", F("int").lt(-7), false],
    ["between", F("float").between(0.1, 0.2), true],
    ["both", F("flag").eq(false).and(F("int").lt(0)), true],
    ["either", F("flag").eq(true).or(F("int").lt(0)), true],
    ["one of several", F("int").oneOf("x", -7), true],
    ["one of none", F("int").oneOf(), false],
  ];
  for (const [row, filter, matches] of filters) {
    const answer = await client.retrieve({ collection: "values", query: "x", filter, identity: ANNE });
    assert.equal(answer.chunks.length === 1, matches, row);
  }
});

test("chunks are read and checked by their ids", async () => {
  const chunkIds = ["document:on-call#0", "document:pay-bands#0", "document:absent#0"];
  const rechecked = await client.recheck({ collection: "handbook", chunkIds, identity: ANNE });
  assert.deepEqual(rechecked.chunkIds, ["document:on-call#0"]);
  const fetched = await client.fetch({ collection: "handbook", chunkIds, identity: ANNE });
  assert.deepEqual([fetched.chunks.map(({ id }) => id), fetched.completion], [["document:on-call#0"], "exhausted"]);
  assert.ok(!("score" in (fetched.chunks[0] ?? {})));
});

test("a decision is explained", async () => {
  const why = await client.explain({ user: "user:bob", target: { object: "document:pay-bands" } });
  assert.deepEqual([why.allowed, why.undecided, why.user, why.object], [true, undefined, "user:bob", "document:pay-bands"]);
  assert.equal(why.root.outcome, "holds");
  assert.ok(why.root.relation && why.root.steps.length > 0);
  assert.ok(why.asOf instanceof Date);
  const whyNot = await client.explain({ user: "user:anne", target: { collection: "handbook", chunkId: "document:pay-bands#0" } });
  assert.deepEqual([whyNot.allowed, whyNot.root.outcome], [false, "does_not_hold"]);
  const contextualTuples = [{ user: "user:anne", relation: "member", object: "group:hr" }];
  assert.ok((await client.explain({ user: "user:anne", target: { object: "document:pay-bands" }, contextualTuples })).allowed);
  // This server takes no tokens, so nobody else can say who the user is.
  await assert.rejects(client.explain({ target: { object: "document:pay-bands" } }), (error) => {
    return error instanceof InvalidRequest && error.violations[0]?.field === "user";
  });
});

test("documents are put, listed, looked for and deleted", async () => {
  const collection = "lifecycle.of-documents";
  const upserted = await client.upsertDocuments({
    collection,
    documents: (async function* () {
      for (let index = 0; index < 2_500; index += 1) {
        yield document(`document:${String(index).padStart(4, "0")}`, ["about leave", "about pay"]);
      }
    })(),
  });
  assert.deepEqual([upserted.documents, upserted.chunks, upserted.warnings], [2_500, 5_000, []]);
  const put = await client.putDocument({
    collection, documentId: "document:put", guard: STAFF, metadata: { area: "people" }, content: "# Put\n\nOf one text.",
  });
  assert.equal(put.chunks, 1);
  await client.putDocument({
    collection, documentId: "document:chunks", title: "Chunks", guard: STAFF, content: [{ text: "a" }, { text: "b" }],
  });
  const listed = await all(client.listDocuments({ collection }));
  assert.equal(listed.length, 2_502);
  const one = listed.find(({ documentId }) => documentId === "document:put");
  assert.deepEqual(one, { documentId: "document:put", title: "Put", chunks: 1, source: undefined });
  const sees = await client.retrieve({ collection, query: "one text", k: 1, consistencyToken: put.consistencyToken, identity: ANNE });
  assert.deepEqual([sees.chunks[0]?.documentId, sees.chunks[0]?.metadata], ["document:put", { area: "people" }]);
  const named = (await client.listCollections()).find(({ name }) => name === collection);
  assert.deepEqual([named?.documents, named?.chunks], [2_502, 5_003]);
  const deleted = await client.deleteDocuments({ collection, documentIds: ["document:put", "document:absent"] });
  assert.equal(deleted.documents, 1);
  const status = await client.ingestStatus({ collection, documentIds: ["document:put", "document:chunks"] });
  assert.deepEqual([status.documents, status.found], [2_501, [{ documentId: "document:chunks", chunks: 2 }]]);
});

test("an upload tells which document is wrong", async () => {
  const documents = Array.from({ length: 1_003 }, (_, index) => document(`a${index}`, ["x"]));
  const wrong = [...documents.slice(0, 1_001), { ...documents[1_001], chunks: [{ id: "x#0", guard: "", text: "x" }] } as Document];
  const upload = client.upsertDocuments({ collection: "wrong", documents: wrong });
  await assert.rejects(upload, (error) => {
    assert.ok(error instanceof InvalidRequest, String(error));
    assert.match(error.message, /a1001/, error.message);
    return true;
  });
  const status = await client.ingestStatus({ collection: "wrong", documentIds: ["a999", "a1001"] });
  assert.deepEqual(status.found.map(({ documentId }) => documentId), ["a999"], "the batch before is in");
  const nothing = await client.upsertDocuments({ collection: "handbook", documents: [] });
  assert.deepEqual([nothing.documents, nothing.chunks], [0, 0]);
});

test("the server's refusals are the errors of their kinds", async (context) => {
  const absent = client.retrieve({ collection: "absent", query: "leave", identity: ANNE });
  await assert.rejects(absent, (error) => error instanceof NotFound && error.reason === "NOT_FOUND");
  const wrong = client.retrieve({ collection: "handbook", query: "leave", k: 0, identity: ANNE });
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof InvalidRequest);
    assert.deepEqual(error.violations.map(({ field }) => field), ["top_k"]);
    assert.ok(error.message.includes("top_k"), error.message);
    return true;
  });
  const nobody = client.retrieve({ collection: "handbook", query: "leave", identity: Identity.none() });
  await assert.rejects(nobody, (error) => error instanceof InvalidRequest && error.violations[0]?.field === "user");
  const url = await unusedUrl(context);
  const elsewhere = new Client({ url, retries: 1 });
  await assert.rejects(elsewhere.retrieve({ collection: "handbook", query: "leave", identity: ANNE }), (error) => {
    assert.ok(error instanceof Unavailable && error.message === `${url} is out of reach (ECONNREFUSED)`, String(error));
    return true;
  });
});

test("1,000 calls of 50 users at a time never mix", async () => {
  const users = Array.from({ length: 50 }, (_, number) => (number % 2 === 0 ? "user:anne" : "user:bob"));
  const expected = new Map<string, string>();
  const guards = async (user: string): Promise<string> => {
    const asked = { collection: "handbook", query: "pay bands", k: 5, identity: Identity.user(user), timeoutMs: 120_000 };
    return JSON.stringify((await client.retrieve(asked)).chunks.map(({ id }) => id));
  };
  for (const user of ["user:anne", "user:bob"]) {
    expected.set(user, await guards(user));
  }
  assert.notEqual(expected.get("user:anne"), expected.get("user:bob"));
  const calls = Array.from({ length: 1_000 }, (_, call) => users[call % users.length] as string);
  const found = await Promise.all(calls.map(async (user) => (await guards(user)) === expected.get(user)));
  assert.ok(found.every(Boolean));
});
