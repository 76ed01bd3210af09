import type { Clock } from "../../src/base/environment.js";
import { systemClock } from "../../src/base/environment.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import type { HostOptions } from "../../src/host/options.js";
import type { PeeringView } from "../../src/host/peerings.js";
import type { Registration } from "../../src/model/registration.js";
import { memoryStorage } from "../../src/storage/memory.js";
import {
  type FakePeer,
  type FakePeerOptions,
  fakePeer,
  type TestClock,
  testClock,
} from "../../src/testing/fake-peer/index.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import type { Transport } from "../../src/transport/transport.js";
import { eventually } from "./hosts.js";

export type Kind = "memory" | "grpc";
export type Role = "acceptor" | "dialer";

/** A step of virtual time, and how many of them a condition is waited for. */
const STEP_MS = 500;
const MAX_STEPS = 2_000;

/** A host with two fake peers: one that will misbehave, and one that must not notice. */
export interface Scene extends AsyncDisposable {
  readonly host: PeeringHost;
  readonly bad: FakePeer;
  readonly good: FakePeer;
  /** How the host sees the bad one. */
  view(): PeeringView;
  /** Waits until something is so: over memory by moving the clock, over gRPC by waiting. */
  until(holds: () => boolean, what: string): Promise<void>;
  /** Lets virtual time pass. Over memory alone. */
  pass(milliseconds: number): Promise<void>;
  /** The clock of all three, where time is virtual. */
  readonly clock: TestClock;
  /** Brings the bad peer's stream back after its end: a host that dials does so by itself. */
  again(): Promise<void>;
}

export interface SceneOptions {
  readonly host?: Partial<HostOptions>;
  readonly bad?: Partial<FakePeerOptions>;
  /** Called with the addresses that are really listened on, before anything is dialed. */
  readonly onListen?: (addresses: { readonly host: string | undefined; readonly bad: string | undefined }) => void;
  /** The good peer's transport, where the others have their own. */
  readonly good?: Transport;
}

/** @param role - of the bad peer. The good one dials. The host exports everything to both. */
export async function scene(kind: Kind, role: Role, options: SceneOptions = {}): Promise<Scene> {
  const network = memoryNetwork();
  const virtual = testClock();
  const clock: Clock = kind === "memory" ? virtual : systemClock;
  const transport = (name: string): Transport =>
    kind === "memory" ? network.transport({ listen: `${name}:0` }) : grpcTransport({ listen: "127.0.0.1:0" });
  const host = await createHost({ storage: memoryStorage(), transport: transport("host"), clock, ...options.host });
  const bad = await fakePeer({ transport: transport("bad"), clock, ...options.bad });
  const good = await fakePeer({ transport: options.good ?? transport("good"), clock });
  options.onListen?.({ host: host.listenAddress, bad: bad.listenAddress });
  await host.exports.set({ services: [{ name: "*", consumers: [{ peer: "bad" }, { peer: "good" }] }] });
  await good.establish(await host.peerings.generateToken({ peerName: "good" }));
  if (role === "acceptor") await host.peerings.establish({ peerName: "bad", token: bad.token() });
  else await bad.establish(await host.peerings.generateToken({ peerName: "bad" }));
  await good.until(() => good.listed !== undefined);

  const until = async (holds: () => boolean, what: string): Promise<void> => {
    if (kind === "grpc") return eventually(holds, what);
    for (let step = 0; step < MAX_STEPS; step++) {
      if (holds()) return;
      await virtual.advance(STEP_MS);
    }
    throw new Error(`it did not happen that ${what}`);
  };
  return {
    host,
    bad,
    good,
    until,
    clock: virtual,
    view() {
      const view = host.peerings.read("bad");
      if (view === undefined) throw new Error("no peering with the bad one");
      return view;
    },
    async pass(milliseconds) {
      if (kind !== "memory") throw new TypeError("only virtual time passes on command");
      await virtual.advance(milliseconds);
    },
    async again() {
      if (role === "dialer") await bad.connect();
      await until(() => host.peerings.read("bad")?.state === "active", "the stream is back");
    },
    async [Symbol.asyncDispose]() {
      // Whatever still waits for the bad one goes on, so that nothing is left behind.
      bad.behave({ reads: true, bytesPerSecond: Number.POSITIVE_INFINITY });
      await bad[Symbol.asyncDispose]();
      await good[Symbol.asyncDispose]();
      await host[Symbol.asyncDispose]();
    },
  };
}

const META_KEYS = 64;
const META_BYTES = 500;
/** About what an instance of {@link heavy} weighs. */
export const INSTANCE_BYTES = META_KEYS * META_BYTES;

/** Instances of a service that are as large as a catalog allows, with `version` as their tag. */
export function heavy(name: string, instances: number, version: string): readonly Registration[] {
  const meta = Object.fromEntries(
    Array.from({ length: META_KEYS }, (_, index) => [`key-${index}`, "x".repeat(META_BYTES)]),
  );
  return Array.from({ length: instances }, (_, index) => ({
    node: `node-${index}`,
    address: "10.0.0.1",
    service: { id: `${name}-${index}`, name, port: 80, tags: [version], meta },
  }));
}

/** Gives the host `services` services of about 128 KiB each, all of this version. */
export async function load(host: PeeringHost, services: number, version: string): Promise<void> {
  for (let index = 0; index < services; index++) {
    await host.catalog.registerAll(heavy(`service-${index}`, 4, version));
  }
}

/** Whether a peer has so many services, all of this version. */
export function has(peer: FakePeer, services: number, version: string): boolean {
  return (
    peer.imported.size === services &&
    [...peer.imported.values()].every((instances) => instances.every(({ service }) => service.tags[0] === version))
  );
}
