/**
 * Reads the details of a refusal. On the wire they are three messages of `google.rpc` in protocol buffers, so this file has
 * a reader for exactly those.
 */

import type { FieldViolation } from "./errors.js";

/** The details that this client knows. */
export interface ErrorDetails {
  readonly reason: string | undefined;
  /** The facts for programs that come with the reason, by their names. */
  readonly facts: ReadonlyMap<string, string>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;
}

/** The wire types of protocol buffers that these messages use. */
const VARINT = 0;
const BYTES = 2;
/** A varint of 64 bits has at most ten bytes of seven bits each. */
const VARINT_BYTES_MAX = 10;
/** A server names at most ten wrong fields. More details than this are not looked at. */
const DETAILS_MAX = 16;

type FieldValue = number | Uint8Array;

/** Reads the member `details` of a refusal. What cannot be read is passed over: the code alone decides what the error is. */
export function readDetails(details: unknown): ErrorDetails {
  let reason: string | undefined;
  const facts = new Map<string, string>();
  const violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  for (const detail of Array.isArray(details) ? details.slice(0, DETAILS_MAX) : []) {
    const { type, value } = (detail ?? {}) as { type?: unknown; value?: unknown };
    if (typeof value !== "string") {
      continue;
    }
    try {
      const message = fieldsOf(value);
      if (type === "google.rpc.ErrorInfo") {
        reason = textOf(message, 1);
        for (const entry of messagesOf(message, 3)) {
          facts.set(textOf(entry, 1) ?? "", textOf(entry, 2) ?? "");
        }
      } else if (type === "google.rpc.BadRequest") {
        for (const violation of messagesOf(message, 1)) {
          violations.push({ field: textOf(violation, 1) ?? "", description: textOf(violation, 2) ?? "" });
        }
      } else if (type === "google.rpc.RetryInfo") {
        for (const delay of messagesOf(message, 1)) {
          retryAfterMs = numberOf(delay, 1) * 1_000 + Math.ceil(numberOf(delay, 2) / 1_000_000);
        }
      }
    } catch {
      // The detail cannot be read.
    }
  }
  return { reason, facts, violations, retryAfterMs };
}

type Fields = readonly (readonly [number, FieldValue])[];

function fieldsOf(base64: string): Fields {
  return decoded(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
}

/** Returns the fields of an encoded message in their order. */
function decoded(bytes: Uint8Array): Fields {
  const fields: [number, FieldValue][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let index = 0; index < VARINT_BYTES_MAX; index += 1) {
      const byte = bytes[at];
      if (byte === undefined) {
        break;
      }
      at += 1;
      value += (byte & 0x7f) * 2 ** (7 * index);
      if (byte < 0x80) {
        return value;
      }
    }
    throw new RangeError("a number does not end");
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, type] = [Math.floor(tag / 8), tag % 8];
    if (type === VARINT) {
      fields.push([number, varint()]);
    } else if (type === BYTES) {
      const length = varint();
      if (at + length > bytes.length) {
        throw new RangeError("a field does not end");
      }
      fields.push([number, bytes.subarray(at, at + length)]);
      at += length;
    } else {
      throw new RangeError("a field of an unknown kind");
    }
  }
  return fields;
}

function textOf(message: Fields, number: number): string | undefined {
  const found = message.find(([field, value]) => field === number && typeof value !== "number")?.[1];
  return found instanceof Uint8Array ? new TextDecoder().decode(found) : undefined;
}

function numberOf(message: Fields, number: number): number {
  const found = message.find(([field, value]) => field === number && typeof value === "number")?.[1];
  return typeof found === "number" ? found : 0;
}

function messagesOf(message: Fields, number: number): Fields[] {
  return message.flatMap(([field, value]) => (field === number && value instanceof Uint8Array ? [decoded(value)] : []));
}
