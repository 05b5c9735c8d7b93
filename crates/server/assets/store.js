// Keeps a page true while it is open: figures, state and countdown by the server's clock, and buying in place.
// Pages work without it. It holds no words of a language; those are in the page, shown or hidden.

const { body } = document;
const one = (css, within = document) => within.querySelector(css);
const all = (css, within = document) => within.querySelectorAll(css);
const number = new Intl.NumberFormat(document.documentElement.lang);
// From one half to one and a half of it, so that a crowd does not come back as one.
const about = (ms) => ms * (0.5 + Math.random());
const ask = (url, options) => fetch(url, { cache: "no-store", signal: AbortSignal.timeout(15_000), ...options });

// The clock that decides is the server's.

// Unlike Date.now(), it does not jump when somebody sets the clock.
const here = () => performance.timeOrigin + performance.now();
const [navigation] = performance.getEntriesByType("navigation");
// How far the server is ahead. A message of its time is late, by its way or by a cache that has kept it, so the largest
// word is nearest to the truth; it fades, since clocks drift.
let ahead = body.dataset.serverNow - performance.timeOrigin - (navigation?.responseStart ?? 0);
let set = here();
const now = () => here() + ahead;

function setClock(serverTime) {
  const time = here();
  ahead = Math.max(ahead - (time - set) / 5_000, Date.parse(serverTime) - time);
  set = time;
}

// The two largest units, as `moment::span` writes them on the server.
function span(ms) {
  const names = body.dataset.units.split(" ");
  const sizes = [86400, 3600, 60, 1];
  let rest = Math.ceil(ms / 1000);
  const first = sizes.findIndex((size) => rest >= size);
  if (first < 0) return `0\u00a0${names[3]}`;
  return sizes.slice(first, first + 2).map((size, at) => {
    const count = Math.floor(rest / size);
    rest %= size;
    return count && `${count}\u00a0${names[first + at]}`;
  }).filter(Boolean).join(" ");
}

// A sale. What is known of it is in its data attributes.

// As `SaleView::state` on the server.
function stateOf({ state, starts, ends, total, remaining, reserved, paused }, time = now()) {
  if (state === "gone") return state;
  if (time >= ends) return "ended";
  if (+remaining === 0) return +reserved ? "held" : "sold-out";
  if (paused === "true") return "paused";
  if (time < starts) return starts - time <= 60_000 ? "soon" : "upcoming";
  return remaining * 10 <= total ? "few-left" : "live";
}

function enter(sale, state) {
  sale.dataset.state = state;
  for (const part of all("[data-show]", sale)) part.hidden = !part.dataset.show.split(" ").includes(state);
  const buy = one("[data-action=buy]", sale);
  if (!buy) return;
  buy.disabled = state !== "live" && state !== "few-left";
  // Enter in the field presses the first button that submits, and nothing at all where that one is disabled.
  buy.type = buy.disabled ? "button" : "submit";
}

// The one live region: changes of state and coarse milestones, no ticks.
function say(what) {
  for (const words of all("template[data-says]")) {
    const found = one(`[data-say=${what}]`, words.content);
    if (found) one("[data-heard]").textContent = found.textContent;
  }
}

function turn(sale, state) {
  if (state === sale.dataset.state) return;
  enter(sale, state);
  say(state);
}

function apply(sale, status) {
  const known = sale.dataset;
  const before = known.remaining / known.total;
  const window = [Date.parse(status.startsAt), Date.parse(status.endsAt)];
  const written = +known.starts === window[0] && +known.ends === window[1]
    && +known.total === status.totalStock && known.name === status.name;
  [known.starts, known.ends] = window;
  known.paused = status.paused;
  known.reserved = status.reserved;
  figure(sale, "remaining", status.remainingStock);
  figure(sale, "sold", status.totalSold);
  if (known.state === "gone") known.state = "";
  turn(sale, stateOf(known));
  const left = known.remaining / known.total;
  if (known.state === "live") {
    if (before > 0.25 && left <= 0.25) say("quarter");
    else if (before > 0.5 && left <= 0.5) say("half");
  }
  if (!written) rewrite();
}

