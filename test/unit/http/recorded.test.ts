import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { type Authorizer, parseAclPolicies, policyAuthorizer } from "../../../src/http/index.js";
import { readGolden } from "../../golden/read.js";
import { eventually, HttpPair, type RawAnswer } from "../../support/http-pair.js";

// The recordings of Consul 1.21.4, replayed in order against two hosts in the same set-up. Ids, indexes, times,
// certificates and tokens are compared by form, everything else as it is.
//
// In what the other recorded versions differ is in versions.test.ts.

type Json = null | boolean | number | string | readonly Json[] | JsonObject;
interface JsonObject {
  readonly [key: string]: Json;
}

interface RecordedToken {
  readonly good: string;
  readonly change?: JsonObject;
}

interface Case {
  readonly name: string;
  readonly server: "a" | "b";
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: Json | { readonly PeeringToken: RecordedToken };
    readonly bodyText?: string;
    /** The rules of the token that was sent. */
    readonly token?: string;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: Json;
    readonly bodyText?: string;
  };
  /** The content of the token in the answer. */
  readonly token?: JsonObject;
}

/** The intended differences, and why; `skip`: the case is not replayed at all. */
interface Deviation {
  readonly why: string;
  readonly status?: number;
  readonly text?: string | RegExp;
  /** Members of the recorded body that differ. */
  readonly body?: (recorded: Json) => Json;
  readonly skip?: true;
}

type Step = (replay: Replay) => Promise<unknown>;

class Replay {
  readonly pair: HttpPair;
  readonly signal: AbortSignal;
  readonly #tokens = new Map<string, JsonObject>();

  constructor(pair: HttpPair, signal: AbortSignal) {
    this.pair = pair;
    this.signal = signal;
  }

  /** Makes the token that stands for a recorded one. */
  async token(reference: string, server: "a" | "b", peerName: string, meta = {}): Promise<void> {
    const token = await this.pair[server].host.peerings.generateToken({ peerName, meta });
    this.#tokens.set(reference, JSON.parse(Buffer.from(token, "base64").toString()));
  }

  text({ good, change }: RecordedToken): string {
    const token = this.#tokens.get(good);
    assert.ok(token !== undefined, `${good} was not made`);
    return Buffer.from(JSON.stringify({ ...token, ...change })).toString("base64");
  }

  async establish(reference: string, peerName: string, meta = {}): Promise<void> {
    await this.pair.b.host.peerings.establish({ peerName, token: this.text({ good: reference }), meta });
  }

  /** The services that the recorded server exported, to `cluster-b`. */
  async offer(...names: readonly string[]): Promise<void> {
    const { host } = this.pair.a;
    await host.catalog.registerAll(
      names.map((name) => ({ node: "n1", address: "10.0.0.1", service: { name, port: 80 } })),
    );
    await host.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
  }

  /** Both see the other, and b has what a exports. */
  async inStep(services: number = SERVICES.length): Promise<void> {
    const { a, b } = this.pair;
    await eventually(() => {
      const [at, from] = [a.host.peerings.read("cluster-b"), b.host.peerings.read("cluster-a")];
      return (
        at?.state === "active" &&
        from?.state === "active" &&
        at.remote.datacenter !== "" &&
        at.peerCaPems.length > 0 &&
        at.status.stream.exportedServices.length === services &&
        from.status.stream.importedServices.length === services &&
        at.status.lagMs === 0 &&
        at.status.stream.lastReceive !== undefined
      );
    }, this.signal);
  }

  async peered(): Promise<void> {
    await this.offer(...SERVICES);
    await this.token("token:ef8c61f2fbc5", "a", "cluster-b", { side: "a" });
    await this.establish("token:ef8c61f2fbc5", "cluster-a", { side: "b" });
    await this.inStep();
  }

  until(condition: (pair: HttpPair) => boolean): Promise<void> {
    return eventually(() => condition(this.pair), this.signal);
  }
}

