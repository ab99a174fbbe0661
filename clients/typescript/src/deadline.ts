/** Bounds the time of one call, with all of its tries, its pauses and the reading of its answer. */

import { DeadlineExceeded, InvalidRequest } from "./errors.js";

/** The longest wait of a timer: 31 bits of milliseconds. A longer one would end at once. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** Returns a timeout that timers can keep. */
export function checkedTimeout(timeoutMs: unknown): number {
  if (typeof timeoutMs === "number" && timeoutMs > 0 && timeoutMs <= TIMEOUT_MS_MAX) {
    return timeoutMs;
  }
  throw InvalidRequest.of("timeoutMs", `must be a number of milliseconds above 0, at most ${TIMEOUT_MS_MAX}`);
}

/** The end of a call: its deadline, or the caller's own signal. Its maker closes it. */
export class Deadline {
  readonly #end: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #controller = new AbortController();
  readonly #ended: Promise<never>;
  readonly #callers: AbortSignal | undefined;

  constructor(timeoutMs: number, callers: AbortSignal | undefined) {
    this.#end = performance.now() + timeoutMs;
    this.#ended = new Promise((_, reject) => {
      this.signal.addEventListener("abort", () => reject(this.signal.reason as Error), { once: true });
    });
    // Usually nobody waits for it any more.
    this.#ended.catch(() => undefined);
    this.#timer = setTimeout(() => {
      this.#controller.abort(new DeadlineExceeded(`there was no answer within ${timeoutMs} ms`));
    }, timeoutMs);
    this.#callers = callers;
    if (callers?.aborted) {
      this.#controller.abort(callers.reason);
    } else {
      callers?.addEventListener("abort", this.#abort, { once: true });
    }
  }

  /** Ends when the call does. Its reason is the error of the call. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get remainingMs(): number {
    return Math.max(0, this.#end - performance.now());
  }

  /** Waits for work, but no longer than the call may take. */
  within<T>(work: Promise<T>): Promise<T> {
    return Promise.race([this.#ended, work]);
  }

  async pause(milliseconds: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await this.within(new Promise<void>((resolve) => {
        timer = setTimeout(resolve, milliseconds);
      }));
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#callers?.removeEventListener("abort", this.#abort);
  }

  readonly #abort = (): void => {
    this.#controller.abort(this.#callers?.reason);
  };
}
