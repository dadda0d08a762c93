// A node of an Umbel federation, without Python: linear regression by gradient descent on the rows of a CSV file.
// Written from docs/wire.md and proto/umbel/v1 alone, and in their words.
// PROTO=proto node client.js ADDRESS NAME APP ROWS.csv STATE
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const timers = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const { loadSync } = require('@grpc/proto-loader');
const { blake3 } = require('@noble/hashes/blake3');

const { UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL, UNKNOWN, UNAUTHENTICATED, NOT_FOUND } = grpc.status;
const AGAIN = [UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL, UNKNOWN, UNAUTHENTICATED];
const [address, name, app, data, state] = process.argv.slice(2);
const includeDirs = [process.env.PROTO ?? `${__dirname}/../../../proto`];
const reading = { includeDirs, keepCase: true, longs: String, oneofs: true, defaults: true };
const calls = loadSync('umbel/v1/node.proto', reading)['umbel.v1.NodeService'];
const sha256 = (bytes) => crypto.createHash('sha256').update(bytes).digest();
const failed = (word, message) => Object.assign(new Error(message), { word });

// The address, the key, the channel
function parsed(text) {
  const url = new URL(text);
  const bytes = Buffer.from(url.pathname.slice(1), 'base64url');
  const body = bytes.subarray(0, -4);
  if (body[0] !== 1 || body.length < 17 || !sha256(body).subarray(0, 4).equals(bytes.subarray(-4))) {
    throw new Error('the address was cut off or mistyped, or is of a later version: ask for it again');
  }
  const pem = `-----BEGIN CERTIFICATE-----\n${body.toString('base64', 17)}\n-----END CERTIFICATE-----\n`;
  const authority = body.length > 17 ? Buffer.from(pem) : null;
  return { target: `${url.hostname}:${url.port || 8443}`, ticket: body.toString('base64url', 1, 17), authority };
}

fs.mkdirSync(state, { recursive: true, mode: 0o700 });
const keyFile = `${state}/key.pem`;
if (!fs.existsSync(keyFile)) {
  const { privateKey } = crypto.generateKeyPairSync('ed25519');
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  fs.writeFileSync(`${keyFile}.new`, pem, { mode: 0o600, flush: true });
  fs.renameSync(`${keyFile}.new`, keyFile);
}
const key = crypto.createPrivateKey(fs.readFileSync(keyFile));
const { target, ticket, authority } = parsed(address);
const channel = new grpc.Client(target, grpc.credentials.createSsl(authority), {
  'grpc.keepalive_time_ms': 30_000, 'grpc.keepalive_timeout_ms': 20_000, 'grpc.keepalive_permit_without_calls': 1,
  'grpc.http2.max_pings_without_data': 0,
  'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1_000, // backoff() decides, not gRPC
});

// Calls. What is signed is what is sent, so each message is serialized once.
function prepared(call, message, session) {
  const { path, requestSerialize, responseDeserialize } = calls[call];
  const bytes = requestSerialize(message);
  const metadata = new grpc.Metadata();
  if (session) {
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(++session.counter);
    const text = [Buffer.from('umbel.v1 call\n'), session.id, counter, sha256(bytes), Buffer.from(path)];
    metadata.set('umbel-session-bin', session.id);
    metadata.set('umbel-counter', String(session.counter));
    metadata.set('umbel-signature-bin', crypto.sign(null, Buffer.concat(text), key));
  }
  return [path, (ready) => ready, responseDeserialize, bytes, metadata];
}

const answered = (start) => new Promise((done, fail) => start((error, answer) => (error ? fail(error) : done(answer))));
const ask = (...call) =>
  answered((end) => channel.makeUnaryRequest(...prepared(...call), { deadline: Date.now() + 30_000 }, end));
const listen = (...call) => channel.makeServerStreamRequest(...prepared(...call), {});