const SERVICES = ["allcrit", "api", "ext-db", "many", "multi", "native", "nocheck", "plain", "six", "web"];
const LEFT_OVER = ["establish", "token"];

interface Group {
  readonly name: string;
  /** Cases of test/CASES.md that its requests are. */
  readonly proves?: string;
  readonly authorizer?: Authorizer;
  readonly start?: Step;
  /** An event between two requests, or a state to wait for. */
  readonly before?: Readonly<Record<string, Step>>;
  readonly deviations?: Readonly<Record<string, Deviation>>;
}

const KEPT_LIST =
  "Consul sends an empty list ahead of its goodbye; ours says goodbye, and what was imported last is still told";

/** The list that was received last. */
function withImports(recorded: Json): Json {
  const peering = recorded as JsonObject;
  const { StreamStatus } = peering;
  return { ...peering, StreamStatus: { ...(StreamStatus as JsonObject), ImportedServices: SERVICES } };
}

/** Of two dialers of one acceptor peering one is connected; which one, and how often they take turns, is chance. */
function eitherState(recorded: Json): Json {
  const turns = ["ACTIVE", "FAILING"];
  return (recorded as readonly JsonObject[]).map((peering) => {
    const { State } = peering;
    return turns.includes(String(State)) ? { ...peering, State: { oneOf: turns } } : peering;
  });
}

const CATALOG: Deviation = { why: "the catalog's cases are another test's", skip: true };
const TURNS: Deviation = {
  why: "with two dialers the newest stream counts at ours, the oldest at Consul (D-1)",
  body: eitherState,
};
const NO_INDEX: Deviation = {
  why: "a refusal tells no index, and does not deny that there is a leader",
  status: 403,
  text: "ACL not found",
};
const D_34 = "a bad parameter is answered with its text alone (D-34)";

function onlyText(text: string): Deviation {
  return { why: D_34, text };
}

