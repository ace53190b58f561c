// What is made on demand: asked for with the columns that it takes, its value, and what it was made from.

import { AskError, catalogue, explain, explainUrl } from "./ask.js";
import { facts } from "./catalogue.js";
import { h, loading, notice, show } from "./dom.js";
import { drawStored } from "./explanation.js";
import { duration, iso, value } from "./format.js";
import { drawLookup } from "./lookup.js";
import { entityPlace, madePlace } from "./routes.js";

export function showAsk(main, { path: [, reference = ""], query }) {
  let left = false;
  show(main, loading("the catalogue"));
  catalogue()
    .then((content) => !left && draw(main, content, reference, query, () => left))
    .catch((error) => show(main, notice("The catalogue cannot be read", error.message, { bad: true, retry: () => location.reload() })));
  return () => (left = true);
}

function draw(main, content, reference, query, isLeft) {
  const made = content.on_demand.find((one) => one.features.some((other) => `${one.name}:${other.feature}` === reference));
  const defined = made?.features.find((one) => `${made.name}:${one.feature}` === reference);
  const results = h("div", {});
  show(main, h("h1", { class: "unseen" }, "Look-up"), drawLookup(content, reference, Object.fromEntries(query)), results);
  if (!defined) {
    show(results, notice("No such feature", `“${reference}” is not made on demand; the catalogue has all that is.`));
    return;
  }
  const columns = defined.columns.map(({ name }) => [name, query.get(name)]);
  const names = columns.map(([name]) => name).join(", ");
  if (!content.function_processes) {
    show(results, notice("This worker runs no functions", `${reference} is made by workers of the role ondemand or all: open the page of one.`));
  } else if (columns.every(([, text]) => text === null)) {
    show(results, notice("Of what?", `${reference} is made of ${names}: type them. The address of the page then holds them, so you can send it to others.`));
    main.querySelector("form input")?.focus();
  } else if (columns.some(([, text]) => text === null)) {
    show(results, notice("Something is missing", `${reference} is made of ${names}.`));
  } else {
    ask(results, content, made, reference, columns, isLeft);
  }
}

async function ask(results, content, made, reference, columns, isLeft) {
  const again = () => ask(results, content, made, reference, columns, isLeft);
  show(results, loading(reference));
  try {
    const told = await explain(reference, columns);
    const stored = [...new Set(told.inputs.map((one) => one.feature))].flatMap((feature) => keyOf(content, feature, told.key));
    const inputs = await Promise.all(stored.map(({ feature, key }) => explain(feature, key)));
    if (isLeft()) return;
    show(results, h("div", { class: "split right" },
      drawAnswer(told, content, made, explainUrl(reference, columns)),
      inputs.length > 0 && h("aside", { class: "why", "aria-label": "Inputs" },
        h("p", { class: "note" }, inputs.length > 1 ? "Its stored inputs, read a moment later" : "Its stored input, read a moment later"),
        inputs.map((input, place) => drawInput(input, stored[place])))));
  } catch (error) {
    if (!(error instanceof AskError)) throw error;
    if (!isLeft()) show(results, notice("It cannot be had", error.message, { bad: true, retry: again }));
  }
}

/** Return a stored feature with its key's columns, or nothing of what is no stored feature. */
function keyOf({ groups }, feature, key) {
  const group = groups.find((one) => feature?.startsWith(`${one.name}:`));
  return group ? [{ feature, entity: group.entity, key: group.keys.map(({ name }) => [name, String(key[name])]) }] : [];
}

function drawAnswer(told, { function_processes: processes }, made, url) {
  const { definition } = told;
  return h("section", { class: "why", "aria-label": "Explanation" },
    h("h2", { class: "code" }, told.feature),
    h("p", { class: "big code" }, value(told.value, { whole: true }), definition.unit && told.value !== null && h("span", { class: "unit" }, ` ${definition.unit}`)),
    h("p", {}, h("span", { class: `status ${told.status}` }, told.status), " ", told.why),
    told.inputs.length > 0 && drawInputs(told.inputs),
    facts([
      ["meaning", definition.description || "–"],
      [made.kind, h("span", { class: "code" }, definition.text)],
      ["tier", `none: ${made.kind} for this answer, in one of ${processes} processes of this worker; stored nowhere`],
      ["age", "none: it is of the instant below"],
      ["deadline", duration(made.deadline_ms)],
      ["default", definition.default === null ? "none" : value(definition.default)],
      ["owner", h("a", { href: madePlace(made.name) }, definition.owner)],
      ["instant", iso(told.instant_ms)],
    ]),
    h("p", { class: "note" }, h("a", { href: url }, "The same as JSON")));
}

function drawInputs(inputs) {
  return h("table", { class: "values" },
    h("thead", {}, h("tr", {}, ["Parameter", "Given", "Value", "Status"].map((text, place) => h("th", { scope: "col", class: place === 2 ? "right" : null }, text)))),
    h("tbody", {}, inputs.map((one) => h("tr", {},
      h("th", { scope: "row", class: "code" }, one.name),
      h("td", { class: "code" }, one.feature ?? "the request"),
      h("td", { class: "right code" }, value(one.value)),
      h("td", {}, h("span", { class: `status ${one.status}` }, one.status))))));
}

function drawInput(told, { feature, entity, key }) {
  return h("section", {}, drawStored(told, h("a", { class: "close", href: entityPlace(entity, key.map(([, text]) => text), feature) }, `All of this ${entity}`)));
}
