// Changes an element into a newer version of itself, so that focus, selection, open menus and scrolling stay.
const key = (node) => node.nodeType === 1 ? node.id || node.dataset.key || "" : "";
const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

/** Make `old` equal to `wanted`. Elements with data-keep, and whether a <details> is open, stay as they are. */
export function morph(old, wanted) {
  if (old.nodeType !== 1) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  if ("keep" in old.dataset || old.isEqualNode(wanted)) return;
  attributes(old, wanted);
  // A relative time in the old page differs from the new text, but says the same.
  if (old.nodeName === "TIME" && old.dataset.relative && old.dateTime === wanted.dateTime) return;
  children(old, wanted);
}

function attributes(old, wanted) {
  const keeps = old.nodeName === "DETAILS" || old.nodeName === "DIALOG" ? "open" : "";
  for (const { name } of [...old.attributes]) if (name !== keeps && !wanted.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of wanted.attributes) {
    if (name !== keeps && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function children(old, wanted) {
  const fresh = "fresh" in old.dataset;
  const known = new Map([...old.children].filter(key).map((each) => [key(each), each]));
  let at = old.firstChild;
  for (const next of [...wanted.childNodes]) {
    const keyed = key(next) && known.get(key(next));
    if (keyed && alike(keyed, next)) {
      if (keyed !== at) old.insertBefore(keyed, at);
      else at = at.nextSibling;
      morph(keyed, next);
    } else if (at && !key(at) && !key(next) && alike(at, next)) {
      const here = at;
      at = at.nextSibling;
      morph(here, next);
    } else {
      if (fresh && next.nodeType === 1) next.classList.add("fresh");
      old.insertBefore(next, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}
