// The form of a look-up: an entity, or something that is made on demand, and the columns that it takes.

import { h, show } from "./dom.js";
import { askPlace, entityPlace } from "./routes.js";

/**
 * Return the form.
 *
 * `chosen` is the name of an entity or a `group:feature` reference, `texts` are by column; a `feature` that is looked
 * at stays chosen as long as the entity does.
 */
export function drawLookup({ groups, on_demand: made }, chosen, texts, feature = null) {
  const entities = entitiesOf(groups);
  const asked = new Map(made.flatMap((one) => one.features.map((value) => [`${one.name}:${value.feature}`, value.columns])));
  const columnsOf = (name) => entities.get(name) ?? asked.get(name) ?? [];
  const fields = h("span", { class: "fields" });
  const options = (names) => names.map((one) => h("option", { value: one, selected: one === chosen }, one));
  const select = h("select", { "aria-label": "Look up", on: { change: () => drawFields(typed()) } },
    h("optgroup", { label: "Entity" }, options([...entities.keys()])),
    asked.size > 0 && h("optgroup", { label: "On demand" }, options([...asked.keys()])));
  const typed = () => Object.fromEntries([...fields.querySelectorAll("input")].map((input) => [input.name, input.value.trim()]));
  const drawFields = (given) =>
    show(fields, columnsOf(select.value).map((column, place) =>
      h("label", {}, h("span", {}, column.name),
        h("input", { name: column.name, value: given[column.name] ?? "", placeholder: column.type === "bool" ? "true or false" : column.type, required: column.type !== "str", inputmode: { int: "numeric", float: "decimal" }[column.type] ?? null, autocomplete: "off", spellcheck: "false", "data-search": place === 0 }))));
  drawFields(texts);
  const submit = (event) => {
    event.preventDefault();
    const given = Object.entries(typed());
    const kept = select.value === chosen ? feature : null;
    const place = entities.has(select.value) ? entityPlace(select.value, given.map(([, text]) => text), kept) : askPlace(select.value, given);
    if (place.slice(1) === location.hash) dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = place.slice(1);
  };
  return h("form", { class: "lookup", on: { submit } }, h("label", {}, h("span", {}, "entity or feature"), select), fields, h("button", { type: "submit" }, "Look up"));
}

/** Return the key columns by the name of an entity. */
export function entitiesOf(groups) {
  return new Map(groups.map((group) => [group.entity, group.keys]));
}
