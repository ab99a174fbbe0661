// Starts the provider and plays its clients. Its first line of output is the issuer; then each line of input is a JSON
// request for a token, and each line of output the answer: `{"token": …}` or `{"error": …}`.

import { createHash, randomBytes } from "node:crypto";
import { createInterface } from "node:readline";

import { SignJWT, exportJWK, generateKeyPair } from "jose";

import * as browser from "./browser.mjs";
import { ACCESS_TOKEN, CIBA, REDIRECT_URI, TOKEN_EXCHANGE, answerQuestion, notifyAt, start } from "./provider.mjs";

// The library's own messages must not mix with the answers.
console.info = console.error;
console.warn = console.error;
// The most redirects of a login. One takes four.
const REDIRECTS_MAX = 10;
// The keys that tokens are bound to, by the token.
const keys = new Map();
const issuer = await start();
const discovered = await fetch(`${issuer}/.well-known/openid-configuration`).then((answer) => answer.json());

/** A person logs in at `desk` (authorization code with PKCE). */
async function login({ user, scope, resource, details, want = "access_token", bound = false }) {
  const verifier = randomBytes(32).toString("base64url");
  const parameters = {
    client_id: "desk",
    response_type: "code",
    redirect_uri: REDIRECT_URI,
    scope: ["openid", ...(scope ? [scope] : [])].join(" "),
    login_hint: user,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    ...(resource && { resource }),
    ...(details && { authorization_details: JSON.stringify(details) }),
  };
  const begin = new URL(`${discovered.authorization_endpoint}?${new URLSearchParams(parameters)}`);
  const back = await follow(begin, REDIRECT_URI);
  const code = back.searchParams.get("code");
  if (!code) throw new Error(back.search);
  const exchanged = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: REDIRECT_URI };
  return (await token("desk", { ...exchanged, ...(resource && { resource }) }, bound))[want];
}

/** A person opens the address that `ragward login` shows, logs in and comes back to this machine. */
async function open({ url, user }) {
  const begin = new URL(url);
  begin.searchParams.set("login_hint", user);
  const back = await follow(begin, begin.searchParams.get("redirect_uri"));
  return String((await fetch(back)).status);
}

/** A person types the code that `ragward login --device` shows. */
async function type({ url, code }) {
  const cookies = new Map();
  const first = await visit(url, cookies);
  const form = async (answer, more) => {
    const [, xsrf] = /name="xsrf" value="([^"]+)"/.exec(await answer.text());
    return { method: "POST", body: new URLSearchParams({ xsrf, user_code: code, ...more }) };
  };
  const second = await visit(url, cookies, await form(first, {}));
  let answer = await visit(url, cookies, await form(second, { confirm: "yes" }));
  for (let step = 0; step < REDIRECTS_MAX; step += 1) {
    const location = answer.headers.get("location");
    if (!location) return String(answer.status);
    url = new URL(location, url);
    answer = await visit(url, cookies);
  }
  throw new Error("too many redirects");
}

/** Follows redirects with cookies, as a browser does, up to the client's own address, which it returns. */
async function follow(url, until) {
  const cookies = new Map();
  for (let step = 0; step < REDIRECTS_MAX; step += 1) {
    const answer = await visit(url, cookies);
    const location = answer.headers.get("location");
    if (!location) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(until)) return url;
  }
  throw new Error("too many redirects");
}

/** Sends one request with the cookies, and keeps those of the answer. */
async function visit(url, cookies, request = {}) {
  const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  const answer = await fetch(url, { redirect: "manual", headers: { cookie }, ...request });
  for (const set of answer.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
    cookies.set(name, value);
  }
  return answer;
}

/** Another client shows somebody's token and gets one to act for them. */
async function exchange({ token: shown, scope, resource, details }) {
  const request = {
    grant_type: TOKEN_EXCHANGE,
    subject_token: shown,
    subject_token_type: ACCESS_TOKEN,
    scope,
    resource,
    ...(details && { authorization_details: JSON.stringify(details) }),
  };
  return (await token("desk-helper", request)).access_token;
}

/** A client asks for itself. */
async function client({ scope, resource }) {
  return (await token("crawler", { grant_type: "client_credentials", scope, resource })).access_token;
}

/** A program asks a person for a token with these details, and the person says yes on their device (CIBA). */
async function ask({ user, scope, resource, details }) {
  const body = new URLSearchParams({
    client_id: "ragward",
    client_secret: "the secret of ragward",
    scope: `openid ${scope}`,
    login_hint: user,
    resource,
    authorization_details: JSON.stringify(details),
  });
  const asked = await fetch(discovered.backchannel_authentication_endpoint, { method: "POST", body });
  const { auth_req_id, error, error_description } = await asked.json();
  if (!auth_req_id) throw new Error(`${error}: ${error_description}`);
  await answerQuestion(user, "yes");
  return (await token("ragward", { grant_type: CIBA, auth_req_id })).access_token;
}

/** A person answers a question of somebody else on their device. */
async function answer({ user, says }) {
  await answerQuestion(user, says);
  return says;
}

/** The server of the test takes notifications at this address. */
async function notify({ url }) {
  notifyAt(url);
  return url;
}

async function token(client_id, parameters, bound = false) {
  const url = discovered.token_endpoint;
  const key = bound ? await generateKeyPair("ES256") : undefined;
  const headers = key ? { dpop: await proof(key, { htm: "POST", htu: url }) } : {};
  const body = new URLSearchParams({ client_id, client_secret: `the secret of ${client_id}`, ...parameters });
  const answer = await fetch(url, { method: "POST", headers, body });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`${json.error}: ${json.error_description}`);
  if (key) keys.set(json.access_token, key);
  return json;
}

/**
 * A client calls a server with a token that is bound to its key, and tries again with the nonce that the server gives it.
 * Returns the status, the body and the number of tries.
 */
async function call({ token: bound, url, htu, body }) {
  let nonce;
  for (let tries = 1; ; tries += 1) {
    const ath = createHash("sha256").update(bound).digest("base64url");
    const dpop = await proof(keys.get(bound), { htm: "POST", htu, ath, ...(nonce && { nonce }) });
    const headers = { authorization: `DPoP ${bound}`, dpop, "content-type": "application/json" };
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    const asks = /^DPoP .*error="use_dpop_nonce"/.test(answer.headers.get("www-authenticate") ?? "");
    if (!asks || tries === 2) return JSON.stringify({ status: answer.status, tries, body: await answer.json() });
    nonce = answer.headers.get("dpop-nonce");
  }
}

/** A proof of possession of a key (DPoP, RFC 9449). */
async function proof({ privateKey, publicKey }, claims) {
  const header = { alg: "ES256", typ: "dpop+jwt", jwk: await exportJWK(publicKey) };
  const jti = randomBytes(16).toString("base64url");
  return new SignJWT({ ...claims, jti }).setProtectedHeader(header).setIssuedAt().sign(privateKey);
}

const FLOWS = {
  call,
  login,
  exchange,
  client,
  ask,
  answer,
  notify,
  open: (request) => (request.chromium ? browser.open(request) : open(request)),
  type: (request) => (request.chromium ? browser.type(request) : type(request)),
};

console.log(issuer);
for await (const line of createInterface({ input: process.stdin })) {
  const { flow, ...request } = JSON.parse(line);
  const answer = await FLOWS[flow](request).then(
    (token) => ({ token }),
    (error) => ({ error: String(error) }),
  );
  console.log(JSON.stringify(answer));
}
process.exit(0);
