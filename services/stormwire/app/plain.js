// The plain page: sign in, publish, follow, and read back, with nothing but what a browser has.
'use strict';

const byId = (id) => document.getElementById(id);
const state = byId('state');
const problem = byId('problem');
const events = byId('events');
let access = '';
let refresh = '';
let socket;
let channel = '';
let place; // of the newest event, as epoch and offset
let oldest;
let pause = 250;

async function call(path, body, method) {
  const headers = { 'Content-Type': 'application/json' };
  if (access) headers.Authorization = `Bearer ${access}`;
  const answer = await fetch(path, {
    method: method ?? (body ? 'POST' : 'GET'),
    headers,
    body: body && JSON.stringify(body),
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.message ?? `the server answered ${answer.status}`);
  return said;
}

function attempt(work) {
  return async (event) => {
    event?.preventDefault();
    problem.textContent = '';
    try {
      await work(event);
    } catch (error) {
      problem.textContent = error.message;
    }
  };
}

function took(tokens) {
  access = tokens.access_token;
  refresh = tokens.refresh_token;
  setTimeout(attempt(renew), tokens.expires_in * 750);
}

async function renew() {
  if (!refresh) return;
  took(await call('/v1/auth/refresh', { refresh_token: refresh }));
  say({ op: 'refresh', id: -1, token: access });
}

function say(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function show(event, epoch, atTop) {
  const item = document.createElement('li');
  const when = document.createElement('small');
  when.textContent = `${new Date(event.ts).toLocaleTimeString()} ${event.from.slice(0, 8)} `;
  const text = event.data?.text ?? JSON.stringify(event.data ?? event.data_base64);
  item.append(when, text);
  const isAtEnd = events.scrollHeight - events.scrollTop - events.clientHeight < 40;
  if (atTop) events.prepend(item);
  else events.append(item);
  if (isAtEnd && !atTop) events.scrollTop = events.scrollHeight;
  if (!atTop) place = { epoch, offset: event.offset };
  if (atTop || !oldest) oldest = { epoch, offset: event.offset };
}

function open() {
  socket?.close();
  const url = new URL('/v1/ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const own = (socket = new WebSocket(url, 'stormwire.v1.json'));
  own.onopen = () => say({ op: 'connect', id: 0, token: access });
  own.onmessage = ({ data }) => {
    for (const message of [JSON.parse(data)].flat()) heard(message);
  };
  own.onclose = () => {
    if (own !== socket || !access) return;
    state.textContent = 'reconnecting';
    pause = Math.min(pause * 2, 10_000);
    setTimeout(open, Math.random() * pause);
  };
}

function heard(message) {
  if (message.op === 'connected') {
    pause = 250;
    state.textContent = 'connected';
    say({ op: 'subscribe', id: 1, channel, since: place ?? { last: 50 } });
  } else if (message.op === 'events') {
    for (const event of message.events) show(event, message.epoch, false);
  } else if (message.op === 'gap') {
    problem.textContent = 'Some events can not be given any more.';
  } else if (message.op === 'error') {
    problem.textContent = message.message;
  }
}

byId('sign-in').addEventListener('submit', attempt(async (event) => {
  const form = new FormData(event.target);
  const account = { username: form.get('username'), password: form.get('password') };
  if (event.submitter?.value === 'register') await call('/v1/auth/register', account);
  took(await call('/v1/auth/login', account));
  byId('sign-in').hidden = true;
  byId('channel').hidden = false;
  follow(byId('subscribe').elements.channel.value);
}));

function follow(name) {
  channel = name;
  place = oldest = undefined;
  events.replaceChildren();
  open();
}

byId('subscribe').addEventListener('submit', attempt((event) =>
  follow(event.target.elements.channel.value)));

byId('older').addEventListener('click', attempt(async () => {
  if (!oldest) return;
  const path = `/v1/channels/${encodeURIComponent(channel)}/events`;
  const page = await call(`${path}?before=${oldest.epoch}:${oldest.offset}&limit=50`);
  for (const event of page.events.reverse()) show(event, page.epoch, true);
}));

byId('publish').addEventListener('submit', attempt(async (event) => {
  const input = event.target.elements.text;
  const path = `/v1/channels/${encodeURIComponent(channel)}/events`;
  await call(path, { type: 'message', data: { text: input.value } });
  input.value = '';
}));

byId('sign-out').addEventListener('click', attempt(async () => {
  const ended = refresh;
  access = refresh = '';
  socket?.close();
  await call('/v1/auth/logout', { refresh_token: ended });
  location.reload();
}));
