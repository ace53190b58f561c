// Live: how much comes in, how far behind reads are, what was buried and why. Polled from the worker's own metrics.

import { figures } from "./ask.js";
import { facts } from "./catalogue.js";
import { h, loading, notice, show, svg } from "./dom.js";
import { clock, count, duration, rate } from "./format.js";

const POLL_MS = 1_000;
const KEPT = 120;
const RATE_OVER = 5;
/** Whether nothing comes in is asked only of a record older than this: a worker that is busy has a newer one. */
const QUIET_MS = 2_000;

const REASONS = {
  malformed: "not what the source's model says; the producer has to change",
  too_large: "larger than a record may be; the producer has to split it",
  future: "more than 10 s ahead of its record; a producer's clock is wrong",
  late: "older than the source's lateness; kept, and not counted",
  overflow: "a number left 64 bits; mend the expression or the producer",
};

const SERVING = { serving: "serving", ondemand: "serving, on demand too" };

const samples = [];
let failure = null;
const listeners = new Set();

/** Poll as long as the page is seen, and tell the header how the worker is. */
export function watch(badge) {
  listeners.add(() => drawBadge(badge));
  poll();
  document.addEventListener("visibilitychange", () => document.hidden || poll());
}

let timer = null;

async function poll() {
  clearTimeout(timer);
  try {
    const now = await figures();
    const started = samples.at(-1);
    // Counters that fall are those of another worker, or of the same one started again.
    if (started && events(now) < events(started)) samples.length = 0;
    samples.push(now);
    if (samples.length > KEPT) samples.shift();
    failure = null;
  } catch (error) {
    failure = { message: error.message, since: failure?.since ?? Date.now() };
  }
  for (const listener of listeners) listener();
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, POLL_MS);
}

export function showLive(main) {
  show(main, loading("figures"));
  const redraw = () => {
    if (samples.length) draw(main);
    else if (failure) show(main, notice("The worker cannot be asked", failure.message, { bad: true, retry: poll }));
  };
  listeners.add(redraw);
  redraw();
  return () => listeners.delete(redraw);
}

function drawBadge(badge) {
  const now = samples.at(-1);
  const lag = now?.ingest.lag ?? 0;
  const [bad, text] = failure
    ? [true, `no answer since ${clock(failure.since, Date.now())}`]
    : !now.can_read
      ? [true, "the record does not answer"]
      : !now.ingest.ready
        ? [true, "takes in no events"]
        : SERVING[now.ingest.role]
          ? [false, SERVING[now.ingest.role]]
          : [false, lag ? `reading, ${count(lag)} behind` : "reading, up to date"];
  badge.classList.toggle("bad", bad);
  if (badge.textContent !== text) badge.textContent = text;
}

function draw(main) {
  const now = samples.at(-1);
  const { ingest } = now;
  const ingests = !SERVING[ingest.role];
  show(main,
    h("h1", { class: "unseen" }, "Live"),
    failure && notice("The worker gives no answer", `Since ${clock(failure.since, Date.now())} UTC; what follows is what it said last.`, { bad: true }),
    !now.can_read && notice("The record does not answer", "Reads that no copy can answer fail with 503 until it is back. The worker's log names the store.", { bad: true }),
    ingest.restore && notice(`Restoring ${ingest.restore.what}`, `${count(ingest.restore.records)} records read, ${count(Math.round(ingest.restore.records_per_s))}/s, about ${duration(ingest.restore.left_s * 1000)} left.`),
    h("div", { class: "figures" },
      ingests && figure("Events", `${rate(perSecond(events))}/s`, `${count(events(now))} since the start`, history(events)),
      ingests && figure("Behind", count(ingest.lag ?? 0), "records written, not yet durable", now.lag && samples.map((one) => one.ingest.lag ?? 0)),
      figure("Newest record", ...newestRecord(now)),
      now.serves && figure("Reads", `${rate(perSecond(reads))}/s`, latency(), history(reads)),
      ingests && figure("Dead letters", count(letters(now)), letters(now) ? "since the start, late ones included" : "none since the start", history(letters)),
    ),
    drawLetters(now),
    ingests && drawSources(now),
    drawEntities(now, ingests),
    drawOnDemand(now),
    drawStores(now),
    facts([["role", ingest.role ?? "–"], ...(ingests ? ingestFacts(now) : [["takes in", "no events; workers of other roles do"]])]),
  );
}

