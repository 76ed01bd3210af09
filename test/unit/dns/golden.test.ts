import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type DnsServer, dnsServer } from "../../../src/dns/index.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import type { Registration } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { type MemoryNetwork, memoryNetwork } from "../../../src/transport/memory.js";
import { readGolden } from "../../golden/read.js";
import { type Asked, ask } from "./client.js";

type Case = readonly [
  name: string,
  type: string,
  transport: string,
  code: string,
  flags: string,
  answers: readonly string[],
  authorities: readonly string[],
  additionals: readonly string[],
];

const VERSIONS = ["1.21.4", "1.15.4", "1.18.2", "1.22.0-dev", "1.13.8"] as const;

/** Questions with intended differences, and why. */
const DIFFERENCES: readonly {
  readonly why: string;
  readonly applies: (version: string, recorded: Case) => boolean;
  readonly expected: (recorded: Case) => Partial<Asked>;
}[] = [
  {
    why: "a reverse lookup that finds nothing is NXDOMAIN since 1.18.0; before, it was SERVFAIL",
    applies: (version, [, type, , code]) => /^1\.1[35]\./.test(version) && type === "PTR" && code === "SERVFAIL",
    expected: () => ({
      code: "NXDOMAIN",
      flags: "aa rd",
      answers: [],
      authorities: ["consul 0 SOA ns.consul hostmaster.consul time 3600 600 86400 0"],
      additionals: [],
    }),
  },
  {
    why: "names that end in .peer are known since 1.14.2; before, they were NXDOMAIN",
    applies: (version, [name, , , code]) =>
      version === "1.13.8" && code === "NXDOMAIN" && /\.peer\.consul$/i.test(name),
    expected: asOfBase,
  },
  {
    why: "1.13 exports sidecars also of services that are in no mesh, so that these have addresses, too",
    applies: (version, [name]) => version === "1.13.8" && name === "plain.virtual.cluster-a.consul",
    expected: asOfBase,
  },
];

/** The answer of 1.21.4 to the same question. */
function asOfBase([name, type, transport]: Case): Partial<Asked> {
  const base = readCases("1.21.4").find((one) => one[0] === name && one[1] === type && one[2] === transport);
  assert.ok(base !== undefined, `${name} ${type}`);
  const [, , , code, flags, answers, authorities, additionals] = base;
  return { code, flags, answers, authorities, additionals };
}

describe("DNS as recorded from Consul", () => {
  for (const version of VERSIONS) {
    it(`${version}: answers are the same, but for the virtual address and the choice among many`, async () => {
      await using served = await serveRecordedSetup();
      const cases = readCases(version);
      assert.ok(cases.length > 10);
      for (const recorded of cases) {
        const [name, type, transport] = recorded;
        const asked = await ask(served.server.address, {
          name,
          type,
          transport: transport === "tcp" ? "tcp" : "udp",
          ...(transport === "udp+edns" && { edns: 4_096 }),
        });
        compare(version, recorded, asked);
      }
    });
  }
});

function readCases(version: string): readonly Case[] {
  const [, ...lines] = readGolden(`dns/${version}.jsonl`).trimEnd().split("\n");
  return lines.map((line): Case => JSON.parse(line));
}

function compare(version: string, recorded: Case, asked: Asked): void {
  const [name, type, transport, code, flags, answers, authorities, additionals] = recorded;
  const what = `${name} ${type} over ${transport}`;
  const difference = DIFFERENCES.find(({ applies }) => applies(version, recorded));
  const { packet: _packet, ...plain } = asked;
  // Which of twelve instances the three answers are of is chosen again for each question.
  const chosen = name === "many.service.cluster-a.peer.consul" && transport === "udp";
  const form = (records: readonly string[]): readonly string[] =>
    records.map((record) => (chosen ? inform(record) : record).replace(/ A 240\..*/, " A a virtual address")).sort();
  const expected = difference?.expected(recorded) ?? { code, flags, answers, authorities, additionals };
  assert.deepEqual(
    { ...plain, answers: form(plain.answers), additionals: form(plain.additionals) },
    { ...expected, answers: form(expected.answers ?? []), additionals: form(expected.additionals ?? []) },
    what,
  );
}

function inform(record: string): string {
  return record
    .replace(/10\.3\.0\.\d+/, "10.3.0.N")
    .replace(/\b90\d\d\b/, "PORT")
    .replace(/\bm\d+\.node/g, "mN.node");
}

interface Served extends AsyncDisposable {
  readonly server: DnsServer;
}

