// The page: which view stands at which address, the header, the keyboard.

import { showAsk } from "./asked.js";
import { showCatalogue } from "./catalogue.js";
import { showDocs } from "./docs.js";
import { notice, show } from "./dom.js";
import { showEntity } from "./entity.js";
import { showLive, watch } from "./live.js";
import { parse } from "./routes.js";

const main = document.getElementById("main");
const VIEWS = {
  "": showCatalogue, group: showCatalogue, service: showCatalogue, made: showCatalogue,
  entity: showEntity, ask: showAsk, live: showLive,
};
const PAGES = { "": "catalogue", group: "catalogue", service: "catalogue", made: "catalogue", ask: "entity" };

let close = () => {};
let shown = null;

function route() {
  const docs = location.pathname === "/docs";
  const place = docs ? { path: ["docs"], query: new URLSearchParams() } : parse(location.hash);
  const name = place?.path[0] ?? "";
  close();
  close = () => {};
  mark(PAGES[name] ?? name, place?.path.slice(1) ?? []);
  const view = docs ? showDocs : VIEWS[name];
  if (!place || !view) {
    show(main, notice("There is no such place", "The address behind the # is none of this page; the catalogue is a good start."));
    return;
  }
  // A view may return what to do when it is left.
  close = view(main, place) ?? close;
  if (shown !== null && shown !== name) main.focus({ preventScroll: true });
  if (shown !== name) scrollTo(0, 0);
  shown = name;
}

/** Name the page in the header and in the window's title, which tells windows and bookmarks apart. */
function mark(page, names) {
  document.title = "Freshet";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page) {
      link.setAttribute("aria-current", "page");
      document.title = [names.join(" "), link.textContent, "Freshet"].filter(Boolean).join(" · ");
    } else link.removeAttribute("aria-current");
  }
}

addEventListener("hashchange", () => {
  // An address of another form than ours is an anchor inside the page.
  if (location.hash.startsWith("#/") || location.hash === "") route();
});

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key === "/" && !typing) {
    const field = document.querySelector("[data-search]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  }
});

watch(document.getElementById("health"));
route();
