// Keeps the panels of a campaign current: by its stream of events, or by asking if too many pages have a stream.
import { morph } from "./morph.js";
import { setNow } from "./times.js";

const STALE = 15_000, DEAD = 25_000, HIDDEN = 30_000, ASK_EVERY = 5_000;
const STREAMS = 4; // browsers allow six connections to a host over HTTP/1.1: two stay for everything else

export class Live {
  #root; #source = null; #heard = Date.now(); #hide = 0; #retry = 1000; #release = null; #ended = ""; #asking = 0; #id = ""; #trouble = "";

  /** `root`: the element with data-live, the stream's address. */
  constructor(root) {
    this.#root = root;
    this.#id = root.dataset.sequence || "";
    setInterval(() => this.#tell(), 1000);
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.#open());
    if (!document.hidden) this.#open();
  }

  #seen() {
    clearTimeout(this.#hide);
    if (document.hidden) this.#hide = setTimeout(() => this.#close(), HIDDEN);
    else if (!this.#source && !this.#asking) this.#open();
  }

  #open() {
    if (this.#ended || this.#source || this.#asking) return;
    this.#heard = Date.now();
    if (!navigator.locks) return this.#stream(); // pages over plain HTTP cannot count each other
    this.#take().then((got) => (got ? this.#stream() : this.#ask()));
  }

  /** Take one of the places for a stream, which all pages of this server share. */
  async #take() {
    if (this.#release) return true;
    for (let place = 0; place < STREAMS; place += 1) {
      const got = await new Promise((decide) => {
        navigator.locks.request(`rollwave-stream-${place}`, { ifAvailable: true }, (lock) => {
          if (!lock) return decide(false);
          decide(true);
          return new Promise((release) => (this.#release = release));
        });
      });
      if (got) return true;
    }
    return false;
  }

  #stream() {
    if (this.#source || this.#ended) return;
    const address = new URL(this.#root.dataset.live, location.href);
    address.searchParams.set("field", "true");
    if (this.#id) address.searchParams.set("after", this.#id);
    const source = (this.#source = new EventSource(address));
    const on = (name, use) => source.addEventListener(name, (event) => {
      this.#heard = Date.now();
      this.#retry = 1000;
      if (event.lastEventId) this.#id = event.lastEventId;
      use(event.data);
    });
    on("open", () => {});
    on("beat", (data) => setNow(JSON.parse(data).at));
    on("trouble", (data) => (this.#trouble = text(data)));
    on("panel", (data) => this.#panel(JSON.parse(data)));
    on("title", (data) => (document.title = text(data)));
    on("field", (data) => this.#root.dispatchEvent(new CustomEvent("rollwave:field", { detail: JSON.parse(data) })));
    on("end", (data) => this.#end(text(data)));
    source.addEventListener("error", () => source.readyState === EventSource.CLOSED && this.#lost());
  }

  #panel({ name, html }) {
    const old = document.getElementById(`panel-${name}`);
    if (!old) return;
    const holder = document.createElement("template");
    holder.innerHTML = html.trim();
    const wanted = holder.content.querySelector(`#panel-${CSS.escape(name)}`);
    if (!wanted) return;
    morph(old, wanted);
    old.dispatchEvent(new CustomEvent("rollwave:changed", { bubbles: true, detail: { name } }));
    if (name === "head" && old.dataset.final === "true") setTimeout(() => this.#end("final"), 5000);
  }

  /** The server refused the stream: signed out, or it is starting again. */
  async #lost() {
    this.#source = null;
    try {
      const answer = await fetch(`${this.#root.dataset.live}/panels`, { redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401) return this.#end("signed out");
    } catch { /* it is not there: try again */ }
    setTimeout(() => document.hidden || this.#open(), this.#retry * (0.75 + Math.random() / 2));
    this.#retry = Math.min(this.#retry * 2, 15_000);
  }

  /** Ask for the panels again and again, until a stream is free. */
  #ask() {
    this.#asking = setTimeout(async () => {
      this.#asking = 0;
      if (document.hidden) return;
      try {
        const answer = await fetch(`${this.#root.dataset.live}/panels`, { redirect: "manual" });
        if (answer.type === "opaqueredirect" || answer.status === 401) return this.#end("signed out");
        if (answer.ok) {
          const { title, panels, final } = await answer.json();
          for (const [name, html] of Object.entries(panels)) this.#panel({ name, html });
          document.title = title;
          this.#heard = Date.now();
          if (final) return this.#end("final");
        }
      } catch { /* it is not there: ask again */ }
      if (await this.#take()) this.#stream();
      else this.#ask();
    }, ASK_EVERY * (0.9 + Math.random() / 5));
  }

  #end(why) {
    this.#ended = why;
    this.#close();
    this.#tell();
  }

  #close() {
    clearTimeout(this.#asking);
    this.#asking = 0;
    this.#source?.close();
    this.#source = null;
    this.#release?.();
    this.#release = null;
  }

  #tell() {
    const place = document.getElementById("news");
    if (!place) return;
    const quiet = Date.now() - this.#heard;
    const watching = this.#source || this.#asking;
    const stale = !this.#ended && !document.hidden && quiet > STALE;
    if (this.#ended === "signed out") {
      if (place.dataset.said !== "signed out") {
        const link = document.createElement("a");
        link.href = `${this.#root.dataset.login}?next=${encodeURIComponent(location.pathname + location.search)}`;
        link.textContent = "log in";
        place.replaceChildren("signed out · ", link);
      }
    } else {
      const said = stale ? `no news for ${Math.floor(quiet / 1000)} s, reconnecting` : this.#ended === "final" || !watching ? "" : this.#ended || this.#trouble || "live";
      if (place.textContent !== said) place.textContent = said;
    }
    place.dataset.said = this.#ended;
    place.classList.toggle("is-stale", stale || this.#trouble !== "" || this.#ended === "signed out");
    if (stale && quiet > DEAD && this.#source && quiet % 10_000 < 1000) {
      this.#source.close(); // a connection that died without a word
      this.#source = null;
      this.#stream();
    }
  }
}

/** The text of an event: a JSON string or object with `text`, or plain text. */
function text(data) {
  try {
    const read = JSON.parse(data);
    return typeof read === "string" ? read : read.text ?? read.why ?? "";
  } catch {
    return data;
  }
}
