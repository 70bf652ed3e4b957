// Opens a report in a headless Chromium, in both widths and both colour schemes.
//
//   node open_report.mjs NODE_MODULES CHROMIUM PAGE FOLDER
//
// Leaves screenshots in FOLDER. Prints, as the last line, {views: [{scheme, width, scrollWidth,
// offenders}], filtered: {...}, unnamed: [...], faults: [line]}; faults are what the console called
// an error, what the policy refused, and any request but the page's own.

import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

async function main(nodeModules, chromium, page, folder) {
  const require = createRequire(path.join(path.resolve(nodeModules), "from-here.js"));
  const puppeteer = (await import(pathToFileURL(require.resolve("puppeteer-core")).href)).default;
  const asRoot = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const browser = await puppeteer.launch({
    executablePath: chromium,
    args: [...asRoot, "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-dev-shm-usage"],
  });
  try {
    const url = pathToFileURL(path.resolve(page)).href;
    const faults = [];
    const views = [];
    for (const scheme of ["light", "dark"]) {
      for (const width of [360, 1440]) {
        const tab = await opened(browser, url, { scheme, width, faults });
        await tab.screenshot({ path: path.join(folder, `${scheme}-${width}.png`) });
        await unfold(tab);
        views.push({ scheme, width, ...(await tab.evaluate(extent)) });
        await tab.close();
      }
    }
    const tab = await opened(browser, url, { scheme: "light", width: 1440, faults });
    const filtered = await filter(tab);
    const unnamed = await unnamedParts(tab);
    const withoutScript = await withoutScripts(browser, url, faults);
    return { views, filtered, unnamed, withoutScript, faults };
  } finally {
    await browser.close();
  }
}

async function opened(browser, url, { scheme, width, faults, script = true }) {
  const tab = await browser.newPage();
  await tab.setJavaScriptEnabled(script);
  tab.on("console", (said) => ["error", "warn"].includes(said.type()) && faults.push(said.text()));
  tab.on("pageerror", (error) => faults.push(String(error.message)));
  tab.on("request", (request) => request.url() === url || faults.push(`asked ${request.url()}`));
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await tab.setViewport({ width, height: 900 });
  await tab.goto(url, { waitUntil: "load" });
  return tab;
}

const unfold = (tab) =>
  tab.evaluate(() => document.querySelectorAll("details").forEach((each) => { each.open = true; }));

/** How wide the page is, what sticks out of it, and which colours it took. */
function extent() {
  const width = document.documentElement.clientWidth;
  const inBox = (each) => each.parentElement.closest(".scroll, pre");
  const offenders = [...document.querySelectorAll("body *:not(.skip)")]
    .filter((each) => !inBox(each) && each.getBoundingClientRect().right > width + 0.5)
    .map((each) => `${each.tagName} ${each.textContent.slice(0, 40)}`);
  return {
    scrollWidth: document.documentElement.scrollWidth,
    offenders,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
  };
}

/** Chooses a target and a status as a person would, and counts what is left. */
async function filter(tab) {
  const count = () =>
    tab.evaluate(() => ({
      groups: [...document.querySelectorAll("details.gates")]
        .filter((each) => !each.hidden)
        .map((each) => each.dataset.target),
      rows: document.querySelectorAll("details.gates:not([hidden]) tr[data-status]:not([hidden])").length,
      told: document.querySelector("#filtered").textContent,
    }));
  const all = await count();
  await tab.select("#filter-target", "onnx");
  const target = await count();
  await tab.select("#filter-status", "failed");
  const status = await count();
  await tab.select("#filter-target", "");
  await tab.select("#filter-status", "");
  await tab.focus("#unfold");
  await tab.keyboard.press("Enter");
  const open = await tab.$$eval("details.gates", (found) => found.every((each) => each.open));
  return { all, target, status, open };
}

/** What a screen reader would meet and could not name. */
async function unnamedParts(tab) {
  const tree = await tab.accessibility.snapshot({ interestingOnly: true });
  const found = [];
  const walk = (node) => {
    const speaks = ["link", "button", "combobox", "table", "image", "img", "heading", "navigation"];
    if (speaks.includes(node.role) && !node.name) found.push(node.role);
    (node.children ?? []).forEach(walk);
  };
  walk(tree);
  return found;
}

async function withoutScripts(browser, url, faults) {
  const tab = await opened(browser, url, { scheme: "light", width: 1440, faults, script: false });
  const form = await tab.$("#filter");
  const groups = await tab.$$("details.gates > summary");
  return { formIsShown: await form.isVisible(), groups: groups.length };
}

main(...process.argv.slice(2)).then(
  (document) => console.log(JSON.stringify(document)),
  (error) => {
    console.error(String(error.stack ?? error).replaceAll(/\s+/g, " "));
    process.exitCode = 1;
  },
);
