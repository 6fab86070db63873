// The list of campaigns: takes over what htmx has read, so that focus, selection and scrolling stay.
import { morph } from "./morph.js";

const STALE = 15_000;
const next = document.getElementById("campaign-next"), stale = document.getElementById("stale");
let heard = Date.now();

new MutationObserver(() => {
  const wanted = next.querySelector("#campaign-rows");
  if (!wanted) return;
  next.replaceChildren();
  heard = Date.now();
  stale.hidden = true;
  document.getElementById("problem").replaceChildren();
  const rows = document.querySelector("#campaign-list > #campaign-rows");
  if (!rows) return;
  morph(rows, wanted);
  rows.dispatchEvent(new CustomEvent("rollwave:changed", { bubbles: true, detail: { name: "campaigns" } }));
}).observe(next, { childList: true });

setInterval(() => {
  const quiet = Date.now() - heard;
  stale.hidden = document.hidden || quiet < STALE;
  if (!stale.hidden) stale.textContent = `No news for ${Math.floor(quiet / 1000)} s, trying again. The list may be out of date.`;
}, 1000);
document.addEventListener("visibilitychange", () => (heard = Date.now()));
