// An OAuth 2.1 provider for one resource server. People log in by naming themselves; everything else is the library's:
// PKCE, resource indicators (RFC 8707), JWT access tokens (RFC 9068), authorization details (RFC 9396), DPoP (RFC 9449).
// Token exchange (RFC 8693) is a grant of our own, below.

import { once } from "node:events";
import { createServer } from "node:http";

import { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from "jose";
import Provider, { errors } from "oidc-provider";

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
export const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
export const REDIRECT_URI = "https://desk.example/callback";
// RFC 8252, section 7.3: a native client comes back to whatever port it listens on.
const LOOPBACK_URI = "http://127.0.0.1/callback";
const DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code";
export const CIBA = "urn:openid:params:grant-type:ciba";
// The person who logs in by typing a code. There, no client can name one.
const PERSON_AT_A_DEVICE = "anne";
export const DETAILS_TYPE = "ragward_retrieval";
// The scopes of every resource. A token for another resource than the server's is there to be refused.
const SCOPES = "ragward:retrieve ragward:ingest ragward:administer ragward:explain ragward:assert_user";
// The scopes that the provider itself grants.
const OWN_SCOPES = `openid offline_access ${SCOPES}`;
// The algorithm that signs the tokens of each client; clients that registered themselves have that of the first.
const ALGORITHMS = {
  desk: "RS256",
  "desk-helper": "ES256",
  crawler: "ES256",
  "ragward-cli": "RS256",
  ragward: "ES256",
  "ragward-ping": "ES256",
};
// The command line renews a token that lasts no longer than 30 seconds, so it renews these each time.
const LIFETIMES = { "ragward-cli": 20 };

// The address at which the test's server is registered to take notifications (CIBA ping). The standard wants TLS there.
const NOTIFICATIONS = "https://rag.example/ciba/notify";
// Where the test's server listens in truth.
let notified = NOTIFICATIONS;

/** Sends notifications to this address from now on. */
export function notifyAt(url) {
  notified = url;
}

// The questions that wait for an answer, by the person who is asked (CIBA).
const questions = new Map();
let running;

/** A person answers the question on their device. */
export async function answerQuestion(user, says) {
  const request = questions.get(user);
  questions.delete(user);
  if (says !== "yes") {
    await running.backchannelResult(request, new errors.AccessDenied("the person said no"));
    return;
  }
  const { resource, scope, authorization_details: text } = request.params;
  const rar = text && JSON.parse(text);
  const grant = new running.Grant({ accountId: user, clientId: request.clientId });
  grant.addOIDCScope("openid");
  grant.addResourceScope(resource, scope);
  for (const detail of rar ?? []) grant.addRar(detail);
  await grant.save();
  const authTime = Math.floor(Date.now() / 1000);
  await running.backchannelResult(request, grant, { acr: "mfa", authTime, ...(rar && { rar }) });
}

/** Starts the provider on a free port of loopback. */
export async function start() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const jwks = { keys: [await privateKey("RS256"), await privateKey("ES256")] };
  const provider = new Provider(issuer, configuration(jwks));
  running = provider;
  provider.registerGrantType(
    TOKEN_EXCHANGE,
    (ctx) => exchange(provider, jwks, ctx),
    ["subject_token", "subject_token_type", "resource", "scope", "authorization_details"],
  );
  const answer = provider.callback();
  server.on("request", (request, response) => {
    if (request.url.startsWith("/interaction/")) {
      interact(provider, request, response).catch((error) => response.writeHead(500).end(String(error)));
    } else {
      answer(request, response);
    }
  });
  return issuer;
}

async function privateKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: "sig", kid: alg };
}

