/** The client: one method for each call of the API. */

import {
  type Answer, type Fetched, type Rechecked, type RequestedApproval, answer as answerReader, fetched as fetchedReader,
  rechecked as recheckedReader, requestedApproval as requestedApprovalReader,
} from "./answers.js";
import { type Batch, batches } from "./batches.js";
import { checkedTimeout } from "./deadline.js";
import {
  type Deleted, type Document, type DocumentPage, type IngestStatus, type ListedCollection, type ListedDocument, type PutResult,
  type Upserted, collections as collectionsReader, deleted as deletedReader, documentPage as documentPageReader,
  ingestStatus as ingestStatusReader, putResult as putResultReader, upserted as upsertedReader, wireChunk, wireDocument,
} from "./documents.js";
import { IdentityMissing, InvalidAnswer, InvalidRequest, RagwardError } from "./errors.js";
import { type Explanation, explanation as explanationReader } from "./explanation.js";
import { refuseUnknown } from "./fields.js";
import { wireOf } from "./filter.js";
import { type Identity, checkedIdentity, credentialsOf } from "./identity.js";
import { wireMetadata } from "./metadata.js";
import type { Reader } from "./reading.js";
import {
  type CallOptions, type ClientSettings, type DocumentsRequest, type ExplainRequest, type FetchRequest, type FreshnessOptions,
  type IngestStatusRequest, type ListDocumentsRequest, type PutDocumentRequest, type RecheckRequest,
  type RequestApprovalRequest, type RetrieveRequest, type UpsertDocumentsRequest, wireConsistency, wireNumber, wirePurpose,
  wireQuery,
} from "./requests.js";
import type { Effect } from "./retries.js";
import { Transport } from "./transport.js";

const URL_DEFAULT = "http://127.0.0.1:8980";
const TIMEOUT_MS_DEFAULT = 30_000;
const RETRIES_DEFAULT = 2;
const K_DEFAULT = 10;
/** A page token has a dozen characters for each earlier chunk, and a request at most 1 MiB, so no search has as many pages. */
const PAGES_MAX = 100_000;
/** The number of documents on one page of a list. */
const LIST_PAGE_SIZE = 1_000;
/** A list has at most this many pages: a thousand million documents. */
const LIST_PAGES_MAX = 1_000_000;
/** The most warnings of an upload. One batch has as many. */
const WARNINGS_MAX = 16;

const RETRIEVAL = "/ragward.retrieval.v1.RetrievalService";
const INGEST = "/ragward.ingest.v1.IngestService";

/** The fields that several requests have. */
interface Asked {
  readonly identity: Identity;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * A client of one Ragward server. It can be shared by all users: each call says who asks. Nothing that one user got is kept for
 * another.
 */
export class Client {
  readonly #transport: Transport;
  readonly #identity: Identity | undefined;
  readonly #timeoutMs: number;

