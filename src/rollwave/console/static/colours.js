// Colours of the stylesheet for canvases, in the theme that is in force.
const probe = document.createElement("i");
probe.hidden = true;
probe.style.forcedColorAdjust = "none"; // else every state is black where the system forces its colours

/** The colour of a custom property, as [red, green, blue] from 0 to 255. */
export function rgb(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
}
export const css = (name, alpha = 1) => `rgb(${rgb(name).join(" ")} / ${alpha})`;

/** Call `use` when the theme of the system changes. The switch of the console loads the page again. */
export const onTheme = (use) => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", use);
