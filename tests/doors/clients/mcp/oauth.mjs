// The official client for MCP in JavaScript: from no token to an answer, in both revisions of the protocol.
//
//     MCP_URL=http://127.0.0.1:8980/mcp MCP_ISSUER=... MCP_CLIENT='{"client_id": ...}' MCP_TOKENS='{"other audience": ...}' \
//         node oauth.mjs
//
// The client does all of OAuth itself. What a person does at the login page, `redirectToAuthorization` does.
import assert from "node:assert/strict";

import { Client, ResourceNotFoundError, StreamableHTTPClientTransport, UnauthorizedError } from "@modelcontextprotocol/client";

const { MCP_URL: url, MCP_ISSUER: issuer } = process.env;
// The address to come back to. With an id and a secret, the provider knows this client; without them, the client registers.
const registered = JSON.parse(process.env.MCP_CLIENT);
const tokens = JSON.parse(process.env.MCP_TOKENS);
const REVISIONS = { legacy: "2025-11-25", auto: "2026-07-28" };
// The scope that the server asks for. This client may add `offline_access` where the provider offers it.
const SCOPE = "ragward:retrieve";
const chunks = (page) => [0, 1].map((chunk) => `handbook/document%3A${page}%23${chunk}`);
const CHUNKS = { anne: chunks("welcome"), bob: chunks("salaries") };
// A login takes four redirects.
const REDIRECTS_MAX = 10;

/** A person at a client, which keeps who it is to the provider and its token. */
class Person {
  asked = [];
  back = undefined;
  #verifier;
  #state;
  #token;
  #discovered;

  constructor(name, token) {
    this.name = name;
    this.#token = token && { access_token: token, token_type: "Bearer", issuer };
  }

