import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../src/base/environment.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import type { HostOptions } from "../../src/host/options.js";
import { encodeServicePayload } from "../../src/payload/exported-payload.js";
import { decodePayload, diffInstances } from "../../src/payload/imported-payload.js";
import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage } from "../../src/storage/storage.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { type BuiltInAuthority, builtInAuthority } from "../../src/trust/built-in-authority.js";
import { storageWith } from "./storage.js";

const PATIENCE_MS = 30_000;
const LOOK_AGAIN_MS = 5;

/** Resolves once `condition` holds; fails when it does not in half a minute, which on a working host is never. */
export async function eventually(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail(`it did not happen that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}

/** Waits go by so many times faster; the calendar, which certificates need, is the real one. */
export function acceleratedClock(times = 20): Clock {
  return {
    now: () => performance.now() * times,
    wall: () => Date.now(),
    after(delayMs, action) {
      const timer = setTimeout(action, Math.min(delayMs / times, 2_147_483_647));
      timer.unref();
      return { cancel: () => clearTimeout(timer) };
    },
  };
}

/** A directory that goes with the test. */
export async function temporaryDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "peerage-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** A host with what it is made of, and the way to start it again on the same data. */
export interface Cluster extends AsyncDisposable {
  readonly name: string;
  readonly host: PeeringHost;
  readonly authority: BuiltInAuthority;
  /** Where it listens; the same after a restart. */
  readonly address: string;
  /** Disposes of the host and starts another one on the same data and address. */
  restart(): Promise<void>;
  /** Disposes of the host; `start` begins another one. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

export type Kind = "memory" | "grpc and level";

export interface TwoHosts extends AsyncDisposable {
  readonly acceptor: Cluster;
  readonly dialer: Cluster;
}

/**
 * Two clusters that do not know each other yet, in one process: over memory, or over TLS on loopback with their data on
 * disk. Their back-off and heartbeats are twenty times as fast as in life.
 */
export async function twoHosts(kind: Kind, options: Partial<HostOptions> = {}): Promise<TwoHosts> {
  const network = memoryNetwork();
  const directory = await temporaryDirectory();
  const make = async (name: string): Promise<Cluster> => {
    const disk = memoryStorage();
    const begin = async (address: string): Promise<{ host: PeeringHost; authority: BuiltInAuthority }> => {
      // A host disposes of its storage; what stands for the disk in memory must outlive it.
      const storage = kind === "memory" ? { ...borrowed(disk) } : await openLevel(join(directory.path, name));
      const clock = acceleratedClock();
      const authority = await builtInAuthority({ storage, clock });
      const transport = kind === "memory" ? network.transport({ listen: address }) : grpcTransport({ listen: address });
      return {
        host: await createHost({ datacenter: name, storage, transport, authority, clock, ...options }),
        authority,
      };
    };
    let running = await begin(kind === "memory" ? `${name}:0` : "127.0.0.1:0");
    let up = true;
    const address = running.host.listenAddress ?? "";
    const cluster: Cluster = {
      name,
      address,
      get host() {
        return running.host;
      },
      get authority() {
        return running.authority;
      },
      async stop() {
        up = false;
        await running.host[Symbol.asyncDispose]();
      },
      async start() {
        running = await begin(address);
        up = true;
      },
      async restart() {
        await cluster.stop();
        await cluster.start();
      },
      async [Symbol.asyncDispose]() {
        if (up) await cluster.stop();
      },
    };
    return cluster;
  };
  const acceptor = await make("acceptor");
  const dialer = await make("dialer");
  return {
    acceptor,
    dialer,
    async [Symbol.asyncDispose]() {
      await dialer[Symbol.asyncDispose]();
      await acceptor[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** A storage whose owner may dispose of it without ending it for the next one. */
export function borrowed(disk: Storage): Storage {
  const closed = new AbortController();
  return storageWith(disk, {
    changes: (prefix, after, signal) => disk.changes(prefix, after, AbortSignal.any([signal, closed.signal])),
    [Symbol.asyncDispose]: async () => closed.abort(),
  });
}

/** Generates a token at the acceptor and establishes with it at the dialer; each calls the other by its name. */
export async function peerThem({ acceptor, dialer }: Pick<TwoHosts, "acceptor" | "dialer">): Promise<void> {
  const token = await acceptor.host.peerings.generateToken({ peerName: dialer.name });
  await dialer.host.peerings.establish({ peerName: acceptor.name, token });
}

/** Registers `instances` instances of each of these services, with checks, and exports them to `peerName`. */
export async function offerServices(
  host: PeeringHost,
  peerName: string,
  names: readonly string[],
  instances = 3,
): Promise<void> {
  const registrations = names.flatMap((name, position) =>
    Array.from({ length: instances }, (_, index) => ({
      node: `node-${(position + index) % 5}`,
      address: `10.0.0.${(position + index) % 5}`,
      nodeMeta: { rack: `r${index}` },
      service: {
        id: `${name}-${index}`,
        name,
        port: 8_000 + index,
        tags: [`t${index}`, "v1"],
        meta: { version: `${index}` },
        taggedAddresses: { wan: { address: "192.0.2.1", port: 80 } },
      },
      checks: [
        {
          checkId: `${name}-${index}`,
          name: "alive",
          status: "passing",
          serviceId: `${name}-${index}`,
          output: "fine",
        },
      ],
    })),
  );
  await host.catalog.registerAll(registrations);
  await host.exports.set({ services: [{ name: "*", consumers: [{ peer: peerName }] }] });
}

/** Whether `importer` has every service that `exporter` exports to it, equal to what the exporter would send, and no other. */
export async function isEqual(importer: Cluster, exporter: Cluster): Promise<boolean> {
  const names = exporter.host.exports.forPeer(importer.name);
  const there = importer.host.imports.services({ peer: exporter.name }).map(({ name }) => name);
  if (there.toSorted().join() !== names.toSorted().join()) return false;
  for (const name of names) {
    const expected = decodePayload(encodeServicePayload(name, exporter.host.catalog.instances(name)).value);
    const actual = await importer.host.imports.instances({ peer: exporter.name, service: name });
    const { added, changed, removed } = diffInstances(expected, actual);
    if (added.length + changed.length + removed.length > 0) return false;
  }
  return true;
}

/** Waits until both read ACTIVE and each has exactly what the other exports. */
export async function inStep({ acceptor, dialer }: Pick<TwoHosts, "acceptor" | "dialer">): Promise<void> {
  await eventually(
    async () =>
      acceptor.host.peerings.read(dialer.name)?.state === "active" &&
      dialer.host.peerings.read(acceptor.name)?.state === "active" &&
      (await isEqual(dialer, acceptor)) &&
      (await isEqual(acceptor, dialer)),
    "both are ACTIVE and in step",
  );
}
