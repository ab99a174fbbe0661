/** The retriever for LangChain.js, against a server. */

import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { after, before, test } from "node:test";
import { inspect } from "node:util";

import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { Document, DocumentInterface } from "@langchain/core/documents";
import { RunnableLambda, RunnableMap, RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";

import { Client, F, Identity, IdentityMissing, InvalidRequest, NotFound, Unavailable } from "../src/index.js";
import { RagwardRetriever, type RagwardRetrieverInput } from "../src/langchain.js";
import { FakeFetch } from "./fake_fetch.js";
import { World, unusedUrl } from "./world.js";

const ANNE = Identity.user("user:anne");
const BOB = Identity.user("user:bob");
const QUESTION = "pay bands";

let world: World;
let client: Client;
let shared: RagwardRetriever;

before(async () => {
  world = await World.believing();
  client = new Client({ url: world.url, identity: BOB });
  shared = new RagwardRetriever({ client, collection: "handbook", k: 3 });
});

after(() => world.stop());

const as = (ragwardIdentity: Identity): { configurable: { ragwardIdentity: Identity } } => ({ configurable: { ragwardIdentity } });
const guards = (documents: readonly DocumentInterface[]): string[] => documents.map(({ metadata }) => metadata["guard"]);
const seesPay = (documents: readonly DocumentInterface[]): boolean => guards(documents).includes("document:pay-bands");

test("documents have ids, texts and what the answer says", async () => {
  const documents: Document[] = await shared.invoke(QUESTION, as(BOB));
  assert.equal(documents.length, 3);
  assert.equal(new Set(documents.map(({ id }) => id)).size, 3);
  const [first] = documents;
  assert.ok(first);
  assert.equal(first.id, "document:pay-bands#0");
  assert.ok(first.pageContent.length > 0);
  const { area, score, consistencyToken, chunkId, documentId, guard, title, completion, recall } = first.metadata;
  assert.equal(area, "hr");
  assert.ok(score > 0 && consistencyToken.length > 0);
  assert.deepEqual([chunkId, documentId, guard, title, completion, recall], [
    "document:pay-bands#0", "document:pay-bands", "document:pay-bands", "Pay bands", "complete", "exact",
  ]);
});

test("a fixed or forgotten identity never stands in for the caller's", async () => {
  const fixed = new RagwardRetriever({ client, collection: "handbook", identity: BOB });
  assert.ok(seesPay(await fixed.invoke(QUESTION)), "said so");
  assert.ok(!seesPay(await fixed.invoke(QUESTION, as(ANNE))), "the call's comes first");
  const lost = as(undefined as unknown as Identity);
  const rows: readonly [string, () => Promise<unknown>, typeof IdentityMissing | typeof InvalidRequest][] = [
    ["nobody", () => shared.invoke(QUESTION), IdentityMissing],
    ["nobody, in a batch", () => shared.batch([QUESTION, QUESTION]), IdentityMissing],
    ["somebody who is undefined", () => shared.invoke(QUESTION, lost), IdentityMissing],
    ["somebody who is undefined, with a fixed one", () => fixed.invoke(QUESTION, lost), IdentityMissing],
    ["a name in place of an identity", () => fixed.invoke(QUESTION, { configurable: { ragwardIdentity: "user:bob" } }),
      InvalidRequest],
    ["the method within", () => shared._getRelevantDocuments(QUESTION), IdentityMissing],
  ];
  for (const [row, call, kind] of rows) {
    await assert.rejects(call(), kind, row);
  }
});

test("two users share a retriever in every way that LangChain calls it", async () => {
  const titles = (documents: DocumentInterface[]): string => guards(documents).join(" ");
  const map = RunnableMap.from<string>({ context: shared, question: new RunnablePassthrough<string>() });
  const dict = RunnableSequence.from<string, string>([
    { context: shared.pipe(titles), question: new RunnablePassthrough<string>() },
    ({ context, question }: { context: string; question: string }) => `${question}: ${context}`,
  ]);
  const within = RunnableLambda.from<string, DocumentInterface[]>((question, config) => shared.invoke(question, config));
  const rows: readonly [string, (identity: Identity) => Promise<boolean>][] = [
    ["invoke", async (identity) => seesPay(await shared.invoke(QUESTION, as(identity)))],
    ["batch", async (identity) => (await shared.batch([QUESTION, QUESTION], as(identity))).every(seesPay)],
    ["stream", async (identity) => {
      let sees = false;
      for await (const documents of await shared.stream(QUESTION, as(identity))) {
        sees ||= seesPay(documents);
      }
      return sees;
    }],
    ["a map", async (identity) => seesPay((await map.invoke(QUESTION, as(identity)))["context"] as DocumentInterface[])],
    ["a dict in a sequence", async (identity) => (await dict.invoke(QUESTION, as(identity))).includes("document:pay-bands")],
    ["a bound config", async (identity) => seesPay(await shared.withConfig(as(identity)).invoke(QUESTION))],
    ["retries", async (identity) => seesPay(await shared.withRetry({ stopAfterAttempt: 1 }).invoke(QUESTION, as(identity)))],
    ["fallbacks", async (identity) => seesPay(await shared.withFallbacks([shared]).invoke(QUESTION, as(identity)))],
    ["a lambda that hands the config on", async (identity) => seesPay(await within.invoke(QUESTION, as(identity)))],
  ];
  for (const [row, sees] of rows) {
    const calls = Array.from({ length: 20 }, (_, call) => (call % 2 === 0 ? ANNE : BOB));
    const found = await Promise.all(calls.map((identity) => sees(identity)));
    assert.deepEqual(found, calls.map((identity) => identity === BOB), row);
  }
  const batched = await shared.batch([QUESTION, QUESTION], [as(ANNE), as(BOB)]);
  assert.deepEqual(batched.map(seesPay), [false, true], "a batch of two users");
});

test("a lambda that forgets the config asks as nobody, unless LangChain keeps the config for it", async () => {
  const forgetful = RunnableLambda.from<string, DocumentInterface[]>((question) => shared.invoke(question));
  await assert.rejects(forgetful.invoke(QUESTION, as(BOB)), IdentityMissing);
  AsyncLocalStorageProviderSingleton.initializeGlobalInstance(new AsyncLocalStorage());
  const found = await Promise.all([ANNE, BOB].map((identity) => forgetful.invoke(QUESTION, as(identity))));
  assert.deepEqual(found.map(seesPay), [false, true]);
});

test("a call says how to search", async () => {
  const invoke = (ragwardSearch: object): Promise<Document[]> =>
    shared.invoke(QUESTION, { configurable: { ragwardIdentity: BOB, ragwardSearch } });
  assert.equal((await invoke({ k: 1 })).length, 1);
  assert.equal((await invoke({ minScore: 1_000 })).length, 0);
  await assert.rejects(invoke({ topK: 1 }), /`topK` is not a field/);
  const narrow = new RagwardRetriever({ client, collection: "handbook", identity: BOB, filter: F("area").eq("nowhere") });
  const config = { configurable: { ragwardSearch: { filter: undefined } } };
  assert.deepEqual(await narrow.invoke(QUESTION, config), [], "an undefined filter widens nothing");
  const seen: string[] = [];
  const vectors = new RagwardRetriever({
    client, collection: "handbook", identity: ANNE, k: 1,
    toQuery: async (words) => {
      seen.push(words);
      return "on call";
    },
  });
  assert.equal((await vectors.invoke(QUESTION))[0]?.metadata.guard, "document:on-call");
  assert.deepEqual(seen, [QUESTION]);
});

test("an error is thrown, and told to the callbacks", async (context) => {
  const errors: unknown[] = [];
  class Handler extends BaseCallbackHandler {
    name = "errors";
    override handleRetrieverError(error: unknown): void {
      errors.push(error);
    }
  }
  const config = { ...as(ANNE), callbacks: [new Handler()] };
  const absent = new RagwardRetriever({ client, collection: "absent" });
  await assert.rejects(absent.invoke(QUESTION, config), NotFound);
  const down = new RagwardRetriever({ url: await unusedUrl(context), collection: "handbook" });
  await assert.rejects(down.invoke(QUESTION, { ...config, timeout: 10_000 }), Unavailable);
  assert.equal(errors.length, 2);
  const hanging = new RagwardRetriever({ client: new Client({ fetch: new FakeFetch("hang").fetch }), collection: "handbook" });
  await assert.rejects(hanging.invoke(QUESTION, { ...as(ANNE), timeout: 20 }), /Timeout/i);
  await assert.rejects(hanging.invoke(QUESTION, { ...as(ANNE), signal: AbortSignal.abort(new Error("gone")) }), /gone/);
});

test("no trace of a call has a token", async () => {
  const token = "secret-token";
  const seen: string[] = [];
  class Handler extends BaseCallbackHandler {
    name = "everything";
    override handleRetrieverStart(...told: readonly unknown[]): void {
      seen.push(inspect(told, { depth: 9 }), JSON.stringify(told));
    }
    override handleRetrieverEnd(...told: readonly unknown[]): void {
      seen.push(inspect(told, { depth: 9 }));
    }
  }
  const fake = new FakeFetch({ body: {
    chunks: [{
      id: "a#0", documentId: "a", guard: "document:a", title: "A", text: "a", score: 1, rerankScore: 0.5,
      metadata: { big: { intValue: "9007199254740993" }, small: { intValue: "7" } },
    }],
    completion: "COMPLETION_COMPLETE", recall: "RECALL_EXACT", nextPageToken: "", consistencyToken: "token",
  } });
  const identity = Identity.bearer(token);
  const fields: RagwardRetrieverInput = { client: new Client({ fetch: fake.fetch }), collection: "a", tags: ["t"], identity };
  const retriever = new RagwardRetriever(fields);
  const documents = await retriever.invoke(QUESTION, { ...as(identity), callbacks: [new Handler()] });
  assert.equal(fake.sent[0]?.headers["authorization"], `Bearer ${token}`);
  seen.push(inspect(retriever, { depth: 9, showHidden: true }), JSON.stringify(retriever), JSON.stringify(documents));
  assert.equal(seen.length, 6);
  for (const text of seen) {
    assert.ok(!text.includes(token), text);
  }
  const metadata = documents[0]?.metadata;
  assert.deepEqual([metadata?.["big"], metadata?.["small"], metadata?.rerankScore], ["9007199254740993", 7, 0.5]);
});
