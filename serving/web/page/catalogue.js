// The catalogue: what is defined, who owns it, what it means; everything in it can be searched and linked to.

import { catalogue } from "./ask.js";
import { h, loading, notice, show } from "./dom.js";
import { duration, value } from "./format.js";
import { askPlace, entityPlace, groupPlace, madePlace, servicePlace } from "./routes.js";

let searched = "";

export function showCatalogue(main, { path: [kind = "", name = ""] }) {
  show(main, loading("the catalogue"));
  catalogue()
    .then((content) => draw(main, content, kind, name))
    .catch((error) =>
      show(main, notice("The catalogue cannot be read", error.message, { bad: true, retry: () => location.reload() })),
    );
}

function draw(main, content, kind, name) {
  const field = h("input", {
    type: "search", "data-search": true, placeholder: "Search features, meanings, owners", "aria-label": "Search the catalogue",
    value: kind ? "" : searched, autocomplete: "off", spellcheck: "false",
  });
  const results = h("div", { class: "groups" });
  const told = h("p", { class: "note", role: "status" });
  const fill = () => {
    const { services, groups, made } = chosen(content, kind, name, field.value);
    const features = [...groups, ...made].reduce((sum, group) => sum + group.features.length, 0);
    told.textContent = `${plural(features, "feature")} in ${plural(groups.length + made.length, "group")}`;
    show(results, nothingFound(services, [...groups, ...made], kind, name, field.value), services.map(drawService), groups.map(drawGroup),
      made.map((one) => drawMade(one, content)));
  };
  field.addEventListener("input", () => {
    if (!kind) searched = field.value;
    fill();
  });
  show(
    main,
    h("div", { class: "split" },
      h("aside", { "aria-label": "Contents" }, contents(content, kind, name)),
      h("div", {},
        h("h1", { class: kind ? "" : "unseen" }, kind ? name : "Catalogue"),
        h("div", { class: "bar" }, h("label", { class: "search" }, field, h("kbd", { "aria-hidden": "true" }, "/")), told),
        results,
      ),
    ),
  );
  fill();
}

function contents({ services, groups, on_demand: made }, kind, name) {
  const item = (place, text, number, current) =>
    h("li", {}, h("a", { href: place, "aria-current": current ? "page" : null }, text), h("span", { class: "number" }, number));
  return [
    h("h2", {}, "Services"),
    h("ul", {}, services.map((one) => item(servicePlace(one.name), one.name, one.features.length, kind === "service" && one.name === name))),
    h("h2", {}, "Groups"),
    h("ul", {}, groups.map((one) => item(groupPlace(one.name), one.name, one.features.length, kind === "group" && one.name === name))),
    made.length > 0 && [
      h("h2", {}, "On demand"),
      h("ul", {}, made.map((one) => item(madePlace(one.name), one.name, one.features.length, kind === "made" && one.name === name))),
    ],
    kind && h("p", {}, h("a", { href: "/#/" }, "All of the catalogue")),
  ];
}

function chosen({ services, groups, on_demand: made }, kind, name, text) {
  let found = { services, groups, made };
  if (kind === "group") found = { services: [], groups: groups.filter((group) => group.name === name), made: [] };
  if (kind === "made") found = { services: [], groups: [], made: made.filter((one) => one.name === name) };
  if (kind === "service") {
    const service = services.find((one) => one.name === name);
    const wanted = new Set(service?.features);
    const isWanted = (group, one) => wanted.has(`${group.name}:${one.feature}`);
    found = { services: service ? [service] : [], groups: onlyFeatures(groups, isWanted), made: onlyFeatures(made, isWanted) };
  }
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return found;
  const says = (...texts) => words.every((word) => texts.join("\n").toLowerCase().includes(word));
  const isSaid = (group, one, ...more) =>
    says(group.name, group.owner, group.description, one.entity, `${group.name}:${one.feature}`, one.text, one.description, one.unit, one.type, ...one.sources, ...more);
  return {
    services: found.services.filter((one) => says(one.name, one.owner, one.description)),
    groups: onlyFeatures(found.groups, isSaid),
    made: onlyFeatures(found.made, (group, one) => isSaid(group, one, "on demand", ...one.columns.map((column) => column.name))),
  };
}

function onlyFeatures(groups, keeps) {
  return groups
    .map((group) => ({ ...group, features: group.features.filter((feature) => keeps(group, feature)) }))
    .filter((group) => group.features.length);
}

