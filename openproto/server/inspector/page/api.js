// The protocol over HTTP. The key lives in this closure and nowhere else: it goes with the tab.

/** What the server refused or failed at, in its own words. */
export class ApiError extends Error {
  constructor(status, { code = "no_response", message = "", request_id: requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }
}

/** A client of the server that this page came from. */
export class Api {
  #key = "";
  onUnauthorized = () => {};

  /** Use a key from now on; "" forgets it. */
  use(key) {
    this.#key = key;
  }

  /** Send a request and return the JSON that comes back, or null where nothing does. */
  async send(method, path, { query = {}, body, headers = {}, ...options } = {}) {
    const params = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined && each !== null && each !== "") params.append(name, each);
      }
    }
    const all = { "X-OMP-App": "openproto-inspector", ...headers };
    if (this.#key) all.Authorization = `Bearer ${this.#key}`;
    if (body !== undefined) all["Content-Type"] = "application/json";
    let response;
    try {
      const url = params.size ? `${path}?${params}` : path;
      response = await fetch(url, { method, headers: all, body: body && JSON.stringify(body), ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { message: "The server cannot be reached. Is it still running?" });
    }
    const text = await response.text();
    if (response.ok) return text ? JSON.parse(text) : null;
    const error = new ApiError(response.status, envelope(text));
    if (response.status === 401) this.onUnauthorized(error);
    throw error;
  }

  get(path, query, options) {
    return this.send("GET", path, { query, ...options });
  }
}

function envelope(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return { message: "The answer is not the protocol's. Is there a proxy in between that is unwell?" };
  }
}

/** Return the path of a memory. */
export const pathOf = (id) => `memories/${encodeURIComponent(id)}`;

/** Return the header under which a change happens only to the version that was seen. */
export const ifMatch = (record) => (record.version ? { "If-Match": `"${record.version}"` } : {});

const FIRST_PAGE = 200; // more than a window shows, and no more than it should wait for
const PAGE = 500;

/** A user's memories under filters, page after page. */
export class Listing {
  items = [];
  done = false;
  #cursor = null;
  #loading = null;
  #abort = new AbortController();

  constructor(api, query) {
    Object.assign(this, { api, query });
  }

  /** Load the next page, unless one is loading already. */
  more() {
    if (this.done) return Promise.resolve();
    this.#loading ??= this.#load().finally(() => (this.#loading = null));
    return this.#loading;
  }

  /** Load all pages, and report how far that is. */
  async all(report = () => {}) {
    while (!this.done) {
      await this.more();
      report(this.items.length);
    }
    return this.items;
  }

  /** Give up what is loading. */
  cancel() {
    this.#abort.abort();
  }

  async #load() {
    const query = { ...this.query, limit: this.items.length ? PAGE : FIRST_PAGE, cursor: this.#cursor };
    const page = await this.api.get("memories", query, { signal: this.#abort.signal });
    for (const record of page.items) this.items.push({ record });
    this.#cursor = page.next_cursor ?? null;
    this.done = this.#cursor === null;
  }
}
