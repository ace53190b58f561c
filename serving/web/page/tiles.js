// Tiles on a time line: which slices of time a value is made of, and where "now" is.

import { h, svg } from "./dom.js";
import { clock, day, duration, value } from "./format.js";

const HEIGHT = 112;
const FLOOR = 96;
const BAR_MAX = 80;
const BESIDE = 2;
const TICKS = 3;

/** Return the drawing of an explanation's tiles, with the same as a table below. */
export function drawTiles(told) {
  const { tiles, window, instant_ms: instant } = told;
  if (!tiles.length) return h("p", { class: "note tiles" }, "No tile is kept, so there is nothing to draw.");
  if (!window.tile_ms) return h("figure", { class: "tiles" }, drawTable(told));
  const from = window.start_ms - BESIDE * window.tile_ms;
  const to = window.end_ms + BESIDE * window.tile_ms;
  const percent = (timeMs) => (100 * (timeMs - from)) / (to - from);
  const near = tiles.filter((tile) => tile.start_ms >= from && tile.end_ms <= to);
  const readout = h("figcaption", { "aria-live": "polite" });
  const rest = () => {
    readout.textContent = `In the window: ${range(window, instant)} UTC${longer(window)}${near.length < tiles.length ? `; ${tiles.length - near.length} tiles further away are not drawn` : ""}`;
  };
  rest();
  const tell = (tile) => {
    readout.textContent = `${range(tile, instant)}: ${tile.parts.map(partText).join(", ")}${tile.in_window ? "" : " (not in the window)"}`;
  };
  const bars = near.map((tile, place) => drawBar(tile, place, near, percent, tell, rest, instant));
  const now = `${percent(instant)}%`;
  return h("figure", { class: "tiles" },
    svg("svg", { width: "100%", height: HEIGHT, role: "group", "aria-label": "Tiles on a time line; arrow keys move between them", on: { keydown: move } },
      svg("rect", { class: "window", x: `${percent(window.start_ms)}%`, width: `${percent(window.end_ms) - percent(window.start_ms)}%`, y: 0, height: FLOOR }),
      slots(from, to, window.tile_ms).map((start) => svg("rect", { class: "slot", x: `${percent(start) + 0.25}%`, width: `${percent(start + window.tile_ms) - percent(start) - 0.5}%`, y: FLOOR, height: 2 })),
      bars,
      svg("line", { class: "now", x1: now, x2: now, y1: 0, y2: HEIGHT }),
    ),
    drawTicks(from, to, window.tile_ms, instant, percent),
    readout,
    h("details", {}, h("summary", {}, `${tiles.length} ${tiles.length === 1 ? "tile" : "tiles"} as a table`), drawTable(told)),
  );
}

function drawBar(tile, place, tiles, percent, tell, rest, instant) {
  const largest = Math.max(...tiles.map(size), 0);
  const height = largest > 0 ? Math.max(3, (BAR_MAX * size(tile)) / largest) : BAR_MAX / 2;
  const left = percent(tile.start_ms);
  const width = percent(tile.end_ms) - left;
  return svg("g", {
    class: tile.in_window ? "bar in" : "bar", tabindex: place === tiles.length - 1 ? 0 : -1, role: "img",
    "aria-label": `${range(tile, instant)}, ${tile.in_window ? "in" : "not in"} the window: ${tile.parts.map(partText).join(", ")}`,
    on: { pointerenter: () => tell(tile), focus: () => tell(tile), pointerleave: rest, blur: rest },
  },
    svg("rect", { class: "reach", x: `${left}%`, width: `${width}%`, y: 0, height: FLOOR }),
    svg("rect", { class: "fill", x: `${left + 0.25}%`, width: `${width - 0.5}%`, y: FLOOR - height, height }),
  );
}

/** Move the focus between bars: one of them is in the order of Tab, the arrows reach the others. */
function move(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const bar = event.target.closest(".bar");
  if (!step || !bar) return;
  const bars = [...event.currentTarget.querySelectorAll(".bar")];
  const next = bars[bars.indexOf(bar) + step];
  if (next) {
    event.preventDefault();
    bar.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  }
}

function drawTicks(from, to, tileMs, instant, percent) {
  const every = tileMs * Math.max(1, Math.round((to - from) / tileMs / TICKS));
  const first = Math.ceil((from + tileMs) / every) * every;
  const ticks = [];
  for (let time = first; time < to; time += every) {
    const text = clock(time, instant, { seconds: tileMs % 60_000 !== 0 });
    const room = 6 + text.length;
    const fits = Math.abs(percent(time) - percent(instant)) > room && percent(time) < 100 - room;
    if (fits) ticks.push(tick(text, percent(time)));
  }
  return h("div", { class: "ticks", "aria-hidden": "true" }, ticks, tick("now", percent(instant), "now"));
}

function tick(text, place, kind = null) {
  const label = h("span", { class: kind }, text);
  // Through the object model: the page's policy forbids style attributes, not this.
  label.style.left = `${place}%`;
  return label;
}

function drawTable({ tiles, instant_ms: instant }) {
  return h("table", { class: "values" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Tile, UTC"), tiles[0].parts.map((part) => h("th", { scope: "col", class: "right" }, part.name)), h("th", { scope: "col" }, "Window"))),
    h("tbody", {}, [...tiles].reverse().map((tile) =>
      h("tr", { class: tile.in_window ? null : "faint" },
        h("th", { scope: "row" }, range(tile, instant)),
        tile.parts.map((part) => h("td", { class: "right code", title: JSON.stringify(part.state, (_, inner) => (typeof inner === "bigint" ? `${inner}` : inner)) }, value(part.result))),
        h("td", {}, tile.in_window ? "in" : "out")))),
  );
}

function size(tile) {
  const { result, items } = tile.parts[0];
  const number = Array.isArray(result) ? (items ?? result.length) : Number(result);
  return Number.isFinite(number) ? Math.abs(number) : 0;
}

function partText(part) {
  return `${part.name} ${value(part.result)}`;
}

function range({ start_ms: start, end_ms: end }, instant) {
  if (start === null) return "all time";
  const shown = { seconds: (end - start) % 60_000 !== 0, dated: day(start) !== day(end) };
  return `${clock(start, instant, shown)} – ${clock(end, instant, shown)}`;
}

function longer({ start_ms: start, end_ms: end, size_ms: size, tile_ms: tile }) {
  return end - start > size ? `; whole tiles, so up to ${duration(tile)} more than ${duration(size)}` : "";
}

function slots(from, to, tileMs) {
  return Array.from({ length: Math.round((to - from) / tileMs) }, (_, place) => from + place * tileMs);
}
