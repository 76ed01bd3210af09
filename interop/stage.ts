import assert from "node:assert/strict";
import type { Cluster } from "./cluster.js";
import { type ConsulBinary, type ConsulOptions, ConsulServer } from "./consul.js";
import { Ours, type OursOptions } from "./ours.js";
import type { Processes } from "./processes.js";
import { Relay } from "./relay.js";
import type { Role } from "./scenario.js";
import { present, settles } from "./settles.js";

/** The servers and hosts of one scenario in one role. All of them end with the stage. */
export class Stage implements AsyncDisposable {
  readonly processes: Processes;
  readonly binary: ConsulBinary;
  readonly role: Role;
  readonly #props: (AsyncDisposable & { readonly name: string; readonly output: string })[] = [];
  readonly #remarks: string[] = [];

  constructor(processes: Processes, binary: ConsulBinary, role: Role) {
    this.processes = processes;
    this.binary = binary;
    this.role = role;
  }

  /** Figures that belong beside the result. */
  get remarks(): string {
    return this.#remarks.join(", ");
  }

  remark(text: string): void {
    this.#remarks.push(text);
  }

  /** The last output of all servers on the stage, to find out why a scenario failed. */
  get output(): string {
    return this.#props.map(({ name, output }) => `--- ${name}\n${output}`).join("\n");
  }

  async consul(options: ConsulOptions = {}): Promise<ConsulServer> {
    return this.use(await ConsulServer.start(this.processes, this.binary, options));
  }

  async ours(options: OursOptions = {}): Promise<Ours> {
    return this.use(await Ours.start(this.processes, options));
  }

  /** A way to `target` (`host:port`) that can fail. */
  async relay(target: string): Promise<Relay> {
    const [port = 0] = await this.processes.ports(1);
    return this.use(await Relay.open(port, target));
  }

  /** Ends `prop` with the stage. */
  use<Prop extends AsyncDisposable & { readonly name: string; readonly output: string }>(prop: Prop): Prop {
    this.#props.push(prop);
    return prop;
  }

  /** A host of ours and a Consul that do not know each other yet. */
  async strangers(options: { readonly consul?: ConsulOptions; readonly ours?: OursOptions } = {}): Promise<Pair> {
    const [consul, ours] = await Promise.all([this.consul(options.consul), this.ours(options.ours)]);
    await consul.ready();
    return new Pair(ours, consul, this.role);
  }

  /** The same, peered and ACTIVE. */
  async pair(options: { readonly consul?: ConsulOptions; readonly ours?: OursOptions } = {}): Promise<Pair> {
    const pair = await this.strangers(options);
    await pair.peer();
    await pair.active();
    return pair;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#props.toReversed().map((prop) => prop[Symbol.asyncDispose]()));
  }
}

/** A host of ours and a Consul, in the roles of the scenario. */
export class Pair {
  readonly ours: Ours;
  readonly consul: ConsulServer;
  readonly acceptor: Cluster;
  readonly dialer: Cluster;

  constructor(ours: Ours, consul: ConsulServer, role: Role) {
    this.ours = ours;
    this.consul = consul;
    [this.acceptor, this.dialer] = role === "acceptor" ? [ours, consul] : [consul, ours];
  }

  /** @param through - where to dial instead of the acceptor's own address. */
  token(through: readonly string[] = []): Promise<string> {
    return this.acceptor.client.peerings.generateToken({
      peerName: this.dialer.name,
      serverExternalAddresses: through,
    });
  }

  async establish(token: string): Promise<void> {
    await this.dialer.client.peerings.establish({ peerName: this.acceptor.name, token });
  }

  async peer(through: readonly string[] = []): Promise<void> {
    await this.establish(await this.token(through));
  }

  /** `host:port` on which the acceptor is dialed. */
  get acceptorAddress(): string {
    return this.acceptor === this.ours ? this.ours.address : this.consul.grpc;
  }

  /** Resolves once both ends read ACTIVE. */
  async active(withinMs?: number): Promise<void> {
    await settles(
      async () => {
        assert.equal(await stateOf(this.consul, this.ours), "ACTIVE", "what Consul reads");
        assert.equal(await stateOf(this.ours, this.consul), "ACTIVE", "what we read");
      },
      "both ends are ACTIVE",
      withinMs,
    );
  }
}

/** The state of its peering with `peer` that `cluster` shows; undefined when it knows no such peering. */
export async function stateOf(cluster: Cluster, peer: Cluster): Promise<string | undefined> {
  const { value } = await cluster.client.peerings.read(peer.name);
  return value?.State;
}

/** The record of its peering with `peer` that `cluster` shows. @throws {Error} when it knows no such peering. */
export async function recordOf(cluster: Cluster, peer: Cluster) {
  const { value } = await cluster.client.peerings.read(peer.name);
  return present(value, `peering ${peer.name}`);
}

/** When `cluster` last heard a heartbeat of `peer`. Consul 1.14 says "never" with a time of its own. */
export async function lastHeartbeatAt(cluster: Cluster, peer: Cluster): Promise<string | undefined> {
  const { LastHeartbeat } = (await recordOf(cluster, peer)).StreamStatus;
  return LastHeartbeat === "0001-01-01T00:00:00Z" ? undefined : LastHeartbeat;
}
