/** The types of this client are written by hand. These tests compare them with the descriptors of the API. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { type DescField, type DescMessage, type Message, ScalarType, create, fromJson, toJson } from "@bufbuild/protobuf";

import * as answers from "../src/answers.js";
import { Client, F, Identity } from "../src/index.js";
import * as documents from "../src/documents.js";
import * as explanation from "../src/explanation.js";
import type { MessageReader, Reader } from "../src/reading.js";
import { enumNamed, messageNamed, registry } from "./descriptors.js";
import { FakeFetch } from "./fake_fetch.js";

/** Messages whose readers leave fields out, with those fields. */
const NOT_READ: Readonly<Record<string, readonly string[]>> = { fetchedChunk: ["score", "rerankScore"] };
/** The depth to which a message that holds itself is filled. */
const NESTED = 2;

function isMessageReader(value: unknown): value is MessageReader<unknown> {
  return typeof value === "object" && value !== null && "message" in value;
}

const readers = [answers, documents, explanation].flatMap((module) =>
  Object.entries(module as Record<string, unknown>).flatMap(([name, value]) =>
    isMessageReader(value) ? [[name, value] as const] : []));

/** Returns a message of which every field is set. Of alternatives, the one with this number is. */
function filled(desc: DescMessage, alternative: number, depth = 0): Message {
  const message = create(desc) as Message & Record<string, unknown>;
  for (const member of desc.members) {
    if (member.kind === "oneof") {
      const field = member.fields[alternative % member.fields.length];
      assert.ok(field);
      message[member.localName] = { case: field.localName, value: valueOf(field, alternative, depth) };
    } else if (!isTooDeep(member, depth)) {
      message[member.localName] = valueOf(member, alternative, depth);
    }
  }
  return message;
}

function isTooDeep(field: DescField, depth: number): boolean {
  return depth >= NESTED && field.fieldKind === "list" && field.message === field.parent;
}

function valueOf(field: DescField, alternative: number, depth: number): unknown {
  switch (field.fieldKind) {
    case "message":
      return filled(field.message, alternative, depth + 1);
    case "list":
      // No value of a list is a list.
      return [field.listKind === "message"
        ? filled(field.message, field.parent.typeName === "ragward.metadata.v1.ValueList" ? 0 : alternative, depth + 1)
        : scalar(field.scalar)];
    case "map":
      assert.equal(field.mapKind, "message");
      return { key: filled(field.message as DescMessage, alternative, depth + 1) };
    case "enum":
      return field.enum.values.at(-1)?.number;
    case "scalar":
      return scalar(field.scalar);
  }
}

function scalar(type: ScalarType | undefined): unknown {
  switch (type) {
    case ScalarType.STRING:
      return "text";
    case ScalarType.BOOL:
      return true;
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return 7n;
    default:
      return 7;
  }
}

test("every field of every answer is read", () => {
  assert.ok(readers.length >= 15, `${readers.length} readers`);
  for (const [name, reader] of readers) {
    const fields = messageNamed(reader.message).fields.map((field) => field.jsonName);
    assert.deepEqual([...reader.fieldNames, ...(NOT_READ[name] ?? [])].sort(), fields.sort(), `${name}: ${reader.message}`);
  }
});

test("every answer of the services has a reader", () => {
  const read = new Set(readers.map(([, reader]) => reader.message));
  for (const file of registry.files) {
    for (const service of file.services) {
      for (const method of service.methods) {
        assert.ok(read.has(method.output.typeName), `${method.output.typeName} is read`);
      }
    }
  }
});

test("an answer of which every field is set is read whole", () => {
  for (const [name, reader] of readers) {
    for (const alternative of [0, 1, 2, 3, 4, 5, 6]) {
      const desc = messageNamed(reader.message);
      const json = toJson(desc, filled(desc, alternative), { registry, alwaysEmitImplicit: true });
      const read = reader.read(json, "") as Record<string, unknown>;
      const unset = Object.entries(read).flatMap(([field, value]) => (value === undefined ? [field] : []));
      const alternatives = desc.oneofs.flatMap((oneof) => oneof.fields.length > 1 ? oneof.fields.slice(1) : []);
      assert.equal(unset.length, alternatives.length, `${name}: ${unset.join(", ")} is not set`);
    }
  }
});

test("every value of every enum has a word", () => {
  const rows: readonly [string, Reader<unknown>, boolean][] = [
    ["ragward.retrieval.v1.Completion", answers.completion, false],
    ["ragward.retrieval.v1.Recall", answers.recall, false],
    ["ragward.retrieval.v1.Plan", answers.plan, false],
    ["ragward.retrieval.v1.ExplanationOutcome", explanation.outcome, false],
    ["ragward.retrieval.v1.SetOperator", explanation.setOperator, true],
    ["ragward.retrieval.v1.ClosedReason", explanation.closedReason, true],
    ["ragward.retrieval.v1.InputSource", explanation.inputSource, true],
  ];
  for (const [name, reader, mayBeUnset] of rows) {
    for (const { name: value, number } of enumNamed(name).values) {
      const read = (): unknown => reader.read(value, value);
      if (number !== 0) {
        assert.match(String(read()), /^[a-z_]+$/, value);
      } else if (mayBeUnset) {
        assert.equal(read(), undefined, value);
      } else {
        assert.throws(read, /a word that this client does not know/, value);
      }
    }
  }
});

