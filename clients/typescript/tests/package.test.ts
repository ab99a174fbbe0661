/** The package as its users get it: packed, installed in a clean folder, and compiled against. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { PACKAGE, ROOT, World } from "./world.js";

const run = promisify(execFile);
const TSC = join(PACKAGE, "node_modules/typescript/bin/tsc");
const EXAMPLES = join(ROOT, "examples/typescript");

let folder: string;
/** The packages that npm has installed. */
let installed: readonly string[];
let world: World;

before(async () => {
  world = await World.believing();
  folder = await mkdtemp(join(tmpdir(), "ragward-package-"));
  const packed = await run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: PACKAGE });
  const [{ filename }] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("["))) as [{ filename: string }];
  await writeFile(join(folder, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  // The package has no dependency, so nothing is downloaded.
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", `./${filename}`], { cwd: folder });
  installed = (await readdir(join(folder, "node_modules"))).filter((name) => !name.startsWith("."));
  // The packages that a user of LangChain.js has besides.
  for (const name of ["@langchain", "@types"]) {
    await symlink(join(PACKAGE, "node_modules", name), join(folder, "node_modules", name));
  }
});

after(async () => {
  await rm(folder, { recursive: true });
  await world.stop();
});

async function compiled(file: string, text: string, options: Readonly<Record<string, unknown>>): Promise<void> {
  await writeFile(join(folder, file), text);
  const project = `${file}.json`;
  const compilerOptions = { strict: true, noEmit: true, target: "ES2022", ...options };
  await writeFile(join(folder, project), JSON.stringify({ compilerOptions, files: [file] }));
  await run(process.execPath, [TSC, "-p", project], { cwd: folder }).catch((error: { stdout?: string }) => {
    assert.fail(`${project}: ${JSON.stringify(options)}\n${error.stdout}`);
  });
}

test("the version is that of the server", async () => {
  const manifest = JSON.parse(await readFile(join(PACKAGE, "package.json"), "utf8")) as { version: string };
  const crate = /^version = "(.*)"$/m.exec(await readFile(join(ROOT, "Cargo.toml"), "utf8"));
  assert.equal(manifest.version, crate?.[1]);
});

test("the package holds what it needs and nothing else", async () => {
  assert.deepEqual(installed, ["ragward"]);
  const held = await readdir(join(folder, "node_modules/ragward"), { recursive: true });
  for (const name of ["dist/index.js", "dist/index.d.ts", "dist/langchain.js", "dist/langchain.d.ts", "LICENSE", "README.md"]) {
    assert.ok(held.includes(name), name);
  }
  const others = held.filter((name) => !/^(dist(\/[a-z_]+\.(js|d\.ts))?|LICENSE|README\.md|package\.json)$/.test(name));
  assert.deepEqual(others, []);
});

test("its types resolve, with and without LangChain", async () => {
  const core = [
    'import { Client, F, Identity, type Answer, type Chunk } from "ragward";',
    'const client = new Client({ url: "http://127.0.0.1:8980", identity: Identity.user("user:anne") });',
    "export async function ask(): Promise<readonly Chunk[]> {",
    '  const answer: Answer = await client.retrieve({ collection: "c", query: "q", filter: F("year").gte(2024) });',
    "  return answer.chunks;",
    "}",
  ].join("\n");
  const dom = { lib: ["ES2022", "DOM", "DOM.Iterable"], types: [] };
  await compiled("browser.ts", core, { ...dom, module: "ESNext", moduleResolution: "Bundler" });
  await compiled("node.ts", core, { lib: ["ES2022"], types: ["node"], module: "NodeNext" });
  const wrong = core.replace('query: "q"', 'query: "q", user: "user:bob"');
  await assert.rejects(compiled("wrong.ts", wrong, { ...dom, module: "NodeNext", skipLibCheck: true }), /'user' does not exist/);
  const langchain = [
    'import { Identity } from "ragward";',
    'import { RagwardRetriever } from "ragward/langchain";',
    'const retriever = new RagwardRetriever({ collection: "c" });',
    'export const documents = retriever.invoke("q", { configurable: { ragwardIdentity: Identity.user("user:anne") } });',
    "export const guards = documents.then((all) => all.map(({ metadata }): string => metadata.guard));",
  ].join("\n");
  await compiled("langchain.ts", langchain, { lib: ["ES2022"], types: ["node"], module: "NodeNext", skipLibCheck: true });
});

test("the examples do what they say", async () => {
  const examples = join(folder, "examples");
  await mkdir(examples);
  for (const name of ["quickstart.ts", "langchain_rag.ts", "tsconfig.json", "package.json"]) {
    await copyFile(join(EXAMPLES, name), join(examples, name));
  }
  await run(process.execPath, [TSC, "--skipLibCheck"], { cwd: examples }).catch((error: { stdout?: string }) => {
    assert.fail(error.stdout ?? "");
  });
  const told = async (name: string): Promise<string> => {
    const env = { ...process.env, RAGWARD_SERVER: world.url };
    return (await run(process.execPath, [join("build", name)], { cwd: examples, env })).stdout;
  };
  const quickstart = await told("quickstart.js");
  assert.match(quickstart, /user:anne gets 2 chunks \(complete\):\n {2}document:pay-review/);
  assert.match(quickstart, /user:bob gets 2 chunks \(complete\):\n {2}document:pay-bands {2}Pay bands/);
  const [anne, bob] = (await told("langchain_rag.js")).split("\nuser:bob\n");
  assert.ok(anne && bob);
  assert.match(anne, /Question: pay bands\nContext:\nHow the pay review works/);
  assert.ok(!anne.includes("Pay bands (") && bob.includes("Pay bands (document:pay-bands#0)"), bob);
});

test("browsers can load it: no module of Node.js is imported", async () => {
  const dist = join(folder, "node_modules/ragward/dist");
  for (const name of (await readdir(dist)).filter((name) => name.endsWith(".js"))) {
    const imported = [...(await readFile(join(dist, name), "utf8")).matchAll(/from "([^"]+)"/g)].map(([, from]) => from as string);
    const isOwn = (from: string): boolean =>
      from.startsWith("./") || (name === "langchain.js" && from.startsWith("@langchain/core/"));
    const foreign = imported.filter((from) => !isOwn(from));
    assert.deepEqual(foreign, [], name);
  }
});
