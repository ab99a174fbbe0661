/**
 * Measures the time that the client adds to plain `fetch`: the same query, one after the other, over one connection.
 *
 *     RAGWARD_BIN=../../target/release/ragward npm run bench
 */

import { Client, Identity } from "../src/index.js";
import { World } from "./world.js";

const CALLS = 1_000;
const WARM_UP = 100;

const world = await World.believing();
const asked = { collection: "handbook", query: "parental leave", k: 5 };
const url = `${world.url}/ragward.retrieval.v1.RetrievalService/Retrieve`;
const body = JSON.stringify({ user: "user:anne", collection: asked.collection, text: asked.query, topK: asked.k });
const client = new Client({ url: world.url, identity: Identity.user("user:anne") });
// The client's own work alone: an answer of the server, without a network.
const kept = await (await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body })).text();
const local = new Client({ identity: Identity.user("user:anne"), fetch: async () => new Response(kept) });

const ways: readonly (readonly [string, () => Promise<unknown>])[] = [
  ["fetch and JSON.parse", async () => {
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return JSON.parse(await response.text()) as unknown;
  }],
  ["client", () => client.retrieve(asked)],
  ["client without a network", () => local.retrieve(asked)],
];

const times = new Map<string, number[]>(ways.map(([name]) => [name, []]));
// The ways take turns, so that whatever else the machine does is shared fairly.
for (let call = 0; call < WARM_UP + CALLS; call += 1) {
  for (const [name, way] of ways) {
    const begun = performance.now();
    await way();
    if (call >= WARM_UP) {
      times.get(name)?.push(performance.now() - begun);
    }
  }
}
await world.stop();

const quantile = (name: string, share: number): number => {
  const sorted = (times.get(name) ?? []).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
};
console.log(`${CALLS} calls each, ${kept.length} bytes an answer, Node.js ${process.version}`);
for (const [name] of ways) {
  console.log(`  ${name.padEnd(26)} p50 ${quantile(name, 0.5).toFixed(3)} ms   p99 ${quantile(name, 0.99).toFixed(3)} ms`);
}
const added = quantile("client", 0.5) - quantile("fetch and JSON.parse", 0.5);
const bound = "its own work (requests, reading, checks) bounds that, and the rest is the server's and fetch's";
console.log(`  the client adds ${added.toFixed(3)} ms at p50; ${bound}`);
