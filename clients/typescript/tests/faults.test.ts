/** Tests the faults between this client and a server, and the error that a caller gets for each. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import {
  ApprovalRequired, Client, DeadlineExceeded, F, Forbidden, Identity, IdentityMissing, InvalidAnswer, InvalidRequest,
  NotAuthenticated, NotFound, RagwardError, Unavailable,
} from "../src/index.js";
import { type Detail, EMPTY_ANSWER, FakeFetch, type Reply, networkError, refusal } from "./fake_fetch.js";
import { silentUrl, unusedUrl } from "./world.js";

const ANNE = Identity.user("user:anne");
const ASKED = { collection: "handbook", query: "leave", identity: ANNE };

function client(fake: FakeFetch, settings: ConstructorParameters<typeof Client>[0] = {}): Client {
  return new Client({ url: "http://127.0.0.1:1", fetch: fake.fetch, retries: 0, ...settings });
}

async function errorOf(promise: Promise<unknown>): Promise<RagwardError> {
  const error: unknown = await promise.then(() => undefined, (error: unknown) => error);
  assert.ok(error instanceof RagwardError, `${inspect(error)} is an error of this client`);
  return error;
}

/** Encodes messages of `google.rpc` by hand: the repository has no descriptors of them. */
function field(number: number, value: string | Uint8Array): Uint8Array {
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
  assert.ok(bytes.length < 128);
  return Uint8Array.from([number * 8 + 2, bytes.length, ...bytes]);
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function reason(text: string): Detail {
  return { type: "google.rpc.ErrorInfo", value: joined(field(1, text), field(2, "ragward")) };
}

/** The reason of a refusal that asks for an approval with these details. */
function approval(details: string): Detail {
  const fact = joined(field(1, "authorization_details"), field(2, details));
  return { type: "google.rpc.ErrorInfo", value: joined(field(1, "APPROVAL_REQUIRED"), field(2, "ragward"), field(3, fact)) };
}

const BAD_REQUEST: Detail = {
  type: "google.rpc.BadRequest",
  value: joined(field(1, joined(field(1, "top_k"), field(2, "is 0"))), field(1, joined(field(1, "é"), field(2, "wrong")))),
};
/** 1 s and 1 ns: rounded up, so that nobody comes too early. */
const RETRY_INFO: Detail = { type: "google.rpc.RetryInfo", value: field(1, Uint8Array.from([8, 1, 16, 1])) };

test("each refusal becomes the error of its kind", async () => {
  const challenge = 'Bearer error="invalid_token"';
  const rows: readonly [string, Reply, new (...parameters: never[]) => RagwardError, Readonly<Record<string, unknown>>][] = [
    ["no token", refusal(401, "unauthenticated", [reason("UNAUTHENTICATED")], { "www-authenticate": challenge }),
      NotAuthenticated, { code: "unauthenticated", reason: "UNAUTHENTICATED", challenge, message: "refused" }],
    ["a scope that lacks", refusal(403, "permission_denied", [reason("INSUFFICIENT_SCOPE")], { "www-authenticate": challenge }),
      Forbidden, { reason: "INSUFFICIENT_SCOPE", challenge }],
    ["an approval that lacks", refusal(403, "permission_denied", [reason("APPROVAL_REQUIRED")]), ApprovalRequired,
      { reason: "APPROVAL_REQUIRED", authorizationDetails: [] }],
    ["an approval to ask for", refusal(403, "permission_denied", [approval('[{"a":1}]')]), ApprovalRequired,
      { reason: "APPROVAL_REQUIRED", authorizationDetails: [{ a: 1 }] }],
    ["an approval of no JSON", refusal(403, "permission_denied", [approval("[")]), ApprovalRequired,
      { authorizationDetails: [] }],
    ["an approval of no list", refusal(403, "permission_denied", [approval("{}")]), ApprovalRequired,
      { authorizationDetails: [] }],
    ["wrong fields", refusal(400, "invalid_argument", [reason("INVALID_ARGUMENT"), BAD_REQUEST]), InvalidRequest, {
      violations: [{ field: "top_k", description: "is 0" }, { field: "é", description: "wrong" }],
      message: "refused; `top_k` is 0; `é` wrong",
    }],
    ["no such collection", refusal(404, "not_found", [reason("NOT_FOUND")]), NotFound, { reason: "NOT_FOUND" }],
    ["a backend that does not answer", refusal(503, "unavailable"), Unavailable, { retryAfterMs: undefined }],
    ["an overload", refusal(429, "resource_exhausted", [reason("RESOURCE_EXHAUSTED"), RETRY_INFO], { "retry-after": "2" }),
      Unavailable, { retryAfterMs: 1_001 }],
    ["an overload without details", refusal(429, "resource_exhausted", [], { "retry-after": "2" }), Unavailable,
      { retryAfterMs: 2_000 }],
    ["a large body", refusal(413, "resource_exhausted"), InvalidRequest, {}],
    ["a late answer", refusal(504, "deadline_exceeded"), DeadlineExceeded, {}],
    ["a setting that lacks", refusal(400, "failed_precondition"), InvalidRequest, { code: "failed_precondition" }],
    ["a defect", refusal(500, "internal"), RagwardError, { code: "internal" }],
    ["a code of tomorrow", refusal(500, "nonsense"), RagwardError, { code: "unknown" }],
    ["details that are none", { status: 404, body: { code: "not_found", details: [
      null, 1, { type: "google.rpc.ErrorInfo", value: "ÿ" }, { type: "google.rpc.ErrorInfo", value: "CgU" },
    ] } }, NotFound, { reason: undefined }],
    ["a proxy without a backend", { status: 502, body: "<html>" }, Unavailable, { code: "unavailable" }],
    ["a proxy that wants a login", { status: 401, body: "" }, NotAuthenticated, { challenge: undefined }],
    ["another server", { status: 404, body: "<html>" }, NotFound, { reason: undefined }],
    ["a server that is no Ragward", { status: 418, body: "<html>" }, RagwardError, { code: "unknown" }],
    ["a redirection", { status: 307, headers: { location: "https://b.example" }, body: "" }, InvalidAnswer, { code: undefined }],
  ];
  for (const [row, reply, kind, facts] of rows) {
    const fake = new FakeFetch(reply);
    const error = await errorOf(client(fake).retrieve(ASKED));
    assert.equal(error.constructor, kind, row);
    assert.equal(error.name, kind.name, row);
    for (const [name, value] of Object.entries(facts)) {
      assert.deepEqual((error as unknown as Record<string, unknown>)[name], value, `${row}: ${name}`);
    }
    assert.equal(fake.sent.length, 1, `${row}: asked once`);
  }
});

test("an answer that cannot be read is an error, never an empty list", async () => {
  const chunk = { id: "a#0", documentId: "a", guard: "document:a", title: "A", text: "a", score: 1, metadata: {} };
  const rows: readonly [string, unknown, string][] = [
    ["nothing", "", "is not JSON"],
    ["a page of a proxy", "<html>", "is not JSON"],
    ["null", null, "it is not an object"],
    ["a list", [], "it is not an object"],
    ["an empty object", {}, "chunks is missing"],
    ["an error with a status of success", { code: "unavailable", message: "m" }, "chunks is missing"],
    ["no chunks", { ...EMPTY_ANSWER, chunks: undefined }, "chunks is missing"],
    ["chunks that are null", { ...EMPTY_ANSWER, chunks: null }, "chunks is not a list"],
    ["no completion", { ...EMPTY_ANSWER, completion: undefined }, "completion is missing"],
    ["an unknown completion", { ...EMPTY_ANSWER, completion: "COMPLETION_UNSPECIFIED" }, "completion is a word"],
    ["no recall", { ...EMPTY_ANSWER, recall: undefined }, "recall is missing"],
    ["no consistency token", { ...EMPTY_ANSWER, consistencyToken: undefined }, "consistencyToken is missing"],
    ["a chunk without an id", { ...EMPTY_ANSWER, chunks: [{ ...chunk, id: undefined }] }, "chunks[0].id is missing"],
    ["a chunk with a number for its text", { ...EMPTY_ANSWER, chunks: [chunk, { ...chunk, text: 1 }] },
      "chunks[1].text is not a text"],
    ["a chunk without metadata", { ...EMPTY_ANSWER, chunks: [{ ...chunk, metadata: undefined }] }, "chunks[0].metadata is missing"],
    ["a value without a kind", { ...EMPTY_ANSWER, chunks: [{ ...chunk, metadata: { year: {} } }] },
      "chunks[0].metadata.year is no value"],
  ];
  for (const [row, body, told] of rows) {
    const error = await errorOf(client(new FakeFetch({ body })).retrieve(ASKED));
    assert.equal(error.constructor, InvalidAnswer, row);
    assert.match(error.message, /^the server's answer cannot be read: /, row);
    assert.ok(error.message.includes(told), `${row}: ${error.message}`);
  }
  const rechecked = client(new FakeFetch({ body: {} })).recheck({ collection: "handbook", chunkIds: ["a#0"], identity: ANNE });
  assert.match((await errorOf(rechecked)).message, /chunkIds is missing/);
});

test("only what changes nothing is tried again", async () => {
  const down = refusal(503, "unavailable");
  const [refused, reset] = [networkError("ECONNREFUSED"), networkError("ECONNRESET")];
  const retrieve = (client: Client): Promise<unknown> => client.retrieve(ASKED);
  const put = (client: Client): Promise<unknown> =>
    client.putDocument({ collection: "c", documentId: "d", guard: "document:d", content: "x", identity: ANNE });
  const remove = (client: Client): Promise<unknown> =>
    client.deleteDocuments({ collection: "c", documentIds: ["d"], identity: ANNE });
  const upsert = (client: Client): Promise<unknown> =>
    client.upsertDocuments({ collection: "c", documents: [{ id: "d", chunks: [] }], identity: ANNE });
  const rows: readonly [string, (client: Client) => Promise<unknown>, Reply, number][] = [
    ["a query, and a backend is down", retrieve, down, 3],
    ["a query, and nothing listens", retrieve, refused, 3],
    ["a query, and the connection breaks", retrieve, reset, 3],
    ["a query, and the server is overloaded", retrieve, refusal(429, "resource_exhausted"), 3],
    ["a query that is wrong", retrieve, refusal(400, "invalid_argument"), 1],
    ["a query, and nobody knows who asks", retrieve, refusal(401, "unauthenticated"), 1],
    ["a query, and the answer is none", retrieve, { body: {} }, 1],
    ["a document, and nothing listens", put, refused, 3],
    ["a document, and the connection breaks", put, reset, 1],
    ["a document, and a backend is down", put, down, 1],
    ["a document, and the server is overloaded", put, refusal(429, "resource_exhausted"), 1],
    ["a deletion, and nothing listens", remove, refused, 3],
    ["a deletion, and a backend is down", remove, down, 1],
    ["an upload, and nothing listens", upsert, refused, 1],
    ["an upload, and a backend is down", upsert, down, 1],
  ];
  await Promise.all(rows.map(async ([row, call, reply, tries]) => {
    const fake = new FakeFetch(reply);
    await errorOf(call(client(fake, { retries: 2 })));
    assert.equal(fake.sent.length, tries, row);
  }));
  const fake = new FakeFetch(down, refused, { body: EMPTY_ANSWER });
  assert.deepEqual((await client(fake, { retries: 2 }).retrieve(ASKED)).chunks, [], "the third try is answered");
  const patient = new FakeFetch(refusal(503, "unavailable", [], { "retry-after": "60" }));
  assert.ok(await errorOf(client(patient, { retries: 2 }).retrieve(ASKED)) instanceof Unavailable);
  assert.equal(patient.sent.length, 1, "a wait past the deadline is not begun");
});

test("a call ends in time", async (context) => {
  const silent = await silentUrl(context);
  const rows: readonly [string, () => Promise<unknown>][] = [
    ["no answer", () => client(new FakeFetch("hang"), { timeoutMs: 20 }).retrieve(ASKED)],
    ["no answer, timeout of the call", () => client(new FakeFetch("hang")).retrieve({ ...ASKED, timeoutMs: 20 })],
    ["a provider of tokens that hangs", () => client(new FakeFetch({ body: EMPTY_ANSWER }), { timeoutMs: 20 })
      .retrieve({ ...ASKED, identity: Identity.bearer(() => new Promise<string>(() => undefined)) })],
    ["a body that hangs", () => client(new FakeFetch(), {
      timeoutMs: 20, fetch: async () => new Response(new ReadableStream({ start: () => undefined })),
    }).retrieve(ASKED)],
    ["a server that accepts and never answers", () => new Client({ url: silent, retries: 0, timeoutMs: 20 }).retrieve(ASKED)],
  ];
  for (const [row, call] of rows) {
    assert.equal((await errorOf(call())).constructor, DeadlineExceeded, row);
  }
  const fake = new FakeFetch({ body: EMPTY_ANSWER });
  // A busy machine may take a while until the request is sent.
  await client(fake).retrieve({ ...ASKED, timeoutMs: 200_000 });
  const told = Number(fake.sent[0]?.headers["connect-timeout-ms"]);
  assert.ok(told > 100_000 && told <= 200_000, `the server knows how long the caller waits: ${told}`);
});

test("the caller's signal ends a call with the caller's reason", async () => {
  const reason = new Error("the page was left");
  const before = client(new FakeFetch({ body: EMPTY_ANSWER })).retrieve({ ...ASKED, signal: AbortSignal.abort(reason) });
  await assert.rejects(before, reason, "before the call");
  const controller = new AbortController();
  const fake = new FakeFetch("hang");
  const during = client(fake).retrieve({ ...ASKED, signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(during, reason, "during the call");
  const source = async function* (): AsyncGenerator<never> {
    await new Promise(() => undefined);
  };
  const waiting = new AbortController();
  const upload = client(fake).upsertDocuments({ collection: "c", documents: source(), identity: ANNE, signal: waiting.signal });
  waiting.abort(reason);
  await assert.rejects(upload, reason, "while the source of an upload hangs");
});

test("somebody is named before anything is sent", async () => {
  const fake = new FakeFetch({ body: EMPTY_ANSWER });
  const nobody = client(fake);
  const calls: readonly [string, () => Promise<unknown>][] = [
    ["retrieve", () => nobody.retrieve({ collection: "c", query: "q" })],
    ["pages", () => nobody.pages({ collection: "c", query: "q" }).next()],
    ["fetch", () => nobody.fetch({ collection: "c", chunkIds: ["a"] })],
    ["recheck", () => nobody.recheck({ collection: "c", chunkIds: ["a"] })],
    ["explain", () => nobody.explain({ user: "user:anne", target: { object: "document:a" } })],
    ["upsertDocuments", () => nobody.upsertDocuments({ collection: "c", documents: [] })],
    ["putDocument", () => nobody.putDocument({ collection: "c", documentId: "a", content: "a" })],
    ["deleteDocuments", () => nobody.deleteDocuments({ collection: "c", documentIds: ["a"] })],
    ["listDocuments", () => nobody.listDocuments({ collection: "c" }).next()],
    ["listCollections", () => nobody.listCollections()],
    ["ingestStatus", () => nobody.ingestStatus({ collection: "c" })],
  ];
  for (const [row, call] of calls) {
    assert.equal((await errorOf(call())).constructor, IdentityMissing, row);
  }
  const lost = { collection: "c", query: "q", identity: undefined as unknown as Identity };
  assert.equal((await errorOf(client(fake, { identity: ANNE }).retrieve(lost))).constructor, IdentityMissing, "a lost session");
  assert.equal(fake.sent.length, 0);
  const rows: readonly [string, Identity, Identity | undefined, string | undefined, string | undefined][] = [
    ["of the client", ANNE, undefined, undefined, "user:anne"],
    ["of the call", ANNE, Identity.user("user:bob"), undefined, "user:bob"],
    ["a token", ANNE, Identity.bearer("t"), "Bearer t", undefined],
    ["a token for somebody", ANNE, Identity.bearer(() => "t").onBehalfOf("user:bob"), "Bearer t", "user:bob"],
    ["nobody, and said so", ANNE, Identity.none(), undefined, undefined],
  ];
  for (const [row, ofClient, ofCall, authorization, user] of rows) {
    const fake = new FakeFetch({ body: EMPTY_ANSWER });
    await client(fake, { identity: ofClient }).retrieve({ collection: "c", query: "q", ...(ofCall && { identity: ofCall }) });
    assert.equal(fake.sent[0]?.headers["authorization"], authorization, row);
    assert.equal(fake.json()["user"], user, row);
  }
});

test("a call without a field for a user is never made on behalf of one", async () => {
  const fake = new FakeFetch({ body: {} });
  const asker = client(fake, { identity: Identity.bearer("t").onBehalfOf("user:anne") });
  const [collection, documentIds] = ["c", ["d"]];
  const calls: readonly [string, () => Promise<unknown>][] = [
    ["explain", () => asker.explain({ user: "user:bob", target: { object: "document:a" } })],
    ["upsertDocuments", () => asker.upsertDocuments({ collection, documents: [] })],
    ["putDocument", () => asker.putDocument({ collection, documentId: "d", guard: "document:d", content: "text" })],
    ["deleteDocuments", () => asker.deleteDocuments({ collection, documentIds })],
    ["listDocuments", () => asker.listDocuments({ collection }).next()],
    ["listCollections", () => asker.listCollections()],
    ["ingestStatus", () => asker.ingestStatus({ collection, documentIds })],
  ];
  for (const [row, call] of calls) {
    const error = await errorOf(call());
    assert.ok(error instanceof InvalidRequest && error.violations[0]?.field === "identity", row);
  }
  assert.equal(fake.sent.length, 0);
});

test("a token is never shown", async (context) => {
  const token = "secret-token";
  const identity = Identity.bearer(token).onBehalfOf("user:anne");
  const shown = [
    String(identity), JSON.stringify({ identity }), inspect(identity), inspect({ identity }, { showHidden: true, depth: 9 }),
    inspect(Object.entries(identity)), inspect(structuredClone({ identity })),
    inspect(new Client({ identity }), { showHidden: true }), JSON.stringify(new Client({ identity })),
  ];
  const replies: readonly Reply[] = [
    refusal(401, "unauthenticated"), networkError("ECONNREFUSED"), { body: {} }, { status: 500, body: "" },
  ];
  for (const reply of replies) {
    const error = await errorOf(client(new FakeFetch(reply), { identity }).retrieve({ collection: "c", query: "q" }));
    shown.push(inspect(error, { showHidden: true, depth: 9 }), JSON.stringify(error));
  }
  const nowhere = new Client({ url: await unusedUrl(context), retries: 0, identity });
  shown.push(inspect(await errorOf(nowhere.retrieve({ collection: "c", query: "q" })), { showHidden: true, depth: 9 }));
  for (const wrong of [`${token}\n`, `${token} a`, `${token}é`, ""]) {
    assert.throws(() => Identity.bearer(wrong), NotAuthenticated);
    const asked = { collection: "c", query: "q", identity: Identity.bearer(() => wrong) };
    // The global `fetch` repeats a header that it does not take.
    shown.push(inspect(await errorOf(new Client({ url: "http://127.0.0.1:1" }).retrieve(asked))));
  }
  shown.push(inspect(await errorOf((async () => new Client({ url: `http://user:${token}@a.example` }))())));
  for (const text of shown) {
    assert.ok(!text.includes(token), text);
  }
  assert.equal(String(identity), "Identity(bearer token for user:anne)");
  const thrown = new Error("the login is over");
  const failing = Identity.bearer(() => {
    throw thrown;
  });
  await assert.rejects(client(new FakeFetch()).retrieve({ ...ASKED, identity: failing }), thrown, "the provider's own error");
});

test("a token goes to this machine and to encrypted addresses only", async () => {
  const rows: readonly [string, boolean, boolean][] = [
    ["https://rag.example", false, true],
    ["https://10.0.0.1:8980/rag/", false, true],
    ["http://127.0.0.1:8980", false, true],
    ["http://localhost:8980", false, true],
    ["http://[::1]:8980", false, true],
    ["http://rag.example", false, false],
    ["http://10.0.0.1:8980", false, false],
    ["http://127.0.0.1.example", false, false],
    ["http://0.0.0.0:8980", false, false],
    ["http://rag.example", true, true],
  ];
  for (const [url, plainHttpTokens, isSent] of rows) {
    const fake = new FakeFetch({ body: EMPTY_ANSWER });
    const answer = client(fake, { url, plainHttpTokens }).retrieve({ ...ASKED, identity: Identity.bearer("t") });
    if (isSent) {
      await answer;
      assert.equal(fake.sent[0]?.url, `${url.replace(/\/$/, "")}/ragward.retrieval.v1.RetrievalService/Retrieve`);
    } else {
      assert.match((await errorOf(answer)).message, /begins with `https:`/, url);
      assert.equal(fake.sent.length, 0, url);
    }
    await client(fake, { url, plainHttpTokens }).retrieve(ASKED);
  }
});

test("a call of the bearer itself is not made for somebody else", async () => {
  const fake = new FakeFetch({ body: EMPTY_ANSWER });
  const asserting = client(fake, { identity: Identity.bearer("t").onBehalfOf("user:bob") });
  const rows: readonly [string, () => Promise<unknown>][] = [
    ["explain", () => asserting.explain({ user: "user:anne", target: { object: "document:a" } })],
    ["upsertDocuments", () => asserting.upsertDocuments({ collection: "c", documents: [] })],
    ["putDocument", () => asserting.putDocument({ collection: "c", documentId: "a", content: "a" })],
    ["deleteDocuments", () => asserting.deleteDocuments({ collection: "c", documentIds: ["a"] })],
    ["listDocuments", () => asserting.listDocuments({ collection: "c" }).next()],
    ["listCollections", () => asserting.listCollections()],
    ["ingestStatus", () => asserting.ingestStatus({ collection: "c" })],
  ];
  for (const [row, call] of rows) {
    const error = await errorOf(call());
    assert.ok(error instanceof InvalidRequest, row);
    assert.deepEqual(error.violations.map(({ field }) => field), ["identity"], row);
  }
  assert.equal(fake.sent.length, 0, "nothing is sent");
});

test("what is wrong is said before anything is sent", async () => {
  const fake = new FakeFetch({ body: EMPTY_ANSWER });
  const asked = client(fake);
  const as = <T>(value: unknown): T => value as T;
  const rows: readonly [string, () => unknown, string][] = [
    ["an address that is none", () => new Client({ url: "rag.example" }), "`url` must be"],
    ["an address of files", () => new Client({ url: "file:///a" }), "`url` must be"],
    ["an address with a query", () => new Client({ url: "http://a.example/?a=b" }), "`url` must be"],
    ["too many retries", () => new Client({ retries: 11 }), "`retries` must be"],
    ["half a retry", () => new Client({ retries: 0.5 }), "`retries` must be"],
    ["no time", () => new Client({ timeoutMs: 0 }), "`timeoutMs` must be"],
    ["a time that is no number", () => asked.retrieve({ ...ASKED, timeoutMs: Number.NaN }), "`timeoutMs` must be"],
    ["more time than a timer has", () => asked.retrieve({ ...ASKED, timeoutMs: 2 ** 31 }), "`timeoutMs` must be"],
    ["a misspelt setting", () => new Client(as({ identitiy: ANNE })), "`identitiy` is not a field"],
    ["a misspelt identity", () => asked.retrieve(as({ ...ASKED, user: "user:bob" })), "`user` is not a field"],
    ["an identity that is none", () => asked.retrieve(as({ ...ASKED, identity: { user: "user:bob" } })), "`identity` must be made"],
    ["a user that is none", () => Identity.user(""), "`user` must be"],
    ["a user who asks for another", () => ANNE.onBehalfOf("user:bob"), "`identity` has no token"],
    ["a filter that is none", () => asked.retrieve(as({ ...ASKED, filter: { oneOf: {} } })), "`filter` is no filter"],
    ["a vector with a hole", () => asked.retrieve({ ...ASKED, query: [1, Number.NaN] }), "`query` has a value"],
    ["a hybrid query with more", () => asked.retrieve({ ...ASKED, query: as({ text: "a", vector: [1], k: 1 }) }),
      "`k` is not a field"],
    ["a consistency that is none", () => asked.retrieve({ ...ASKED, consistency: as("soon") }), "`consistency` must be"],
    ["a purpose that is none", () => asked.recheck({ collection: "c", chunkIds: [], purpose: as("audit"), identity: ANNE }),
      "`purpose` must be"],
    ["a context that is no JSON", () => asked.retrieve({ ...ASKED, context: { a: 1n } }), "JSON cannot hold"],
    ["metadata that is no value", () => asked.upsertDocuments({
      collection: "c", identity: ANNE,
      documents: [{ id: "a", chunks: [{ id: "a#0", guard: "document:a", metadata: as({ tags: [["x"]] }) }] }],
    }), "`documents[0].chunks[0].metadata.tags[0]` must be"],
    ["metadata of 65 bits", () => asked.putDocument({
      collection: "c", identity: ANNE, documentId: "a", content: "a", metadata: { n: 2n ** 63n },
    }), "`metadata.n` has more than 64 bits"],
    ["a misspelt field of a chunk", () => asked.putDocument({
      collection: "c", identity: ANNE, documentId: "a", content: [as<object>({ id: "a#0", gard: "document:a" })],
    }), "`gard` is not a field"],
    ["a bound that is no number", () => F("year").gte(Number.NaN), "`filter.year` has a bound"],
    ["a bound between two numbers", () => F("year").gte(2n ** 53n + 1n), "`filter.year` has a bound"],
    ["nothing beyond the largest number", () => F("year").gt(Number.MAX_VALUE), "has a bound beyond which"],
    ["a value that is missing", () => F("year").eq(as(undefined)), "`filter.year` must be"],
  ];
  for (const [row, call, told] of rows) {
    const error = await errorOf((async () => call())());
    assert.equal(error.constructor, InvalidRequest, row);
    assert.ok(error.message.includes(told), `${row}: ${error.message}`);
  }
  assert.equal(fake.sent.length, 0);
  // A number that JSON cannot write reaches the server as a text, and never as a field that is not set.
  await asked.retrieve({ ...ASKED, k: Number.NaN, minScore: Number.NEGATIVE_INFINITY });
  assert.equal(fake.json()["topK"], "NaN");
  assert.equal(fake.json()["minScore"], "-Infinity");
});

test("pages end, whatever the server says", async () => {
  const same = new FakeFetch({ body: { ...EMPTY_ANSWER, nextPageToken: "next" } });
  const pages = client(same, { identity: ANNE }).pages({ collection: "c", query: "q" });
  const read = async (): Promise<void> => {
    for await (const page of pages) {
      assert.deepEqual(page.chunks, []);
    }
  };
  assert.match((await errorOf(read())).message, /do not end/);
  assert.deepEqual([same.json(0)["pageToken"], same.json(1)["pageToken"], same.sent.length], ["", "next", 2]);
});

test("a token that is renewed between pages is the token of the next page", async () => {
  const fake = new FakeFetch({ body: { ...EMPTY_ANSWER, nextPageToken: "next" } }, { body: EMPTY_ANSWER });
  let renewals = 0;
  const identity = Identity.bearer(async () => {
    renewals += 1;
    return `token-${renewals}`;
  });
  for await (const page of client(fake).pages({ collection: "c", query: "q", identity })) {
    assert.deepEqual(page.chunks, []);
  }
  assert.deepEqual(fake.sent.map(({ headers }) => headers["authorization"]), ["Bearer token-1", "Bearer token-2"]);
});

test("many calls at a time take turns, and one that gives up leaves the others theirs", async () => {
  let [running, most] = [0, 0];
  const release: (() => void)[] = [];
  const fetch = async (_url: string, init: RequestInit): Promise<Response> => {
    running += 1;
    most = Math.max(most, running);
    const signal = init.signal as AbortSignal;
    await new Promise<void>((resolve, reject) => {
      const ends = (end: () => void) => () => {
        running -= 1;
        end();
      };
      release.push(ends(resolve));
      signal.addEventListener("abort", ends(() => reject(signal.reason as Error)), { once: true });
    });
    return new Response(JSON.stringify(EMPTY_ANSWER));
  };
  const shared = client(new FakeFetch(), { fetch, identity: ANNE });
  const controllers = Array.from({ length: 300 }, () => new AbortController());
  const calls = controllers.map(({ signal }) => shared.retrieve({ collection: "c", query: "q", signal }));
  const ends = Promise.allSettled(calls);
  // Every third gives up: some run, and some wait.
  controllers.forEach((controller, index) => index % 3 === 0 && controller.abort());
  let isOver = false;
  void ends.then(() => {
    isOver = true;
  });
  while (!isOver) {
    release.splice(0).forEach((resolve) => resolve());
    await new Promise((resolve) => setImmediate(resolve));
  }
  const outcomes = (await ends).map(({ status }) => status);
  assert.equal(outcomes.filter((status) => status === "fulfilled").length, 200);
  assert.equal(most, 100);
});

test("providers of tokens that hang take no turns from others", async () => {
  const shared = client(new FakeFetch({ body: EMPTY_ANSWER }));
  const controller = new AbortController();
  const { signal } = controller;
  const hanging = Identity.bearer(() => new Promise<string>(() => undefined));
  const hung = Promise.allSettled(Array.from({ length: 200 }, () => shared.retrieve({ ...ASKED, identity: hanging, signal })));
  assert.deepEqual((await shared.retrieve(ASKED)).chunks, []);
  controller.abort();
  assert.ok((await hung).every(({ status }) => status === "rejected"));
});
