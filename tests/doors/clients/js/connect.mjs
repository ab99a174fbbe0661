// Connect for JavaScript against RetrievalService, in both of its encodings. No code is generated: the descriptors say it all.
//
//     RAGWARD_URL=http://127.0.0.1:8980 RAGWARD_TOKEN=... node connect.mjs
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";

const { RAGWARD_URL: baseUrl, RAGWARD_TOKEN: token } = process.env;
const descriptors = await readFile(new URL("../../../../proto/baseline.binpb", import.meta.url));
const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors))
  .getService("ragward.retrieval.v1.RetrievalService");

const signed = (next) => (request) => {
  request.header.set("authorization", `Bearer ${token}`);
  return next(request);
};
const asked = { collection: "handbook", query: { case: "text", value: "leave" }, topK: 10 };
for (const useBinaryFormat of [false, true]) {
  for (const httpVersion of ["1.1", "2"]) {
    const what = `binary: ${useBinaryFormat}, HTTP/${httpVersion}`;
    const transport = (interceptors) => createConnectTransport({ baseUrl, httpVersion, useBinaryFormat, interceptors });
    const client = createClient(service, transport([signed]));
    let consistency;
    const { chunks } = await client.retrieve(asked, { onHeader: (headers) => { consistency = headers.get("ragward-consistency-token"); } });
    assert.deepEqual(chunks.map(({ documentId }) => documentId), ["document:welcome", "document:welcome"], what);
    assert.ok(consistency, what);
    const chunkIds = [chunks[0].id, "document:salaries#0", "document:absent#0"];
    assert.deepEqual((await client.recheck({ collection: "handbook", chunkIds })).chunkIds, [chunks[0].id], what);

    await assert.rejects(client.retrieve({ ...asked, topK: 0 }), (error) => {
      assert.equal(ConnectError.from(error).code, Code.InvalidArgument, `${what}: ${error}`);
      return true;
    });
    await assert.rejects(createClient(service, transport([])).retrieve(asked), (error) => {
      const refusal = ConnectError.from(error);
      assert.equal(refusal.code, Code.Unauthenticated, `${what}: ${error}`);
      assert.match(refusal.metadata.get("www-authenticate"), /^Bearer /, what);
      return true;
    });
  }
}
console.log("done");
