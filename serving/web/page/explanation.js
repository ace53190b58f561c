// An explanation: the value, why it has its status, the tiles that it was merged from, and the facts for an incident.

import { AskError, explain, explainUrl } from "./ask.js";
import { facts } from "./catalogue.js";
import { h, loading, notice, show } from "./dom.js";
import { ago, clock, duration, iso, tier, value } from "./format.js";
import { drawTiles } from "./tiles.js";

/** Show why a feature has its value; `columns` is a list of [column, text, type], `back` the place without it. */
export async function showExplanation(panel, feature, columns, back) {
  const key = columns.map(([name, text]) => [name, text]);
  show(panel, loading("the explanation"));
  try {
    const told = await explain(feature, key);
    const close = h("a", { class: "close", href: back, "aria-label": "Close the explanation" }, "Close");
    show(panel, drawStored(told, close), h("p", { class: "note" }, h("a", { href: explainUrl(feature, key) }, "The same as JSON")));
  } catch (error) {
    if (!(error instanceof AskError)) throw error;
    show(panel, notice("This cannot be explained", error.message, { bad: true, retry: () => showExplanation(panel, feature, columns, back) }));
  }
}

/** Return all that is told of a stored feature; `link` stands beside its name. */
export function drawStored(told, link) {
  const { definition, row, window, instant_ms: instant } = told;
  return [
    h("header", {}, h("h2", { class: "code" }, told.feature), link),
    h("p", { class: "big code" }, value(told.value, { whole: true }), definition.unit && told.value !== null && h("span", { class: "unit" }, ` ${definition.unit}`)),
    h("p", {}, h("span", { class: `status ${told.status}` }, told.status), " ", told.why),
    drawTiles(told),
    told.merged.length > 1 && h("p", { class: "merged code" }, told.merged.map((part) => `${part.name} ${value(part.result)}`).join(" / ")),
    facts([
      ["meaning", definition.description || "–"],
      ["computed", h("span", { class: "code" }, definition.text)],
      ["window", window.tile_ms ? `${definition.window}, in tiles of ${duration(window.tile_ms)}` : "all time, one tile"],
      ["default", definition.default === null ? "none" : value(definition.default)],
      ["owner", definition.owner],
      ["version", `${told.version.number} · ${told.version.fingerprint}`],
      ...(row ? rowFacts(told) : []),
      ["complete", told.as_of_ms ? `up to ${clock(told.as_of_ms, instant)} UTC, ${ago(told.as_of_ms, instant)}` : "unknown: no progress is published yet"],
      ["instant", iso(instant)],
    ]),
  ];
}

function rowFacts({ row, tier: name, copy_age_ms: copyAge, instant_ms: instant }) {
  return [
    ["age", row.newest_event_ms ? `newest event ${ago(row.newest_event_ms, instant)}, at ${clock(row.newest_event_ms, instant)} UTC` : "no event"],
    ["tier", `${tier(name)}${copyAge ? `, read ${duration(copyAge)} ago` : ", read for this answer"}; ${row.read_from === "head" ? "finished values" : "tiles merged now"}`],
    ["last record", h("span", { class: "code" }, `${row.topic}/${row.partition} @ ${row.offset}, epoch ${row.epoch}`)],
    ["next change", row.valid_until_ms === null ? "only by an event" : row.valid_until_ms > instant ? `${ago(row.valid_until_ms, instant)}, if no event comes` : "at the next tile's edge"],
    ["row ends", row.expires_at_ms === null ? "never" : ago(row.expires_at_ms, instant)],
  ];
}
