/** Conditions on the metadata of chunks. */

import { InvalidRequest } from "./errors.js";
import { type MetadataScalar, type WireScalar, wireScalar } from "./metadata.js";

/** A condition as the wire has it. */
export type WireFilter =
  | { readonly allOf: { readonly filters: readonly WireFilter[] } }
  | { readonly anyOf: { readonly filters: readonly WireFilter[] } }
  | { readonly not: WireFilter }
  | { readonly oneOf: { readonly key: string; readonly values: readonly WireScalar[] } }
  | { readonly range: { readonly key: string; readonly low?: number; readonly high?: number } }
  | { readonly timeRange: { readonly key: string; readonly earliest?: string; readonly latest?: string } };

/** A range of time, both ends included. An end that is left out is no bound. */
export interface TimeBounds {
  readonly earliest?: Date | undefined;
  readonly latest?: Date | undefined;
}

/** The number of a range. A `bigint` counts if a `number` holds it exactly. */
type Bound = number | bigint;

/**
 * A condition on metadata. {@link F} makes simple ones, and `and`, `or` and `not` combine them:
 *
 * ```ts
 * F("area").eq("people").and(F("year").gte(2024))
 * ```
 *
 * The server takes conditions of at most 8 levels and 256 parts. `a.and(b).and(c)` is one level.
 */
export class Filter {
  readonly #wire: WireFilter;

  /** @internal */
  constructor(wire: WireFilter) {
    this.#wire = wire;
  }

  /** Returns the condition that holds if this one and the other one hold. */
  and(other: Filter): Filter {
    return new Filter({ allOf: { filters: [...allOf(this.#wire), ...allOf(wireOf(other))] } });
  }

  /** Returns the condition that holds if this one or the other one holds, or both. */
  or(other: Filter): Filter {
    return new Filter({ anyOf: { filters: [...anyOf(this.#wire), ...anyOf(wireOf(other))] } });
  }

  /** Returns the condition that holds if this one does not. */
  not(): Filter {
    return new Filter({ not: this.#wire });
  }

  /** Returns the condition as the API has it in JSON. */
  toJSON(): WireFilter {
    return this.#wire;
  }
}

/** A key of the metadata, from which conditions are made. */
export interface FilterKey {
  /** The value is this one. Numbers are compared by value, texts byte by byte. */
  eq(value: MetadataScalar): Filter;
  /** The value is another one, or there is none. */
  ne(value: MetadataScalar): Filter;
  /** The value is one of these. Without values, no chunk matches. */
  oneOf(...values: readonly MetadataScalar[]): Filter;
  /** The value is a number of at least `bound`. */
  gte(bound: Bound): Filter;
  /** The value is a number of at most `bound`. */
  lte(bound: Bound): Filter;
  /** The value is a number above `bound`: at least the next floating-point number. */
  gt(bound: Bound): Filter;
  /** The value is a number below `bound`: at most the next floating-point number. */
  lt(bound: Bound): Filter;
  /** The value is a number from `low` to `high`, both of them included. */
  between(low: Bound, high: Bound): Filter;
  /** The value is a list that holds this one, or this one itself. */
  contains(value: MetadataScalar): Filter;
  /** The value is a text that is a date or a time of RFC 3339 within these bounds. A date is its first moment in UTC. */
  during(bounds: TimeBounds): Filter;
}

/** Returns a key of the metadata, from which conditions are made: `F("year").gte(2024)`. */
export function F(key: string): FilterKey {
  if (typeof key !== "string") {
    throw InvalidRequest.of("filter", "needs the key of the metadata as a text");
  }
  const oneOf = (values: readonly MetadataScalar[]): Filter =>
    new Filter(values.length === 0
      ? { anyOf: { filters: [] } }
      : { oneOf: { key, values: values.map((value) => wireScalar(value, `filter.${key}`)) } });
  const range = (bounds: { readonly low?: number; readonly high?: number }): Filter => new Filter({ range: { key, ...bounds } });
  const exact = (bound: Bound): number => exactBound(bound, `filter.${key}`);
  return {
    eq: (value) => oneOf([value]),
    ne: (value) => oneOf([value]).not(),
    oneOf: (...values) => oneOf(values),
    gte: (bound) => range({ low: exact(bound) }),
    lte: (bound) => range({ high: exact(bound) }),
    gt: (bound) => range({ low: nextUp(exact(bound)) }),
    lt: (bound) => range({ high: -nextUp(-exact(bound)) }),
    between: (low, high) => range({ low: exact(low), high: exact(high) }),
    contains: (value) => oneOf([value]),
    during: ({ earliest, latest }) => new Filter({
      timeRange: {
        key,
        ...(earliest === undefined ? {} : { earliest: exactMoment(earliest, `filter.${key}`) }),
        ...(latest === undefined ? {} : { latest: exactMoment(latest, `filter.${key}`) }),
      },
    }),
  };
}

/** Returns a filter as the wire has it. */
export function wireOf(filter: Filter): WireFilter {
  if (!(filter instanceof Filter)) {
    throw InvalidRequest.of("filter", "is no filter; make one with `F(key)`");
  }
  return filter.toJSON();
}

function allOf(wire: WireFilter): readonly WireFilter[] {
  return "allOf" in wire ? wire.allOf.filters : [wire];
}

function anyOf(wire: WireFilter): readonly WireFilter[] {
  return "anyOf" in wire ? wire.anyOf.filters : [wire];
}

function exactBound(bound: Bound, field: string): number {
  if (typeof bound !== "number" && typeof bound !== "bigint") {
    throw InvalidRequest.of(field, "has a bound that is no number");
  }
  const value = Number(bound);
  // A `bigint` is compared with a number by its value.
  if (!Number.isFinite(value) || value != bound) {
    throw InvalidRequest.of(field, "has a bound that no finite floating-point number equals");
  }
  return value;
}

function exactMoment(moment: Date, field: string): string {
  if (!(moment instanceof Date) || Number.isNaN(moment.getTime())) {
    throw InvalidRequest.of(field, "has a bound that is no moment");
  }
  return moment.toISOString();
}

/** Returns the least floating-point number above a finite one. */
function nextUp(value: number): number {
  if (value === 0) {
    return Number.MIN_VALUE;
  }
  if (value === Number.MAX_VALUE) {
    // JSON has no infinity, and a bound that is left out would let everything pass.
    throw InvalidRequest.of("filter", "has a bound beyond which there is no number");
  }
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, value);
  bits.setBigInt64(0, bits.getBigInt64(0) + (value > 0 ? 1n : -1n));
  return bits.getFloat64(0);
}
