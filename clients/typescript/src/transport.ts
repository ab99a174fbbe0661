/**
 * Sends requests and brings back the JSON of their answers. Everything about HTTP is here: the address, who asks, the deadline,
 * the retries, and how many calls run at a time.
 */

import { Deadline } from "./deadline.js";
import { InvalidAnswer, InvalidRequest, type RagwardError, Unavailable } from "./errors.js";
import { type Identity, checkedToken, credentialsOf } from "./identity.js";
import { unreadable } from "./reading.js";
import { errorOf } from "./refusals.js";
import { type Effect, pauseBeforeRetry } from "./retries.js";
import { Turns } from "./turns.js";

/** A function that sends requests as the global `fetch` does. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** One call of the API. */
export interface Call {
  readonly path: string;
  readonly contentType: "application/json" | "application/x-ndjson";
  readonly body: string;
  readonly effect: Effect;
}

/** The identity that makes a call, and the time that the call may take. */
export interface Caller {
  readonly identity: Identity;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** The settings of a transport. */
export interface TransportSettings {
  readonly url: string;
  readonly fetch: Fetch | undefined;
  readonly retries: number;
  readonly plainHttpTokens: boolean;
}

/**
 * The most calls that run at a time. Each takes a connection over HTTP/1.1, and a server takes 900 by default
 * (`server.connections_max`), of all of its clients. Further calls wait, and the wait counts for their deadlines.
 */
const CALLS_AT_ONCE_MAX = 100;
const RETRIES_MAX = 10;
/** The largest answer. It is seven times what a server gives by its default settings. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** The errors of Node.js that say that no connection was made, so nothing was sent. */
const NOT_CONNECTED = new Set(["ECONNREFUSED", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND", "UND_ERR_CONNECT_TIMEOUT"]);
/** The most errors within errors that are searched for a code. */
const CAUSES_MAX = 4;

type Outcome =
  | { readonly kind: "answer"; readonly answer: unknown }
  | { readonly kind: "fault"; readonly error: RagwardError; readonly wasSent: boolean };

export class Transport {
  readonly #base: string;
  readonly #takesTokens: boolean;
  readonly #fetch: Fetch;
  readonly #retries: number;
  readonly #turns = new Turns(CALLS_AT_ONCE_MAX);

  constructor(settings: TransportSettings) {
    const { retries } = settings;
    if (!Number.isInteger(retries) || retries < 0 || retries > RETRIES_MAX) {
      throw InvalidRequest.of("retries", `must be a whole number from 0 to ${RETRIES_MAX}`);
    }
    const url = checkedUrl(settings.url);
    this.#base = url.href.replace(/\/+$/, "");
    this.#takesTokens = url.protocol === "https:" || isLoopback(url.hostname) || settings.plainHttpTokens;
    // The global function is looked up for each call, because instrumentation replaces it. It wants no other `this`.
    this.#fetch = settings.fetch ?? ((url, init) => globalThis.fetch(url, init));
    this.#retries = retries;
  }

  /**
   * Makes a call, again if that is safe, and returns the JSON of its answer.
   *
   * @throws The caller's own reason if its signal ends the call, what a token provider throws, or a {@link RagwardError}.
   */
  async send(call: Call, caller: Caller): Promise<unknown> {
    const deadline = new Deadline(caller.timeoutMs, caller.signal);
    try {
      for (let retried = 0; ; retried += 1) {
        deadline.signal.throwIfAborted();
        const outcome = await this.#try(call, caller.identity, deadline);
        if (outcome.kind === "answer") {
          return outcome.answer;
        }
        const { error, wasSent } = outcome;
        const failed = { error, wasSent, retried, effect: call.effect, remainingMs: deadline.remainingMs };
        const pause = pauseBeforeRetry(failed, this.#retries, Math.random());
        if (pause === undefined) {
          throw error;
        }
        await deadline.pause(pause);
      }
    } finally {
      deadline.close();
    }
  }

  async #try(call: Call, identity: Identity, deadline: Deadline): Promise<Outcome> {
    // A provider of tokens that hangs takes no turn from the calls of others.
    const authorization = await this.#authorization(identity, deadline);
    await this.#turns.take(deadline);
    try {
      return await this.#exchange(call, authorization, deadline);
    } finally {
      this.#turns.give();
    }
  }

  /** Returns the headers that say who asks. */
  async #authorization(identity: Identity, deadline: Deadline): Promise<Readonly<Record<string, string>>> {
    const { token } = credentialsOf(identity);
    if (token === undefined) {
      return {};
    }
    if (!this.#takesTokens) {
      throw new InvalidRequest(
        "a token is sent only to an address that begins with `https:`, or to this machine; `plainHttpTokens` allows others",
      );
    }
    return { authorization: `Bearer ${checkedToken(await deadline.within(Promise.resolve(token())))}` };
  }

  async #exchange(call: Call, authorization: Readonly<Record<string, string>>, deadline: Deadline): Promise<Outcome> {
    // The wait for a token or a turn may have ended in the moment in which the call did.
    deadline.signal.throwIfAborted();
    const headers = {
      ...authorization,
      "content-type": call.contentType,
      "connect-protocol-version": "1",
      "connect-timeout-ms": String(Math.max(1, Math.ceil(deadline.remainingMs))),
    };
    let response: Response;
    let body: string;
    try {
      response = await deadline.within(this.#fetch(this.#base + call.path, {
        method: "POST",
        headers,
        body: call.body,
        signal: deadline.signal,
        cache: "no-store",
        credentials: "omit",
        // The target of a redirection would get the query and the token.
        redirect: "manual",
        referrerPolicy: "no-referrer",
      }));
      body = await deadline.within(textOf(response));
    } catch (error) {
      if (error instanceof InvalidAnswer) {
        throw error;
      }
      deadline.signal.throwIfAborted();
      const code = networkCode(error);
      const wasSent = !NOT_CONNECTED.has(code ?? "");
      const what = wasSent ? `the connection to ${this.#base} failed` : `${this.#base} is out of reach`;
      const message = code === undefined ? what : `${what} (${code})`;
      return { kind: "fault", error: new Unavailable(message, { cause: error }), wasSent };
    }
    if (response.status !== 200) {
      const error = errorOf({ status: response.status, headers: response.headers, body });
      return { kind: "fault", error, wasSent: true };
    }
    return { kind: "answer", answer: parsed(body) };
  }
}