async function upload(bytes, digest, session) {
  const { received, complete } = await ask('StatBlob', { digest }, session);
  if (complete) return;
  let stream;
  const head = { digest, size: bytes.length, offset: received };
  const [path, same, read, first, metadata] = prepared('WriteBlob', { head }, session);
  const end = answered((ended) => (stream = channel.makeClientStreamRequest(path, same, read, metadata, {}, ended)));
  const write = (message) => Promise.race([end, new Promise((sent) => stream.write(message, sent))]);
  await write(first);
  for (let start = Number(received); start < bytes.length; start += session.chunk) {
    await write(calls.WriteBlob.requestSerialize({ data: bytes.subarray(start, start + session.chunk) }));
  }
  stream.end();
  await end; // if it is not complete, Report says NOT_FOUND
}

let kept = { digest: Buffer.alloc(0) }; // the last model: other tasks of its round name it, too
async function download({ digest, content }) {
  if (kept.digest.equals(digest)) return kept.bytes;
  const parts = content ? [content] : [];
  const read = async (used) => {
    const offset = Buffer.concat(parts).length; // it goes on where it broke off
    for await (const part of listen('ReadBlob', { digest, offset }, used)) parts.push(part.data);
  };
  if (!content) await steadily(read);
  const bytes = Buffer.concat(parts);
  if (!digest.equals(blake3(bytes))) throw new Error('the model does not have its digest');
  return (kept = { digest, bytes }).bytes;
}

// Sessions
let session; // the open one
let refused = 0; // how often none could be opened, one after the other
const waiting = []; // who needs one
function* backoff(begun = Date.now()) {
  yield 0;
  const most = () => (Date.now() - begun < 60_000 ? 1_000 : 30_000);
  for (let wait = 100; ; wait = Math.min(wait * 2, most())) yield wait * (0.5 + Math.random() / 2);
}

// Make a call in the open session until it is known to have arrived.
async function steadily(call, again = AGAIN) {
  for (const wait of backoff()) {
    const used = session ?? (await new Promise((resolve) => waiting.push(resolve)));
    try {
      return await call(used);
    } catch (error) {
      const full = error.metadata?.get('umbel-code')[0] === 'disk-full';
      if (!full && !again.includes(error.code)) throw error;
      if (error.code === UNAUTHENTICATED) used.stream.cancel(); // another is opened then
      await timers.setTimeout(full ? 60_000 : wait);
    }
  }
}

async function open() {
  if (!fs.existsSync(`${state}/federation`)) {
    const public_key = crypto.createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-32);
    fs.writeFileSync(`${state}/federation`, (await ask('Enrol', { ticket, name, public_key })).federation);
  }
  const { challenge } = await ask('Challenge', { name });
  const signature = crypto.sign(null, Buffer.concat([Buffer.from(`umbel.v1 session\n${name}\n`), challenge]), key);
  const about = { versions: [1], program: `client.js, Node.js ${process.version}`, apps: [{ name: app }], slots: 1 };
  return ask('OpenSession', { name, challenge, signature, ...about, time: Date.now() / 1e3 });
}

// One session, from its opening to its end; gives the milliseconds that the server wants to be left alone for, if any.
async function attend() {
  const { session: id, chunk, inline } = await open();
  const stream = listen('Subscribe', {}, (session = { id, chunk, inline, counter: 0n }));
  [session.stream, refused] = [stream, 0];
  console.log('connected');
  waiting.splice(0).forEach((resolve) => resolve(session));
  try {
    for await (const { notice, task, revoke, goodbye } of stream) {
      if (notice === 'task') take(task);
      if (notice === 'revoke') revoke.tasks.forEach(drop);
      if (notice === 'goodbye') return goodbye.wait * 1e3;
    }
  } finally {
    session = undefined;
    stream.cancel();
  }
}

// Tasks, one after the other
const works = new Map(); // by run and exchange: what is done, and what was answered
let queue = Promise.resolve();
const place = (id) => `${id.run}/${id.exchange}`;

function drop(id) {
  (works.get(place(id)) ?? {}).dropped = true;
  works.delete(place(id));
}

function take(task) {
  const before = works.get(place(task.id));
  const asked = sha256(calls.Subscribe.responseSerialize({ task: { ...task, deadline: 0 } })).toString('hex');
  if (before?.asked === asked) return before.report && deliver(before); // or it goes on
  drop(task.id);
  for (const [where, old] of works) if (old.done) works.delete(where);
  works.set(place(task.id), { asked });
  queue = queue.then(perform.bind(null, task, works.get(place(task.id))));
}

