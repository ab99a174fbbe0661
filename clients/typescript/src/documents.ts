/** Documents: what is sent to the ingest service, and how its answers are read. */

import { InvalidRequest } from "./errors.js";
import { refuseUnknown } from "./fields.js";
import { type Metadata, type WireValue, wireMetadata } from "./metadata.js";
import { count, listOf, messageOf, optional, text, textOrNone } from "./reading.js";

/** Numbers of an embedding. */
export type Vector = readonly number[] | Float32Array | Float64Array;

/** A chunk to be stored. */
export interface NewChunk {
  /** The id, unique in the collection. */
  readonly id: string;
  /** The OpenFGA object that decides who sees the chunk, such as `document:handbook`. */
  readonly guard: string;
  /** The text. It may be missing if there is a vector. */
  readonly text?: string | undefined;
  /** The embedding. It may be missing if there is text. It must be where the server makes those of the collection. */
  readonly vector?: Vector | undefined;
  readonly metadata?: Metadata | undefined;
  /** The headings above the text in its document, the outermost first. */
  readonly headingPath?: readonly string[] | undefined;
}

/** A document to be stored. It replaces all chunks of its id or none of them. */
export interface Document {
  /** The id, unique in its collection. */
  readonly id: string;
  /** The title, for people. */
  readonly title?: string | undefined;
  /** The chunks in the order of the document. There is at least one. */
  readonly chunks: readonly NewChunk[];
}

/** The model that made the embeddings of documents, and what it was sent. */
export interface Embedded {
  /** The name of the model in the server's settings. */
  readonly model: string;
  /** The host that the texts were sent to; empty if the model computes in the server itself. */
  readonly host: string;
  /** The number of chunks that have got an embedding. */
  readonly chunks: number;
}

/** The answer to an upload. */
export interface Upserted {
  /** The number of documents that were taken in. */
  readonly documents: number;
  /** The number of their chunks. */
  readonly chunks: number;
  /** Why nobody will see some of these documents, for people. */
  readonly warnings: readonly string[];
  /** A retrieval that sends it back sees these documents. */
  readonly consistencyToken: string;
  /** What was sent to a model; `undefined` if the collection has none. */
  readonly embedded: Embedded | undefined;
}

/** The answer to one document that was put. */
export interface PutResult {
  /** The number of its chunks. */
  readonly chunks: number;
  readonly consistencyToken: string;
  readonly warnings: readonly string[];
  /** What was sent to a model; `undefined` if the collection has none. */
  readonly embedded: Embedded | undefined;
}

/** A document in a list. */
export interface ListedDocument {
  readonly documentId: string;
  readonly title: string;
  /** The number of its chunks. */
  readonly chunks: number;
  /** The source that `ragward ingest --source` recorded. */
  readonly source: string | undefined;
}

/** One page of a list of documents. */
export interface DocumentPage {
  readonly documents: readonly ListedDocument[];
  readonly nextPageToken: string | undefined;
}

/** A collection in a list. Its counts are 0 for callers who may not administer the server. */
export interface ListedCollection {
  readonly name: string;
  readonly documents: number;
  readonly chunks: number;
  /** The dimension of its vectors; 0 while it has none. */
  readonly dimension: number;
}

/** The answer to a deletion. */
export interface Deleted {
  /** The number of documents that were there and that the caller may write. */
  readonly documents: number;
  readonly consistencyToken: string;
}

/** The contents of a collection. */
export interface IngestStatus {
  /** The number of documents; 0 for callers who may not administer the server, like the chunks. */
  readonly documents: number;
  readonly chunks: number;
  /** The dimension of the vectors; 0 while there are none. */
  readonly dimension: number;
  /** The named documents that are there. */
  readonly found: readonly DocumentStatus[];
}

export interface DocumentStatus {
  readonly documentId: string;
  readonly chunks: number;
}

export const embedded = messageOf<Embedded>("ragward.ingest.v1.Embedded", { model: text, host: text, chunks: count });

export const upserted = messageOf<Upserted>("ragward.ingest.v1.UpsertDocumentsResponse", {
  documents: count,
  chunks: count,
  warnings: listOf(text),
  consistencyToken: text,
  embedded: optional(embedded),
});

export const putResult = messageOf<PutResult>("ragward.ingest.v1.PutDocumentResponse", {
  chunks: count,
  consistencyToken: text,
  warnings: listOf(text),
  embedded: optional(embedded),
});

export const listedDocument = messageOf<ListedDocument>("ragward.ingest.v1.ListedDocument", {
  documentId: text,
  title: text,
  chunks: count,
  source: textOrNone,
});

export const documentPage = messageOf<DocumentPage>("ragward.ingest.v1.ListDocumentsResponse", {
  documents: listOf(listedDocument),
  nextPageToken: textOrNone,
});

export const listedCollection = messageOf<ListedCollection>("ragward.ingest.v1.ListedCollection", {
  name: text,
  documents: count,
  chunks: count,
  dimension: count,
});

export const collections = messageOf<{ readonly collections: readonly ListedCollection[] }>(
  "ragward.ingest.v1.ListCollectionsResponse",
  { collections: listOf(listedCollection) },
);

export const deleted = messageOf<Deleted>("ragward.ingest.v1.DeleteDocumentsResponse", {
  documents: count,
  consistencyToken: text,
});

export const documentStatus = messageOf<DocumentStatus>("ragward.ingest.v1.DocumentStatus", {
  documentId: text,
  chunks: count,
});

export const ingestStatus = messageOf<IngestStatus>("ragward.ingest.v1.GetIngestStatusResponse", {
  documents: count,
  chunks: count,
  dimension: count,
  found: listOf(documentStatus),
});

/** A chunk as the wire has it. */
export interface WireChunk {
  readonly id?: string | undefined;
  readonly guard?: string | undefined;
  readonly text?: string | undefined;
  readonly vector?: readonly number[] | undefined;
  readonly metadata?: Record<string, WireValue> | undefined;
  readonly headingPath?: readonly string[] | undefined;
}

/** A document as the wire has it. */
export interface WireDocument {
  readonly id: string;
  readonly title?: string | undefined;
  readonly chunks: readonly WireChunk[];
}

/** Returns a document as the wire has it. `field` names it in errors. */
export function wireDocument(document: Document, field: string): WireDocument {
  const { id, title, chunks, ...unknown } = document;
  refuseUnknown(unknown);
  return { id, title, chunks: chunks.map((chunk, position) => wireChunk(chunk, `${field}.chunks[${position}]`)) };
}

/** Returns a chunk as the wire has it. `field` names it in errors. */
export function wireChunk(chunk: Partial<NewChunk>, field: string): WireChunk {
  const { id, guard, text, vector, metadata, headingPath, ...unknown } = chunk;
  refuseUnknown(unknown);
  return {
    id,
    guard,
    text,
    vector: vector === undefined ? undefined : wireVector(vector, `${field}.vector`),
    metadata: wireMetadata(metadata, `${field}.metadata`),
    headingPath,
  };
}

/** Returns an embedding as the wire has it. JSON has no number for what is not finite. */
export function wireVector(vector: Vector, field: string): readonly number[] {
  const numbers = Array.from(vector);
  if (!numbers.every(Number.isFinite)) {
    throw InvalidRequest.of(field, "has a value that is not a finite number");
  }
  return numbers;
}
