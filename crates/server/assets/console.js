// A sale, live: figures, charts, verdict and decisions from one event stream. The page works without it; what it adds
// is that nothing has to be loaded again. Text from outside is only ever set as text.

const board = document.querySelector("[data-board]");
const path = board.dataset.board;
const spot = (name) => document.querySelector(`[data-live=${name}]`);
const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
// What stands at an axis has room for five letters.
const scale = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const show = (value) => (value === null || value === undefined ? "–" : numbers.format(value));
const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

// Where each value stands in a sample, and how it is shown.
const VALUES = {
  attempts: (s) => s[1], accepted: (s) => s[2], rejected: (s) => s[3], available: (s) => s[4], queue: (s) => s[5],
  lag: (s) => s[6], p50: (s) => inMs(s[7]), p95: (s) => inMs(s[8]), p99: (s) => inMs(s[9]), viewers: (s) => s[10],
};
const inMs = (us) => (us === null || us === undefined ? null : us / 1000);
// As many as ten minutes have seconds; the feed is for looking, the audit trail for searching.
const SAMPLES_MAX = 600, ROWS_MAX = 60, FEED_MAX = 50;

// Drawn filled down to zero; these are never missing.
const AREAS = ["accepted", "available"];

const samples = [];
let held = false;
let latest = null;

