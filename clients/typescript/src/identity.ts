/** Says who asks: an access token, a user whom the server believes, or both. */

import { InvalidRequest, NotAuthenticated } from "./errors.js";

/** Returns an access token. It is called for every request, so it can renew a token that is about to expire. */
export type TokenProvider = () => string | Promise<string>;

/** The contents of an identity. Only the transport reads them. */
interface Credentials {
  readonly token: TokenProvider | undefined;
  readonly user: string | undefined;
}

/** The characters of a token in a header (RFC 6750, section 2.1, and what else is visible ASCII). */
const TOKEN = /^[\x21-\x7e]+$/;

/** Returns what an identity holds. No other module can read that. */
export let credentialsOf: (identity: Identity) => Credentials;

let isIdentity: (value: unknown) => value is Identity;

/**
 * Says who asks.
 *
 * The token is in no property, so `JSON.stringify`, `console.log`, `structuredClone` and the messages of errors never show it.
 */
export class Identity {
  readonly #credentials: Credentials;

  static {
    credentialsOf = (identity) => identity.#credentials;
    isIdentity = (value): value is Identity => typeof value === "object" && value !== null && #credentials in value;
  }

  private constructor(credentials: Credentials) {
    this.#credentials = credentials;
  }

  /**
   * Returns the identity of the bearer of a token.
   *
   * @param token The access token, or a function that returns one. The function is called for every request, for each page too.
   */
  static bearer(token: string | TokenProvider): Identity {
    if (typeof token === "function") {
      return new Identity({ token, user: undefined });
    }
    const checked = checkedToken(token);
    return new Identity({ token: () => checked, user: undefined });
  }

  /**
   * Returns the identity of an OpenFGA user, such as `user:anne`, whom the server believes (`--insecure-identity`).
   */
  static user(user: string): Identity {
    return new Identity({ token: undefined, user: checkedUser(user) });
  }

  /** Says that the requests name nobody, because the server knows by other means who calls. */
  static none(): Identity {
    return new Identity({ token: undefined, user: undefined });
  }

  /** Returns this identity with a user for whom it asks. Its token needs the scope `ragward:assert_user`. */
  onBehalfOf(user: string): Identity {
    if (this.#credentials.token === undefined) {
      throw InvalidRequest.of("identity", "has no token, and only the bearer of one asks on behalf of somebody");
    }
    return new Identity({ ...this.#credentials, user: checkedUser(user) });
  }

  /** Describes the identity without its token. */
  toString(): string {
    const { token, user } = this.#credentials;
    const parts = [...(token === undefined ? [] : ["bearer token"]), ...(user === undefined ? [] : [user])];
    return `Identity(${parts.join(" for ") || "none"})`;
  }

  toJSON(): string {
    return this.toString();
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
}

/** Returns an identity that was made here. `field` names it in the error. */
export function checkedIdentity(identity: unknown, field: string): Identity {
  if (!isIdentity(identity)) {
    throw InvalidRequest.of(field, "must be made with `Identity.bearer`, `Identity.user` or `Identity.none`");
  }
  return identity;
}

/**
 * Returns a token that a header can carry.
 *
 * @throws NotAuthenticated If it is none. The message does not repeat it, as that of `fetch` would.
 */
export function checkedToken(token: unknown): string {
  if (typeof token !== "string" || !TOKEN.test(token)) {
    throw new NotAuthenticated("the token is empty, or has characters that no access token has");
  }
  return token;
}

function checkedUser(user: unknown): string {
  if (typeof user !== "string" || user === "") {
    throw InvalidRequest.of("user", "must be an OpenFGA user, such as `user:anne`");
  }
  return user;
}
