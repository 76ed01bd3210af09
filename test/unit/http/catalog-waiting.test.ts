import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { describe, it } from "node:test";
import type { CheckRegistration } from "../../../src/model/registration.js";
import { eventually, HttpPair, type RawAnswer } from "../../support/http-pair.js";

/** Far longer than the tests may take: who is woken by nothing else makes them fail. */
const LIMIT_MS = 30_000;
const WAIT = "wait=10m";

interface Instance {
  readonly Service: { readonly ID: string; readonly Tags: readonly string[] };
}

function instancesIn(answer: RawAnswer): readonly Instance[] {
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text);
}

function indexOf(answer: RawAnswer): bigint {
  return BigInt(answer.headers["x-consul-index"] ?? "");
}

async function peered(signal: AbortSignal, services: number): Promise<HttpPair> {
  const pair = await HttpPair.start(1);
  const { a, b } = pair;
  await a.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
  const token = await a.host.peerings.generateToken({ peerName: "cluster-b" });
  await b.host.peerings.establish({ peerName: "cluster-a", token });
  await eventually(() => b.host.imports.count({ peer: "cluster-a" }).services === services, signal);
  return pair;
}

async function register(
  pair: HttpPair,
  service: string,
  options: { readonly id?: string; readonly tag?: string; readonly rack?: string; readonly status?: string } = {},
): Promise<void> {
  const { id = service, tag = "", rack = "r1", status } = options;
  const check: CheckRegistration = { checkId: `c-${id}`, serviceId: id, status: status ?? "" };
  await pair.a.host.catalog.register({
    node: "n1",
    address: "10.0.0.1",
    nodeMeta: { rack },
    service: { id, name: service, port: 80, tags: tag === "" ? [] : [tag] },
    checks: status === undefined ? [] : [check],
  });
}

describe("a wait for an imported service (ch4 case 63)", () => {
  it("ends with each change of it, and not with one of another", async () => {
    const signal = AbortSignal.timeout(LIMIT_MS);
    await using pair = await peered(signal, 0);
    const path = "/v1/health/service/web?peer=cluster-a";
    const now = (): Promise<RawAnswer> => pair.b.ask("GET", path, { signal });
    let index = indexOf(await now());
    const woken = async (what: string, change: () => Promise<unknown>, seen: (answer: RawAnswer) => boolean) => {
      const waiting = pair.b.ask("GET", `${path}&index=${index}&${WAIT}`, { signal });
      await change();
      let answer = await waiting;
      assert.ok(indexOf(answer) > index, what);
      // A change that comes in several messages may be told in several answers.
      while (!seen(answer)) {
        const next = `${path}&index=${indexOf(answer)}&${WAIT}`;
        answer = await pair.b.ask("GET", next, { signal });
      }
      index = indexOf(answer);
    };
    const count = (wanted: number) => (answer: RawAnswer) => instancesIn(answer).length === wanted;
    const says = (wanted: string) => (answer: RawAnswer) => answer.text.includes(wanted);
    await woken("the first instance", () => register(pair, "web", { status: "passing" }), count(1));
    await woken("a status", () => register(pair, "web", { status: "critical" }), says('"Status":"critical"'));
    await woken("node meta", () => register(pair, "web", { status: "critical", rack: "r2" }), says('"rack":"r2"'));
    await woken("another instance", () => register(pair, "web", { id: "web-2", rack: "r2" }), count(2));

    let answered = false;
    const stop = new AbortController();
    const waiting = pair.b.ask("GET", `${path}&index=${index}&${WAIT}`, { signal: stop.signal }).then(
      () => {
        answered = true;
      },
      () => {},
    );
    await register(pair, "db", { rack: "r2" });
    await eventually(() => pair.b.host.imports.service({ peer: "cluster-a", service: "db" }) !== undefined, signal);
    assert.equal(indexOf(await now()), index, "another service moves no index of this one");
    assert.equal(answered, false);
    stop.abort();
    await waiting;

    await woken(
      "the last instance gone",
      async () => {
        await pair.a.host.catalog.deregister({ node: "n1", serviceId: "web" });
        await pair.a.host.catalog.deregister({ node: "n1", serviceId: "web-2" });
      },
      count(0),
    );
    await woken("it is back", () => register(pair, "web", { rack: "r2" }), count(1));
    await woken("the peering deleted", () => pair.b.host.peerings.delete("cluster-a"), count(0));
    await eventually(() => pair.b.host.peerings.read("cluster-a") === undefined, signal);
    assert.ok(indexOf(await now()) >= index, "who asks later does not find an index that fell");
  });
});

