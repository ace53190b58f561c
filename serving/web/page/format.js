// Numbers and times as people read them. Times are UTC, as everywhere in Freshet.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 6, useGrouping: false });
const UNITS = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1_000]];

/** 12345 -> "12,345" */
export function count(number) {
  return WHOLE.format(number);
}

/** A rate: one decimal while it is small. */
export function rate(number) {
  return number < 10 && number > 0 ? number.toFixed(1) : count(number);
}

/** A served value on one line; fractions are cut to six digits unless `whole`. */
export function value(served, { whole = false } = {}) {
  if (served === null || served === undefined) return "null";
  if (typeof served === "number" && !Number.isInteger(served) && !whole) return SHORT.format(served);
  if (Array.isArray(served)) return `[${served.map((item) => value(item, { whole })).join(", ")}]`;
  if (typeof served === "object") return JSON.stringify(served, (_, inner) => (typeof inner === "bigint" ? `${inner}` : inner));
  return String(served);
}

/** 125000 -> "2 min 5 s" */
export function duration(ms) {
  const place = UNITS.findIndex(([, unitMs]) => ms >= unitMs);
  if (place < 0) return `${Math.max(0, Math.round(ms))} ms`;
  const [unit, unitMs] = UNITS[place];
  const [smaller, smallerMs] = UNITS[place + 1] ?? [null, Infinity];
  const rest = Math.floor((ms % unitMs) / smallerMs);
  if (unit === "s") return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  return rest ? `${Math.floor(ms / unitMs)} ${unit} ${rest} ${smaller}` : `${Math.floor(ms / unitMs)} ${unit}`;
}

/** Where a row was read: "local copy", "remote (redis)", "record (sqlite)". */
export function tier(name) {
  if (name === null) return "no tier";
  if (name === "local") return "local copy";
  return name === "redis" ? "remote (redis)" : `record (${name})`;
}

/** How long ago, or in how long, seen from an instant. */
export function ago(timeMs, instantMs) {
  const ms = instantMs - timeMs;
  return ms >= 0 ? `${duration(ms)} ago` : `in ${duration(-ms)}`;
}

/** "20:15:03", with the date in front where it is another day than the instant's, or it is to be `dated`. */
export function clock(timeMs, instantMs, { seconds = true, dated = false } = {}) {
  const time = iso(timeMs).split("T")[1];
  const shown = seconds ? time.slice(0, 8) : time.slice(0, 5);
  return dated || day(timeMs) !== day(instantMs) ? `${day(timeMs).slice(5)} ${shown}` : shown;
}

/** "2026-11-24" */
export function day(timeMs) {
  return iso(timeMs).split("T")[0];
}

/** "2026-11-24T20:15:03.120Z", or the number where it is no time that a calendar knows. */
export function iso(timeMs) {
  return Math.abs(timeMs) <= 8.64e15 ? new Date(timeMs).toISOString() : `${timeMs} ms`;
}
