/**
 * The errors of this client. There is one class for each thing that a caller can do about an error. All of them are a
 * {@link RagwardError}.
 *
 * A message never holds an access token.
 */

/** The codes of refusals, as the server spells them. */
export const CODES = [
  "aborted", "already_exists", "canceled", "data_loss", "deadline_exceeded", "failed_precondition", "internal",
  "invalid_argument", "not_found", "out_of_range", "permission_denied", "resource_exhausted", "unauthenticated",
  "unavailable", "unimplemented", "unknown",
] as const;

/** The code of a refusal, such as `invalid_argument`. */
export type Code = (typeof CODES)[number];

/** A field of a request that the server does not take. */
export interface FieldViolation {
  /** The field as the API spells it, such as `top_k`. */
  readonly field: string;
  readonly description: string;
}

/** The facts that an error tells besides its message. */
export interface ErrorFacts {
  /** The server's code; none if the error arose in this client. */
  readonly code?: Code | undefined;
  /** The server's stable word for programs, such as `INSUFFICIENT_SCOPE`. */
  readonly reason?: string | undefined;
  readonly cause?: unknown;
}

/** Any error of this client. It has this class itself if no other class fits. */
export class RagwardError extends Error {
  /** The server's code; `undefined` if the error arose in this client. */
  readonly code: Code | undefined;
  /** The server's stable word for programs, such as `INSUFFICIENT_SCOPE`; `undefined` if it gave none. */
  readonly reason: string | undefined;

  static {
    this.prototype.name = "RagwardError";
  }

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code;
    this.reason = facts.reason;
  }
}

/** The server does not know who asks: the token is missing or not valid, or the login behind it is too weak. */
export class NotAuthenticated extends RagwardError {
  /** The header `www-authenticate`, which says what to bring (RFC 6750, RFC 9470). */
  readonly challenge: string | undefined;

  static {
    this.prototype.name = "NotAuthenticated";
  }

  constructor(message: string, facts: ErrorFacts & { readonly challenge?: string | undefined } = {}) {
    super(message, facts);
    this.challenge = facts.challenge;
  }
}

/** The caller may not make this call. (Chunks that a user may not see are left out of answers, without an error.) */
export class Forbidden extends RagwardError {
  /** The header `www-authenticate`, which names the scope that the token lacks. */
  readonly challenge: string | undefined;

  static {
    this.prototype.name = "Forbidden";
  }

  constructor(message: string, facts: ErrorFacts & { readonly challenge?: string | undefined } = {}) {
    super(message, facts);
    this.challenge = facts.challenge;
  }
}

/**
 * The call is allowed once a person has approved it. Ask the issuer for a token with `authorizationDetails`, and make the
 * same call with it.
 */
export class ApprovalRequired extends Forbidden {
  /** The details to ask the issuer for, exactly as they are (RFC 9396); empty if the server names none. */
  readonly authorizationDetails: readonly unknown[];

  static {
    this.prototype.name = "ApprovalRequired";
  }

  constructor(
    message: string,
    facts: ErrorFacts & {
      readonly challenge?: string | undefined;
      readonly authorizationDetails?: readonly unknown[] | undefined;
    } = {},
  ) {
    super(message, facts);
    this.authorizationDetails = facts.authorizationDetails ?? [];
  }
}

/** The request is wrong, or does not fit this server. To send it again is of no use. */
export class InvalidRequest extends RagwardError {
  /** The wrong fields; empty if the message says it all. */
  readonly violations: readonly FieldViolation[];

  static {
    this.prototype.name = "InvalidRequest";
  }

  constructor(message: string, facts: ErrorFacts & { readonly violations?: readonly FieldViolation[] } = {}) {
    super(message, facts);
    this.violations = facts.violations ?? [];
  }

  /** Returns the error of one wrong field, which was found before anything was sent. */
  static of(field: string, description: string): InvalidRequest {
    return new InvalidRequest(`\`${field}\` ${description}`, { violations: [{ field, description }] });
  }
}

/** There is no such collection or chunk. */
export class NotFound extends RagwardError {
  static {
    this.prototype.name = "NotFound";
  }
}

/** The server is out of reach or overloaded, or one of its backends did not answer. A later try may succeed. */
export class Unavailable extends RagwardError {
  /** The time to wait before the next try, in milliseconds; `undefined` if the server did not say. */
  readonly retryAfterMs: number | undefined;

  static {
    this.prototype.name = "Unavailable";
  }

  constructor(message: string, facts: ErrorFacts & { readonly retryAfterMs?: number | undefined } = {}) {
    super(message, facts);
    this.retryAfterMs = facts.retryAfterMs;
  }
}

/** The answer is not one of a Ragward server, so the client uses nothing of it. */
export class InvalidAnswer extends RagwardError {
  static {
    this.prototype.name = "InvalidAnswer";
  }
}

/** There was no answer in time. */
export class DeadlineExceeded extends RagwardError {
  static {
    this.prototype.name = "DeadlineExceeded";
  }
}

/** Nobody said who asks. Nothing was sent. */
export class IdentityMissing extends RagwardError {
  static {
    this.prototype.name = "IdentityMissing";
  }
}
