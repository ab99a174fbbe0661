/** Decides whether a call that failed is tried again. It does no I/O. */

import { type RagwardError, Unavailable } from "./errors.js";

/** The change that a call makes. It decides when the call may be made again. */
export type Effect =
  /** The call changes nothing. It may be made again after any failure that may pass. */
  | "reads"
  /**
   * The call leaves the same state however often it is made. It may be made again only if no connection was made: an old copy
   * that arrives late could undo what another program did meanwhile.
   */
  | "replaces"
  /** The call sends a batch of an upload. It is never made again. */
  | "uploads";

/** A try that failed. */
export interface FailedTry {
  readonly error: RagwardError;
  readonly effect: Effect;
  /** Whether the server may have got the request. */
  readonly wasSent: boolean;
  /** The number of tries before this one. */
  readonly retried: number;
  /** The time until the deadline of the call. */
  readonly remainingMs: number;
}

/** The pause before the first retry, in milliseconds. Each further one is twice as long, up to the longest. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 2_000;

/**
 * Returns the pause before the next try, in milliseconds, or `undefined` if the error stands.
 *
 * @param chance A random number from 0 to 1. It spreads the tries of callers that failed together.
 */
export function pauseBeforeRetry(failed: FailedTry, retriesMax: number, chance: number): number | undefined {
  const { error, effect, wasSent, retried, remainingMs } = failed;
  if (!(error instanceof Unavailable)) {
    return undefined;
  }
  const isSafe = effect === "reads" || (effect === "replaces" && !wasSent);
  if (!isSafe || retried >= retriesMax) {
    return undefined;
  }
  const backoff = Math.min(PAUSE_MS_MIN * 2 ** retried, PAUSE_MS_MAX) * (0.5 + chance / 2);
  const pause = Math.max(backoff, error.retryAfterMs ?? 0);
  // The reason of the failure tells more than that time ran out while nothing was tried.
  return pause < remainingMs ? pause : undefined;
}