/** The set-up of the recordings: cluster-a exports, this one imports, and has a `plain` of its own. */
async function serveRecordedSetup(): Promise<Served> {
  const network = memoryNetwork();
  const exporter = await host(network, "a", "dc1");
  const importer = await host(network, "b", "dc2");
  await exporter.catalog.registerAll(exported);
  await importer.catalog.registerAll(local);
  await exporter.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
  const token = await exporter.peerings.generateToken({ peerName: "cluster-b" });
  await importer.peerings.establish({ peerName: "cluster-a", token });
  const expected = exporter.exports.forPeer("cluster-b").length;
  const signal = AbortSignal.timeout(20_000);
  const names = new Set<string>();
  for await (const change of importer.imports.watch({ peer: "cluster-a", signal })) {
    if (change.type === "difference") names.add(change.service);
    else for (const name of change.services.keys()) names.add(name);
    if (names.has("web-sidecar-proxy") && names.size >= expected) break;
  }
  const server = await dnsServer(importer, { listen: "127.0.0.1:0", strict: true });
  return {
    server,
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await importer[Symbol.asyncDispose]();
      await exporter[Symbol.asyncDispose]();
    },
  };
}

function host(network: MemoryNetwork, name: string, datacenter: string): Promise<PeeringHost> {
  const transport = network.transport({ listen: `${name}:8503` });
  return createHost({ datacenter, storage: memoryStorage(), transport });
}

function passing(serviceId: string, status = "passing"): NonNullable<Registration["checks"]> {
  return [{ checkId: serviceId, name: "alive", status, serviceId }];
}

const n1 = {
  node: "n1",
  address: "10.1.0.1",
  nodeMeta: { rack: "r1", zone: "eu-1a" },
  taggedAddresses: { lan: "10.1.0.1", wan: "198.51.100.1" },
};
const n2 = { node: "n2", address: "10.1.0.2", nodeMeta: { rack: "r2" } };
const n3 = { node: "n3", address: "10.1.0.3" };

const exported: readonly Registration[] = [
  {
    ...n1,
    service: {
      id: "plain-1",
      name: "plain",
      address: "10.1.0.11",
      port: 8_080,
      tags: ["v1", "primary"],
      taggedAddresses: { wan: { address: "198.51.100.11", port: 18_080 } },
      weights: { passing: 10, warning: 2 },
    },
    checks: passing("plain-1"),
  },
  {
    ...n2,
    service: { id: "plain-2", name: "plain", port: 8_081, tags: ["v2"] },
    checks: passing("plain-2", "warning"),
  },
  { ...n1, service: { id: "multi-pass", name: "multi", port: 7_001 }, checks: passing("multi-pass") },
  { ...n2, service: { id: "multi-warn", name: "multi", port: 7_002 }, checks: passing("multi-warn", "warning") },
  { ...n3, service: { id: "multi-crit", name: "multi", port: 7_003 }, checks: passing("multi-crit", "critical") },
  { ...n3, service: { name: "nocheck", port: 7_010 } },
  {
    node: "six",
    address: "fd00::1",
    service: { name: "six", address: "fd00::10", port: 6_006 },
    checks: passing("six"),
  },
  {
    node: "ext",
    address: "db.example.com",
    nodeMeta: { "external-node": "true" },
    service: { name: "ext-db", port: 5_432 },
  },
  { node: "down", address: "10.3.1.1", service: { name: "allcrit", port: 1 }, checks: passing("allcrit", "critical") },
  { ...n1, service: { id: "web-1", name: "web", port: 9_090, tags: ["http"] }, checks: passing("web-1") },
  {
    ...n1,
    service: {
      kind: "connect-proxy",
      id: "web-proxy",
      name: "web-sidecar-proxy",
      port: 21_000,
      proxy: { destinationServiceName: "web", destinationServiceId: "web-1" },
    },
  },
  {
    node: "gw1",
    address: "10.1.0.4",
    service: { kind: "mesh-gateway", name: "mesh-gateway", address: "10.1.0.4", port: 8_443 },
    checks: passing("mesh-gateway"),
  },
  { ...n2, service: { id: "api-v2", name: "api", port: 7_102 }, checks: passing("api-v2") },
  { ...n3, service: { id: "api-v1", name: "api", port: 7_101 } },
  ...Array.from({ length: 12 }, (_, index) => ({
    node: `m${index + 1}`,
    address: `10.3.0.${index + 1}`,
    service: { id: `many-${index + 1}`, name: "many", port: 9_001 + index },
  })),
];

const local: readonly Registration[] = [
  { node: "b1", address: "127.0.0.12", service: { name: "consul", port: 8_300 } },
  { node: "local9", address: "10.2.0.9", service: { name: "plain", port: 2_222 } },
];