  constructor(settings: ClientSettings = {}) {
    const { url, identity, timeoutMs, retries, fetch, plainHttpTokens, ...unknown } = settings;
    refuseUnknown(unknown);
    this.#identity = identity === undefined ? undefined : checkedIdentity(identity, "identity");
    this.#timeoutMs = checkedTimeout(timeoutMs ?? TIMEOUT_MS_DEFAULT);
    this.#transport = new Transport({
      url: url ?? serverOfEnvironment() ?? URL_DEFAULT,
      fetch,
      retries: retries ?? RETRIES_DEFAULT,
      plainHttpTokens: plainHttpTokens === true,
    });
  }

  /**
   * Returns the best chunks for a query among those that the user may see.
   *
   * A user who may see nothing gets an empty list and no error.
   */
  async retrieve(request: RetrieveRequest): Promise<Answer> {
    const { asked, body } = this.#retrieval(request);
    return this.#read(`${RETRIEVAL}/Retrieve`, body, asked, answerReader);
  }

  /**
   * Returns the answer to a query page by page, `k` chunks each. Every page is a call with a token and a deadline of its own.
   */
  async *pages(request: RetrieveRequest): AsyncGenerator<Answer, void, undefined> {
    const { asked, body } = this.#retrieval(request);
    let pageToken = "";
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const answer = await this.#read(`${RETRIEVAL}/Retrieve`, { ...body, pageToken }, asked, answerReader);
      yield answer;
      if (answer.nextPageToken === undefined) {
        return;
      }
      pageToken = nextToken(pageToken, answer.nextPageToken);
    }
    throw new InvalidAnswer("the server's pages do not end");
  }

  /** Returns chunks by their ids, and all chunks of documents, as far as the user may see them. */
  async fetch(request: FetchRequest): Promise<Fetched> {
    const { asked, body } = this.#fetching(request);
    return this.#read(`${RETRIEVAL}/Fetch`, body, asked, fetchedReader);
  }

  /**
   * Asks the person behind the token to approve one call. Show them the `code` of the answer, and make the same call with its
   * `approval`: it fails with {@link ApprovalRequired} and the reason `APPROVAL_PENDING` until the person has answered.
   */
  async requestApproval(request: RequestApprovalRequest): Promise<RequestedApproval> {
    const { retrieve, fetch, inPages, purpose, ...unknown } = request;
    refuseUnknown(unknown);
    if (retrieve !== undefined && fetch === undefined) {
      const { asked, body } = this.#retrieval(retrieve);
      const search = inPages === true ? { ...body, pageToken: "" } : body;
      return this.#requestApproval({ retrieve: search, purpose }, asked);
    }
    if (fetch !== undefined && retrieve === undefined) {
      const { asked, body } = this.#fetching(fetch);
      return this.#requestApproval({ fetch: body, purpose }, asked);
    }
    throw InvalidRequest.of("retrieve", "or `fetch` is the call to approve; give one of them");
  }

  /** Returns those of the given chunks that the user may still see. */
  async recheck(request: RecheckRequest): Promise<Rechecked> {
    const { collection, chunkIds, purpose, ...rest } = request;
    const { asked, fresh } = this.#fresh(rest);
    const body = { ...fresh, collection, chunkIds, purpose: wirePurpose(purpose) };
    return this.#read(`${RETRIEVAL}/Recheck`, body, asked, recheckedReader);
  }

  /** Explains why a user may or may not see a chunk, or holds a relation. It is for administrators. */
  async explain(request: ExplainRequest): Promise<Explanation> {
    const { user, target, relation, contextualTuples, context, ...rest } = request;
    const asked = this.#askedByBearer(rest);
    const wireTarget = "object" in target ? { object: target.object } : { chunk: target };
    const body = { user, ...wireTarget, relation, contextualTuples, context };
    return this.#read(`${RETRIEVAL}/Explain`, body, asked, explanationReader);
  }

  /**
   * Takes documents in. Each replaces all chunks of its id or none of them.
   *
   * They are sent in batches, and the promise is fulfilled when the last one is durable. If it is rejected, each document is
   * either wholly in or wholly absent; {@link ingestStatus} tells which. Nothing is sent twice.
   */
  async upsertDocuments(request: UpsertDocumentsRequest): Promise<Upserted> {
    const { collection, documents, ...rest } = request;
    const asked = this.#askedByBearer(rest);
    const path = `/v1/collections/${encodeURIComponent(collection)}/documents`;
    let sum: Upserted | undefined;
    for await (const batch of batches(linesOf(documents), asked.signal)) {
      const upserted = await this.#upload(path, batch, asked);
      sum = {
        documents: (sum?.documents ?? 0) + upserted.documents,
        chunks: (sum?.chunks ?? 0) + upserted.chunks,
        warnings: [...new Set([...(sum?.warnings ?? []), ...upserted.warnings])].slice(0, WARNINGS_MAX),
        consistencyToken: upserted.consistencyToken,
        embedded: upserted.embedded && {
          ...upserted.embedded, chunks: (sum?.embedded?.chunks ?? 0) + upserted.embedded.chunks,
        },
      };
    }
    // Without documents, the server still says whether the caller may upload, and gives a token.
    return sum ?? this.#upload(path, { lines: [], before: 0 }, asked);
  }

  /** Takes one document in, as a text that the server cuts, or as chunks. It replaces all chunks that its id has now. */
  async putDocument(request: PutDocumentRequest): Promise<PutResult> {
    const { collection, documentId, guard, title, metadata, content, ...rest } = request;
    const asked = this.#askedByBearer(rest);
    const parts = typeof content === "string"
      ? { text: content }
      : { chunks: content.map((chunk, position) => wireChunk(chunk, `content[${position}]`)) };
    const body = { collection, documentId, guard, title, metadata: wireMetadata(metadata, "metadata"), ...parts };
    return this.#call(`${INGEST}/PutDocument`, body, "replaces", asked, putResultReader);
  }

  /**
   * Deletes documents with all of their chunks. Ids that are not there, and documents that the caller may not write, are passed
   * over.
   */
  async deleteDocuments(request: DocumentsRequest): Promise<Deleted> {
    const { collection, documentIds, ...rest } = request;
    const asked = this.#askedByBearer(rest);
    return this.#call(`${INGEST}/DeleteDocuments`, { collection, documentIds }, "replaces", asked, deletedReader);
  }

  /** Returns the documents of a collection that the caller may write, page by page as they are read. */
  async *listDocuments(request: ListDocumentsRequest): AsyncGenerator<ListedDocument, void, undefined> {
    const { collection, ...rest } = request;
    const asked = this.#askedByBearer(rest);
    let pageToken = "";
    for (let number = 0; number < LIST_PAGES_MAX; number += 1) {
      const body = { collection, pageSize: LIST_PAGE_SIZE, pageToken };
      const page: DocumentPage = await this.#read(`${INGEST}/ListDocuments`, body, asked, documentPageReader);
      yield* page.documents;
      if (page.nextPageToken === undefined) {
        return;
      }
      pageToken = nextToken(pageToken, page.nextPageToken);
    }
    throw new InvalidAnswer("the server's pages do not end");
  }

  /** Returns the collections in which the caller may write, by name. */
  async listCollections(options: CallOptions = {}): Promise<readonly ListedCollection[]> {
    const { collections } = await this.#read(`${INGEST}/ListCollections`, {}, this.#askedByBearer(options), collectionsReader);
    return collections;
  }

  /** Tells how much a collection holds, and which of the named documents it holds. */
  async ingestStatus(request: IngestStatusRequest): Promise<IngestStatus> {
    const { collection, documentIds, ...rest } = request;
    return this.#read(`${INGEST}/GetIngestStatus`, { collection, documentIds }, this.#askedByBearer(rest), ingestStatusReader);
  }

  /** Returns who makes a call, and how long it may take. It fails before anything is sent if nobody is named. */
  #asked(options: CallOptions): Asked {
    const { identity: ofCall, timeoutMs, signal, ...unknown } = options;
    refuseUnknown(unknown);
    const identity = Object.hasOwn(options, "identity") ? ofCall : this.#identity;
    if (identity === undefined) {
      throw new IdentityMissing("nobody is named who asks; give an `identity` to the call or to the client");
    }
    return { identity: checkedIdentity(identity, "identity"), timeoutMs: checkedTimeout(timeoutMs ?? this.#timeoutMs), signal };
  }

  /**
   * Like `#asked`, for calls whose request has no field for a user. The bearer would act with its own rights in place of the
   * user's, so an identity with both is refused.
   */
  #askedByBearer(options: CallOptions): Asked {
    return byBearer(this.#asked(options));
  }

  #requestApproval(body: object, asked: Asked): Promise<RequestedApproval> {
    // A copy that arrives late could ring the person once more.
    return this.#call(`${RETRIEVAL}/RequestApproval`, body, "replaces", byBearer(asked), requestedApprovalReader);
  }

  /** Returns the fields that all calls for chunks have. */
  #fresh(options: FreshnessOptions): { readonly asked: Asked; readonly fresh: Readonly<Record<string, unknown>> } {
    const { consistency, consistencyToken, context, ...rest } = options;
    const asked = this.#asked(rest);
    const { user } = credentialsOf(asked.identity);
    const wanted = consistency ?? (consistencyToken === undefined ? "minimize_latency" : "at_least_as_fresh");
    return { asked, fresh: { user, consistency: wireConsistency(wanted), consistencyToken, context } };
  }

  #retrieval(request: RetrieveRequest): { readonly asked: Asked; readonly body: Readonly<Record<string, unknown>> } {
    const {
      collection, query, k, filter, minScore, perDocumentMax, classificationMax, explainPlan, approval, ...rest
    } = request;
    const { asked, fresh } = this.#fresh(rest);
    const body = {
      ...fresh,
      ...wireQuery(query),
      collection,
      topK: wireNumber(k ?? K_DEFAULT),
      filter: filter === undefined ? undefined : wireOf(filter),
      minScore: wireNumber(minScore),
      perDocumentMax: wireNumber(perDocumentMax),
      classificationMax,
      explainPlan,
      approval,
    };
    return { asked, body };
  }

  #fetching(request: FetchRequest): { readonly asked: Asked; readonly body: Readonly<Record<string, unknown>> } {
    const { collection, chunkIds, documentIds, classificationMax, approval, ...rest } = request;
    const { asked, fresh } = this.#fresh(rest);
    return { asked, body: { ...fresh, collection, chunkIds, documentIds, classificationMax, approval } };
  }

  async #upload(path: string, batch: Batch, asked: Asked): Promise<Upserted> {
    const call = {
      path,
      contentType: "application/x-ndjson",
      body: batch.lines.map((line) => `${line}\n`).join(""),
      effect: "uploads",
    } as const;
    try {
      return upsertedReader.read(await this.#transport.send(call, asked), "");
    } catch (error) {
      if (error instanceof RagwardError) {
        // The server counts the lines of this batch, and the caller those of the upload.
        error.message = error.message.replace(/^line (\d+): /, (_, line) => `document ${batch.before + Number(line)}: `);
      }
      throw error;
    }
  }

  #read<T>(path: string, body: object, asked: Asked, reader: Reader<T>): Promise<T> {
    return this.#call(path, body, "reads", asked, reader);
  }

  async #call<T>(path: string, body: object, effect: Effect, asked: Asked, reader: Reader<T>): Promise<T> {
    const call = { path, contentType: "application/json", body: jsonOf(body), effect } as const;
    return reader.read(await this.#transport.send(call, asked), "");
  }
}

