// Questions before an action: [data-dialog] links are fetched and shown as a modal <dialog>. Without this script the
// links lead to the same questions as pages.
const asksForName = (form) => form.querySelector("[data-expected]");
const same = (a, b) => a.trim().toLowerCase() === b.trim().toLowerCase();

async function ask(link) {
  link.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(link.href, { headers: { "X-Fragment": "dialog" } });
    if (answer.redirected || !answer.ok) return location.assign(link.href);
    const holder = document.createElement("template");
    holder.innerHTML = await answer.text();
    const dialog = holder.content.querySelector("dialog");
    if (!dialog) return location.assign(link.href);
    show(dialog, link);
  } catch {
    location.assign(link.href);
  } finally {
    link.removeAttribute("aria-busy");
  }
}

function show(dialog, opener) {
  document.querySelector("dialog[open]")?.close();
  dialog.removeAttribute("open");
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    // The panel may have been drawn again meanwhile: look the button up by its address.
    const back = opener.isConnected ? opener : document.querySelector(`[data-dialog][href="${opener.getAttribute("href")}"]`);
    back?.focus();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.showModal();
  for (const form of dialog.querySelectorAll("form")) check(form);
}

function check(form) {
  const input = asksForName(form);
  const button = input && form.querySelector("button[data-guarded]");
  if (button) button.disabled = !same(input.value, input.dataset.expected);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-dialog]");
  if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    ask(link);
  }
  const close = event.target.closest?.("[data-close]");
  if (close?.closest("dialog:modal")) {
    event.preventDefault();
    close.closest("dialog").close();
  }
});
document.addEventListener("keydown", (event) => {
  const link = event.target.closest?.("a[role=button]");
  if (link && event.key === " ") {
    event.preventDefault();
    link.click();
  }
});
document.addEventListener("input", (event) => event.target.form && check(event.target.form));
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.target.dataset.sent) return event.preventDefault(); // a second click sends nothing again
  event.target.dataset.sent = "true";
  event.submitter?.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
  }
});
for (const form of document.forms) check(form);
