/** Defines the requests of callers, and puts their values on the wire. */

import { type Document, type NewChunk, type Vector, wireVector } from "./documents.js";
import { InvalidRequest } from "./errors.js";
import { refuseUnknown } from "./fields.js";
import type { Filter } from "./filter.js";
import type { Identity } from "./identity.js";
import type { Metadata } from "./metadata.js";
import type { Fetch } from "./transport.js";

/** The settings of a client. */
export interface ClientSettings {
  /**
   * The address of the server. Without it, the environment variable `RAGWARD_SERVER` has the address; otherwise it is
   * `http://127.0.0.1:8980`.
   */
  readonly url?: string | undefined;
  /** The identity that asks where a call names none. */
  readonly identity?: Identity | undefined;
  /** The longest that a call, or a batch of an upload, may take with all of its tries, in milliseconds; 30,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** The further tries of a call that changes nothing, after a failure that may pass; 2 by default, at most 10. */
  readonly retries?: number | undefined;
  /** The function that sends requests; the global `fetch` by default. */
  readonly fetch?: Fetch | undefined;
  /**
   * Whether tokens are sent over `http:` to other machines, too. That is for where something else encrypts the way, such as a
   * service mesh.
   */
  readonly plainHttpTokens?: boolean | undefined;
}

/** The options that every call takes. */
export interface CallOptions {
  /**
   * The identity that asks; the client's own if this is left out. A value of `undefined` is an error, so that a program that has
   * lost a session never asks as the client.
   */
  readonly identity?: Identity;
  /** The longest that the call may take, in milliseconds; the client's own timeout by default. */
  readonly timeoutMs?: number | undefined;
  /** Ends the call. The promise is then rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The freshness that the relationships must have. */
export type Consistency =
  /** Caches and copies may decide. This is the default. */
  | "minimize_latency"
  /** The authority itself decides. */
  | "higher_consistency"
  /** Everything that was written before the consistency token was made counts. It is the default with such a token. */
  | "at_least_as_fresh";

/** The options that calls for chunks take. */
export interface FreshnessOptions extends CallOptions {
  readonly consistency?: Consistency | undefined;
  /** The `consistencyToken` of an earlier answer. */
  readonly consistencyToken?: string | undefined;
  /** Values for parameters of the model's conditions, as in OpenFGA's Check. */
  readonly context?: Readonly<Record<string, unknown>> | undefined;
}

/** Words and an embedding. Both rankings are merged. */
export interface Hybrid {
  readonly text: string;
  /** The embedding. Without one, the model of the collection makes it of the words (`embedding` in the server's settings). */
  readonly vector?: Vector | undefined;
}

/** Words whose meaning is searched for. The collection needs a model, which gets the words (`embedding`). */
export interface Semantic {
  readonly semantic: string;
}

/** Words (ranked with BM25), an embedding (ranked by cosine similarity), both, or the meaning of words. */
export type Query = string | Vector | Hybrid | Semantic;

export interface RetrieveRequest extends FreshnessOptions {
  readonly collection: string;
  readonly query: Query;
  /** The number of chunks; 10 by default. */
  readonly k?: number | undefined;
  /** Restricts the search to chunks that match. */
  readonly filter?: Filter | undefined;
  /** Leaves out chunks with a lower score. Each kind of query has its own scale. */
  readonly minScore?: number | undefined;
  /** The most chunks of one document. It cannot be combined with pages. */
  readonly perDocumentMax?: number | undefined;
  /** Restricts the search to chunks of this classification or a lower one. */
  readonly classificationMax?: string | undefined;
  /** Asks how the search was made. The server answers only if its settings allow that. */
  readonly explainPlan?: boolean | undefined;
  /** The `approval` of this very search, from `requestApproval`. */
  readonly approval?: string | undefined;
}

export interface FetchRequest extends FreshnessOptions {
  readonly collection: string;
  readonly chunkIds?: readonly string[] | undefined;
  /** Documents whose chunks are all asked for. */
  readonly documentIds?: readonly string[] | undefined;
  /** Restricts the answer to chunks of this classification or a lower one. */
  readonly classificationMax?: string | undefined;
  /** The `approval` of this very request, from `requestApproval`. */
  readonly approval?: string | undefined;
}

/** A call that the person behind the token is asked to approve: a search or a fetch. */
export interface RequestApprovalRequest {
  readonly retrieve?: RetrieveRequest | undefined;
  readonly fetch?: FetchRequest | undefined;
  /** Whether the search is made with `pages`. */
  readonly inPages?: boolean | undefined;
  /** A few words that the person reads. */
  readonly purpose?: string | undefined;
}

/** The purpose of a re-check. It changes what the server records, and nothing else. */
export type Purpose =
  /** The caller uses only the chunks that come back. This is the default. */
  | "answer"
  /** The caller uses its chunks anyway, and asks the server to record what it would have withheld. */
  | "observe";

export interface RecheckRequest extends FreshnessOptions {
  readonly collection: string;
  /** The ids of the chunks, at most 1,000. */
  readonly chunkIds: readonly string[];
  readonly purpose?: Purpose | undefined;
}

/** A relationship tuple that counts for one question. */
export interface RelationshipTuple {
  readonly user: string;
  readonly relation: string;
  readonly object: string;
  readonly condition?: { readonly name: string; readonly context?: Readonly<Record<string, unknown>> | undefined } | undefined;
}

export interface ExplainRequest extends CallOptions {
  /**
   * The OpenFGA user to explain: `user:anne`, `user:*` or `group:eng#member`. Without it, the question is about the bearer of the
   * token, and what the token tells counts, too.
   */
  readonly user?: string | undefined;
  /** The chunk or OpenFGA object that the user may or may not see. */
  readonly target: { readonly collection: string; readonly chunkId: string } | { readonly object: string };
  /** The relation; the one that guards chunks by default. */
  readonly relation?: string | undefined;
  readonly contextualTuples?: readonly RelationshipTuple[] | undefined;
  readonly context?: Readonly<Record<string, unknown>> | undefined;
}

export interface UpsertDocumentsRequest extends CallOptions {
  readonly collection: string;
  /** The documents. They are read one by one, while earlier ones are sent. */
  readonly documents: Iterable<Document> | AsyncIterable<Document>;
}

export interface PutDocumentRequest extends CallOptions {
  readonly collection: string;
  readonly documentId: string;
  /** The OpenFGA object that decides who sees the chunks. It may be missing if every chunk names its own. */
  readonly guard?: string | undefined;
  readonly title?: string | undefined;
  /** The metadata of every chunk. A chunk's own value for a key comes first. */
  readonly metadata?: Metadata | undefined;
  /** A text, plain or Markdown, that the server cuts into chunks; or the chunks. */
  readonly content: string | readonly Partial<NewChunk>[];
}

export interface DocumentsRequest extends CallOptions {
  readonly collection: string;
  /** The ids of the documents, at most 10,000. */
  readonly documentIds: readonly string[];
}

export interface ListDocumentsRequest extends CallOptions {
  readonly collection: string;
}

export interface IngestStatusRequest extends CallOptions {
  readonly collection: string;
  /** The documents to look for; none by default. */
  readonly documentIds?: readonly string[] | undefined;
}

const CONSISTENCIES: Readonly<Record<Consistency, string>> = {
  minimize_latency: "CONSISTENCY_MINIMIZE_LATENCY",
  higher_consistency: "CONSISTENCY_HIGHER_CONSISTENCY",
  at_least_as_fresh: "CONSISTENCY_AT_LEAST_AS_FRESH",
};

/** Returns a consistency as the wire has it. */
export function wireConsistency(consistency: Consistency): string {
  if (!Object.hasOwn(CONSISTENCIES, consistency)) {
    throw InvalidRequest.of("consistency", `must be one of ${Object.keys(CONSISTENCIES).join(", ")}`);
  }
  return CONSISTENCIES[consistency];
}

/** Returns a purpose as the wire has it. The default is not sent, so that servers without purposes answer, too. */
export function wirePurpose(purpose: Purpose | undefined): string | undefined {
  if (purpose !== undefined && purpose !== "answer" && purpose !== "observe") {
    throw InvalidRequest.of("purpose", "must be `answer` or `observe`");
  }
  return purpose === "observe" ? "PURPOSE_OBSERVE" : undefined;
}

/** Returns a query as the wire has it. */
export function wireQuery(query: Query): Readonly<Record<string, unknown>> {
  if (typeof query === "string") {
    return { text: query };
  }
  if ("text" in query) {
    const { text, vector, ...unknown } = query;
    refuseUnknown(unknown);
    return { hybrid: { text, ...(vector !== undefined && { vector: { values: wireVector(vector, "query.vector") } }) } };
  }
  if ("semantic" in query) {
    const { semantic, ...unknown } = query;
    refuseUnknown(unknown);
    return { semantic: { text: semantic } };
  }
  return { vector: { values: wireVector(query, "query") } };
}

/** Writes a number. JSON has none for what is not finite, and `null` would stand for a field that is not set. */
export function wireNumber(value: number | undefined): number | string | undefined {
  return value === undefined || Number.isFinite(value) ? value : String(value);
}