/** Refuses a caller who asks on behalf of a user, where the bearer itself is meant. */
function byBearer(asked: Asked): Asked {
  const { token, user } = credentialsOf(asked.identity);
  if (token !== undefined && user !== undefined) {
    throw InvalidRequest.of("identity", "asks on behalf of a user, and this call is made by the bearer itself");
  }
  return asked;
}

/** Returns the lines of an upload. */
async function* linesOf(documents: Iterable<Document> | AsyncIterable<Document>): AsyncGenerator<string, void, undefined> {
  let index = 0;
  for await (const document of documents) {
    yield jsonOf(wireDocument(document, `documents[${index}]`));
    index += 1;
  }
}

function jsonOf(body: object): string {
  try {
    return JSON.stringify(body);
  } catch (error) {
    throw new InvalidRequest("the request has a value that JSON cannot hold", { cause: error });
  }
}

function nextToken(before: string, next: string): string {
  if (next === before) {
    throw new InvalidAnswer("the server's pages do not end: two of them have the same token");
  }
  return next;
}

/** Returns the address that the environment names, where there is an environment. */
function serverOfEnvironment(): string | undefined {
  const { process } = globalThis as { readonly process?: { readonly env?: Readonly<Record<string, string | undefined>> } };
  return process?.env?.["RAGWARD_SERVER"] || undefined;
}
