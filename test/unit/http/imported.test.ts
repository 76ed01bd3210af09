import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { CheckRegistration, Registration } from "../../../src/model/registration.js";
import { readGolden } from "../../golden/read.js";
import { eventually, HttpPair } from "../../support/http-pair.js";

// The reads of imported data that Consul 1.21.4 answered, asked of a host that imports the same from another: same bytes
// once indexes, ids of clusters and virtual addresses are masked (ch4 case 60).
//
// In what the other recorded versions differ is in versions.test.ts.

interface Case {
  readonly name: string;
  readonly request: { readonly method: string; readonly path: string; readonly body?: unknown };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly bodyText?: string;
  };
}

interface Deviation {
  readonly why: string;
  readonly status?: number;
  readonly text?: string;
  readonly body?: (recorded: unknown) => unknown;
}

const [, ...cases]: readonly Case[] = readGolden("http/imported.jsonl")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));

function recorded(name: string): unknown {
  return cases.find((candidate) => candidate.name === name)?.response.body;
}

const noServers =
  "A recorded server is a node of its own catalog, with the service consul and a check of its membership; a host is none.";
const noMany = "The recorded exporter had a service `many` on nodes of its own, too, for DNS.";
const tally = { Total: 1, Passing: 1, Warning: 0, Critical: 0 };
const honoured = "D-36: ?peer= is honoured on every read; Consul shows local data.";

function withoutServer(body: unknown): unknown {
  if (Array.isArray(body)) return body.filter(({ Node: node }) => node !== "b1");
  if (typeof body !== "object" || body === null) return body;
  const { consul: _, ...rest } = { consul: undefined, ...body };
  return rest;
}

function withoutMany(body: unknown): unknown {
  assert.ok(Array.isArray(body));
  return body.filter(({ Name: name, Node: node }) => name !== "many" && !/^m\d+$/.test(node ?? ""));
}

/** Everything recorded of the importing server's instances, each once. */
function everyInstance(): readonly RecordedInstance[] {
  const instances = new Map<string, RecordedInstance>();
  for (const { name, response } of cases) {
    if (!/^health (service|connect) /.test(name)) continue;
    for (const instance of response.body as readonly RecordedInstance[]) {
      instances.set(`${instance.Node.Node}/${instance.Service.ID}`, instance);
    }
  }
  return [...instances.values()];
}

interface RecordedInstance {
  readonly Node: {
    readonly ID: string;
    readonly Node: string;
    readonly Address: string;
    readonly TaggedAddresses: Readonly<Record<string, string>> | null;
    readonly Meta: Readonly<Record<string, string>> | null;
  };
  readonly Service: {
    readonly ID: string;
    readonly Service: string;
    readonly Tags: readonly string[];
    readonly Address: string;
    readonly TaggedAddresses?: Readonly<Record<string, { readonly Address: string; readonly Port: number }>>;
    readonly Meta: Readonly<Record<string, string>> | null;
    readonly Port?: number;
    readonly SocketPath?: string;
    readonly Weights: { readonly Passing: number; readonly Warning: number };
    readonly EnableTagOverride: boolean;
    readonly PeerName: string;
  };
  readonly Checks: readonly { readonly Node: string; readonly CheckID: string; readonly Status: string }[];
}

function byText(left: string, right: string): number {
  return left === right ? 0 : left < right ? -1 : 1;
}

