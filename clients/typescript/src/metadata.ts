/**
 * The metadata of chunks: its values on the wire and in JavaScript.
 *
 * A whole number has up to 64 bits on the wire. In an answer it is a `number` if that holds it exactly
 * (`Number.isSafeInteger`), and otherwise a `bigint`. In a request, a `number` without a fraction that is a safe integer, and
 * every `bigint`, is a whole number; every other number is a floating-point number. Filters compare both kinds by their values.
 */

import { InvalidRequest } from "./errors.js";
import { type Reader, recordOf, unreadable } from "./reading.js";

/** A value of metadata. */
export type MetadataValue = string | number | bigint | boolean;

/** The metadata of a chunk. */
export type Metadata = Readonly<Record<string, MetadataValue>>;

/** A value as the wire has it. */
export type WireValue =
  | { readonly boolValue: boolean }
  | { readonly intValue: string }
  | { readonly doubleValue: number }
  | { readonly stringValue: string };

const INT_BITS = 64;

/** Returns a value as the wire has it. `field` names it in the error. */
export function wireValue(value: MetadataValue, field: string): WireValue {
  switch (typeof value) {
    case "string":
      return { stringValue: value };
    case "boolean":
      return { boolValue: value };
    case "bigint":
      if (BigInt.asIntN(INT_BITS, value) !== value) {
        throw InvalidRequest.of(field, "has more than 64 bits");
      }
      return { intValue: value.toString() };
    case "number":
      if (Number.isSafeInteger(value)) {
        return { intValue: value.toString() };
      }
      if (Number.isFinite(value)) {
        return { doubleValue: value };
      }
      throw InvalidRequest.of(field, "is not a finite number");
    default:
      throw InvalidRequest.of(field, "must be a text, a number, a bigint or a boolean");
  }
}

/** Returns metadata as the wire has it. `field` names it in errors. */
export function wireMetadata(metadata: Metadata | undefined, field: string): Record<string, WireValue> | undefined {
  if (metadata === undefined) {
    return undefined;
  }
  const values = Object.entries(metadata).map(([key, value]) => [key, wireValue(value, `${field}.${key}`)] as const);
  return Object.fromEntries(values);
}

const value: Reader<MetadataValue> = {
  read(value, place) {
    const { stringValue, intValue, doubleValue, boolValue } = (value ?? {}) as Record<string, unknown>;
    if (typeof stringValue === "string") {
      return stringValue;
    }
    if (typeof boolValue === "boolean") {
      return boolValue;
    }
    if (typeof doubleValue === "number") {
      return doubleValue;
    }
    if (typeof intValue === "string" && /^-?\d{1,19}$/.test(intValue)) {
      const whole = Number(intValue);
      return Number.isSafeInteger(whole) ? whole : BigInt(intValue);
    }
    throw unreadable(place, "is no value of metadata");
  },
};

/** Reads the metadata of a chunk. */
export const metadata: Reader<Metadata> = recordOf(value);
