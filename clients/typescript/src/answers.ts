/** The answers of the retrieval service, and how they are read. */

import { type Metadata, metadata } from "./metadata.js";
import { type Reader, count, listOf, messageOf, moment, number, optional, text, textOrNone, wordOf } from "./reading.js";

/** A piece of a document that the user may see, without a score. */
export interface FetchedChunk {
  /** The id of the chunk, unique in its collection. */
  readonly id: string;
  readonly documentId: string;
  /** The OpenFGA object that the user was checked against. */
  readonly guard: string;
  /** The title of its document. */
  readonly title: string;
  /** The headings above the text in its document, the outermost first. */
  readonly headingPath: readonly string[];
  readonly text: string;
  readonly metadata: Metadata;
}

/** A piece of a document that the user may see. */
export interface Chunk extends FetchedChunk {
  /** Higher is better. It is a BM25 score, a cosine, or a sum of reciprocal ranks, as the query was. */
  readonly score: number;
  /** The score by which a model ordered the answer; `undefined` if no model has looked at the chunk. Then it has kept its place. */
  readonly rerankScore: number | undefined;
}

/** The reason why there are no more chunks. */
export type Completion =
  /** The answer has as many chunks as it was asked for. */
  | "complete"
  /** The user may see no further chunk that matches, or that was asked for. */
  | "exhausted"
  /** There may be more: a limit of the server stopped the search. */
  | "limited";

/** Whether these are certainly the best chunks. */
export type Recall =
  /** No chunk that the user may see scores better than these. */
  | "exact"
  /** The vector store searches approximately. */
  | "approximate";

/** The answer to a query. */
export interface Answer {
  /** The chunks, best first. */
  readonly chunks: readonly Chunk[];
  readonly completion: Completion;
  readonly recall: Recall;
  /** Continues with the next page; `undefined` if no pages were asked for, or there is no further one. */
  readonly nextPageToken: string | undefined;
  /** A call that sends it back counts everything that was written before this answer. */
  readonly consistencyToken: string;
  /** The lag of the copy of an OpenFGA server's relationship tuples; `undefined` if no copy was used. */
  readonly replicaLagMs: number | undefined;
  /** The description of the search, if the call asked for it and the server allows it. */
  readonly plan: PlanReport | undefined;
}

/** The description of a search. */
export interface PlanReport {
  /** The share of candidates that was expected to be permitted. */
  readonly estimatedShare: number | undefined;
  readonly rounds: readonly PlanRound[];
}

/** A way to search. */
export type Plan = "visible_set_search" | "list_then_search" | "search_then_check";

/** One step of search and enforcement. */
export interface PlanRound {
  readonly plan: Plan;
  readonly limit: number;
  readonly candidates: number;
  readonly permitted: number;
  readonly milliseconds: number;
}

/** The answer to a request for chunks by their ids. */
export interface Fetched {
  /** The chunks that exist and that the user may see, in the order of the request. */
  readonly chunks: readonly FetchedChunk[];
  /** `limited` if there may be more. Then ask for the ids that follow the last chunk. */
  readonly completion: Completion;
  readonly consistencyToken: string;
}

/** The answer to a re-check. */
export interface Rechecked {
  /** The ids of the chunks that exist and that the user may see, in the order of the request. */
  readonly chunkIds: readonly string[];
  readonly consistencyToken: string;
}

/** An approval that the person was asked for. */
export interface RequestedApproval {
  /** The approval, for the same call. It is of use only to the same caller. */
  readonly approval: string;
  /** The code that the person sees on their device. Show it to them. */
  readonly code: string;
  /** The time until which the person can say yes, and the approval can be used. */
  readonly expiresAt: Date;
  /** The time to wait before the call is made with the approval, in seconds. */
  readonly pollAfterSeconds: number;
}

/** Reads headings. A server of an earlier version knows none. */
const headingPath: Reader<readonly string[]> = {
  read: (value, place) => (value === undefined ? [] : listOf(text).read(value, place)),
};

const fetchedFields = { id: text, documentId: text, guard: text, title: text, headingPath, text, metadata };

export const chunk = messageOf<Chunk>("ragward.retrieval.v1.Chunk", {
  ...fetchedFields, score: number, rerankScore: optional(number),
});

/** The score of a fetched chunk says nothing, so it is not read. */
export const fetchedChunk = messageOf<FetchedChunk>("ragward.retrieval.v1.Chunk", fetchedFields);

export const completion = wordOf<Completion>({
  COMPLETION_COMPLETE: "complete",
  COMPLETION_EXHAUSTED: "exhausted",
  COMPLETION_LIMITED: "limited",
});

export const recall = wordOf<Recall>({ RECALL_EXACT: "exact", RECALL_APPROXIMATE: "approximate" });

export const plan = wordOf<Plan>({
  PLAN_VISIBLE_SET_SEARCH: "visible_set_search",
  PLAN_LIST_THEN_SEARCH: "list_then_search",
  PLAN_SEARCH_THEN_CHECK: "search_then_check",
});

export const planRound = messageOf<PlanRound>(
  "ragward.retrieval.v1.PlanRound",
  { plan, limit: count, candidates: count, permitted: count, milliseconds: number },
  { plan: "searchPlan" },
);

export const planReport = messageOf<PlanReport>("ragward.retrieval.v1.PlanReport", {
  estimatedShare: optional(number),
  rounds: listOf(planRound),
});

export const answer = messageOf<Answer>(
  "ragward.retrieval.v1.RetrieveResponse",
  {
    chunks: listOf(chunk),
    completion,
    recall,
    nextPageToken: textOrNone,
    consistencyToken: text,
    replicaLagMs: optional(number),
    plan: optional(planReport),
  },
  { replicaLagMs: "replicaLagMilliseconds" },
);

export const fetched = messageOf<Fetched>("ragward.retrieval.v1.FetchResponse", {
  chunks: listOf(fetchedChunk),
  completion,
  consistencyToken: text,
});

export const rechecked = messageOf<Rechecked>("ragward.retrieval.v1.RecheckResponse", {
  chunkIds: listOf(text),
  consistencyToken: text,
});

export const requestedApproval = messageOf<RequestedApproval>("ragward.retrieval.v1.RequestApprovalResponse", {
  approval: text,
  code: text,
  expiresAt: moment,
  pollAfterSeconds: count,
});
