/** The batches of an upload. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { type Batch, batches } from "../src/batches.js";

async function* source(...lines: readonly string[]): AsyncGenerator<string> {
  yield* lines;
}

async function sizes(lines: AsyncIterable<string>): Promise<number[]> {
  const found: number[] = [];
  for await (const batch of batches(lines, undefined)) {
    assert.equal(batch.before, found.reduce((sum, size) => sum + size, 0));
    found.push(batch.lines.length);
  }
  return found;
}

test("a batch is full by its lines or its characters", async () => {
  const megabyte = "x".repeat(1024 * 1024);
  const rows: readonly [string, readonly string[], readonly number[]][] = [
    ["nothing", [], []],
    ["one line", ["a"], [1]],
    ["as many as fit", Array.from({ length: 1_000 }, () => "a"), [1_000]],
    ["one more", Array.from({ length: 1_001 }, () => "a"), [1_000, 1]],
    ["large lines", Array.from({ length: 9 }, () => megabyte), [4, 4, 1]],
    ["a line larger than a batch", [megabyte.repeat(5), "a"], [1, 1]],
  ];
  for (const [row, lines, expected] of rows) {
    assert.deepEqual(await sizes(source(...lines)), expected, row);
  }
});

test("a slow source does not hold back its first lines", async () => {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const slow = async function* (): AsyncGenerator<string> {
    yield "a";
    await released;
    yield "b";
  };
  const found: Batch[] = [];
  for await (const batch of batches(slow(), undefined)) {
    found.push(batch);
    release();
  }
  assert.deepEqual(found.map(({ lines, before }) => [lines, before]), [[["a"], 0], [["b"], 1]]);
});

test("a source that fails, and a reader that stops, end the upload", async () => {
  const failure = new Error("the file is gone");
  const failing = async function* (): AsyncGenerator<string> {
    yield* Array.from({ length: 1_000 }, () => "a");
    throw failure;
  };
  let read = 0;
  const reading = (async () => {
    for await (const { lines } of batches(failing(), undefined)) {
      read += lines.length;
      // The source fails while this batch is sent.
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  await assert.rejects(reading, failure);
  assert.equal(read, 1_000);
  let isStopped = false;
  const endless = async function* (): AsyncGenerator<string> {
    try {
      for (;;) {
        yield "a";
      }
    } finally {
      isStopped = true;
    }
  };
  for await (const batch of batches(endless(), undefined)) {
    assert.equal(batch.lines.length, 1_000);
    break;
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(isStopped);
});