function figure(sale, field, value) {
  sale.dataset[field] = value;
  for (const part of all(`[data-field=${field}]`, sale)) {
    if (part.localName === "meter") part.value = value;
    else part.textContent = number.format(value);
  }
}

// Names, dates and prices are written by the server, so when one has changed, its part of the page is fetched anew.
let rewriting;
function rewrite() {
  rewriting ??= setTimeout(async () => {
    try {
      const reply = await ask(location.pathname, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      for (const part of all("[data-part]")) {
        const fresh = one(`[data-part=${part.dataset.part}]`, page);
        if (fresh) part.replaceWith(fresh);
      }
      const [sale, fresh] = [one("article[data-sale-id]"), one("article[data-sale-id]", page)];
      if (sale && fresh) Object.assign(sale.dataset, { name: fresh.dataset.name, total: fresh.dataset.total });
      for (const each of all("[data-sale-id]")) enter(each, stateOf(each.dataset));
    } catch { /* The next event that tells of the change tries again. */ }
    rewriting = undefined;
  }, about(1_500));
}

let timer;
function tick() {
  clearTimeout(timer);
  let next = 1_000;
  // One moment for all: were it another for the state, a start could fall in between and wait for the next tick.
  const time = now();
  for (const sale of all("[data-sale-id]")) {
    turn(sale, stateOf(sale.dataset, time));
    for (const part of all("[data-until]", sale)) {
      const left = Math.max(0, sale.dataset[part.dataset.until] - time);
      const text = span(left);
      if (part.textContent !== text) part.textContent = text;
      next = Math.min(next, left % 1_000 || 1_000);
    }
    const final = sale.dataset.state === "soon" && sale.dataset.starts - time <= 10_000;
    if (sale.toggleAttribute("data-final", final) && !sale.told) say("final");
    sale.told = final;
  }
  watch();
  timer = setTimeout(tick, Math.ceil(next));
}

// The line to the shop: an event stream; where there is none, a question every few seconds.

let stream, again, round = 0, asked = 0;
// When the stream was opened, when the shop was heard last, and since when it has not been reached.
let opened = 0, heard = performance.now(), lost = 0;
// The time of what is shown, by the server's clock.
let asOf = +body.dataset.serverNow;
// The stream of one sale gives a sign of life; that of all sales is silent while nothing changes.
const steady = Boolean(one("article[data-sale-id]"));

function hear(statuses) {
  heard = performance.now();
  lost = asked = 0;
  for (const status of statuses) {
    setClock(status.serverTime);
    const sale = one(`[data-sale-id="${status.saleId}"]`);
    if (sale) apply(sale, status);
    else rewrite();
  }
  asOf = now();
  tick();
}

function gone() {
  heard = performance.now();
  lost = 0;
  const sale = one("article[data-sale-id]");
  if (sale) turn(sale, "gone");
  else rewrite();
}

function lose() {
  if (!lost && !steady) asOf = now();
  lost ||= performance.now();
  tick();
}

function watch() {
  const time = performance.now();
  const line = lost && time - lost > 2_000 ? "away" : steady && time - heard > 20_000 ? "slow" : "";
  if (stream && steady && time - Math.max(heard, opened) > (heard > opened ? 20_000 : 6_000)) poll();
  const before = body.dataset.line ?? "";
  if (line === before) return;
  body.dataset.line = line;
  one("[data-bar]").hidden = !line;
  for (const part of all("[data-line-show]")) part.hidden = part.dataset.lineShow !== line;
  for (const part of all("[data-field=as-of]")) part.textContent = new Date(asOf).toISOString().slice(11, 19);
  if (line === "away") say(line);
  else if (before === "away") say("back");
}

function rest() {
  round++;
  clearTimeout(again);
  stream?.close();
  stream = undefined;
}

// The browser comes back to a stream by itself, after a time that the server draws by lot for each.
function listen() {
  rest();
  opened = performance.now();
  stream = new EventSource(body.dataset.events);
  stream.addEventListener("sale", ({ data }) => hear([JSON.parse(data)]));
  stream.addEventListener("gone", gone);
  if (!steady) stream.addEventListener("open", () => { lost = asked = 0; });
  stream.addEventListener("error", ({ target }) => {
    lose();
    // Refused, not cut.
    if (target === stream && target.readyState === EventSource.CLOSED) poll();
  });
}

async function poll() {
  rest();
  const mine = round;
  let wait = 3_000;
  try {
    const reply = await ask(body.dataset.status);
    const status = reply.ok && await reply.json();
    if (mine !== round) return;
    if (reply.ok) hear([status].flat());
    else if (reply.status === 404) gone();
    else throw wait = 1_000 * (reply.headers.get("Retry-After") ?? 5);
  } catch {
    if (mine !== round) return;
    lose();
  }
  // Now and then it is worth trying the stream again.
  again = setTimeout(++asked % 8 ? poll : listen, about(wait));
}

// A page that nobody sees needs no stream; it catches up when it is seen again.
let sleep;
document.addEventListener("visibilitychange", () => {
  clearTimeout(sleep);
  if (document.hidden) sleep = setTimeout(rest, 30_000);
  else if (!stream || performance.now() - heard > 16_000) listen();
  tick();
});
addEventListener("pageshow", ({ persisted }) => persisted && listen());
addEventListener("pagehide", rest);
addEventListener("online", listen);

// Buying in place. It is the form's own request, and the answer is the server's own page.

async function buy(form) {
  // A double click is one purchase.
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  try {
    const fields = new URLSearchParams(new FormData(form));
    const reply = await ask(form.action, { method: "POST", body: fields, headers: { Accept: "text/html" } });
    if (!reply.headers.get("Content-Type")?.startsWith("text/html")) throw reply;
    answer(new DOMParser().parseFromString(await reply.text(), "text/html"));
  } catch {
    for (const old of all(".answer:not([data-lost])")) old.remove();
    focus(one("[data-lost]"));
  }
  form.ariaBusy = "false";
}

function answer(page) {
  const [panel, sale, main] = [".panel", "article", "main"].map((css) => one(css, page));
  // Somebody in between may have answered, with a page of his own.
  if (!main) throw page;
  document.title = page.title;
  if (!panel) return one("main").replaceWith(main);
  // What is put in place later is not for the browser to focus, but for us.
  const first = one("[autofocus]", panel);
  first?.removeAttribute("autofocus");
  one(".panel").replaceWith(panel);
  const known = one("article").dataset;
  for (const field of ["remaining", "sold"]) figure(one("article"), field, sale.dataset[field]);
  known.reserved = sale.dataset.reserved;
  known.paused = sale.dataset.paused;
  enter(one("article"), stateOf(known));
  focus(first);
  // Loaded again, the page shows the order, and sends nothing twice.
  const mine = one("[data-mine]", panel);
  if (mine) history.replaceState(null, "", mine.href);
  follow();
}

function focus(part) {
  if (!part) return;
  part.hidden = false;
  part.focus();
}

// An order that is RESERVED is soon CONFIRMED.
let following;
function follow(tries = 0) {
  clearTimeout(following);
  const order = one("[data-order][data-status=RESERVED]");
  if (!order || tries > 40) return;
  following = setTimeout(async () => {
    try {
      const { status } = await (await ask(order.dataset.order)).json();
      if (status === "CONFIRMED") settle(order, status);
    } catch { /* It is asked again. */ }
    follow(tries + 1);
  }, about(Math.min(200 * 1.4 ** tries, 10_000)));
}

function settle(order, status) {
  order.dataset.status = status;
  for (const part of all("[data-order-show]", order)) part.hidden = part.dataset.orderShow !== status;
  one("[data-heard]").textContent = order.textContent;
}

document.addEventListener("submit", (event) => {
  // A lookup is a page of its own.
  if (event.submitter?.formMethod === "get") return;
  event.preventDefault();
  buy(event.target);
});
document.addEventListener("click", ({ target }) => target.closest("[data-action=again]") && buy(one("#buy-form")));

tick();
listen();
follow();
