/** Filters, as the API gets them. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { F, type Filter } from "../src/index.js";

const oneOf = (key: string, ...values: readonly unknown[]): unknown => ({ oneOf: { key, values } });
const range = (key: string, bounds: object): unknown => ({ range: { key, ...bounds } });

test("conditions are what they say", () => {
  const [a, b, c] = [F("a").eq("x"), F("b").eq(true), F("c").eq(1)];
  const [wireA, wireB, wireC] = [oneOf("a", { stringValue: "x" }), oneOf("b", { boolValue: true }), oneOf("c", { intValue: "1" })];
  const rows: readonly [string, Filter, unknown][] = [
    ["a text", a, wireA],
    ["a whole number", F("n").eq(2024), oneOf("n", { intValue: "2024" })],
    ["a number with a fraction", F("n").eq(0.5), oneOf("n", { doubleValue: 0.5 })],
    ["a number past the safe integers", F("n").eq(2 ** 60), oneOf("n", { doubleValue: 2 ** 60 })],
    ["the same as a bigint", F("n").eq(2n ** 60n), oneOf("n", { intValue: "1152921504606846976" })],
    ["several", F("n").oneOf("x", 1), oneOf("n", { stringValue: "x" }, { intValue: "1" })],
    ["none of several", F("n").oneOf(), { anyOf: { filters: [] } }],
    ["not", F("a").ne("x"), { not: wireA }],
    ["at least", F("n").gte(2), range("n", { low: 2 })],
    ["at most", F("n").lte(2n), range("n", { high: 2 })],
    ["above", F("n").gt(2), range("n", { low: 2.0000000000000004 })],
    ["above a negative number", F("n").gt(-2), range("n", { low: -1.9999999999999998 })],
    ["above zero", F("n").gt(0), range("n", { low: 5e-324 })],
    ["below", F("n").lt(2), range("n", { high: 1.9999999999999998 })],
    ["below zero", F("n").lt(0), range("n", { high: -5e-324 })],
    ["between", F("n").between(1, 2), range("n", { low: 1, high: 2 })],
    ["contains", F("a").contains("x"), wireA],
    ["from a moment", F("t").during({ earliest: new Date(0) }), { timeRange: { key: "t", earliest: "1970-01-01T00:00:00.000Z" } }],
    ["and", a.and(b), { allOf: { filters: [wireA, wireB] } }],
    ["three in one level", a.and(b).and(c), { allOf: { filters: [wireA, wireB, wireC] } }],
    ["or", a.or(b.or(c)), { anyOf: { filters: [wireA, wireB, wireC] } }],
    ["both", a.and(b).or(c), { anyOf: { filters: [{ allOf: { filters: [wireA, wireB] } }, wireC] } }],
    ["not both", a.and(b).not(), { not: { allOf: { filters: [wireA, wireB] } } }],
  ];
  for (const [row, filter, expected] of rows) {
    assert.deepEqual(JSON.parse(JSON.stringify(filter)), expected, row);
  }
  assert.deepEqual(a.toJSON(), wireA, "combining changes no filter");
});
