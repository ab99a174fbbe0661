/**
 * A retriever for LangChain.js. It needs `@langchain/core` 1.4 or later.
 *
 * @module
 */

import type { CallbackManagerForRetrieverRun } from "@langchain/core/callbacks/manager";
import { Document } from "@langchain/core/documents";
import { BaseRetriever, type BaseRetrieverInput } from "@langchain/core/retrievers";
import { type RunnableConfig, ensureConfig } from "@langchain/core/runnables";

import type { Answer, Chunk, Completion, Recall } from "./answers.js";
import { Client } from "./client.js";
import { IdentityMissing, InvalidRequest } from "./errors.js";
import { type Identity, checkedIdentity } from "./identity.js";
import type { MetadataScalar } from "./metadata.js";
import type { Query, RetrieveRequest } from "./requests.js";

/** The options of a search: `k`, `filter`, `minScore` and more, as in {@link RetrieveRequest}. */
export type SearchOptions = Omit<RetrieveRequest, "collection" | "query" | "identity" | "signal">;

/** The settings of a retriever: where it searches, and how, if a call does not say so. */
export interface RagwardRetrieverInput extends BaseRetrieverInput, SearchOptions {
  /** The client that asks. It may be shared by all users. Its own identity is not used. */
  readonly client?: Client | undefined;
  /** The address of the server, in place of a client. */
  readonly url?: string | undefined;
  readonly collection: string;
  /**
   * The identity that asks where a call names none. Leave it out where several users share the retriever: then a call that names
   * nobody is an error.
   */
  readonly identity?: Identity | undefined;
  /** Makes the query of the words, such as a vector of an embedding model. By default, the words themselves are the query. */
  readonly toQuery?: ((words: string) => Query | Promise<Query>) | undefined;
}

/** The members that a call may have in `configurable` of its config. */
export interface RagwardConfigurable {
  /** The identity that asks. It is an object, so LangChain does not copy it into the metadata of its traces. */
  readonly ragwardIdentity?: Identity;
  /** Options of the search. They replace those of the retriever, one by one. */
  readonly ragwardSearch?: SearchOptions;
}

/**
 * The metadata of a document: that of the chunk, and what Ragward says of the chunk and of the answer. A whole number that a
 * `number` does not hold exactly is a text, so that JSON can hold it.
 */
export interface RagwardMetadata extends Record<string, unknown> {
  readonly chunkId: string;
  readonly documentId: string;
  readonly title: string;
  /** The headings above the text, the outermost first. */
  readonly headingPath: readonly string[];
  readonly guard: string;
  readonly score: number;
  /** The score by which a model ordered the answer; `undefined` if no model has looked at the chunk. */
  readonly rerankScore: number | undefined;
  /** Of the whole answer: the reason why there are no more documents. */
  readonly completion: Completion;
  /** Of the whole answer: whether these are certainly the best chunks. */
  readonly recall: Recall;
  readonly consistencyToken: string;
}

/**
 * Retrieves the chunks that a user may see, as documents.
 *
 * The config of each call says who asks, also within chains, maps, batches and streams:
 *
 * ```ts
 * await retriever.invoke("parental leave", { configurable: { ragwardIdentity: Identity.user("user:anne") } });
 * ```
 *
 * An error is thrown. It never becomes an empty list.
 */
export class RagwardRetriever extends BaseRetriever<RagwardMetadata> {
  override lc_namespace = ["ragward", "langchain"];
  readonly #client: Client;
  readonly #collection: string;
  readonly #identity: Identity | undefined;
  readonly #search: SearchOptions;
  readonly #toQuery: (words: string) => Query | Promise<Query>;

  static override lc_name(): string {
    return "RagwardRetriever";
  }

  constructor(fields: RagwardRetrieverInput) {
    const { client, url, collection, identity, toQuery, callbacks, tags, metadata, verbose, ...search } = fields;
    // LangChain keeps what it is given here, and shows it.
    super({
      ...(callbacks === undefined ? {} : { callbacks }),
      ...(tags === undefined ? {} : { tags }),
      ...(metadata === undefined ? {} : { metadata }),
      ...(verbose === undefined ? {} : { verbose }),
    });
    if (client !== undefined && url !== undefined) {
      throw InvalidRequest.of("url", "cannot be combined with `client`, which has an address of its own");
    }
    this.#client = client ?? new Client({ url });
    this.#collection = collection;
    this.#identity = identity === undefined ? undefined : checkedIdentity(identity, "identity");
    this.#search = search;
    this.#toQuery = toQuery ?? ((words) => words);
  }

  /**
   * Retrieves the documents for a query.
   *
   * @param options The config of the call. {@link RagwardConfigurable} tells what its `configurable` may say.
   */
  override async invoke(input: string, options?: Partial<RunnableConfig>): Promise<Document<RagwardMetadata>[]> {
    const config: RunnableConfig = ensureConfig(options);
    const retrieve = (words: string): Promise<Document<RagwardMetadata>[]> =>
      this.#retrieve(words, config.configurable ?? {}, config.signal);
    // LangChain gives the config to nobody but `invoke`. This object is the retriever of this call alone, so two calls at a time
    // cannot take each other's identity.
    const ofThisCall = Object.create(this, { _getRelevantDocuments: { value: retrieve } }) as this;
    return super.invoke.call(ofThisCall, input, config) as Promise<Document<RagwardMetadata>[]>;
  }

  override _getRelevantDocuments(
    query: string,
    _callbacks?: CallbackManagerForRetrieverRun,
  ): Promise<Document<RagwardMetadata>[]> {
    return this.#retrieve(query, {}, undefined);
  }

  async #retrieve(
    words: string,
    configurable: RagwardConfigurable,
    signal: AbortSignal | undefined,
  ): Promise<Document<RagwardMetadata>[]> {
    const identity = this.#identityOf(configurable);
    const query = await this.#toQuery(words);
    // A filter that a call gives as `undefined` leaves that of the settings as it is. It must not widen the search.
    const ofCall = Object.entries(configurable.ragwardSearch ?? {}).filter(([, value]) => value !== undefined);
    const search = { ...this.#search, ...Object.fromEntries(ofCall) };
    const answer = await this.#client.retrieve({ ...search, collection: this.#collection, query, identity, signal });
    return answer.chunks.map((chunk) => documentOf(chunk, answer));
  }

  /** Returns who asks. A call that names somebody wrongly, such as with `undefined`, never asks as somebody else. */
  #identityOf(configurable: RagwardConfigurable): Identity {
    const identity: unknown = Object.hasOwn(configurable, "ragwardIdentity") ? configurable.ragwardIdentity : this.#identity;
    if (identity === undefined || identity === null) {
      throw new IdentityMissing("nobody is named who asks; call with `{ configurable: { ragwardIdentity: … } }`");
    }
    return checkedIdentity(identity, "ragwardIdentity");
  }
}

function documentOf(chunk: Chunk, answer: Answer): Document<RagwardMetadata> {
  const { id, documentId, title, headingPath, guard, text, score, rerankScore, metadata } = chunk;
  const { completion, recall, consistencyToken } = answer;
  const plain = (value: MetadataScalar): string | number | boolean => (typeof value === "bigint" ? value.toString() : value);
  const values = Object.entries(metadata).map(([key, value]) => [key, typeof value === "object" ? value.map(plain) : plain(value)]);
  // These come last, so that the metadata of a chunk cannot say which guard it has.
  const ours = { chunkId: id, documentId, title, headingPath, guard, score, rerankScore, completion, recall, consistencyToken };
  return new Document({ id, pageContent: text, metadata: { ...Object.fromEntries(values), ...ours } });
}
