/** Decides whether a call that failed is tried again. It does no I/O. */

import { type RagwardError, Unavailable } from "./errors.js";

/** What a call does to the server. */
export type Effect =
  /** Nothing. It can be made any number of times. */
  | "reads"
  /** It leaves the same state however often it is made. */
  | "replaces"
  /** It is never made twice. */
  | "adds";

/** A try that failed. */
export interface FailedTry {
  readonly error: RagwardError;
  readonly effect: Effect;
  /** Whether the server may have got the request. */
  readonly wasSent: boolean;
  /** How many tries were made again before this one. */
  readonly retried: number;
  readonly remainingMs: number;
}

/** The pause before the first retry, in milliseconds. Each further one is twice as long, up to the longest. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 5_000;

/**
 * Returns the pause before the next try, in milliseconds, or `undefined` if the error stands.
 *
 * @param chance A random number from 0 to 1. It spreads the tries of callers that failed together.
 */
export function pauseBeforeRetry(failed: FailedTry, retriesMax: number, chance: number): number | undefined {
  const { error, effect, wasSent, retried, remainingMs } = failed;
  if (!(error instanceof Unavailable) || error.code === "resource_exhausted") {
    // An overloaded server gets no more calls from here.
    return undefined;
  }
  const isSafe = effect === "reads" || (effect === "replaces" && !wasSent);
  if (!isSafe || retried >= retriesMax) {
    return undefined;
  }
  const backoff = Math.min(PAUSE_MS_MIN * 2 ** retried, PAUSE_MS_MAX) * (0.5 + chance / 2);
  const pause = Math.max(backoff, error.retryAfterMs ?? 0);
  return pause < remainingMs ? pause : undefined;
}
