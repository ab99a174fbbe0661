/**
 * Client of Ragward, a retrieval proxy for RAG that releases only the chunks that a user may see.
 *
 * ```ts
 * const client = new Client({ url: "http://127.0.0.1:8980" });
 * const answer = await client.retrieve({
 *   collection: "handbook",
 *   query: "parental leave",
 *   identity: Identity.user("user:anne"),
 * });
 * ```
 *
 * @module
 */

export type {
  Answer, Chunk, Completion, Fetched, FetchedChunk, Plan, PlanReport, PlanRound, Recall, Rechecked, RequestedApproval,
} from "./answers.js";
export { Client } from "./client.js";
export type {
  Deleted, Document, DocumentStatus, Embedded, IngestStatus, ListedCollection, ListedDocument, NewChunk, PutResult, Upserted, Vector,
} from "./documents.js";
export {
  ApprovalRequired, DeadlineExceeded, Forbidden, IdentityMissing, InvalidAnswer, InvalidRequest, NotAuthenticated, NotFound,
  RagwardError, Unavailable,
} from "./errors.js";
export type { Code, FieldViolation } from "./errors.js";
export type {
  ClosedReason, ConditionInput, Explanation, ExplanationStep, FoundCondition, FoundTuple, InputSource, NoTupleStep,
  NotAskedStep, OperationStep, Outcome, RelationStep, SetOperator,
} from "./explanation.js";
export { F, Filter } from "./filter.js";
export type { FilterKey } from "./filter.js";
export { Identity } from "./identity.js";
export type { TokenProvider } from "./identity.js";
export type { Metadata, MetadataScalar, MetadataValue } from "./metadata.js";
export type {
  CallOptions, ClientSettings, Consistency, DocumentsRequest, ExplainRequest, FetchRequest, FreshnessOptions, Hybrid,
  IngestStatusRequest, ListDocumentsRequest, Purpose, PutDocumentRequest, Query, RecheckRequest, RelationshipTuple,
  RequestApprovalRequest, RetrieveRequest, Semantic, UpsertDocumentsRequest,
} from "./requests.js";
export type { Fetch } from "./transport.js";
