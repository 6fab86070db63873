// Links with data-part read one panel again instead of the page. The address stays the page's: Back works.
import { morph } from "./morph.js";

/** Follow the links of the panel `name`. `after`: called when it was read again. */
export function follow(name, after) {
  const panel = () => document.getElementById(`panel-${name}`);

  let shown = location.search;

  async function read(href) {
    const answer = await fetch(href, { headers: { "X-Fragment": name } });
    if (answer.redirected || !answer.ok) return location.assign(href);
    const holder = document.createElement("template");
    holder.innerHTML = await answer.text();
    const wanted = holder.content.querySelector(`#panel-${name}`);
    if (!wanted) return location.assign(href);
    morph(panel(), wanted);
    panel().dispatchEvent(new CustomEvent("rollwave:changed", { bubbles: true, detail: { name } }));
    after();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(`[data-part="${name}"], [data-refresh]`);
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    const href = "refresh" in link.dataset ? location.href : link.href;
    if (href !== location.href) history.pushState(null, "", href);
    shown = location.search;
    read(href).catch(() => location.assign(href));
  });
  addEventListener("popstate", () => {
    if (location.search === shown) return; // only the place on the page is another one
    shown = location.search;
    read(location.href).catch(() => location.reload());
  });
}