function put(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

function make(name, attributes = {}, text) {
  const svg = ["svg", "path", "line", "text", "circle"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// ── Charts ───────────────────────────────────────────────────────────────────────────────────────────────────────

const WIDTH = 360, HEIGHT = 120, LEFT = 2, RIGHT = 40, TOP = 8, BOTTOM = 16;

// The next round number: 1, 2 or 5 times a power of ten.
function ceiling(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

// A line as an SVG path; it breaks where there is no value.
function trace(value, x, y) {
  let open = false;
  return samples.map((sample) => {
    const at = value(sample);
    if (at === null || at === undefined) { open = false; return ""; }
    // "h0" makes a point of a value that stands alone.
    const point = `${open ? "L" : "M"}${x(sample[0]).toFixed(1)} ${y(at).toFixed(1)}${open ? "" : "h0"}`;
    open = true;
    return point;
  }).join("");
}

function draw(chart) {
  const lines = [...chart.querySelectorAll(".legend [data-line]")].map((line) => line.dataset.line);
  const end = samples.at(-1)[0], start = Math.min(samples[0][0], end - 60_000);
  const highest = Math.max(0, ...lines.flatMap((line) => samples.map((sample) => VALUES[line](sample) ?? 0)));
  const top = ceiling(highest);
  const x = (at) => LEFT + ((at - start) / (end - start)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" });
  for (const value of [0, top / 2, top]) {
    svg.append(make("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    if (value !== top / 2) svg.append(make("text", { x: WIDTH - RIGHT + 5, y: y(value) + 3.5 }, scale.format(value)));
  }
  svg.append(make("text", { x: LEFT, y: HEIGHT - 3 }, clock(start)));
  svg.append(make("text", { x: WIDTH - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, clock(end)));
  for (const line of lines) {
    const drawn = trace(VALUES[line], x, y);
    if (AREAS.includes(line)) svg.append(make("path", { class: "area", d: `${drawn}V${y(0)}H${x(samples[0][0]).toFixed(1)}Z` }));
    svg.append(make("path", { class: "curve", "data-line": line, d: drawn }));
    put(chart.querySelector(`[data-last=${line}]`), show(VALUES[line](samples.at(-1))));
  }
  chart.querySelector(".plot").replaceChildren(svg);
  if (chart.querySelector("details").open) tabulate(chart, lines);
}

// The same figures for whoever does not see the chart: the last minute, newest first.
function tabulate(chart, lines) {
  const rows = samples.slice(-ROWS_MAX).reverse().map((sample) => {
    const row = make("tr");
    row.append(make("td", { class: "num" }, clock(sample[0])));
    for (const line of lines) row.append(make("td", { class: "num" }, show(VALUES[line](sample))));
    return row;
  });
  chart.querySelector("tbody").replaceChildren(...rows);
}

const charts = [...document.querySelectorAll("[data-chart]")];
const drawAll = () => { if (samples.length > 0) charts.forEach(draw); };
for (const chart of charts) chart.querySelector("details").addEventListener("toggle", drawAll);

// ── Figures ──────────────────────────────────────────────────────────────────────────────────────────────────────

const STATES = { UPCOMING: "Upcoming", ENDED: "Ended", ACTIVE: "Live" };

// As the server says it in `SaleView::state`: the most final fact wins.
function state(sale) {
  if (sale.status === "ENDED") return ["ended", "Ended"];
  if (sale.remainingStock === 0) return sale.reserved > 0 ? ["held", "All held"] : ["sold-out", "Sold out"];
  if (sale.paused) return ["paused", "Paused"];
  if (sale.status === "ACTIVE" && sale.remainingStock * 10 <= sale.totalStock) return ["few-left", "Few left"];
  const left = Date.parse(sale.startsAt) - Date.parse(sale.serverTime);
  if (sale.status === "UPCOMING" && left <= 60_000) return ["soon", "Starting soon"];
  return [sale.status === "ACTIVE" ? "live" : "upcoming", STATES[sale.status]];
}

function render() {
  if (held || latest === null || document.hidden) return;
  const { sale } = latest;
  const [key, word] = state(sale);
  const mark = document.querySelector("[data-live=state] .mark");
  mark.dataset.mark = key;
  put(mark, word);
  const figures = {
    remaining: sale.remainingStock, total: sale.totalStock, sold: sale.totalSold, confirmed: sale.confirmed,
    reserved: sale.reserved, epoch: sale.epoch, replicas: latest.replicas, viewers: latest.viewers,
    backlog: latest.auditBacklogRows,
  };
  for (const [name, value] of Object.entries(figures)) put(spot(name), show(value));
  put(spot("spooled"), latest.auditBacklogBytes > 0 ? size(latest.auditBacklogBytes) : "");
  drawAll();
}

const size = (bytes) => (bytes < 2 ** 20 ? `${show(bytes / 2 ** 10)} KiB` : `${show(bytes / 2 ** 20)} MiB`);

// ── Decisions ────────────────────────────────────────────────────────────────────────────────────────────────────

const decisions = [];

function feed() {
  if (held || decisions.length === 0 || document.hidden) return;
  const rows = decisions.map((one) => {
    const row = make("tr", { "data-event": one.eventType });
    const cells = [one.at.slice(11, 23), one.eventType, one.userId, one.unit ?? "", one.orderId ?? ""];
    row.append(...cells.map((text, place) => make("td", { class: place === 2 ? "who" : "num" }, String(text))));
    return row;
  });
  spot("feed").tBodies[0].replaceChildren(...rows);
}

// ── Integrity ────────────────────────────────────────────────────────────────────────────────────────────────────

function judge(verdict) {
  const broken = verdict.checks.filter((check) => !check.holds);
  const names = broken.map((check) => `${check.promise}, ${check.what} (${check.figures})`).join("; ");
  const when = `Checked ${clock(verdict.checkedAt)} UTC, in ${show(verdict.tookMs)} ms.`;
  const told = [broken.length === 0 ? "All promises hold." : `Broken: ${names}.`, verdict.note, when];
  put(spot("verdict"), told.filter(Boolean).join(" "));
  document.querySelector("[data-integrity]").dataset.integrity = broken.length === 0 ? "holds" : "broken";
  const rows = verdict.checks.map((check) => {
    const row = make("tr", check.holds ? {} : { class: "broken" });
    row.append(make("td", {}, check.promise), make("td", {}, check.what), make("td", { class: "num" }, check.figures));
    row.append(make("td", {}, check.holds ? "holds" : "broken"));
    return row;
  });
  const checks = spot("checks");
  checks.hidden = false;
  // What is broken is shown at once; what holds, to whoever asks.
  if (broken.length > 0) checks.open = true;
  checks.querySelector("tbody").replaceChildren(...rows);
}

async function check(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  // Not disabled: that would take the focus away from whoever pressed it by keyboard.
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  put(spot("verdict"), "Counting row by row …");
  try {
    const headers = { "x-csrf-token": board.dataset.csrf, accept: "application/json" };
    const reply = await fetch(`${path}/integrity`, { method: "POST", headers, redirect: "manual" });
    if (reply.type === "opaqueredirect") location.reload();
    else if (reply.ok) judge(await reply.json());
    else put(spot("verdict"), `It cannot be checked: ${(await reply.json()).detail}`);
  } catch {
    put(spot("verdict"), "It cannot be checked: the server does not answer.");
  }
  button.removeAttribute("aria-busy");
}
document.querySelector("[data-act=check]").addEventListener("submit", check);

// ── The stream ───────────────────────────────────────────────────────────────────────────────────────────────────

function say(text) {
  put(spot("link"), text);
}

const stream = new EventSource(`${path}/events`);
stream.addEventListener("open", () => { samples.length = decisions.length = 0; say("Live."); });
stream.addEventListener("error", () => {
  const over = stream.readyState === EventSource.CLOSED;
  say(over ? "No live figures. Load the page again; you may have to sign in." : "The connection is lost; trying again …");
});
stream.addEventListener("live", ({ data }) => {
  latest = JSON.parse(data);
  samples.push(...latest.samples);
  samples.splice(0, Math.max(0, samples.length - SAMPLES_MAX));
  render();
});
// Whatever else is shown: while nothing can be sold, that comes first.
stream.addEventListener("trouble", ({ data }) => {
  const trouble = JSON.parse(data);
  put(spot("why"), trouble ?? "");
  spot("trouble").hidden = trouble === null;
});
stream.addEventListener("decisions", ({ data }) => {
  decisions.unshift(...JSON.parse(data));
  decisions.length = Math.min(decisions.length, FEED_MAX);
  feed();
});
stream.addEventListener("integrity", ({ data }) => { if (!held) judge(JSON.parse(data)); });
stream.addEventListener("gone", () => { stream.close(); say("This sale has been deleted."); });

const hold = document.querySelector("[data-act=hold]");
hold.hidden = false;
hold.addEventListener("click", () => {
  held = !held;
  hold.setAttribute("aria-pressed", String(held));
  say(held ? "Held still: new figures wait." : "Live.");
  render();
  feed();
});
document.addEventListener("visibilitychange", () => { render(); feed(); });
