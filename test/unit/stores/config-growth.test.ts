// A write of one config entry takes as long as what it touches, however many entries there are.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { assertLinear } from "../../support/growth.js";

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);

type Many = (index: number) => ConfigEntryInput;

/** With `round`, an entry can be written again and is another one. */
const kinds: Readonly<Record<string, (index: number, round: number) => ConfigEntryInput>> = {
  "service defaults": (index, round) => ({
    kind: "service-defaults",
    name: `s${index}`,
    protocol: round === 0 ? "tcp" : "http",
  }),
  "resolvers that lead elsewhere": (index, round) => ({
    kind: "service-resolver",
    name: `s${index}`,
    connectTimeout: `${round + 1}s`,
    failover: { "*": { service: `t${index}` } },
  }),
  intentions: (index, round) => ({
    kind: "service-intentions",
    name: `s${index}`,
    sources: [{ name: "api", action: round === 0 ? "allow" : "deny" }],
  }),
  "terminating gateways": (index, round) => ({
    kind: "terminating-gateway",
    name: `g${index}`,
    services: [{ name: `s${index + round}` }],
  }),
  "ingress gateways": (index, round) => ({
    kind: "ingress-gateway",
    name: `g${index}`,
    extra: { Listeners: [{ Port: 8_080 + round, Protocol: "tcp", Services: [{ Name: `s${index}` }] }] },
  }),
  "JWT providers": (index, round) => ({
    kind: "jwt-provider",
    name: `p${index}`,
    extra: { Issuer: `issuer${round}`, JSONWebKeySet: { Local: { Filename: "/keys" } } },
  }),
};

async function prepare(size: number): Promise<PeeringHost> {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport });
  // All that a look at everything would find: chains, intentions, gateways, and what is exported.
  const of = (many: Many): Promise<unknown> =>
    Promise.all(numbers(size).map((index) => host.configEntries.set(many(index))));
  await of((index) => ({ kind: "service-resolver", name: `r${index}`, connectTimeout: "5s" }));
  await of((index) => ({
    kind: "service-intentions",
    name: `r${index}`,
    sources: [{ name: "web", action: "allow" }],
  }));
  const services = numbers(size).map((index) => ({ name: `s${index}`, consumers: [{ peer: "peer" }] }));
  await host.exports.set({ services });
  return host;
}

describe("the time of a write of config entries grows with the entries that it touches", () => {
  for (const [name, entry] of Object.entries(kinds)) {
    const write = async ({ configEntries }: PeeringHost, size: number, round: number): Promise<void> => {
      for (const index of numbers(size)) await configEntries.set(entry(index, round));
    };
    it(`in ${name}`, () =>
      assertLinear<PeeringHost>({
        size: 100,
        prepare,
        dispose: (host) => host[Symbol.asyncDispose](),
        steps: {
          write: (host, size) => write(host, size, 0),
          "write again": (host, size) => write(host, size, 1),
          delete: async ({ configEntries }, size) => {
            for (const index of numbers(size)) {
              const { kind } = entry(index, 0);
              assert.equal(await configEntries.delete(kind, entry(index, 0).name ?? ""), true);
            }
            assert.equal(
              configEntries.list(entry(0, 0).kind).filter((each) => !each.entry.name.startsWith("r")).length,
              0,
            );
          },
        },
      }));
  }
});

describe("the time of a write of one config entry grows with how much it names", () => {
  const many: Readonly<Record<string, (size: number, round: number) => ConfigEntryInput>> = {
    "exported services": (size, round) => ({
      kind: "exported-services",
      services: numbers(size).map((index) => ({ name: `s${index}`, consumers: [{ peer: `p${index + round}` }] })),
    }),
    "consumers of one exported service": (size, round) => ({
      kind: "exported-services",
      services: [{ name: "s", consumers: numbers(size).map((index) => ({ peer: `p${index + round}` })) }],
    }),
    "blocks that export all services": (size, round) => ({
      kind: "exported-services",
      services: numbers(size).map((index) => ({ name: "*", consumers: [{ peer: `p${index + round}` }] })),
    }),
    "services behind a terminating gateway": (size, round) => ({
      kind: "terminating-gateway",
      name: "gw",
      services: numbers(size).map((index) => ({ name: `s${index + round}` })),
    }),
    "sources of intentions": (size, round) => ({
      kind: "service-intentions",
      name: "web",
      sources: numbers(size).map((index) => ({ name: `s${index + round}`, action: "allow" as const })),
    }),
    "subsets of a resolver": (size, round) => ({
      kind: "service-resolver",
      name: "web",
      subsets: Object.fromEntries(numbers(size).map((index) => [`v${index + round}`, { filter: "" }])),
      failover: { "*": { service: "other" } },
    }),
  };
  for (const [name, entry] of Object.entries(many)) {
    it(`in ${name}`, () =>
      assertLinear<PeeringHost>({
        size: 500,
        prepare: async () => {
          const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
          const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport });
          await host.catalog.registerAll(
            numbers(200).map((index) => ({
              node: "n1",
              address: "10.0.0.1",
              service: { id: `s${index}`, name: `s${index}` },
            })),
          );
          return host;
        },
        dispose: (host) => host[Symbol.asyncDispose](),
        steps: {
          write: ({ configEntries }, size) => configEntries.set(entry(size, 0)),
          "write again": ({ configEntries }, size) => configEntries.set(entry(size, 1)),
          "read what is exported": ({ exports }) => exports.resolved(),
          delete: async ({ configEntries }) => {
            const { kind, name: given } = entry(1, 0);
            assert.equal(await configEntries.delete(kind, given ?? "default"), true);
          },
        },
      }));
  }
});