const groups: readonly Group[] = [
  {
    name: "peering-token",
    proves: "HT1, HT2, HT4",
    before: {
      "name that is a dialing peering here": (replay) => replay.peered(),
    },
  },
  {
    name: "peering-establish",
    proves: "HT1, HT3",
    start: async (replay) => {
      await replay.offer(...SERVICES);
      await replay.token("token:880072bf098b", "a", "tmp");
    },
    before: {
      "the cluster's own token": async (replay) => {
        await replay.token("token:42ba9231471d", "b", "own-token");
        await replay.pair.b.host.peerings.delete("own-token");
        await replay.until(({ b }) => b.host.peerings.read("own-token") === undefined);
      },
      "token of a deleted peering": async (replay) => {
        await replay.pair.a.host.peerings.delete("tmp");
        await replay.until(({ a }) => a.host.peerings.read("tmp") === undefined);
      },
      "good token": (replay) => replay.token("token:ef8c61f2fbc5", "a", "cluster-b", { side: "a" }),
      "name that is an accepting peering here": (replay) => replay.token("token:b3d0b145a37b", "b", "other"),
      "the same token again while ACTIVE": (replay) => replay.inStep(),
      "re-establish with a fresh token while ACTIVE": (replay) => replay.token("token:6f2f0e2946f9", "a", "cluster-b"),
    },
    deviations: {
      "peering right after": {
        why: "the stream of ours may be there already",
        skip: true,
      },
    },
  },
  {
    name: "peering-read",
    proves: "HT3, HT4, HT7",
    start: async (replay) => {
      await replay.offer(...SERVICES);
      await replay.token("token:ef8c61f2fbc5", "a", "cluster-b", { side: "a" });
    },
    before: {
      "acceptor: ACTIVE": async (replay) => {
        await replay.establish("token:ef8c61f2fbc5", "cluster-a", { side: "b" });
        await replay.inStep();
      },
    },
    deviations: {
      "?stale&consistent": onlyText("Cannot specify ?stale with ?consistent, conflicting semantics."),
      "?index=bad": onlyText("Invalid index"),
      "?wait=bad": onlyText("Invalid wait time"),
    },
  },
  {
    name: "peering-list",
    proves: "HT4, HT5",
    before: {
      "many peerings, all pending": async ({ pair }) => {
        const names = "1 tok-dc tok-ext tok-ext2 tok-ext3 tok-lower tok-min tok-part tok-pretty tok-text tok-trail";
        for (const peerName of [...names.split(" "), "a".repeat(63), ...LEFT_OVER]) {
          await pair.a.host.peerings.generateToken({ peerName });
        }
        await pair.a.host.peerings.generateToken({ peerName: "tok-meta", meta: { env: "prod", "a-b_c": "x" } });
      },
      acceptor: async (replay) => {
        const { peerings } = replay.pair.a.host;
        for (const { name } of peerings.list()) if (!LEFT_OVER.includes(name)) await peerings.delete(name);
        await replay.until(() => peerings.list().length === LEFT_OVER.length);
        await replay.peered();
      },
    },
  },
  {
    name: "peering-delete",
    proves: "HT3",
    start: async (replay) => {
      for (const peerName of LEFT_OVER) await replay.pair.a.host.peerings.generateToken({ peerName });
      await replay.peered();
      await replay.token("token:6f2f0e2946f9", "a", "cluster-b");
      await replay.establish("token:6f2f0e2946f9", "cluster-a", { again: "yes" });
      await replay.inStep();
    },
    before: {
      "read at once": (replay) =>
        replay.until(
          ({ a, b }) =>
            a.host.peerings.read("cluster-b") === undefined &&
            b.host.peerings.read("cluster-a")?.state === "terminated" &&
            b.host.imports.services({ peer: "cluster-a" }).length === 0,
        ),
      "re-establish the terminated peering": (replay) => replay.token("token:4cfc1def9b7e", "a", "cluster-b"),
      "alive again": (replay) => replay.inStep(),
      "establish at once under the same name": (replay) =>
        replay.until(({ b }) => b.host.peerings.read("cluster-a") === undefined),
      "the acceptor: TERMINATED": (replay) =>
        replay.until(({ a }) => a.host.peerings.read("cluster-b")?.state === "terminated"),
      gone: (replay) =>
        replay.until(
          ({ a, b }) =>
            a.host.peerings.read("cluster-b") === undefined && b.host.peerings.read("cluster-a")?.state !== "deleting",
        ),
      "dialer at once": (replay) => replay.until(({ b }) => b.host.peerings.read("cluster-a") === undefined),
      "the acceptor three seconds later": (replay) =>
        replay.until(({ a }) => a.host.peerings.read("cluster-b")?.state === "terminated"),
    },
    deviations: {
      "the other side": { why: KEPT_LIST, body: withImports },
      "the other side, list": { why: KEPT_LIST, body: (recorded) => (recorded as readonly Json[]).map(withImports) },
      "imported services there": CATALOG,
      "imported nodes there": CATALOG,
      "dialer at once": {
        why: "the deletion is over before one can look",
        status: 404,
        text: 'Peering not found for "cluster-a"',
      },
      "the acceptor three seconds later": {
        why: "a peering that is terminated is never shown as ACTIVE (D-9)",
        body: (recorded) => ({ ...(recorded as JsonObject), State: "TERMINATED" }),
      },
      "token for a terminated accepting peering": {
        why: "no unusable token is made (D-15)",
        status: 500,
        text: 'cannot create peering with name: "cluster-b"; the peering was terminated by the peer and must be deleted first',
      },
      "establish with that token": { why: "there is no such token", skip: true },
    },
  },
  {
    name: "two-names-one-acceptor",
    start: async (replay) => {
      for (const peerName of LEFT_OVER) await replay.pair.a.host.peerings.generateToken({ peerName });
      await replay.token("token:a38d3b470f54", "a", "cluster-z");
    },
    before: {
      "a fresh token of the same acceptor peering under a second name": (replay) =>
        replay.token("token:21de68a5285d", "a", "cluster-z"),
      dialer: (replay) =>
        replay.until(({ b }) => b.host.peerings.list().every(({ state }) => state === "active" || state === "failing")),
      // The second time one of the two is deleted.
      acceptor: (replay) =>
        replay.until(
          ({ a, b }) =>
            b.host.peerings.list().length === 2 || a.host.peerings.read("cluster-z")?.state === "terminated",
        ),
    },
    deviations: { dialer: TURNS, acceptor: TURNS },
  },
  {
    name: "exported-services",
    proves: "HT9, HT10",
    start: async (replay) => {
      await replay.peered();
      await replay.token("token:6f2f0e2946f9", "a", "cluster-b");
      await replay.establish("token:6f2f0e2946f9", "cluster-a", { again: "yes" });
    },
    before: {
      "by name, one peer does not exist, one service does not exist": async (replay) => {
        const [toB, toBoth] = [[{ peer: "cluster-b" }], [{ peer: "nobody-yet" }, { peer: "cluster-b" }]];
        await replay.pair.a.host.exports.set({
          services: [
            { name: "web", consumers: toB },
            { name: "missing", consumers: toB },
            { name: "plain", consumers: toBoth },
          ],
        });
        await replay.inStep(3);
      },
    },
    deviations: { "ui exported, no peer": { why: D_34, status: 500, text: "must provide PeerName" } },
  },
  {
    name: "acl",
    authorizer: policyAuthorizer(parseAclPolicies(readFileSync("test/unit/http/recorded-acl.hcl", "utf8"))),
    start: ({ pair }) => pair.a.host.peerings.generateToken({ peerName: "known" }),
    deviations: {
      "unknown: GET /v1/catalog/service/web": NO_INDEX,
      "unknown: GET /v1/internal/ui/exported-services": NO_INDEX,
    },
  },
];

