// Ticks the countdowns by the server's clock, and opens a sale when its start has come. Nothing else:
// the pages work without it. It holds no words of a language; those are in the page, shown or hidden.

// What the server's clock is ahead of this one. The page's time is that of its first byte, not of this line.
const serverNow = Number(document.body.dataset.serverNow);
const [navigation] = performance.getEntriesByType("navigation");
const sinceArrival = navigation ? performance.now() - navigation.responseStart : 0;
const skew = serverNow - (Date.now() - sinceArrival);

// The two largest units, as `moment::span` writes them on the server.
function span(ms) {
  const seconds = Math.ceil(ms / 1000);
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  let rest = seconds;
  return units.slice(first, first + 2).map(([name, size]) => {
    const count = Math.floor(rest / size);
    rest %= size;
    return count && `${count}\u00a0${name}`;
  }).filter(Boolean).join(" ");
}

function openSale(sale) {
  sale.dataset.state = "live";
  for (const part of sale.querySelectorAll("[data-show]")) part.hidden = part.dataset.show !== "live";
  const buy = sale.querySelector("[data-action=buy]");
  if (buy) buy.disabled = false;
}

function tick() {
  let next = 1000;
  for (const timer of document.querySelectorAll("[data-countdown-to]")) {
    const left = Math.max(0, timer.dataset.countdownTo - Date.now() - skew);
    const text = span(left);
    if (timer.textContent !== text) timer.textContent = text;
    const sale = timer.closest("[data-sale-id]");
    if (left === 0 && sale?.dataset.state === "upcoming") openSale(sale);
    next = Math.min(next, left % 1000 || 1000);
  }
  setTimeout(tick, next);
}
tick();

// LIVE UPDATES (server-sent events) belong here. Each sale is a [data-sale-id] with a data-state; its
// numbers are [data-field=remaining], [data-field=sold] and the meter [data-field=meter].
