/** Makes errors of the server's refusals, and of answers that do not come from the server. */

import { readDetails } from "./error_details.js";
import {
  ApprovalRequired, CODES, type Code, DeadlineExceeded, type FieldViolation, Forbidden, InvalidAnswer, InvalidRequest,
  NotAuthenticated, NotFound, RagwardError, Unavailable,
} from "./errors.js";

/** The reasons of refusals that an approval lifts. */
const APPROVAL_REASONS: readonly (string | undefined)[] = ["APPROVAL_REQUIRED", "APPROVAL_PENDING"];
const TOO_LARGE = 413;
/** The codes of answers that something before the server gave, such as a proxy. They have a status only. */
const CODES_OF_STATUSES: Readonly<Record<number, Code>> = {
  400: "invalid_argument",
  401: "unauthenticated",
  403: "permission_denied",
  404: "not_found",
  408: "deadline_exceeded",
  413: "resource_exhausted",
  415: "invalid_argument",
  429: "resource_exhausted",
  502: "unavailable",
  503: "unavailable",
  504: "deadline_exceeded",
};

/** The head of an answer, and the text of its body. */
export interface Refused {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** Returns the error of an answer whose status is not 200. */
export function errorOf(refused: Refused): RagwardError {
  const { status, headers } = refused;
  // A browser tells of a redirection no more than that it is one: status 0.
  if (status === 0 || (status >= 300 && status < 400)) {
    return new InvalidAnswer("the address redirects; use the one to which it leads");
  }
  const body = objectOf(refused.body);
  const code = CODES.find((code) => code === body["code"]) ?? CODES_OF_STATUSES[status] ?? "unknown";
  const { reason, facts: told, violations, retryAfterMs } = readDetails(body["details"]);
  const message = messageOf(status, body["message"], violations);
  const facts = { code, reason };
  const challenge = headers.get("www-authenticate") ?? undefined;
  switch (code) {
    case "unauthenticated":
      return new NotAuthenticated(message, { ...facts, challenge });
    case "permission_denied": {
      if (APPROVAL_REASONS.includes(reason)) {
        const authorizationDetails = listOf(told.get("authorization_details"));
        return new ApprovalRequired(message, { ...facts, challenge, authorizationDetails });
      }
      return new Forbidden(message, { ...facts, challenge });
    }
    case "not_found":
      return new NotFound(message, facts);
    case "resource_exhausted":
    case "unavailable":
      if (status === TOO_LARGE) {
        return new InvalidRequest(message, facts);
      }
      return new Unavailable(message, { ...facts, retryAfterMs: retryAfterMs ?? retryAfterOf(headers) });
    case "deadline_exceeded":
      return new DeadlineExceeded(message, facts);
    case "already_exists":
    case "failed_precondition":
    case "invalid_argument":
    case "out_of_range":
      return new InvalidRequest(message, { ...facts, violations });
    case "aborted":
    case "canceled":
    case "data_loss":
    case "internal":
    case "unimplemented":
    case "unknown":
      return new RagwardError(message, facts);
  }
}

/** Returns the text of a refusal, with the wrong fields that it does not tell itself. */
function messageOf(status: number, told: unknown, violations: readonly FieldViolation[]): string {
  if (typeof told !== "string" || told === "") {
    return `the server, or something in front of it, refused with the HTTP status ${status}`;
  }
  const untold = violations.filter(({ description }) => !told.includes(description));
  return [told, ...untold.map(({ field, description }) => `\`${field}\` ${description}`)].join("; ");
}

function objectOf(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

/** Returns the list that a text in JSON holds; none if it holds something else. */
function listOf(text: string | undefined): readonly unknown[] {
  try {
    const value: unknown = JSON.parse(text ?? "[]");
    return Array.isArray(value) ? value : [];
  } catch {
    return [];
  }
}

/** Returns the wait that a header tells in seconds. A date is not read, because clocks differ. */
function retryAfterOf(headers: Headers): number | undefined {
  const seconds = headers.get("retry-after") ?? "";
  return /^\d{1,6}$/.test(seconds) ? Number(seconds) * 1_000 : undefined;
}