// Forms.

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z$/;
const PEM = /^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n$/;

function withoutIds(text: string): string {
  return text
    .replace(/AccessorID '[^']*'/, "AccessorID <id>")
    .replace(UUID, "<uuid>")
    .replace(/127\.0\.0\.\d+:8503/, "<server>");
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Fails where `actual` is not of the form of `recorded`. */
function compare(actual: Json | undefined, recorded: Json, path: string, key = ""): void {
  const { oneOf }: JsonObject = isObject(recorded) ? recorded : {};
  if (Array.isArray(oneOf)) {
    assert.ok(oneOf.includes(actual ?? null), `${path} is ${JSON.stringify(actual)}`);
  } else if (key === "LastHeartbeat") {
    // Whether one came before the question is chance.
    assert.ok(actual === null || TIME.test(String(actual)), `${path} is ${JSON.stringify(actual)}`);
  } else if (key.endsWith("Index")) {
    assert.ok(Number.isSafeInteger(actual) && Number(actual) >= 1, `${path} is ${JSON.stringify(actual)}`);
  } else if (typeof recorded === "string") {
    assert.equal(typeof actual, "string", path);
    const text = String(actual);
    if (recorded.startsWith("pem:")) assert.match(text, PEM, path);
    else if (recorded.startsWith("token:")) assert.ok(text.length > 100, path);
    else if (TIME.test(recorded)) assert.match(text, TIME, path);
    else assert.equal(withoutIds(text), withoutIds(recorded), path);
  } else if (Array.isArray(recorded)) {
    assert.ok(Array.isArray(actual), `${path} is no list`);
    assert.equal(actual.length, recorded.length, `${path} has ${actual.length} items: ${JSON.stringify(actual)}`);
    for (const [index, item] of recorded.entries()) compare(actual[index], item, `${path}[${index}]`);
  } else if (isObject(recorded)) {
    assert.ok(isObject(actual), `${path} is no object`);
    // `Hash` is left out on purpose (D-49).
    const keys = Object.keys(recorded).filter((name) => name !== "Hash");
    // Why a peering does not work is told beside, where Consul's clients pass it over.
    const ours = Object.keys(actual).filter((name) => name !== "Peerage");
    assert.deepEqual(ours, keys, `keys of ${path}`);
    for (const name of keys) compare(actual[name], recorded[name] ?? null, `${path}.${name}`, name);
  } else {
    assert.equal(actual, recorded, path);
  }
}

/** Headers the recordings keep. */
function told(headers: Readonly<Record<string, string>>): Record<string, string> {
  const kept = Object.entries(headers)
    .map(([name, value]): [string, string] => [name.toLowerCase(), value])
    .filter(([name]) => /^(x-|content-type$|vary$|allow$|location$)/.test(name))
    .map(([name, value]): [string, string] => [
      name,
      name === "x-consul-index" ? value.replace(/^[1-9]\d*$/, "n") : value,
    ]);
  return Object.fromEntries(kept.sort());
}

function check(answer: RawAnswer, recorded: Case, deviation: Deviation | undefined): void {
  const { response } = recorded;
  assert.equal(answer.status, deviation?.status ?? response.status, answer.text);
  if (deviation?.status === undefined) assert.deepEqual(told(answer.headers), told(response.headers));
  const text = deviation?.text ?? response.bodyText;
  if (text instanceof RegExp) assert.match(answer.text, text);
  else if (text !== undefined) assert.equal(withoutIds(answer.text), withoutIds(text));
  else {
    const body: Json = JSON.parse(answer.text);
    const expected = response.body ?? null;
    compare(body, deviation?.body?.(expected) ?? expected, "body");
    if (recorded.token !== undefined && isObject(body)) {
      const { PeeringToken } = body;
      compare(JSON.parse(Buffer.from(String(PeeringToken), "base64").toString()), recorded.token, "token");
    }
  }
}

for (const { name, proves, authorizer, start, before = {}, deviations = {} } of groups) {
  describe(`recorded by Consul 1.21.4: ${name}${proves === undefined ? "" : ` (${proves})`}`, () => {
    const [, ...lines] = readGolden(`http/${name}.jsonl`).trimEnd().split("\n");
    const cases: readonly Case[] = lines.map((line) => JSON.parse(line));

    it("answers every case alike", { timeout: 60_000 }, async (context) => {
      await using pair = await HttpPair.start(10, authorizer === undefined ? {} : { authorizer });
      const replay = new Replay(pair, context.signal);
      await start?.(replay);
      for (const recorded of cases) {
        await before[recorded.name]?.(replay);
        await context.test(recorded.name, async (step) => {
          const deviation = deviations[recorded.name];
          if (deviation?.skip) return step.skip(deviation.why);
          const { method, path, headers = {}, body, bodyText, token = "anonymous" } = recorded.request;
          const sent = bodyText ?? (body === undefined ? undefined : JSON.stringify(withToken(replay, body)));
          const asked = path.replace(/index=(\d\d+)/, () => `index=${currentIndex(pair, recorded)}`);
          const answer = await pair[recorded.server].ask(method, asked, {
            headers: token === "anonymous" ? headers : { ...headers, "X-Consul-Token": token },
            ...(sent === undefined ? {} : { body: sent }),
          });
          check(answer, recorded, deviation);
        });
      }
    });
  });
}

/** The index a recorded client waited at is ours of that moment. */
function currentIndex(pair: HttpPair, { server, request }: Case): string {
  if (request.path.includes("99999")) return "99999";
  return String(pair[server].host.peerings.read("cluster-a")?.modifyIndex);
}

function withToken(replay: Replay, body: unknown): unknown {
  if (typeof body !== "object" || body === null || !("PeeringToken" in body)) return body;
  const { PeeringToken } = body;
  if (typeof PeeringToken !== "object" || PeeringToken === null) return body;
  return { ...body, PeeringToken: replay.text(PeeringToken as RecordedToken) };
}
