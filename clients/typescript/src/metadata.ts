/**
 * The metadata of chunks: its values on the wire and in JavaScript.
 *
 * A whole number has up to 64 bits on the wire. In an answer it is a `number` if that holds it exactly
 * (`Number.isSafeInteger`), and otherwise a `bigint`. In a request, a `number` without a fraction that is a safe integer, and
 * every `bigint`, is a whole number; every other number is a floating-point number. Filters compare both kinds by their values.
 */

import { InvalidRequest } from "./errors.js";
import { type Reader, listOf, messageOf, recordOf, unreadable } from "./reading.js";

/** A single value of metadata. */
export type MetadataScalar = string | number | bigint | boolean;

/** A value of metadata, or a list of them. A condition holds for a list if it holds for one of its values. */
export type MetadataValue = MetadataScalar | readonly MetadataScalar[];

/** The metadata of a chunk. */
export type Metadata = Readonly<Record<string, MetadataValue>>;

/** A single value as the wire has it. */
export type WireScalar =
  | { readonly boolValue: boolean }
  | { readonly intValue: string }
  | { readonly doubleValue: number }
  | { readonly stringValue: string };

/** A value as the wire has it. */
export type WireValue = WireScalar | { readonly listValue: { readonly values: readonly WireScalar[] } };

const INT_BITS = 64;

/** Returns a value as the wire has it. `field` names it in the error. */
export function wireValue(value: MetadataValue, field: string): WireValue {
  return isList(value)
    ? { listValue: { values: value.map((item, position) => wireScalar(item, `${field}[${position}]`)) } }
    : wireScalar(value, field);
}

function isList(value: MetadataValue): value is readonly MetadataScalar[] {
  return Array.isArray(value);
}

/** Returns a single value as the wire has it. `field` names it in the error. */
export function wireScalar(value: MetadataScalar, field: string): WireScalar {
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
    const { listValue } = (value ?? {}) as Record<string, unknown>;
    return listValue === undefined ? scalar.read(value, place) : valueList.read(listValue, place).values;
  },
};

const scalar: Reader<MetadataScalar> = {
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

const valueList = messageOf<{ readonly values: readonly MetadataScalar[] }>("ragward.metadata.v1.ValueList", {
  values: listOf(scalar),
});

/** Reads the metadata of a chunk. */
export const metadata: Reader<Metadata> = recordOf(value);
