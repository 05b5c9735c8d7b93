// The stress test for those who have k6: 2,000 new users a second for 5 s, all after the same stock.
//
//   k6 run -e API_URL=http://localhost:3000 -e SALE_ID=sale_1 stress-test/k6-purchase.js
//
// RATE (attempts per second) and DURATION (such as 5s) may be set too. `flashsale stress` applies the same load
// without k6, counts latency from the intended start, and judges the promises; this script counts what was said.

import http from 'k6/http';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';

const API_URL = (__ENV.API_URL || 'http://localhost:3000').replace(/\/+$/, '');
const SALE_ID = __ENV.SALE_ID || 'sale_1';
const RATE = Number(__ENV.RATE || 2000);
const DURATION = __ENV.DURATION || '5s';

const outcomes = {
  SUCCESS: new Counter('purchase_success'),
  ALREADY_PURCHASED: new Counter('purchase_already_purchased'),
  SOLD_OUT: new Counter('purchase_sold_out'),
};
// Replies that decide nothing: the sale is not open, the server is overloaded, or something is wrong.
const other = new Counter('purchase_other');

export const options = {
  scenarios: {
    flash_sale: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: DURATION,
      preAllocatedVUs: 200,
      maxVUs: 10000,
    },
  },
  thresholds: {
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(95)<500'],
  },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
};

// Runs once, so that all virtual users share it: last run's buyers do not come again.
export function setup() {
  return { run: Date.now().toString(36) };
}

export default function ({ run }) {
  const userId = `k6-${run}-${exec.scenario.iterationInTest}`;
  const reply = http.post(`${API_URL}/api/v1/sale/purchase`, JSON.stringify({ saleId: SALE_ID, userId }), {
    headers: { 'Content-Type': 'application/json' },
  });
  (outcomes[decision(reply)] || other).add(1);
}

function decision(reply) {
  try {
    return reply.status === 200 ? reply.json('status') : undefined;
  } catch (_) {
    return undefined; // no JSON
  }
}

export function handleSummary({ metrics }) {
  const value = (metric, name) => (metrics[metric] && metrics[metric].values[name]) || 0;
  const total = value('http_reqs', 'count');
  const share = (count) => `${count} (${((count * 100) / Math.max(total, 1)).toFixed(2)}%)`;
  const ms = (name) => `${value('http_req_duration', name).toFixed(2)}ms`;
  const told = (metric) => share(value(metric, 'count'));
  const rule = '='.repeat(80);

  const lines = [
    rule,
    `${' '.repeat(20)}FLASH SALE STRESS TEST RESULTS`,
    rule,
    '',
    '📊 REQUEST STATISTICS:',
    `   Total Requests: ${total}`,
    // A rate counts what is true, and what is true here is "failed": `passes` are the failed requests.
    `   Failed Requests: ${share(value('http_req_failed', 'passes'))}`,
  ];
  const dropped = value('dropped_iterations', 'count');
  if (dropped > 0) lines.push(`   Never Sent (too few virtual users): ${dropped}`);
  lines.push(
    '',
    '⏱️  RESPONSE TIME:',
    `   Average: ${ms('avg')}`,
    `   Median (p50): ${ms('med')}`,
    `   p95: ${ms('p(95)')}`,
    `   p99: ${ms('p(99)')}`,
    `   Max: ${ms('max')}`,
    '',
    '🛒 PURCHASE RESULTS:',
    `   SUCCESS: ${told('purchase_success')}`,
    `   ALREADY_PURCHASED: ${told('purchase_already_purchased')}`,
    `   SOLD_OUT: ${told('purchase_sold_out')}`,
  );
  if (value('purchase_other', 'count') > 0) lines.push(`   OTHER: ${told('purchase_other')}`);
  lines.push('', rule, '');
  return { stdout: lines.join('\n') };
}