const deviations: Readonly<Record<string, Deviation>> = {
  "health checks of plain": {
    why: honoured,
    body: () => (recorded("health service plain") as readonly RecordedInstance[]).flatMap(({ Checks }) => Checks),
  },
  "health node n1": {
    why: honoured,
    body: () =>
      everyInstance()
        .filter(({ Node }) => Node.Node === "n1")
        .sort((left, right) => byText(left.Service.ID, right.Service.ID))
        .flatMap(({ Checks }) => Checks),
  },
  "health state any": { why: honoured, body: () => importedChecks(() => true) },
  "health state critical": { why: honoured, body: () => importedChecks((status) => status === "critical") },
  "catalog services": {
    why: honoured,
    body: () => {
      const services = new Map<string, Set<string>>();
      for (const { Service } of everyInstance()) {
        const tags = services.get(Service.Service) ?? new Set();
        services.set(Service.Service, tags);
        for (const tag of Service.Tags) tags.add(tag);
      }
      const sorted = [...services].sort(([left], [right]) => byText(left, right));
      return Object.fromEntries(sorted.map(([name, tags]) => [name, [...tags].sort(byText)]));
    },
  },
  "catalog services, unknown peer": { why: honoured, body: () => ({}) },
  "catalog nodes": { why: honoured, body: () => importedNodes() },
  "nodes after it": { why: `${honoured} D-35: nothing was deregistered.`, body: () => importedNodes() },
  "catalog node n1": {
    why: honoured,
    body: () => {
      const on = importedOn("n1");
      return { Node: on[0]?.Node, Services: Object.fromEntries(on.map(({ Service }) => [Service.ID, Service])) };
    },
  },
  "catalog node-services n1": {
    why: honoured,
    body: () => {
      const on = importedOn("n1");
      return { Node: on[0]?.Node, Services: on.map(({ Service }) => Service) };
    },
  },
  "ui catalog overview": {
    why: noServers,
    body: () => ({ Nodes: [tally], Services: [{ Name: "plain", ...tally }], Checks: [] }),
  },
  "ui services": { why: noMany, body: withoutMany },
  "ui nodes": { why: `${noServers} ${noMany}`, body: (recorded) => withoutMany(withoutServer(recorded)) },
  "catalog services, local": { why: noServers, body: withoutServer },
  "catalog nodes, local": { why: noServers, body: withoutServer },
  "deregister an imported node": {
    why: "D-35: imported data is written by replication only.",
    status: 500,
    text: "cannot register requests with PeerName in them",
  },
};

function importedOn(node: string): readonly RecordedInstance[] {
  return everyInstance()
    .filter(({ Node }) => Node.Node === node)
    .sort((left, right) => byText(left.Service.ID, right.Service.ID));
}

function importedNodes(): unknown {
  const nodes = new Map(everyInstance().map(({ Node }) => [Node.Node, Node]));
  return [...nodes.values()].sort((left, right) => byText(left.Node, right.Node));
}

function importedChecks(wanted: (status: string) => boolean): unknown {
  return everyInstance()
    .flatMap(({ Checks }) => Checks)
    .filter(({ Status }) => wanted(Status))
    .sort((left, right) => byText(left.Node, right.Node) || byText(left.CheckID, right.CheckID));
}

function masked(value: unknown): unknown {
  if (typeof value === "string") {
    return value
      .replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.consul/g, "<cluster>.consul")
      .replace(/^240\.\d+\.\d+\.\d+$/, "<virtual address>");
  }
  if (Array.isArray(value)) return value.map(masked);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => {
      if (key !== "CreateIndex" && key !== "ModifyIndex") return [key, masked(member)];
      assert.equal(typeof member, "number");
      return [key, 0];
    }),
  );
}