function ingestFacts({ ingest, rows_flushed: flushed }) {
  return [
    ["partitions", count(ingest.partitions ?? 0)], ["rows in tables", count(ingest.rows ?? 0)],
    ["rows written", count(flushed)], ["rows owed to the cache", count(ingest.cache_owed ?? 0)],
    ["last commit", ingest.commit_age_s === undefined || ingest.commit_age_s === null ? "–" : `${duration(ingest.commit_age_s * 1000)} ago`],
  ];
}

function figure(name, shown, text, line = null) {
  return h("section", { class: "figure" }, h("h2", {}, name), h("p", { class: "big" }, shown), h("p", { class: "note" }, text), drawLine(line ?? []));
}

/** Draw the last two minutes; a line that is all zero lies on the floor. */
function drawLine(values) {
  const largest = Math.max(...values, 1e-9);
  const points = values.map((one, place) => `${(100 * (KEPT - values.length + place)) / (KEPT - 1)},${29 - (27 * one) / largest}`);
  return svg("svg", { class: "line", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" }, points.length > 1 && svg("polyline", { points: points.join(" ") }));
}

function drawLetters({ sources }) {
  const rows = sources.flatMap(({ source, buried }) => Object.entries(buried).map(([reason, number]) => ({ source, reason, number })));
  if (!rows.length) return null;
  rows.sort((one, other) => other.number - one.number);
  return table("Dead letters", ["Source", "Reason", "Events", "What to do"], rows.map(({ source, reason, number }) => [
    h("th", { scope: "row", class: "code" }, source), h("td", {}, reason), h("td", { class: "right" }, count(number)),
    h("td", {}, REASONS[reason] ?? "see what was kept of it", "; ", h("code", {}, `freshet dead-letters list --reason ${reason}`))]), 2);
}

function drawSources({ sources, lag, ingest }) {
  if (ingest.role === "aggregator") return null;
  if (!sources.length) return notice("No event has come in yet", "Producers send JSON to the source topics; `freshet send <source> '{…}'` sends one by hand.");
  return table("Sources", ["Source", "Events", "Per second", "Buried", "Behind"], sources.map((one) => [
    h("th", { scope: "row", class: "code" }, one.source), number(one.dispatched),
    number(rate(perSecond((now) => now.sources.find((other) => other.source === one.source)?.dispatched ?? 0))),
    number(sum(Object.values(one.buried))), number(lag[one.source] ?? 0)]), 1, 2, 3, 4);
}

function drawEntities({ entities, updates, instant_ms: instant, lag }, ingests) {
  const heads = ["Entity", ...(ingests ? ["Updates", "Duplicates", "Behind"] : []), "Newest record read", "Quietest partition"];
  return table("Entities", heads, entities.map((one) => {
    const own = updates.filter((update) => update.entity === one.entity);
    const age = (timeMs) => h("td", { class: "right" }, timeMs ? `${duration(Math.max(0, instant - timeMs))} ago` : "–");
    return [h("th", { scope: "row", class: "code" }, one.entity),
      ingests && [number(sum(own.map((update) => update.applied))), number(sum(own.map((update) => update.duplicate))), number(lag[`freshet.${one.entity}`] ?? 0)],
      age(one.newest_as_of_ms), age(one.oldest_as_of_ms)];
  }), 1, 2, 3, 4, 5);
}

function drawOnDemand({ on_demand: made }) {
  if (!made.length) return null;
  return table("On demand", ["Feature or source", "Calls", "Mean", "Rows made", "Invalid"], made.map((one) => [
    h("th", { scope: "row", class: "code" }, one.feature), number(one.calls),
    number(one.calls ? `${((1000 * one.seconds) / one.calls).toFixed(2)} ms` : "–"), number(one.computed),
    h("td", { class: one.invalid ? "right trouble" : "right" }, count(one.invalid))]), 1, 2, 3, 4);
}

function drawStores({ stores, tiers }) {
  if (!stores.length) return null;
  const hits = Object.fromEntries(tiers.map((tier) => [tier.tier, tier]));
  const copies = hits.local && [h("th", { scope: "row", class: "code" }, "local copies"), number("–"), number("–"), number("–"), number(`${count(hits.local.hit)} of ${count(hits.local.hit + hits.local.miss)}`)];
  const rows = stores.map((one) => [
    h("th", { scope: "row", class: "code" }, `${one.store} ${one.operation}`), number(one.calls),
    number(one.calls ? `${((1000 * one.seconds) / one.calls).toFixed(2)} ms` : "–"), h("td", { class: one.errors ? "right trouble" : "right" }, count(one.errors)),
    number(one.operation === "read" && hits[one.store] ? `${count(hits[one.store].hit)} of ${count(hits[one.store].hit + hits[one.store].miss + hits[one.store].failed)}` : "")]);
  return table("Stores", ["Store", "Calls", "Mean", "Errors", "Keys found"], copies ? [copies, ...rows] : rows, 1, 2, 3, 4);
}

function table(title, heads, rows, ...right) {
  return h("section", { class: "group" }, h("h2", {}, title),
    h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": title },
      h("table", { class: "numbers" }, h("thead", {}, h("tr", {}, heads.map((text, place) => h("th", { scope: "col", class: right.includes(place) ? "right" : null }, text)))),
        h("tbody", {}, rows.map((cells) => h("tr", {}, cells))))));
}

function number(shown) {
  return h("td", { class: "right" }, typeof shown === "number" ? count(shown) : shown);
}

function events({ sources, updates }) {
  // An aggregator's worker reads no sources: what it does is told by its updates.
  return sources.length ? sum(sources.map((one) => one.dispatched + sum(Object.values(one.buried)))) : sum(updates.map((one) => one.applied));
}

function reads({ reads: { requests } }) {
  return sum(Object.values(requests));
}

function letters({ sources }) {
  return sum(sources.flatMap(({ buried }) => Object.values(buried)));
}

function newestRecord({ entities, instant_ms: instant, ingest }) {
  const newest = Math.max(0, ...entities.map((one) => one.newest_as_of_ms));
  if (newest === 0) return ["–", "nothing has been written yet"];
  const ms = Math.max(0, instant - newest);
  return [`${duration(ms)} ago`, stillness(ms, ingest)];
}

/** Tell a quiet source from a worker that is behind; those that serve alone know neither. */
function stillness(ms, ingest) {
  if (SERVING[ingest.role] || !ingest.ready || ingest.restore) return "the newest that reads see";
  if (ingest.lag) return "the newest that reads see; newer ones wait";
  return ms > QUIET_MS && perSecond(events) === 0 ? "quiet: nothing waits here" : "the newest that reads see";
}

function latency() {
  const { buckets } = samples.at(-1).reads;
  const before = samples[0].reads.buckets;
  const counts = Object.entries(buckets).map(([limit, number]) => [limit, number - (samples.length > 1 ? (before[limit] ?? 0) : 0)]).sort(([one], [other]) => Number(one.replace("+Inf", "Infinity")) - Number(other.replace("+Inf", "Infinity")));
  const all = counts.at(-1)?.[1] ?? 0;
  if (!all) return samples.length < KEPT ? "no reads since this page was opened" : "no reads in the last two minutes";
  const limit = counts.find(([, number]) => number >= 0.99 * all)[0];
  return limit === "+Inf" ? "some take more than 10 s" : `99 of 100 within ${1000 * Number(limit)} ms`;
}

function perSecond(total) {
  const last = samples.at(-1);
  const first = samples[Math.max(0, samples.length - 1 - RATE_OVER)];
  return last === first ? 0 : (1000 * (total(last) - total(first))) / (last.instant_ms - first.instant_ms);
}

function history(total) {
  return samples.slice(1).map((one, place) => (1000 * (total(one) - total(samples[place]))) / (one.instant_ms - samples[place].instant_ms));
}

function sum(numbers) {
  return numbers.reduce((total, one) => total + one, 0);
}