test("every field of every request can be sent, under the name and type that it has", async () => {
  const everything = {
    consistency: "at_least_as_fresh", consistencyToken: "token", context: { purpose: "audit", list: [1, null] },
  } as const;
  const filter = F("a").eq("x").and(F("b").oneOf(1, 1.5, true, 2n ** 60n)).and(F("c").between(1, 2).or(F("d").ne(3)))
    .and(F("e").during({ earliest: new Date(0) }));
  const metadata = { text: "a", int: 7, big: 2n ** 63n - 1n, float: 0.5, flag: false, list: ["a", 7] };
  const chunk = {
    id: "a#0", guard: "document:a", text: "a", vector: new Float32Array([0.5, 0.25]), metadata, headingPath: ["A"],
  };
  const retrieve = {
    ...everything, collection: "c", k: 3, filter, minScore: 0.5, perDocumentMax: 2, classificationMax: "internal", explainPlan: true,
    approval: "sealed",
  };
  const target = { collection: "c", chunkId: "a#0" };
  const contextualTuples = [{ user: "user:a", relation: "r", object: "o:1", condition: { name: "n", context: { a: 1 } } }];
  const explain = { user: "user:anne", relation: "can_read", contextualTuples, context: { a: 1 } };
  // Servers of the first API have no purposes, and get none unless a caller says so.
  const hasPurpose = messageNamed("ragward.retrieval.v1.RecheckRequest").fields.some(({ name }) => name === "purpose");
  const purpose = hasPurpose ? ({ purpose: "observe" } as const) : {};
  const rows: readonly [string, readonly ((client: Client) => Promise<unknown>)[]][] = [
    ["ragward.retrieval.v1.RetrieveRequest", [
      (client) => client.pages({ ...retrieve, query: "words" }).next(),
      (client) => client.retrieve({ ...retrieve, query: [0.5, 0.25] }),
      (client) => client.retrieve({ ...retrieve, query: { text: "words", vector: new Float64Array([0.5]) } }),
      (client) => client.retrieve({ ...retrieve, query: { text: "words" } }),
      (client) => client.retrieve({ ...retrieve, query: { semantic: "words" } }),
    ]],
    ["ragward.retrieval.v1.FetchRequest", [
      (client) => client.fetch({
        ...everything, collection: "c", chunkIds: ["a"], documentIds: ["b"], classificationMax: "x", approval: "sealed",
      }),
    ]],
    ["ragward.retrieval.v1.RequestApprovalRequest", [
      (client) => client.requestApproval({ retrieve: { collection: "c", query: "words" }, purpose: "p" }),
      (client) => client.requestApproval({ retrieve: { collection: "c", query: "words" }, inPages: true, purpose: "p" }),
      (client) => client.requestApproval({ fetch: { collection: "c", chunkIds: ["a"] }, purpose: "p" }),
    ]],
    ["ragward.retrieval.v1.RecheckRequest", [
      (client) => client.recheck({ ...everything, collection: "c", chunkIds: ["a"], ...purpose }),
    ]],
    ["ragward.retrieval.v1.ExplainRequest", [
      (client) => client.explain({ ...explain, target }),
      (client) => client.explain({ ...explain, target: { object: "document:a" } }),
    ]],
    ["ragward.ingest.v1.PutDocumentRequest", [
      (client) => client.putDocument({ collection: "c", documentId: "a", guard: "document:a", title: "A", metadata, content: "text" }),
      (client) => client.putDocument({ collection: "c", documentId: "a", content: [chunk] }),
    ]],
    ["ragward.ingest.v1.Document", [
      (client) => client.upsertDocuments({ collection: "c", documents: [{ id: "a", title: "A", chunks: [chunk] }] }),
    ]],
    ["ragward.ingest.v1.DeleteDocumentsRequest", [(client) => client.deleteDocuments({ collection: "c", documentIds: ["a"] })]],
    ["ragward.ingest.v1.GetIngestStatusRequest", [(client) => client.ingestStatus({ collection: "c", documentIds: ["a"] })]],
    ["ragward.ingest.v1.ListDocumentsRequest", [(client) => client.listDocuments({ collection: "c" }).next()]],
    ["ragward.ingest.v1.ListCollectionsRequest", [(client) => client.listCollections()]],
  ];
  for (const [name, calls] of rows) {
    const desc = messageNamed(name);
    const sent = new Set<string>();
    for (const call of calls) {
      const fake = new FakeFetch({ body: {} });
      // No answer is a good one here.
      await call(new Client({ fetch: fake.fetch, retries: 0, identity: Identity.user("user:anne") })).catch(() => undefined);
      const json = fake.json() as never;
      // This refuses fields that the message lacks, and values of another type.
      fromJson(desc, json, { registry });
      Object.keys(json).forEach((field) => sent.add(field));
    }
    assert.deepEqual([...sent].sort(), desc.fields.map((field) => field.jsonName).sort(), name);
  }
});
