// The list of campaigns: takes over what htmx has read, so that focus, selection and scrolling stay.
import { morph } from "./morph.js";

const next = document.getElementById("campaign-next");

new MutationObserver(() => {
  const wanted = next.querySelector("#campaign-rows");
  if (!wanted) return;
  next.replaceChildren();
  document.getElementById("problem").replaceChildren();
  const rows = document.querySelector("#campaign-list > #campaign-rows");
  if (!rows) return;
  morph(rows, wanted);
  rows.dispatchEvent(new CustomEvent("rollwave:changed", { bubbles: true, detail: { name: "campaigns" } }));
}).observe(next, { childList: true });