describe("a wait for a local service (ch4 cases 4 and 5)", () => {
  it("ends when a check of its node changes, and with its last instance", async () => {
    const signal = AbortSignal.timeout(LIMIT_MS);
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    const wait = async (service: string, change: () => Promise<unknown>): Promise<RawAnswer> => {
      const path = `/v1/health/service/${service}`;
      const index = indexOf(await a.ask("GET", path, { signal }));
      const waiting = a.ask("GET", `${path}?index=${index}&${WAIT}`, { signal });
      await change();
      return waiting;
    };
    await register(pair, "web");
    await register(pair, "db");
    await a.host.catalog.register({ node: "n2", address: "10.0.0.2", service: { name: "other", port: 1 } });
    const other = indexOf(await a.ask("GET", "/v1/health/service/other"));
    let status = 0;
    for (const service of ["web", "db"]) {
      const check = { checkId: "node", status: `s${++status}` };
      const answer = await wait(service, () =>
        a.host.catalog.register({ node: "n1", address: "10.0.0.1", nodeMeta: { rack: "r1" }, check }),
      );
      assert.match(answer.text, new RegExp(`"Status":"s${status}"`));
    }
    assert.equal(indexOf(await a.ask("GET", "/v1/health/service/other")), other);
    const gone = await wait("web", () => a.host.catalog.deregister({ node: "n1", serviceId: "web" }));
    assert.equal(gone.text, "[]");
    assert.equal(indexOf(await a.ask("GET", "/v1/health/service/web")), indexOf(gone));
  });
});

describe("many who wait", () => {
  it("200 queries see the end of a burst, each of its own service", async () => {
    const signal = AbortSignal.timeout(LIMIT_MS);
    // Each request listens to it until it is answered, and 200 wait at a time.
    setMaxListeners(0, signal);
    const [services, rounds] = [40, 5];
    await using pair = await peered(signal, 0);
    const name = (index: number): string => `s-${index % services}`;
    for (let index = 0; index < services; index++) await register(pair, name(index), { tag: "r0" });
    await eventually(() => pair.b.host.imports.count({ peer: "cluster-a" }).services === services, signal);
    const last = `r${rounds}`;
    let begun = 0;
    const watchers = Array.from({ length: 200 }, async (_, watcher) => {
      const path = `/v1/health/service/${name(watcher)}?peer=cluster-a`;
      let answer = await pair.b.ask("GET", path, { signal });
      begun++;
      let answers = 0;
      while (!instancesIn(answer).some(({ Service }) => Service.Tags.includes(last))) {
        const before = indexOf(answer);
        answer = await pair.b.ask("GET", `${path}&index=${before}&${WAIT}`, { signal });
        assert.ok(indexOf(answer) > before, "an answer before the wait was over");
        answers++;
      }
      return answers;
    });
    await eventually(() => begun === watchers.length, signal);
    for (let round = 1; round <= rounds; round++) {
      const tag = `r${round}`;
      await Promise.all(Array.from({ length: services }, (_, index) => register(pair, name(index), { tag })));
    }
    const answers = await Promise.all(watchers);
    assert.ok(answers.every((count) => count >= 1));
  });
});
