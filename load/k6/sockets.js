// Many WebSockets that all receive: each opens, connects, subscribes to one channel, and counts what comes and
// how old it is. `cargo xtask k6` runs several processes of this; testrun.yaml is the same for a cluster.
//
// URLS       gateways, divided by commas (ws:// or wss://)
// TOKEN      may publish and subscribe on k6:*
// SOCKETS    of this process; VUS of them share an event loop each
// CHANNELS   channels that they are spread over
// RATE       events a second that this process publishes over all channels; 0: none
// PROFILE    ramp (default), spike (all at once), soak (an hour)
// RAMP, HOLD seconds to open in, and to stay then
import { WebSocket } from "k6/experimental/websockets";
import { Counter, Trend } from "k6/metrics";
import exec from "k6/execution";

const PROFILES = { ramp: { ramp: 60, hold: 60 }, spike: { ramp: 5, hold: 60 }, soak: { ramp: 120, hold: 3600 } };
const profile = PROFILES[__ENV.PROFILE || "ramp"];
const urls = (__ENV.URLS || "ws://127.0.0.1:8080").split(",");
const sockets = Number(__ENV.SOCKETS || 1000);
const vus = Number(__ENV.VUS || Math.max(1, Math.ceil(sockets / 250)));
const channels = Number(__ENV.CHANNELS || 100);
const rate = Number(__ENV.RATE || 0);
const ramp = Number(__ENV.RAMP || profile.ramp);
const hold = Number(__ENV.HOLD || profile.hold);
const publisher = rate > 0 ? 1 : 0;

const opened = new Counter("stormwire_opened");
const receiving = new Counter("stormwire_receiving");
const received = new Counter("stormwire_received");
const refused = new Counter("stormwire_refused");
const lost = new Counter("stormwire_connections_lost");
const gaps = new Counter("stormwire_gaps");
const published = new Counter("stormwire_published");
const acknowledged = new Counter("stormwire_acknowledged");
const delivery = new Trend("stormwire_delivery", true);
const acknowledgement = new Trend("stormwire_acknowledgement", true);

export const options = {
  scenarios: {
    sockets: { executor: "per-vu-iterations", vus: vus + publisher, iterations: 1, maxDuration: `${ramp + hold + 120}s` },
  },
  // The objectives: everybody connects and receives, nobody is cut off or left short, and p99 is below 100 ms.
  thresholds: {
    stormwire_opened: [`count==${sockets}`],
    stormwire_receiving: [`count==${sockets}`],
    stormwire_connections_lost: ["count==0"],
    stormwire_gaps: ["count==0"],
    stormwire_refused: ["count==0"],
    stormwire_delivery: ["p(99)<100"],
    ...(publisher ? { stormwire_acknowledgement: ["p(99)<100"] } : {}),
  },
  summaryTrendStats: ["min", "med", "p(95)", "p(99)", "max", "count"],
};

const channelOf = (number) => `k6:${number % channels}`;

function subscribe(number, until, measured) {
  const socket = new WebSocket(`${urls[number % urls.length]}/v1/ws`, "stormwire.v1.json");
  let seen = false;
  socket.onopen = () => {
    socket.send(JSON.stringify([
      { op: "connect", id: 1, token: __ENV.TOKEN },
      { op: "subscribe", id: 2, channel: channelOf(number) },
    ]));
  };
  const heard = (message) => {
    if (message.op === "subscribed") {
      opened.add(1);
    } else if (message.op === "events") {
      received.add(message.events.length);
      if (!seen) {
        seen = true;
        receiving.add(1);
      }
      const now = Date.now();
      for (const event of message.events) {
        if (event.data.at > measured) {
          delivery.add(now - event.data.at);
        }
      }
    } else if (message.op === "error") {
      refused.add(1);
    } else if (message.op === "gap") {
      gaps.add(1);
    }
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    (Array.isArray(message) ? message : [message]).forEach(heard);
  };
  let ended = false;
  socket.onclose = () => {
    if (!ended) {
      lost.add(1);
    }
  };
  setTimeout(() => {
    ended = true;
    socket.close();
  }, until - Date.now());
}

// One connection that publishes to each channel in turn, without waiting for the answers.
function publish(until, measured) {
  const socket = new WebSocket(`${urls[0]}/v1/ws`, "stormwire.v1.json");
  const sent = {};
  let seq = 0;
  socket.onopen = () => {
    socket.send(JSON.stringify({ op: "connect", id: 0, token: __ENV.TOKEN, producer: `k6-${exec.instance.currentTestRunDuration}-${Math.random()}` }));
    const timer = setInterval(() => {
      const now = Date.now();
      if (now > until) {
        clearInterval(timer);
        setTimeout(() => socket.close(), 1000);
        return;
      }
      seq += 1;
      sent[seq] = now;
      socket.send(JSON.stringify({ op: "publish", id: seq, channel: channelOf(seq), seq, events: [{ type: "k6", data: { at: now } }] }));
      published.add(1);
    }, 1000 / rate);
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    for (const one of Array.isArray(message) ? message : [message]) {
      if (one.op === "published") {
        acknowledged.add(1);
        if (sent[one.id] > measured) {
          acknowledgement.add(Date.now() - sent[one.id]);
        }
        delete sent[one.id];
      } else if (one.op === "error") {
        refused.add(1);
      }
    }
  };
}

export default function () {
  const vu = exec.vu.idInTest - 1;
  const began = exec.scenario.startTime;
  const measured = began + ramp * 1000;
  const until = began + (ramp + hold) * 1000;
  if (publisher && vu === vus) {
    publish(until - 2000, measured);
    return;
  }
  for (let number = vu; number < sockets; number += vus) {
    setTimeout(() => subscribe(number, until, measured), (ramp * 1000 * number) / sockets);
  }
}

export function handleSummary(data) {
  const file = __ENV.SUMMARY;
  return file ? { [file]: JSON.stringify(data, null, 1) } : {};
}
