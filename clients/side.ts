import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OurAgent, ourProgram } from "../interop/agent.js";
import type { Cluster } from "../interop/cluster.js";
import { type ConsulBinary, ConsulServer } from "../interop/consul.js";
import type { Processes } from "../interop/processes.js";
import { exportTo, register } from "../interop/services.js";
import { settles } from "../interop/settles.js";
import { stateOf } from "../interop/stage.js";

/** An agent that clients are pointed at. */
export interface Agent extends Cluster, AsyncDisposable {
  /** `host:port` of its HTTP API. */
  readonly http: string;
  /** `host:port` of its DNS. */
  readonly dns: string;
}

/**
 * Two clusters that are peered: `alpha`, at which clients are pointed, and `beta`. Each exports everything to the other. Alpha has
 * two instances of `web`, beta two of `api`, so that alpha imports `api`.
 */
export class Side implements AsyncDisposable {
  /** Such as `Peerage` and `Consul 1.21.4`. */
  readonly title: string;
  readonly alpha: Agent;
  readonly beta: Agent;
  /** A directory that holds a program `consul`, for clients that start their own. */
  readonly path: string;

  private constructor(title: string, alpha: Agent, beta: Agent, path: string) {
    this.title = title;
    this.alpha = alpha;
    this.beta = beta;
    this.path = path;
  }

  static async peerage(processes: Processes): Promise<Side> {
    const [alpha, beta] = await Promise.all([
      OurAgent.start(processes, { name: "alpha", datacenter: "dc1" }),
      OurAgent.start(processes, { name: "beta", datacenter: "dc2" }),
    ]);
    const path = await mkdtemp(join(tmpdir(), "peerage-path-"));
    const program = [process.execPath, ...ourProgram()].map((part) => `'${part}'`).join(" ");
    await writeFile(join(path, "consul"), `#!/bin/sh\nexec ${program} "$@"\n`);
    await chmod(join(path, "consul"), 0o755);
    return new Side("Peerage", alpha, beta, path);
  }

  static async consul(processes: Processes, binary: ConsulBinary): Promise<Side> {
    const [alpha, beta] = await Promise.all([
      ConsulServer.start(processes, binary, { name: "alpha", datacenter: "dc1" }),
      ConsulServer.start(processes, binary, { name: "beta", datacenter: "dc2" }),
    ]);
    const path = await mkdtemp(join(tmpdir(), "peerage-path-"));
    await symlink(binary.path, join(path, "consul"));
    await Promise.all([alpha.ready(), beta.ready()]);
    return new Side(`Consul ${binary.version}`, alpha, beta, path);
  }

  /** Peers them, and resolves once each has what the other exports. */
  async peer(): Promise<this> {
    const { alpha, beta } = this;
    await register(alpha, "web", 2);
    await register(beta, "api", 2);
    await Promise.all([exportTo(alpha, beta, ["*"]), exportTo(beta, alpha, ["*"])]);
    const token = await beta.client.peerings.generateToken({ peerName: alpha.name });
    await alpha.client.peerings.establish({ peerName: beta.name, token });
    await settles(async () => {
      assert.equal(await stateOf(alpha, beta), "ACTIVE");
      assert.equal((await alpha.client.health.service("api", { peer: beta.name })).value.length, 2);
      assert.equal((await beta.client.health.service("web", { peer: alpha.name })).value.length, 2);
    }, "the two clusters are peered");
    return this;
  }

  /** The environment of clients. */
  get environment(): Readonly<Record<string, string>> {
    return {
      CONSUL_HTTP_ADDR: this.alpha.http,
      PEER_HTTP_ADDR: this.beta.http,
      DNS_ADDR: this.alpha.dns,
      PEER: this.beta.name,
      DATACENTER: this.alpha.datacenter,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.alpha[Symbol.asyncDispose](), this.beta[Symbol.asyncDispose]()]);
    await rm(this.path, { recursive: true, force: true });
  }
}
