// Makes each <time data-relative> relative to now; its title keeps the full time in UTC.
const MINUTE = 60, HOUR = 3600, DAY = 86400;
let ahead = 0; // milliseconds by which the server's clock is ahead of this machine's

export const now = () => Date.now() + ahead;

/** Follow the server's clock. `iso`: its time now. */
export function setNow(iso) {
  const at = Date.parse(iso);
  if (!Number.isNaN(at)) ahead = Math.abs(at - Date.now()) < 3000 ? 0 : at - Date.now();
}

/** A span of seconds with at most two units, such as "1 h 48 min". */
export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  if (seconds < DAY) {
    const minutes = Math.floor((seconds % HOUR) / MINUTE);
    return `${Math.floor(seconds / HOUR)} h${minutes ? ` ${minutes} min` : ""}`;
  }
  const hours = Math.floor((seconds % DAY) / HOUR);
  return `${Math.floor(seconds / DAY)} d${hours && seconds < 3 * DAY ? ` ${hours} h` : ""}`;
}

/** A moment relative to now, such as "3 min ago" or "in 2 h". */
export function relative(at) {
  const seconds = (now() - at) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
}

/** Hours and minutes in UTC, with the day if it is another one than today. `fine`: with seconds. */
export function clock(at, fine = false) {
  const iso = new Date(at).toISOString();
  const today = new Date(now()).toISOString().slice(0, 10);
  return (iso.slice(0, 10) === today ? "" : `${iso.slice(5, 10)} `) + iso.slice(11, fine ? 19 : 16);
}

export function update(root = document) {
  for (const each of root.querySelectorAll("time[data-relative]")) {
    const at = Date.parse(each.dateTime);
    if (Number.isNaN(at)) continue;
    const text = each.dataset.relative === "clock" ? `${clock(at)} UTC` : relative(at);
    if (each.textContent !== text) each.textContent = text;
  }
}

update();
setInterval(() => document.hidden || update(), 5000);
document.addEventListener("visibilitychange", () => document.hidden || update());
document.addEventListener("rollwave:changed", (event) => update(event.target));
