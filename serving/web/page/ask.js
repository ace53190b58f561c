// What the page asks of the worker: the same routes that everybody has.

const DEADLINE_MS = 10_000;

/** What went wrong, in words for the reader; `status` is 0 where there was no answer at all. */
export class AskError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let catalogueOnce = null;

/** Return services, groups and features; they do not change while the worker runs. */
export function catalogue() {
  catalogueOnce ??= ask("/console/catalogue").catch((error) => {
    catalogueOnce = null;
    throw error;
  });
  return catalogueOnce;
}

export function figures() {
  return ask("/console/figures");
}

export function openapi() {
  return ask("/openapi.json");
}

/** Return the URL that explains a feature; `key` is a list of [column, text]. */
export function explainUrl(feature, key) {
  return `/explain?${new URLSearchParams([["feature", feature], ...key])}`;
}

export function explain(feature, key) {
  return ask(explainUrl(feature, key));
}

/** Return the values of features for one entity; `key` is a list of [column, text, type]. */
export function readFeatures(features, key) {
  // Integers are put in as they were typed: a number of JavaScript has 53 bits, a key has 64.
  const columns = key.map(([name, text, type]) => `${JSON.stringify(name)}:[${type === "int" ? text : JSON.stringify(text)}]`);
  const body = `{"entities":{${columns.join(",")}},"features":${JSON.stringify(features)},"full_feature_names":true}`;
  return ask("/get-online-features", { method: "POST", body, headers: { "Content-Type": "application/json" } });
}

async function ask(url, options = {}) {
  let answer, text;
  try {
    answer = await fetch(url, { ...options, signal: AbortSignal.timeout(DEADLINE_MS) });
    text = await answer.text();
  } catch {
    throw new AskError(0, "The worker gives no answer. Is it running? This page tries again by itself where it polls.");
  }
  let content;
  try {
    content = JSON.parse(text, exact);
  } catch {
    throw new AskError(answer.status, `The answer to ${url.split("?")[0]} is no JSON (status ${answer.status}).`);
  }
  if (!answer.ok) throw new AskError(answer.status, detailOf(content, answer.status));
  return content;
}

/** Keep integers that a number of JavaScript cannot hold, where the browser tells their digits. */
function exact(_name, value, context) {
  const isCut = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
  return isCut && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
}

/** A mistake is an object with `detail`, or, for Feast's clients, JSON in a JSON string with `message`. */
function detailOf(content, status) {
  if (typeof content === "string") {
    try {
      return JSON.parse(content).message;
    } catch {
      return content;
    }
  }
  return content?.detail ?? `The worker answers with status ${status}.`;
}