/** Reads a body to its end. A broken server must not fill the memory. */
async function textOf(response: Response): Promise<string> {
  const [decoder, pieces] = [new TextDecoder(), [] as string[]];
  let bytes = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const piece = await reader?.read();
    if (piece?.value === undefined) {
      return pieces.join("") + decoder.decode();
    }
    bytes += piece.value.length;
    if (bytes > ANSWER_BYTES_MAX) {
      // Nobody waits until the rest is thrown away.
      reader?.cancel().catch(() => undefined);
      throw new InvalidAnswer(`the server's answer has more than ${ANSWER_BYTES_MAX} bytes`);
    }
    pieces.push(decoder.decode(piece.value, { stream: true }));
  }
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw unreadable("it", "is not JSON");
  }
}

/** Returns the code of a network error, which `fetch` of Node.js wraps. */
function networkCode(error: unknown): string | undefined {
  let cause = error;
  for (let depth = 0; depth < CAUSES_MAX && cause instanceof Error; depth += 1) {
    const { code } = cause as { code?: unknown };
    if (typeof code === "string") {
      return code;
    }
    // One address of several may have another error than the others, and none of them was reached.
    cause = cause.cause;
  }
  return undefined;
}

/** Returns the address of a server. The error does not repeat it, because it may hold a password. */
function checkedUrl(text: string): URL {
  let url: URL | undefined;
  try {
    url = new URL(text);
  } catch {
    url = undefined;
  }
  const isWeb = url?.protocol === "https:" || url?.protocol === "http:";
  if (url === undefined || !isWeb || url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw InvalidRequest.of("url", "must be an address such as `https://rag.example`, without user, query and fragment");
  }
  return url;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}
