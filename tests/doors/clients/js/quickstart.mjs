// OpenFGA's JavaScript SDK against a server, as its quickstart does it: a store, a model, tuples, questions, errors.
//
//     FGA_API_URL=http://127.0.0.1:8980 node quickstart.mjs
//
// FGA_API_TOKEN is sent as bearer token, if it is set.
import assert from "node:assert/strict";

import { ClientWriteRequestOnDuplicateWrites, CredentialsMethod, FgaApiValidationError, OpenFgaClient } from "@openfga/sdk";

const { FGA_API_URL: apiUrl, FGA_API_TOKEN: token } = process.env;
const credentials = token ? { method: CredentialsMethod.ApiToken, config: { token } } : undefined;
const settings = { apiUrl, credentials, retryParams: { maxRetry: 0 } };

const { id: storeId } = await new OpenFgaClient(settings).createStore({ name: "javascript" });
const client = new OpenFgaClient({ ...settings, storeId });
const { authorization_model_id: authorizationModelId } = await client.writeAuthorizationModel({
  schema_version: "1.1",
  type_definitions: [
    { type: "user" },
    {
      type: "document",
      relations: { writer: { this: {} }, viewer: { union: { child: [{ this: {} }, { computedUserset: { relation: "writer" } }] } } },
      metadata: {
        relations: {
          writer: { directly_related_user_types: [{ type: "user" }] },
          viewer: { directly_related_user_types: [{ type: "user" }] },
        },
      },
    },
  ],
});
assert.equal((await client.readLatestAuthorizationModel()).authorization_model.id, authorizationModelId);

const anne = { user: "user:anne", relation: "writer", object: "document:roadmap" };
const bob = { user: "user:bob", relation: "viewer", object: "document:roadmap" };
await client.write({ writes: [anne, bob] }, { authorizationModelId });
await client.write({ writes: [anne] }, { conflict: { onDuplicateWrites: ClientWriteRequestOnDuplicateWrites.Ignore } });

const { allowed } = await client.check({ user: "user:anne", relation: "viewer", object: "document:roadmap" });
assert.equal(allowed, true);
const checks = ["viewer", "writer"].map((relation, number) => ({
  user: "user:bob", relation, object: "document:roadmap", correlationId: `check-${number}`,
}));
const { result } = await client.batchCheck({ checks });
const decided = Object.fromEntries(result.map(({ correlationId, allowed }) => [correlationId, allowed]));
assert.deepEqual(decided, { "check-0": true, "check-1": false });

const listed = { user: "user:anne", relation: "viewer", type: "document" };
assert.deepEqual((await client.listObjects(listed)).objects, ["document:roadmap"]);
const streamed = [];
for await (const { object } of client.streamedListObjects(listed)) {
  streamed.push(object);
}
assert.deepEqual(streamed, ["document:roadmap"]);
const { users } = await client.listUsers({
  object: { type: "document", id: "roadmap" }, relation: "viewer", user_filters: [{ type: "user" }],
});
assert.deepEqual(users.map(({ object }) => object.id).sort(), ["anne", "bob"]);
assert.deepEqual((await client.listRelations({ user: "user:bob", object: "document:roadmap", relations: ["viewer", "writer"] })).relations, ["viewer"]);
assert.equal((await client.expand({ relation: "viewer", object: "document:roadmap" })).tree.root.name, "document:roadmap#viewer");
assert.equal((await client.read({ object: "document:roadmap" })).tuples.length, 2);
assert.equal((await client.readChanges({ type: "document" })).changes.length, 2);

const assertions = [{ user: "user:bob", relation: "writer", object: "document:roadmap", expectation: false }];
await client.writeAssertions(assertions, { authorizationModelId });
assert.equal((await client.readAssertions({ authorizationModelId })).assertions.length, 1);

await assert.rejects(client.check({ user: "user:anne", relation: "owner", object: "document:roadmap" }), (error) => {
  assert.ok(error instanceof FgaApiValidationError, `${error}`);
  assert.equal(error.apiErrorCode, "validation_error");
  return true;
});

await client.deleteTuples([bob]);
assert.equal((await client.check(bob)).allowed, false);
await client.deleteStore();
console.log("done");
