// Menus are <details>: close them by Escape, by a click elsewhere and when the focus leaves. Copies texts.
const open = () => document.querySelectorAll("details.menu[open]");

document.addEventListener("click", (event) => {
  for (const menu of open()) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of open()) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
document.addEventListener("focusin", (event) => {
  for (const menu of open()) if (!menu.contains(event.target)) menu.open = false;
});

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // pages over plain HTTP have no clipboard
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const text = "copyUrl" in button.dataset ? new URL(button.dataset.copy, location.href).href : button.dataset.copy;
  const before = [...button.childNodes];
  try {
    await copy(text);
    button.replaceChildren("Copied");
  } catch {
    button.replaceChildren(text);
  }
  setTimeout(() => button.replaceChildren(...before), 2000);
});
