// The description of the routes, drawn from /openapi.json.

import { openapi } from "./ask.js";
import { h, loading, notice, show } from "./dom.js";

export function showDocs(main) {
  show(main, loading("the description"));
  openapi()
    .then((document) => draw(main, document))
    .catch((error) => show(main, notice("The description cannot be read", error.message, { bad: true, retry: () => location.reload() })));
}

function draw(main, { info, paths, components }) {
  const operations = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })));
  const models = Object.entries(components.schemas);
  show(main,
    h("div", { class: "split" },
      h("aside", { "aria-label": "Contents" },
        h("h2", {}, "Routes"), h("ul", {}, operations.map((one) => h("li", {}, h("a", { class: "code", href: `#${one.operationId}` }, one.path), h("span", { class: "number" }, one.method)))),
        h("h2", {}, "Models"), h("ul", {}, models.map(([name]) => h("li", {}, h("a", { class: "code", href: `#${name}` }, name))))),
      h("div", {},
        h("h1", {}, `${info.title} ${info.version}`),
        h("p", { class: "note" }, info.description, " ", h("a", { href: "/openapi.json" }, "The same as JSON")),
        h("div", { class: "groups" }, operations.map(drawOperation), models.map(([name, schema]) => drawModel(name, schema))))));
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function drawOperation(one) {
  const answers = Object.entries(one.responses).map(([status, response]) => [h("th", { scope: "row" }, status), h("td", {}, response.description), h("td", {}, contentOf(response.content))]);
  return h("section", { class: "group", id: one.operationId },
    h("h2", { class: "code" }, h("span", { class: "kind" }, one.method), " ", one.path),
    h("p", {}, `${one.summary}.`),
    one.parameters && table(["Parameter", "", "Meaning"], one.parameters.map((parameter) => [h("th", { scope: "row", class: "code" }, parameter.name), h("td", {}, parameter.in), h("td", {}, parameter.description)])),
    one.requestBody && h("p", {}, "Takes ", contentOf(one.requestBody.content)),
    table(["Status", "", "Answer"], answers));
}

function drawModel(name, schema) {
  const required = new Set(schema.required ?? []);
  return h("section", { class: "group", id: name },
    h("h2", { class: "code" }, name),
    h("p", {}, schema.description),
    schema.anyOf && h("p", {}, typeOf(schema)),
    schema.properties && table(["Field", "Type", "Meaning"], Object.entries(schema.properties).map(([field, one]) => [
      h("th", { scope: "row", class: "code" }, field), h("td", { class: "code" }, typeOf(one), !required.has(field) && " ?"), h("td", {}, one.description ?? "")])));
}

function table(heads, rows) {
  return h("table", {}, h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows.map((cells) => h("tr", {}, cells))));
}

function contentOf(content) {
  if (!content) return h("span", { class: "none" }, "no body");
  return Object.entries(content).map(([media, { schema }]) => [h("span", { class: "code" }, typeOf(schema)), media === "application/json" ? "" : ` ${media}`]);
}

function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return h("a", { href: `#${name}` }, name);
  }
  if (schema.anyOf) return schema.anyOf.flatMap((one, place) => [place ? " or " : "", typeOf(one)]);
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.type === "array") return ["list of ", schema.items?.$ref || schema.items?.type ? typeOf(schema.items) : "anything"];
  if (schema.type === "object") return typeof schema.additionalProperties === "object" ? ["object of ", typeOf(schema.additionalProperties)] : "object";
  return schema.type ?? "anything";
}
