// The campaign page: live panels, burn-up, device field, and the device table that only its reader moves.
import { Chart } from "./chart.js";
import { DeviceField } from "./field.js";
import { Live } from "./live.js";
import { follow } from "./parts.js";
import { setNow, update } from "./times.js";

const root = document.getElementById("campaign");
const bar = () => document.getElementById("panel-statebar");

setNow(bar().dataset.asOf);
update();
const chart = new Chart(document.getElementById("burnup-chart"));
const field = new DeviceField(document.getElementById("device-field"), root);
follow("devices", () => field.remember());

root.addEventListener("rollwave:changed", (event) => {
  if (event.detail.name === "statebar") {
    setNow(bar().dataset.asOf);
    chart.add(bar().dataset.asOf, JSON.parse(bar().dataset.counts));
  }
  if (event.detail.name === "head") chart.soon();
});
root.addEventListener("rollwave:differs", (event) => {
  const link = document.getElementById("devices-refresh");
  link.hidden = event.detail === 0;
  link.textContent = `${event.detail.toLocaleString("en")} changed · refresh`;
});
for (const fold of document.querySelectorAll("details.fold")) {
  fold.addEventListener("toggle", () => { chart.resize(); field.resize(); });
}
if (root.dataset.final !== "true") new Live(root);
