/**
 * Cuts an upload into batches of lines.
 *
 * Browsers cannot stream the body of a request to a server over HTTP/1.1, and where a runtime can, a token that expires ends the
 * stream. So an upload is a sequence of requests in every runtime. No more than one batch is in memory, and each has a token, a
 * deadline and an answer of its own.
 */

/** A batch has at most this many characters, unless its one line has more. A server makes 8 MiB durable at a time. */
const BATCH_CHARACTERS_MAX = 4 * 1024 * 1024;
/** A batch has at most this many lines. */
const BATCH_LINES_MAX = 1_000;
/** A batch that is not full waits this long for further lines, so that a slow source does not hold back the first ones. */
const BATCH_WAIT_MS_MAX = 1_000;

/** Some lines that are sent together. */
export interface Batch {
  readonly lines: readonly string[];
  /** The number of lines before the first one. */
  readonly before: number;
}

const LATE = Symbol("late");

/**
 * Gathers lines into batches. One line ahead is asked of the source while a batch is sent.
 *
 * @param signal Ends the wait for the source, which may take as long as it likes.
 */
export async function* batches(
  source: AsyncIterable<string>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Batch, void, undefined> {
  const lines = source[Symbol.asyncIterator]();
  const asked = (): Promise<IteratorResult<string>> => {
    const next = lines.next();
    // It may fail while a batch is sent, before anybody waits for it.
    next.catch(() => undefined);
    return next;
  };
  let batch: string[] = [];
  let characters = 0;
  let before = 0;
  let isEnded = false;
  let next = asked();
  try {
    while (!isEnded) {
      const waitMs = batch.length === 0 ? undefined : BATCH_WAIT_MS_MAX;
      const result = await waited(next, waitMs, signal);
      if (result === LATE) {
        // The batch goes out as it is.
      } else if (result.done === true) {
        isEnded = true;
      } else {
        batch.push(result.value);
        characters += result.value.length;
        next = asked();
        if (batch.length < BATCH_LINES_MAX && characters < BATCH_CHARACTERS_MAX) {
          continue;
        }
      }
      if (batch.length > 0) {
        yield { lines: batch, before };
        before += batch.length;
        batch = [];
        characters = 0;
      }
    }
  } finally {
    if (!isEnded) {
      // A reader that stops early stops the source, too. A source that hangs learns of it late, so nobody waits for that.
      lines.return?.().catch(() => undefined);
    }
  }
}

/** Waits for the next line, not longer than `waitMs` if there is such a bound, and not after the signal. */
async function waited<T>(next: Promise<T>, waitMs: number | undefined, signal: AbortSignal | undefined): Promise<T | typeof LATE> {
  signal?.throwIfAborted();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let abort = (): void => undefined;
  const ends = new Promise<typeof LATE>((resolve, reject) => {
    abort = () => reject(signal?.reason as Error);
    signal?.addEventListener("abort", abort, { once: true });
    if (waitMs !== undefined) {
      timer = setTimeout(() => resolve(LATE), waitMs);
    }
  });
  try {
    return await Promise.race([next, ends]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
