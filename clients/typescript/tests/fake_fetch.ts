/** A `fetch` that answers as a test says, and keeps what it was asked. */

/** One request that was sent. */
export interface Sent {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** The answer to one request, or the error in its place. */
export type Reply =
  | { readonly status?: number; readonly headers?: Record<string, string>; readonly body: unknown }
  | Error
  /** No answer, until the caller gives up. */
  | "hang";

export class FakeFetch {
  readonly sent: Sent[] = [];
  readonly #replies: readonly Reply[];

  /** The last reply is given again and again. */
  constructor(...replies: readonly Reply[]) {
    this.#replies = replies;
  }

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    this.sent.push({ url, headers: init.headers as Record<string, string>, body: init.body as string });
    const reply = this.#replies[Math.min(this.sent.length, this.#replies.length) - 1];
    if (reply === undefined) {
      throw new Error("no reply is known");
    }
    if (reply === "hang") {
      const signal = init.signal as AbortSignal;
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      });
    }
    if (reply instanceof Error) {
      throw reply;
    }
    const body = typeof reply.body === "string" ? reply.body : JSON.stringify(reply.body);
    return new Response(body, { status: reply.status ?? 200, headers: reply.headers ?? {} });
  };

  /** Returns the JSON of a request. */
  json(index = 0): Record<string, unknown> {
    return JSON.parse(this.sent[index]?.body ?? "{}") as Record<string, unknown>;
  }
}

/** An answer without chunks, as the server writes it. */
export const EMPTY_ANSWER = {
  chunks: [], completion: "COMPLETION_EXHAUSTED", recall: "RECALL_EXACT", nextPageToken: "", consistencyToken: "token",
};

/** Returns the error of a connection, as `fetch` of Node.js throws it. */
export function networkError(code: string): Error {
  return new TypeError("fetch failed", { cause: Object.assign(new Error(code), { code }) });
}

/** Returns a refusal as the server writes it. */
export function refusal(
  status: number,
  code: string,
  details: readonly Detail[] = [],
  headers: Record<string, string> = {},
): Reply {
  const encoded = details.map(({ type, value }) => ({ type, value: Buffer.from(value).toString("base64").replace(/=+$/, "") }));
  return { status, headers, body: { code, message: "refused", details: encoded } };
}

/** One detail of a refusal with its encoded message. */
export interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}
