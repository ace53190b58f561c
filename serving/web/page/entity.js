// The look-up: everything that is served for one entity, and why one of its numbers is what it is.

import { AskError, catalogue, explain, readFeatures } from "./ask.js";
import { h, loading, notice, show } from "./dom.js";
import { ago, clock, duration, tier, value } from "./format.js";
import { showExplanation } from "./explanation.js";
import { drawLookup, entitiesOf } from "./lookup.js";
import { askPlace, entityPlace, groupPlace, madePlace } from "./routes.js";

export function showEntity(main, { path: [, entity = "", ...key], query }) {
  let left = false;
  show(main, loading("the catalogue"));
  catalogue()
    .then((content) => !left && draw(main, content, entity, key, query.get("feature"), () => left))
    .catch((error) => show(main, notice("The catalogue cannot be read", error.message, { bad: true, retry: () => location.reload() })));
  return () => (left = true);
}

function draw(main, content, entity, key, feature, isLeft) {
  const { groups } = content;
  const entities = entitiesOf(groups);
  const name = entity || groups[0]?.entity;
  const results = h("div", {});
  const keys = entities.get(name);
  const texts = Object.fromEntries((keys ?? []).map((column, place) => [column.name, key[place] ?? ""]));
  show(main, h("h1", { class: "unseen" }, "Look-up"), drawLookup(content, name, texts, feature), results);
  if (!keys) {
    show(results, notice("No such entity", `“${name}” is none of ${[...entities.keys()].join(", ")}.`));
  } else if (!key.length || key.every((text) => text === "")) {
    const asked = feature ? `${feature} is kept per ${name}: type the key of one.` : `Type the key of one ${name} to see all that is served for it.`;
    show(results, notice("Whose features?", `${asked} The address of the page then holds the key, so you can send it to others.`));
    main.querySelector("form input")?.focus();
  } else if (key.length !== keys.length) {
    show(results, notice("A part of the key is missing", `${name} is keyed by ${keys.map((one) => one.name).join(" and ")}.`));
  } else {
    const columns = keys.map((column, place) => [column.name, key[place], column.type]);
    const wrong = columns.find(([, text, type]) => type === "int" && !/^-?\d{1,19}$/.test(text));
    if (wrong) show(results, notice("Not such a key", `${wrong[0]} is an integer of 64 bits, “${wrong[1]}” is none. Keys are typed: 1 and "1" differ.`));
    else readAll(results, content, name, columns, feature, isLeft);
  }
}

async function readAll(results, content, entity, columns, feature, isLeft) {
  const again = () => readAll(results, content, entity, columns, feature, isLeft);
  const groups = content.groups.filter((group) => group.entity === entity);
  if (!results.childElementCount) show(results, loading("features"));
  const names = groups.flatMap((group) => group.features.map((one) => `${group.name}:${one.feature}`));
  try {
    const [answer, ...rows] = await Promise.all([
      readFeatures(names, columns),
      ...groups.map((group) => explain(`${group.name}:${group.features[0].feature}`, columns.map(([name, text]) => [name, text]))),
    ]);
    if (isLeft()) return;
    const found = served(answer, names);
    const panel = h("aside", { class: "why", "aria-label": "Explanation", "aria-live": "polite" });
    show(results,
      rows.every((row) => row.status === "NOT_FOUND") && notice("Nothing is stored for this key", "No event has touched it, or all of its windows have emptied. Keys are exact: check spelling and type; “Live” tells whether events arrive at all."),
      h("div", { class: feature ? "split right" : "" },
        h("div", { class: "groups" }, groups.map((group, place) => drawRow(group, rows[place], found, entity, columns, feature)), drawMade(content, columns)),
        panel));
    if (feature) showExplanation(panel, feature, columns, entityPlace(entity, columns.map(([, text]) => text)));
    else show(panel, h("p", { class: "note" }, "Choose a feature to see what its value is made of."));
  } catch (error) {
    if (!(error instanceof AskError)) throw error;
    if (!isLeft()) show(results, unread(error, again));
  }
}

/** A worker of another role has no such route. */
function unread(error, retry) {
  return error.status === 404
    ? notice("This worker answers no reads", "Its role is another; open the page of a worker that serves.")
    : notice("The features cannot be read", error.message, { bad: true, retry });
}

function served(answer, names) {
  const columns = answer.results.length - names.length;
  return new Map(names.map((name, place) => {
    const result = answer.results[columns + place];
    return [name, { value: result.values[0], status: result.statuses[0] }];
  }));
}

function drawRow(group, row, found, entity, columns, feature) {
  const key = columns.map(([, text]) => text);
  return h("section", { class: "group" },
    h("h2", {}, h("a", { href: groupPlace(group.name) }, group.name), " ", h("span", { class: "kind" }, group.owner)),
    h("p", { class: "row" }, rowFacts(row).map((text) => h("span", {}, text))),
    h("table", { class: "values" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Feature"), h("th", { scope: "col", class: "right" }, "Value"), h("th", { scope: "col" }, "Status"))),
      h("tbody", {}, group.features.map((one) => {
        const name = `${group.name}:${one.feature}`;
        const { value: shown, status } = found.get(name);
        return h("tr", { class: name === feature ? "chosen" : null },
          h("th", { scope: "row", class: "code" }, h("a", { href: entityPlace(entity, key, name), "aria-current": name === feature ? "true" : null }, one.feature)),
          h("td", { class: shown === null ? "right code none" : "right code" }, value(shown), one.unit && shown !== null && h("span", { class: "unit" }, ` ${one.unit}`)),
          h("td", {}, h("span", { class: `status ${status}` }, status)));
      }))),
  );
}

/** Return what may be made of this key, without making it: a source may belong to somebody else, who counts. */
function drawMade({ on_demand: made, function_processes: processes }, columns) {
  const key = new Map(columns.map(([name, text]) => [name, text]));
  const isOf = (one) => columns.every(([name]) => one.columns.some((column) => column.name === name));
  const found = made.map((group) => ({ ...group, features: group.features.filter(isOf) })).filter((group) => group.features.length);
  return found.map((group) => h("section", { class: "group" },
    h("h2", {}, h("a", { href: madePlace(group.name) }, group.name), " ", h("span", { class: "kind" }, "on demand")),
    h("p", { class: "row" }, processes ? "made when it is asked for" : "made by workers of the role ondemand or all"),
    h("table", { class: "values" }, h("tbody", {}, group.features.map((one) => {
      const more = one.columns.filter((column) => !key.has(column.name)).map((column) => column.name);
      const given = one.columns.filter((column) => key.has(column.name)).map((column) => [column.name, key.get(column.name)]);
      return h("tr", {},
        h("th", { scope: "row", class: "code" }, h("a", { href: askPlace(`${group.name}:${one.feature}`, given) }, one.feature)),
        h("td", { class: "right note" }, more.length ? `wants ${more.join(", ")} too` : "ask"));
    })))));
}

function rowFacts(row) {
  if (!row.row) return ["no row"];
  const { instant_ms: instant } = row;
  return [
    `from ${tier(row.tier)}${row.copy_age_ms ? `, read ${duration(row.copy_age_ms)} ago` : ""}`,
    row.row.newest_event_ms ? `newest event ${ago(row.row.newest_event_ms, instant)}` : "no event",
    `complete up to ${clock(row.as_of_ms, instant)} UTC`,
    `version ${row.version.number}`,
  ];
}
