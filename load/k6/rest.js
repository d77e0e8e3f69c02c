// The REST surface at a steady rate: publish, read the page behind it, list channels.
//
// URLS, TOKEN as in sockets.js; RATE iterations a second (default 50), DURATION (default 60s)
import http from "k6/http";
import { check } from "k6";
import exec from "k6/execution";

const urls = (__ENV.URLS || "http://127.0.0.1:8080").split(",").map((url) => url.replace(/^ws/, "http"));

export const options = {
  scenarios: {
    rest: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE || 50),
      timeUnit: "1s",
      duration: __ENV.DURATION || "60s",
      preAllocatedVUs: 50,
      maxVUs: 200,
    },
  },
  thresholds: {
    http_req_failed: ["rate<0.001"],
    "http_req_duration{name:publish}": ["p(99)<100"],
    "http_req_duration{name:page}": ["p(95)<500"],
    checks: ["rate>0.999"],
    dropped_iterations: ["count==0"],
  },
  summaryTrendStats: ["min", "med", "p(95)", "p(99)", "max", "count"],
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const base = `${urls[number % urls.length]}/v1/channels/k6:rest-${number % 100}/events`;
  const headers = { Authorization: `Bearer ${__ENV.TOKEN}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ type: "k6", data: { number } });
  const published = http.post(base, body, { headers, tags: { name: "publish" } });
  const stored = check(published, { acknowledged: (answer) => answer.status === 200 && answer.json("last") > 0 });
  if (stored && number % 10 === 0) {
    const page = http.get(`${base}?limit=10`, { headers, tags: { name: "page" } });
    check(page, { "a page": (answer) => answer.status === 200 && answer.json("events").length > 0 });
  }
}

export function handleSummary(data) {
  const file = __ENV.SUMMARY;
  return file ? { [file]: JSON.stringify(data, null, 1) } : {};
}
