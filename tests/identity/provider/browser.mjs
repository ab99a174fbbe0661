// A person in front of Chromium, which shows no window here. Its own protocol (CDP) goes over a pipe, so it opens no port, and
// it ends with this process.

import { spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SWITCHES = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--remote-debugging-pipe",
  // The provider's pages name fonts elsewhere, which nothing here needs.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];
// The longest visit, in milliseconds.
const VISIT_MAX = 60_000;
// The most pages of one visit.
const PAGES_MAX = 10;
const TO_CONFIRM = 'button[form="op.deviceConfirmForm"]';

/** A person opens the address that `ragward login` shows, and the browser comes back to this machine. */
export function open({ chromium, url, user }) {
  const begin = new URL(url);
  begin.searchParams.set("login_hint", user);
  return visit(chromium, begin.href, async (page) => {
    await page.until('location.pathname === "/callback"');
    return page.status();
  });
}

/** A person types the code that `ragward login --device` shows, and confirms it or not. */
export function type({ chromium, url, code, denies }) {
  return visit(chromium, url, async (page) => {
    await page.until(`document.querySelector("input[name=user_code]") !== null`);
    await page.evaluate(`document.querySelector("input[name=user_code]").value = ${JSON.stringify(code)}`);
    await page.click('button[form="op.deviceInputForm"]');
    await page.until(`document.querySelector(${JSON.stringify(TO_CONFIRM)}) !== null`);
    await page.click(`${TO_CONFIRM}${denies ? "[name=abort]" : ":not([name])"}`);
    await page.until(`document.querySelector(${JSON.stringify(TO_CONFIRM)}) === null`);
    return page.status();
  });
}

/** Opens an address in a new browser, lets a person act there, and ends the browser. */
async function visit(chromium, url, act) {
  const profile = await mkdtemp(join(tmpdir(), "ragward-browser-"));
  const browser = spawn(chromium, [...SWITCHES, `--user-data-dir=${profile}`, "about:blank"], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  });
  const ended = once(browser, "exit");
  const early = ended.then(() => {
    throw new Error("Chromium ended");
  });
  const late = new Promise((_resolve, reject) => {
    setTimeout(() => reject(new Error(`the visit took more than ${VISIT_MAX} ms`)), VISIT_MAX).unref();
  });
  try {
    return await Promise.race([Page.open(browser, url).then(act), early, late]);
  } finally {
    browser.kill("SIGKILL");
    // A browser that never started has not ended either.
    await ended.catch(() => undefined);
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Page {
  #input;
  #events = new EventEmitter();
  #sent = 0;
  #session;

  constructor(browser) {
    const [, , , input, output] = browser.stdio;
    this.#input = input;
    // Writing to a browser that has ended fails. Then the visit fails by that end.
    input.on("error", () => undefined);
    let rest = "";
    output.setEncoding("utf8").on("data", (piece) => {
      const messages = (rest + piece).split("\0");
      rest = messages.pop();
      for (const message of messages.map((text) => JSON.parse(text))) {
        this.#events.emit(message.id === undefined ? message.method : `answer ${message.id}`, message);
      }
    });
  }

  static async open(browser, url) {
    const page = new Page(browser);
    const { targetId } = await page.#send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await page.#send("Target.attachToTarget", { targetId, flatten: true });
    page.#session = sessionId;
    await page.#send("Page.enable");
    await page.#send("Page.navigate", { url });
    return page;
  }

  /** Waits for a page that is loaded and for which a condition holds. */
  async until(condition) {
    for (let pages = 0; pages < PAGES_MAX; pages += 1) {
      const loaded = once(this.#events, "Page.loadEventFired");
      // A page that goes away while it is asked gives no answer; the next one does.
      const holds = await this.evaluate(`document.readyState === "complete" && ${condition}`).catch(() => false);
      if (holds) return;
      await loaded;
    }
    throw new Error(`no page has ${condition}`);
  }

  async click(selector) {
    await this.evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`);
  }

  /** Returns the status of the page's answer. */
  async status() {
    return String(await this.evaluate('performance.getEntriesByType("navigation")[0].responseStatus'));
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", { expression, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return result.value;
  }

  async #send(method, params = {}) {
    this.#sent += 1;
    const id = this.#sent;
    const answer = once(this.#events, `answer ${id}`);
    const message = { id, method, params, ...(this.#session && { sessionId: this.#session }) };
    this.#input.write(`${JSON.stringify(message)}\0`);
    const [{ result, error }] = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }
}
