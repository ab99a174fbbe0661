/** The client in a browser, on a page of another origin. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { World } from "./world.js";

/** The page. It tells its outcome to its own server. */
const PAGE = (url: string, token: string, stranger: string): string => `<!doctype html><script type="module">
  import { Client, Identity, NotAuthenticated } from "/src/index.js";
  const told = {};
  try {
    const client = new Client({ url: "${url}" });
    const identity = Identity.bearer("${token}");
    const asked = { collection: "handbook", query: "pay bands", k: 1 };
    told.title = (await client.retrieve({ ...asked, identity })).chunks[0].title;
    const error = await client.retrieve({ ...asked, identity: Identity.none() }).catch((error) => error);
    told.challenge = error instanceof NotAuthenticated && error.challenge;
    const documents = [{ id: "a", chunks: [{ id: "a#0", guard: "document:on-call", text: "x" }] }];
    told.upserted = (await client.upsertDocuments({ collection: "notes", documents, identity })).documents;
    const hidden = new Client({ url: "${stranger}", retries: 0 });
    told.stranger = (await hidden.retrieve({ ...asked, identity }).catch((error) => error)).name;
  } catch (error) {
    told.error = String(error);
  }
  await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>`;

function runs(program: string): Promise<boolean> {
  return new Promise((resolve) => {
    execFile(program, ["--version"], (error) => resolve(error === null));
  });
}

async function chromium(): Promise<string | undefined> {
  for (const program of [process.env["CHROMIUM_BIN"], "chromium", "chromium-browser", "google-chrome"]) {
    if (program !== undefined && await runs(program)) {
      return program;
    }
  }
  return undefined;
}

test("a page that the server lists asks for its visitor, and reads challenges", async () => {
  const program = await chromium();
  if (program === undefined) {
    process.stderr.write("skipped: the client in a browser lacks Chromium; name it in CHROMIUM_BIN\n");
    return;
  }
  let page = "";
  let tell = (_told: string): void => undefined;
  const outcome = new Promise<string>((resolve) => {
    tell = resolve;
  });
  const server = createServer((request, response) => {
    const { url = "/" } = request;
    if (url === "/told") {
      const pieces: Buffer[] = [];
      request.on("data", (piece: Buffer) => pieces.push(piece));
      request.on("end", () => {
        response.end();
        tell(Buffer.concat(pieces).toString());
      });
    } else if (/^\/src\/[a-z_]+\.js$/.test(url)) {
      void readFile(new URL(`..${url}`, import.meta.url)).then((script) => {
        response.writeHead(200, { "content-type": "text/javascript" }).end(script);
      });
    } else {
      response.writeHead(url === "/" ? 200 : 404, { "content-type": "text/html" }).end(page);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const [world, strict] = [await World.withTokens([origin]), await World.withTokens()];
  page = PAGE(world.url, world.token("anne", "ragward:retrieve ragward:ingest"), strict.url);
  const profile = await mkdtemp(join(tmpdir(), "ragward-browser-"));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", `--user-data-dir=${profile}`];
  const browser = spawn(program, [...flags, `${origin}/`], { stdio: "ignore" });
  const exited = once(browser, "exit");
  try {
    const ended = exited.then(() => assert.fail("the browser ended"));
    const { challenge, ...told } = JSON.parse(await Promise.race([outcome, ended])) as Record<string, unknown>;
    assert.deepEqual(told, { title: "How the pay review works", upserted: 1, stranger: "Unavailable" });
    assert.match(String(challenge), /^Bearer resource_metadata=/);
  } finally {
    browser.kill("SIGKILL");
    await exited;
    server.closeAllConnections();
    server.close();
    await Promise.all([world.stop(), strict.stop()]);
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
});