async function perform(task, work) {
  console.log(task.kind, task.id.run, task.round);
  const began = Date.now();
  const outcome = await outcomeOf(task, work).catch((error) => {
    if (error.code === NOT_FOUND) drop(task.id); // the model is not for this node any more: the task is over
    return { failure: { code: error.word ?? 'client-failed', message: error.message } };
  });
  work.report = { id: task.id, seconds: (Date.now() - began) / 1e3, ...outcome };
  await deliver(work);
}

async function deliver(work) {
  const { report, report: { update: { arrays } = {} } } = work;
  const send = async (used) => {
    if (work.dropped) return;
    if (arrays?.content?.length > used.inline) [work.large, arrays.content] = [arrays.content, undefined];
    if (work.large) await upload(work.large, arrays.digest, used);
    await ask('Report', report, used);
  };
  const sent = () => steadily(send, [NOT_FOUND, ...AGAIN]);
  const failure = (error) => ({ code: 'rejected', message: error.details ?? error.message, retryable: true });
  const giveUp = (error) => steadily((used) => ask('Report', { id: report.id, failure: failure(error) }, used));
  // The end of an upload that broke off may have been on its way: once more. Then the round waits for any answer.
  await sent().catch(sent).catch(giveUp).catch((error) => console.log(`not accepted: ${error.details}`));
  work.done = true;
}

// The app: y = x w, where x is as much of a row as w has entries, and y its last number
const rows = fs.readFileSync(data, 'utf8').trim().split('\n').map((line) => line.split(',').map(Number));

// A copy of a model's file, and its entry "w" as an array that lies in the copy.
function unpacked(bytes) {
  const start = 8 + Number(bytes.readBigUInt64LE());
  const { w, __metadata__: { umbel } } = JSON.parse(bytes.subarray(8, start));
  const { roles } = JSON.parse(umbel);
  const mine = Object.keys(roles).filter((entry) => ['trained', 'buffer'].includes(roles[entry]));
  const type = { F64: Float64Array, F32: Float32Array }[w?.dtype];
  if (!type || String(mine) !== 'w') throw failed('client-failed', 'this client trains "w", of F64 or F32, alone');
  const [from, to] = w.data_offsets;
  const copy = new Uint8Array(bytes);
  return [copy, new type(copy.buffer, start + from, (to - from) / type.BYTES_PER_ELEMENT)];
}

async function outcomeOf(task, work) {
  if (task.needs.length) throw failed('refused', `this client cannot do what the task needs: ${task.needs}`);
  if (task.kind === 'query') throw failed('handler-missing', 'this client answers no queries');
  const [content, w] = unpacked(await download(task.model));
  const errors = () => rows.map((row) => w.reduce((sum, value, i) => sum + value * row[i], -row.at(-1)));
  const { lr = 0.1, steps = 1 } = JSON.parse(task.config);
  for (let step = 0; task.kind === 'train' && step < steps && !work.dropped; step++) {
    await timers.setImmediate(); // what arrives meanwhile is heard: the task may be revoked
    const wrong = errors();
    const slope = (i) => wrong.reduce((sum, error, k) => sum + error * rows[k][i], 0) / rows.length;
    for (let i = 0; i < w.length; i++) w[i] -= lr * slope(i);
  }
  const metrics = JSON.stringify({ loss: errors().reduce((sum, error) => sum + error * error, 0) / rows.length });
  if (task.kind === 'evaluate') return { metrics: { weight: rows.length, metrics } };
  const arrays = { digest: Buffer.from(blake3(content)), size: content.length, content };
  return { update: { kind: 'model', arrays, weight: rows.length, metrics } };
}

async function main() {
  for (let waits = backoff(); ; ) {
    const began = Date.now();
    const wait = await attend().catch((error) => {
      if (!AGAIN.includes(error.code) || (error.code === UNAUTHENTICATED && ++refused === 2)) throw error;
      console.log(`not connected: ${error.details}`);
    });
    if (Date.now() - began > 10_000) waits = backoff();
    await timers.setTimeout(Math.max(wait ?? 0, waits.next().value));
  }
}

main().catch((error) => process.exit(console.error(error.details ?? error) ?? 1));
