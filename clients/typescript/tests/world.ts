/** A `ragward serve` as its operator would start it, in a folder of its own, and an issuer of access tokens. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type Server, createServer } from "node:http";
import { type AddressInfo, type Socket, connect, createServer as createListener } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The repository, seen from the compiled tests. */
export const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
export const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));

const AUDIENCE = "https://ragward.example/api";
/** The beginning of the line of the log that tells the address of the server. */
const LISTENING = "serving address=";
const run = promisify(execFile);

/** The program under test. */
function ragward(): string {
  const program = process.env["RAGWARD_BIN"];
  if (program === undefined || program === "") {
    throw new Error("name the program `ragward` in RAGWARD_BIN");
  }
  return program;
}

/** The variables of this machine that would change what a server or a client does. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("RAGWARD")));

/** Returns an address that accepts connections and never answers, until the test ends. */
export async function silentUrl(context: TestContext): Promise<string> {
  return `http://127.0.0.1:${await silentPort(context)}`;
}

/**
 * Returns an address at which nothing listens until the test ends. It is the near end of a connection, so that nobody else is
 * given its port meanwhile.
 */
export async function unusedUrl(context: TestContext): Promise<string> {
  const socket = connect(await silentPort(context), "127.0.0.1");
  socket.on("error", () => undefined);
  await once(socket, "connect");
  context.after(() => socket.destroy());
  return `http://127.0.0.1:${socket.localPort}`;
}

async function silentPort(context: TestContext): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createListener((socket) => {
    sockets.add(socket);
    // A client that gives up may reset its connection.
    socket.on("error", () => undefined);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  context.after(async () => {
    const closed = once(server, "close");
    server.close();
    for (const socket of sockets) {
      socket.destroy();
    }
    await closed;
  });
  return (server.address() as AddressInfo).port;
}

export class World {
  readonly url: string;
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #issuer: Issuer | undefined;

  private constructor(url: string, process: ChildProcess, folder: string, issuer: Issuer | undefined) {
    this.url = url;
    this.#process = process;
    this.#folder = folder;
    this.#issuer = issuer;
  }

  /** Starts a server with the handbook that believes whom its callers name. */
  static believing(): Promise<World> {
    return World.#start(undefined, []);
  }

  /** Starts a server with the handbook that asks for tokens. Pages of these origins may call it. */
  static async withTokens(origins: readonly string[] = []): Promise<World> {
    return World.#start(await Issuer.start(), origins);
  }

  static async #start(issuer: Issuer | undefined, origins: readonly string[]): Promise<World> {
    const folder = await mkdtemp(join(tmpdir(), "ragward-typescript-"));
    const config = join(folder, "ragward.toml");
    const settings = [
      "[data]", `directory = "${join(folder, "data")}"`,
      "[server]", "explain = true", `cors_origins = ${JSON.stringify(origins)}`,
      "[retrieval]", "explain_plan = true",
      ...(issuer === undefined ? [] : [
        "[identity]", `audience = "${AUDIENCE}"`, 'write_relation = "can_read"',
        "[[identity.issuers]]", `issuer = "${issuer.url}"`,
        "[identity.issuers.people]", 'clients = ["assistant"]', "clients_alone = true",
      ]),
    ];
    await writeFile(config, `${settings.join("\n")}\n`);
    const options = { cwd: ROOT, env: environment };
    await run(ragward(), ["--config", config, "model", "load", "schema/handbook/store.fga.yaml"], options);
    await run(ragward(), ["--config", config, "ingest", "schema/handbook", "--collection", "handbook"], options);
    const flags = issuer === undefined ? ["--insecure-identity"] : [];
    const served = spawn(ragward(), ["--config", config, "serve", "--listen", "127.0.0.1:0", ...flags], {
      ...options, stdio: ["ignore", "ignore", "pipe"],
    });
    const log: string[] = [];
    // The log is read to its end, so that the server never waits for its reader.
    const lines = createInterface({ input: served.stderr });
    const address = await new Promise<string>((resolve, reject) => {
      lines.on("line", (line) => {
        log.push(line);
        const found = line.split(LISTENING)[1]?.split(/\s/)[0];
        if (found !== undefined) {
          resolve(found);
        }
      });
      lines.on("close", () => reject(new Error(`the server ended:\n${log.join("\n")}`)));
    });
    return new World(`http://${address}`, served, folder, issuer);
  }

  /** Returns a token for a person, unless `claims` name somebody else. */
  token(subject: string, scope: string, claims: Readonly<Record<string, unknown>> = {}): string {
    if (this.#issuer === undefined) {
      throw new Error("this server asks for no tokens");
    }
    return this.#issuer.token(subject, scope, claims);
  }

  async stop(): Promise<void> {
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    await exited;
    await this.#issuer?.stop();
    await rm(this.#folder, { recursive: true });
  }
}

/** Signs tokens, and serves the key by which they are verified. */
class Issuer {
  readonly url: string;
  readonly #server: Server;
  readonly #key = generateKeyPairSync("ec", { namedCurve: "P-256" });

  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const jwk = { ...this.#key.publicKey.export({ format: "jwk" }), use: "sig", kid: "key", alg: "ES256" };
    const answers = new Map<string, unknown>([
      ["/.well-known/oauth-authorization-server", {
        issuer: this.url, jwks_uri: `${this.url}/keys`, response_types_supported: ["code"],
      }],
      ["/keys", { keys: [jwk] }],
    ]);
    server.on("request", (request, response) => {
      const answer = answers.get(request.url ?? "");
      response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json", connection: "close" });
      response.end(JSON.stringify(answer ?? {}));
    });
  }

  static async start(): Promise<Issuer> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Issuer(server);
  }

  token(subject: string, scope: string, claims: Readonly<Record<string, unknown>>): string {
    const now = Math.floor(Date.now() / 1_000);
    const encoded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const head = encoded({ typ: "at+jwt", alg: "ES256", kid: "key" });
    const body = encoded({
      iss: this.url, aud: AUDIENCE, sub: subject, client_id: "assistant", jti: `${subject}-${now}-${Math.random()}`,
      iat: now - 10, exp: now + 600, scope, ...claims,
    });
    const signature = sign("sha256", Buffer.from(`${head}.${body}`), {
      key: this.#key.privateKey, dsaEncoding: "ieee-p1363",
    });
    return `${head}.${body}.${signature.toString("base64url")}`;
  }

  async stop(): Promise<void> {
    this.#server.close();
    await once(this.#server, "close");
  }
}