function configuration(jwks) {
  const client = (client_id, more) => ({
    client_id,
    client_secret: `the secret of ${client_id}`,
    token_endpoint_auth_method: "client_secret_post",
    redirect_uris: [],
    response_types: [],
    authorization_details_types: [DETAILS_TYPE],
    ...more,
  });
  return {
    jwks,
    cookies: { keys: ["only this process reads them"] },
    // A proxy with TLS would stand in front of the server. The library reaches no address of this machine by itself.
    fetch: (url, { method, headers, body, redirect, signal }) =>
      fetch(url === NOTIFICATIONS ? notified : url, { method, headers, body, redirect, signal }),
    clients: [
      client("desk", {
        grant_types: ["authorization_code"],
        response_types: ["code"],
        redirect_uris: [REDIRECT_URI],
      }),
      client("desk-helper", { grant_types: [TOKEN_EXCHANGE] }),
      client("crawler", { grant_types: ["client_credentials"] }),
      client("ragward", { grant_types: [CIBA], backchannel_token_delivery_mode: "poll" }),
      client("ragward-ping", {
        grant_types: [CIBA],
        backchannel_token_delivery_mode: "ping",
        backchannel_client_notification_endpoint: NOTIFICATIONS,
      }),
      {
        client_id: "ragward-cli",
        application_type: "native",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code", "refresh_token", DEVICE_CODE],
        response_types: ["code"],
        redirect_uris: [LOOPBACK_URI],
      },
    ],
    // A client that registers names its scopes, and the library takes only those that stand here.
    scopes: OWN_SCOPES.split(" "),
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    // RFC 9068, section 2.2.1: when the person logged in. A client that asks for itself has no such time.
    extraTokenClaims: (ctx) => {
      const { AuthorizationCode, BackchannelAuthenticationRequest, DeviceCode, RefreshToken } = ctx.oidc.entities;
      const auth_time = (AuthorizationCode ?? BackchannelAuthenticationRequest ?? DeviceCode ?? RefreshToken)?.authTime;
      return { ...(auth_time && { auth_time }), ...ctx.state.claims };
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      ciba: {
        enabled: true,
        deliveryModes: ["poll", "ping"],
        processLoginHint: (_ctx, hint) => hint,
        validateRequestContext: () => undefined,
        verifyUserCode: () => undefined,
        triggerAuthenticationDevice: (_ctx, request, account) => questions.set(account.accountId, request),
      },
      dPoP: { enabled: true },
      revocation: { enabled: true },
      registration: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource, client) => ({
          scope: SCOPES,
          audience: resource,
          accessTokenFormat: "jwt",
          accessTokenTTL: LIFETIMES[client.clientId] ?? 300,
          jwt: { sign: { alg: ALGORITHMS[client.clientId] ?? ALGORITHMS.desk } },
        }),
      },
      richAuthorizationRequests: {
        enabled: true,
        // Only the resource server understands the details.
        types: { [DETAILS_TYPE]: { validate: () => undefined } },
        authorizationDetailsForGrantSource: (ctx) => requestedDetails(ctx),
        authorizationDetailsForAccessToken: (ctx, _token, source) => requestedDetails(ctx) ?? source?.rar,
        authorizationDetailsForIntrospection: (_ctx, token) => token.rar,
      },
    },
  };
}

function requestedDetails(ctx) {
  const text = ctx.oidc.params.authorization_details;
  return text === undefined ? undefined : JSON.parse(text);
}

/** Logs the person in whom the client names (`login_hint`), and consents to all that is asked for. */
async function interact(provider, request, response) {
  const { params, prompt } = await provider.interactionDetails(request, response);
  const accountId = params.login_hint ?? PERSON_AT_A_DEVICE;
  if (prompt.name === "login") {
    await provider.interactionFinished(request, response, { login: { accountId } });
    return;
  }
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(OWN_SCOPES);
  if (params.resource) grant.addResourceScope(params.resource, params.scope);
  for (const detail of prompt.details.rar ?? []) grant.addRar(detail);
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
}

/**
 * RFC 8693: the client shows a person's token and gets one for the same person, with itself as the actor and whoever acted
 * before inside it. Never more scopes than the token that was shown.
 */
async function exchange(provider, jwks, ctx) {
  const { client, params } = ctx.oidc;
  const { subject_token: shown, resource } = params;
  if (params.subject_token_type !== ACCESS_TOKEN || !shown || !resource) {
    throw new errors.InvalidRequest("subject_token, its type and resource are needed");
  }
  const verified = await jwtVerify(shown, createLocalJWKSet(publicKeys(jwks)), {
    issuer: provider.issuer,
    audience: resource,
    typ: "at+jwt",
  }).catch((error) => {
    throw new errors.InvalidGrant("subject_token is not valid", String(error));
  });
  const subject = verified.payload;
  const held = (subject.scope ?? "").split(" ");
  const scope = (params.scope ?? "").split(" ").filter((name) => held.includes(name)).join(" ");
  const token = new provider.AccessToken({ accountId: subject.sub, client, gty: TOKEN_EXCHANGE, scope });
  const { getResourceServerInfo } = configuration(jwks).features.resourceIndicators;
  token.resourceServer = new provider.ResourceServer(resource, getResourceServerInfo(ctx, resource, client));
  token.rar = requestedDetails(ctx) ?? subject.authorization_details;
  const { auth_time } = subject;
  ctx.state.claims = {
    act: { sub: client.clientId, ...(subject.act && { act: subject.act }) },
    ...(auth_time && { auth_time }),
  };
  ctx.body = {
    access_token: await token.save(),
    issued_token_type: ACCESS_TOKEN,
    token_type: "Bearer",
    expires_in: token.expiration,
    scope,
  };
}

function publicKeys(jwks) {
  const isPublic = ([name]) => ["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"].includes(name);
  return { keys: jwks.keys.map((key) => Object.fromEntries(Object.entries(key).filter(isPublic))) };
}
