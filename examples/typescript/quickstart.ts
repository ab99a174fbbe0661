/**
 * Asks one question as two people. It needs a server with the handbook:
 *
 *     ragward model load schema/handbook/store.fga.yaml --data ragward-data
 *     ragward ingest schema/handbook --collection handbook --data ragward-data
 *     ragward serve --data ragward-data --insecure-identity
 *
 * From the root of a clone, in another terminal:
 *
 *     npm ci --prefix clients/typescript && npm run build --prefix clients/typescript
 *     npm install --prefix examples/typescript
 *     npm run quickstart --prefix examples/typescript
 */
import { Client, F, Identity } from "ragward";

const client = new Client(); // RAGWARD_SERVER, or http://127.0.0.1:8980
const people = F("area").eq("people");

for (const user of ["user:anne", "user:bob"]) {
  const answer = await client.retrieve({
    collection: "handbook",
    query: "pay bands",
    k: 2,
    filter: people.or(F("area").eq("hr")),
    identity: Identity.user(user),
  });
  console.log(`${user} gets ${answer.chunks.length} chunks (${answer.completion}):`);
  for (const chunk of answer.chunks) {
    console.log(`  ${chunk.guard}  ${chunk.title}`);
  }
}
