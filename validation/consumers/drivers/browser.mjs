// Asks the demo's page questions in a headless Chromium, as a person would.
//
//   node browser.mjs NODE_MODULES CHROMIUM URL CASES_JSON [SCREENSHOT]
//
// Prints {browser, texts: {id: text}, figures: {id: text}, faults: [line]} as the last line. Faults
// are what the console called an error, and any request that left this machine.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const LOAD_MS = 300_000;
const ANSWER_MS = 300_000;

async function main(nodeModules, chromium, url, casesFile, screenshot) {
  const require = createRequire(path.join(path.resolve(nodeModules), "from-here.js"));
  const puppeteer = (await import(pathToFileURL(require.resolve("puppeteer-core")).href)).default;
  // A container's root has no sandbox; the page is ours and reaches nothing but this machine.
  const asRoot = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
  const browser = await puppeteer.launch({
    executablePath: chromium,
    args: [...asRoot, offline, "--disable-dev-shm-usage"],
  });
  try {
    const page = await browser.newPage();
    const faults = watched(page, url);
    await page.goto(url, { waitUntil: "domcontentloaded" });
    await settled(page, () => /^Ready/.test(document.querySelector("#status").textContent), LOAD_MS);
    const asked = JSON.parse(await readFile(casesFile, "utf-8"));
    const texts = {};
    const figures = {};
    for (const each of asked.cases.filter((other) => other.image)) {
      texts[each.id] = await answer(page, each, path.dirname(path.resolve(casesFile)));
      figures[each.id] = await page.$eval("#figures", (found) => found.innerText);
    }
    if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
    return { browser: await browser.version(), texts, figures, faults };
  } finally {
    await browser.close();
  }
}

/** With the keyboard alone, but for the file, which a browser asks for in a window of its own. */
async function answer(page, each, folder) {
  const before = await page.$eval("#file-hint", (hint) => hint.textContent);
  await (await page.$("#file")).uploadFile(path.join(folder, each.image));
  await settled(page, (old) => document.querySelector("#file-hint").textContent !== old, 30_000, before);
  await page.focus("#question");
  await page.$eval("#question", (field) => field.select());
  await page.keyboard.type(each.question);
  await page.keyboard.press("Enter");
  const done = () => document.querySelector("#answer").dataset.state === "done";
  await settled(page, done, ANSWER_MS);
  return page.$eval("#answer", (found) => found.textContent);
}

/** Waits for the page, or for the error that it shows. */
async function settled(page, condition, timeout, ...given) {
  const error = page
    .waitForFunction(() => document.querySelector("#error").textContent, { timeout })
    .then(async (found) => Promise.reject(new Error(await found.jsonValue())));
  const wanted = page.waitForFunction(condition, { timeout }, ...given);
  // The one that loses would be an error that nobody awaits.
  error.catch(() => {});
  wanted.catch(() => {});
  await Promise.race([wanted, error]);
}

function watched(page, url) {
  const faults = [];
  const local = (address) => address.startsWith(url) || /^(blob|data):/.test(address);
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error.message)));
  page.on("request", (request) => local(request.url()) || faults.push(`asked ${request.url()}`));
  // transformers.js asks for a file's size by a request that it breaks off.
  const reason = (request) => request.failure()?.errorText;
  page.on("requestfailed", (request) => {
    if (reason(request) !== "net::ERR_ABORTED") faults.push(`${reason(request)} ${request.url()}`);
  });
  return faults;
}

main(...process.argv.slice(2)).then(
  (document) => console.log(JSON.stringify(document)),
  (error) => {
    console.error(String(error.message ?? error).replaceAll(/\s+/g, " "));
    process.exitCode = 1;
  },
);
