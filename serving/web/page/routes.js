// Places of the page, as they stand behind the # of its address, so that they can be sent to a colleague.

/** Return {path: [...], query: URLSearchParams} of an address, or null where it cannot be decoded. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  try {
    return { path: path.split("/").filter((part, place) => part || place).map(decodeURIComponent), query: new URLSearchParams(query) };
  } catch {
    return null;
  }
}

export function groupPlace(name) {
  return `/#/group/${encodeURIComponent(name)}`;
}

export function servicePlace(name) {
  return `/#/service/${encodeURIComponent(name)}`;
}

export function madePlace(name) {
  return `/#/made/${encodeURIComponent(name)}`;
}

/** The place where something that is made on demand is asked for; `columns` is a list of [column, text]. */
export function askPlace(feature, columns = []) {
  return `/#/ask/${encodeURIComponent(feature)}${columns.length ? `?${new URLSearchParams(columns)}` : ""}`;
}

/** The place of an entity: its name, the texts of its key in the order of the columns, and perhaps a feature. */
export function entityPlace(entity, key = [], feature = null) {
  const path = ["entity", entity, ...key].map(encodeURIComponent).join("/");
  return `/#/${path}${feature ? `?${new URLSearchParams({ feature })}` : ""}`;
}