function nothingFound(services, groups, kind, name, text) {
  if (services.length || groups.length) return null;
  if (text) return notice("Nothing matches", `No feature, meaning or owner has all of the words in “${text}”. Fewer words find more.`);
  if (kind) return notice("Not in the catalogue", `There is no ${kind === "made" ? "on-demand group or source" : kind} “${name}”. Was it renamed? The list of all is beside or behind “Catalogue”.`);
  return notice("Nothing is defined", "FRESHET_REGISTRY points at an empty registry. A feature is a line in a group; `freshet check` tells what is wrong.");
}

function drawService(service) {
  return h("section", { class: "service" },
    h("h2", {}, h("a", { href: servicePlace(service.name) }, service.name), " ", h("span", { class: "kind" }, "service")),
    h("p", {}, service.description),
    facts([["owner", service.owner || "none"], ["features", String(service.features.length)]]),
  );
}

function drawGroup(group) {
  return h("section", { class: "group" },
    h("h2", {}, h("a", { href: groupPlace(group.name) }, group.name), " ", h("span", { class: "kind" }, "group")),
    h("p", {}, group.description),
    facts([
      ["owner", group.owner],
      ["entity", `${group.entity} (${group.keys.map((key) => `${key.name} ${key.type}`).join(", ")})`],
      ["version", `${group.version.number} · ${group.version.fingerprint}`],
      ["fresh", `published within ${duration(group.every_ms)}; copies at most ${duration(group.soft_ttl_ms)} old`],
      ["reads", `${group.tier}${group.cached ? "" : ", record only"}${group.max_age_ms === null ? "" : `; not older than ${duration(group.max_age_ms)}`}`],
      ["from", group.sources.join(", ")],
    ]),
    h("table", { class: "features" },
      h("thead", {}, h("tr", {}, ["Feature", "Type", "Unit", "Default", "Meaning"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, definitions(group.features).map((one) => drawDefinition(group, one))),
    ),
  );
}

function drawMade(made, { function_processes: processes }) {
  const isSource = made.kind === "fetched";
  return h("section", { class: "group" },
    h("h2", {}, h("a", { href: madePlace(made.name) }, made.name), " ", h("span", { class: "kind" }, isSource ? "source, on demand" : "group, on demand")),
    h("p", {}, made.description),
    facts([
      ["owner", made.owner],
      ["entity", [...new Set(made.features.map((one) => one.entity))].join("; ")],
      ["made", `${isSource ? "fetched" : "computed"} when it is asked for; stored nowhere`],
      ["deadline", duration(made.deadline_ms)],
      ["runs", processes ? `in processes of this worker, ${processes} of them` : "not here: in workers of the role ondemand or all"],
    ]),
    h("table", { class: "features" },
      h("thead", {}, h("tr", {}, ["Feature", "Type", "Unit", "Default", "Meaning"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, made.features.map((one) => drawMadeFeature(made, one))),
    ),
  );
}

function drawMadeFeature(made, one) {
  const name = `${made.name}:${one.feature}`;
  const takes = one.columns.map((column) => `${column.name} ${column.type}`).join(", ");
  return h("tr", {},
    h("th", { scope: "row", class: "code" }, h("a", { href: askPlace(name), title: `Ask for ${name}` }, one.feature)),
    meaning(one, h("span", { class: "code" }, `of ${takes}`)),
  );
}

/** The cells that say what a feature is, but for its name. */
function meaning(one, more) {
  return [
    h("td", {}, one.type),
    h("td", {}, one.unit || none()),
    h("td", { class: "code" }, one.default === null ? none() : value(one.default)),
    h("td", { class: "meaning" },
      h("span", { class: "text" }, one.description),
      h("span", { class: "code" }, one.text),
      more),
  ];
}

function none() {
  return h("span", { class: "none" }, "–");
}

/** Fold the windows of one definition together: they differ in nothing else. */
function definitions(features) {
  const found = new Map();
  for (const feature of features) {
    const suffix = `_${feature.window}`;
    const stem = feature.feature.endsWith(suffix) ? feature.feature.slice(0, -suffix.length) : feature.feature;
    const id = JSON.stringify([stem, feature.text]);
    found.set(id, found.get(id) ?? { ...feature, stem, windows: [] });
    found.get(id).windows.push({ suffix: stem === feature.feature ? "" : suffix, feature: feature.feature });
  }
  return [...found.values()];
}

function drawDefinition(group, one) {
  const link = ({ suffix, feature }) =>
    h("a", { href: entityPlace(group.entity, [], `${group.name}:${feature}`), title: `Look up ${group.name}:${feature}` }, suffix || one.stem);
  const plain = one.windows[0].suffix === "";
  return h("tr", {},
    h("th", { scope: "row", class: "code" }, plain ? null : h("span", {}, one.stem), h("span", { class: "windows" }, one.windows.map(link))),
    meaning(one, one.note && h("span", { class: "text" }, one.note)),
  );
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))));
}

function plural(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