  redirectUrl = registered.redirect_uris[0];
  clientMetadata = { redirect_uris: registered.redirect_uris, client_name: "a test" };
  client = registered.client_id && { ...registered, issuer };
  clientInformation = () => this.client;
  saveClientInformation = (client) => {
    assert.equal(this.client, undefined, "the client registers again");
    this.client = client;
  };
  tokens = () => this.#token;
  saveTokens = (token) => { this.#token = token; };
  saveCodeVerifier = (verifier) => { this.#verifier = verifier; };
  codeVerifier = () => this.#verifier;
  saveDiscoveryState = (discovered) => { this.#discovered = discovered; };
  discoveryState = () => this.#discovered;
  state = () => (this.#state = crypto.randomUUID());

  /** Logs in, as a browser does: it follows redirects with cookies, up to the address of the client. */
  async redirectToAuthorization(asked) {
    this.asked.push(Object.fromEntries(asked.searchParams));
    const cookies = new Map();
    let at = new URL(asked);
    at.searchParams.set("login_hint", this.name);
    for (let step = 0; step < REDIRECTS_MAX; step += 1) {
      const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
      const answer = await fetch(at, { redirect: "manual", headers: { cookie } });
      for (const set of answer.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
        cookies.set(name, value);
      }
      at = new URL(answer.headers.get("location"), at);
      if (at.href.startsWith(this.redirectUrl)) {
        this.back = at.searchParams;
        assert.equal(this.back.get("state"), this.#state);
        return;
      }
    }
    throw new Error("the login does not end");
  }
}

/** Notes every answer of the server and of the provider. */
class Wire {
  answers = [];

  fetch = async (to, init) => {
    const answer = await fetch(to, init);
    this.answers.push([init?.method ?? "GET", String(to), answer.status]);
    return answer;
  };

  at(part) {
    return this.answers.filter(([, to]) => to.includes(part)).map(([method, , status]) => `${method} ${status}`);
  }
}

const newClient = (mode) => new Client({ name: "a test", version: "1" }, { versionNegotiation: { mode } });

async function usesEverything(row, client, person, other) {
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map(({ name }) => name), ["search", "fetch"], row);
  assert.deepEqual((await client.listResources()).resources, [], row);
  const { resourceTemplates } = await client.listResourceTemplates();
  assert.deepEqual(resourceTemplates.map(({ uriTemplate }) => uriTemplate), ["ragward://{collection}/{chunk}"], row);

  const call = (name, given) => client.callTool({ name, arguments: given });
  const found = await call("search", { query: "leave" });
  const { results } = found.structuredContent;
  assert.deepEqual(results.map(({ id }) => id), CHUNKS[person], row);
  assert.deepEqual(JSON.parse(found.content[0].text), found.structuredContent, `${row}: the two forms differ`);
  const [first] = results;
  assert.equal((await call("fetch", { id: first.id })).structuredContent.text, first.text, row);
  const { contents: [read] } = await client.readResource({ uri: first.url });
  assert.deepEqual([read.uri, read.text], [first.url, first.text], row);

  const [hidden] = CHUNKS[other];
  const [one, another] = [await call("fetch", { id: hidden }), await call("fetch", { id: "handbook/absent" })];
  assert.ok(one.isError && another.isError, row);
  assert.deepEqual(one.content, another.content, `${row}: what is hidden looks like what is not there`);
  const refusals = [];
  for (const uri of [`ragward://${hidden}`, "ragward://handbook/absent"]) {
    await assert.rejects(client.readResource({ uri }), (error) => {
      assert.ok(error instanceof ResourceNotFoundError && error.data.uri === uri, `${row}: ${error}`);
      refusals.push([error.code, error.message.replace(uri, "the uri")]);
      return true;
    }, row);
  }
  assert.deepEqual(refusals[0], refusals[1], row);
  const named = await call("search", { query: "leave", user: `user:${other}` });
  assert.ok(named.isError && named.content[0].text.includes("user"), `${row}: an argument names a person`);
}

/** A client that has no token, or one that is refused, gets one from the provider and goes on. */
async function logsIn(mode, name, other, { token, first = 401 } = {}) {
  const row = `${REVISIONS[mode]}, ${name}, first answer ${first}`;
  const [person, wire] = [new Person(name, token), new Wire()];
  const transport = () => new StreamableHTTPClientTransport(new URL(url), { authProvider: person, fetch: wire.fetch });
  const refused = transport();
  await assert.rejects(newClient(mode).connect(refused), (error) => {
    assert.ok(UnauthorizedError.isInstance(error), `${row}: ${error.stack}`);
    return true;
  });
  await refused.finishAuth(person.back);
  const client = newClient(mode);
  await client.connect(transport());
  assert.equal(client.getNegotiatedProtocolVersion(), REVISIONS[mode], row);
  await usesEverything(row, client, name, other);
  await client.close();

  const told = `${row}: ${JSON.stringify(wire.answers)}`;
  assert.equal(person.asked.length, 1, told);
  const [asked] = person.asked;
  const scopes = asked.scope.split(" ").filter((scope) => scope !== "offline_access");
  assert.deepEqual([asked.resource, scopes], [url, [SCOPE]], row);
  assert.deepEqual(wire.answers[0], ["POST", url, first], told);
  assert.ok(wire.at("/.well-known/oauth-protected-resource/mcp").includes("GET 200"), told);
  assert.ok(wire.at(`${issuer}/.well-known/`).includes("GET 200"), told);
  assert.deepEqual(wire.at(`${issuer}/reg`), registered.client_id ? [] : ["POST 201"], told);
  assert.equal(asked.client_id, person.client.client_id, row);
  assert.deepEqual(wire.at(`${issuer}/token`), ["POST 200"], told);
  const later = wire.answers.slice(1).filter(([, to, status]) => to === url && [401, 403].includes(status));
  assert.deepEqual(later, [], told);
}

/** A client that can only show what it has does not get in. */
async function isRefused(mode, what, headers, status) {
  const row = `${REVISIONS[mode]}, ${what}`;
  const wire = new Wire();
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers }, fetch: wire.fetch });
  await assert.rejects(newClient(mode).connect(transport), row);
  const answered = new Set(wire.answers.map(([, , answer]) => answer));
  assert.deepEqual([...answered], [status], `${row}: ${JSON.stringify(wire.answers)}`);
}

for (const mode of Object.keys(REVISIONS)) {
  await logsIn(mode, "anne", "bob");
  await logsIn(mode, "bob", "anne");
  await logsIn(mode, "anne", "bob", { token: tokens["other audience"] });
  await logsIn(mode, "anne", "bob", { token: tokens["other scope"], first: 403 });
  await isRefused(mode, "no token", {}, 401);
  for (const [what, status] of [["other audience", 401], ["other scope", 403]]) {
    await isRefused(mode, what, { authorization: `Bearer ${tokens[what]}` }, status);
  }
}
console.log("done");