/** The catalog of the recorded exporter, as its importer shows it. */
function registrationsOfExporter(): readonly Registration[] {
  const registrations: Registration[] = [];
  for (const { Node, Service, Checks } of everyInstance()) {
    if (Service.Service.endsWith("-sidecar-proxy")) continue;
    const addresses = Object.entries(Service.TaggedAddresses ?? {});
    registrations.push({
      node: Node.Node,
      id: Node.ID,
      address: Node.Address,
      taggedAddresses: Node.TaggedAddresses ?? {},
      nodeMeta: Node.Meta ?? {},
      service: {
        id: Service.ID,
        name: Service.Service,
        tags: Service.Tags,
        address: Service.Address,
        port: Service.Port,
        socketPath: Service.SocketPath,
        meta: Service.Meta ?? {},
        weights: { passing: Service.Weights.Passing, warning: Service.Weights.Warning },
        enableTagOverride: Service.EnableTagOverride,
        taggedAddresses: Object.fromEntries(
          addresses.map(([key, to]) => [key, { address: to.Address, port: to.Port }]),
        ),
      },
      checks: Checks.map(
        ({ CheckID, Status }): CheckRegistration => ({ checkId: CheckID, status: Status, serviceId: Service.ID }),
      ),
    });
  }
  registrations.push({
    node: "gw1",
    id: "00000000-0000-4000-8000-000000000004",
    address: "10.1.0.4",
    service: {
      kind: "mesh-gateway",
      name: "mesh-gateway",
      address: "10.1.0.4",
      port: 8443,
      taggedAddresses: { lan: { address: "10.1.0.4", port: 8443 }, wan: { address: "203.0.113.4", port: 443 } },
    },
    checks: [{ checkId: "mesh-gateway", status: "passing", serviceId: "mesh-gateway" }],
  });
  // The fields that make each of them a service of the mesh are not exported, so either way will do.
  for (const name of ["web", "native", "api", "ext-db"]) {
    registrations.push({
      node: "proxies",
      address: "10.1.0.5",
      service: {
        kind: "connect-proxy",
        name: `${name}-sidecar-proxy`,
        port: 20_000,
        proxy: { destinationServiceName: name },
      },
    });
  }
  return registrations;
}

describe("answers of Consul 1.21.4 about imports (HT11, HT12, ch4 cases 2, 60 and 61)", () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start();
    const { a, b } = pair;
    await a.host.catalog.registerAll(registrationsOfExporter());
    for (const name of ["web", "api"]) {
      await a.host.configEntries.set({ kind: "service-defaults", name, protocol: "http" });
    }
    await a.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
    await b.host.catalog.register({
      node: "local9",
      address: "10.2.0.9",
      service: { id: "plain-local", name: "plain", port: 2222, tags: ["local"] },
    });
    const token = await a.host.peerings.generateToken({ peerName: "cluster-b" });
    await b.host.peerings.establish({ peerName: "cluster-a", token });
    const wanted = everyInstance().length;
    await eventually(
      () => b.host.imports.count({ peer: "cluster-a" }).instances === wanted,
      AbortSignal.timeout(20_000),
    );
  });
  after(async () => {
    await pair[Symbol.asyncDispose]();
  });

  for (const { name, request, response } of cases) {
    const deviation = deviations[name];
    it(deviation === undefined ? name : `${name} (${deviation.why})`, async () => {
      let path = request.path;
      if (path.includes("index=")) {
        // At the index of now, and for as short a time as shows that it waits.
        const now = await pair.b.ask("GET", path.replace(/&index=.*$/, ""));
        path = path.replace(/index=\d+&wait=1s/, `index=${now.headers["x-consul-index"]}&wait=50ms`);
      }
      const body = request.body === undefined ? {} : { body: JSON.stringify(request.body) };
      const answer = await pair.b.ask(request.method, path, body);
      assert.equal(answer.status, deviation?.status ?? response.status, answer.text);
      if (deviation?.text === undefined) {
        for (const [header, value] of Object.entries(response.headers)) {
          const ours = answer.headers[header.toLowerCase()];
          if (header === "X-Consul-Index") assert.match(ours ?? "", /^[1-9]\d*$/);
          // Nothing is cached here, so that nothing is missed in a cache.
          else if (header === "Age") assert.equal(ours, undefined);
          // Ours says `blocking-query` also where a streaming backend would answer.
          else if (header === "X-Consul-Query-Backend") assert.equal(ours, "blocking-query");
          else assert.equal(ours, value, header);
        }
      }
      const text = deviation?.text ?? response.bodyText;
      if (text !== undefined) return assert.equal(answer.text, text);
      const expected = deviation?.body === undefined ? response.body : deviation.body(response.body);
      // As text, so that the order of members counts.
      const ours = JSON.stringify(masked(JSON.parse(answer.text)), undefined, 1);
      assert.equal(ours, JSON.stringify(masked(expected), undefined, 1));
    });
  }
});
