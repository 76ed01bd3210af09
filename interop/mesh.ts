import assert from "node:assert/strict";
import { asObject, type JsonObject, parseJson, textOf } from "../src/client/json-reader.js";
import { application, type Speech } from "../test/support/applications.js";
import { OurAgent } from "./agent.js";
import type { Cluster } from "./cluster.js";
import { isBefore } from "./consul.js";
import { Envoy, envoyBinary } from "./envoy.js";
import { settles } from "./settles.js";
import { type Stage, stateOf } from "./stage.js";

/**
 * In place of the checks that Consul gives a sidecar. One of them takes the state of the service: it sometimes misses the first one, stays critical
 * until it looks again after a minute, and gateways lead nobody to the sidecar until then. The other one connects to the port every ten seconds.
 */
export const SIDECAR_CHECKS: readonly JsonObject[] = [{ Name: "said", TTL: "1h", Status: "passing" }];

/** A service of {@link MeshSide}. */
export interface SideService {
  readonly speech: Speech;
  /** Of the service entry. Default: as the program speaks. */
  readonly protocol?: string;
  /** The program names itself so. */
  readonly says: string;
}

/** An upstream of a client, in the words of the HTTP API, without its port. */
export type UpstreamOf = JsonObject & { readonly DestinationName: string };

/** One cluster and its Envoys: nobody may call anybody there unless an intention says so. */
export class MeshSide {
  readonly cluster: Cluster & { readonly http: string };
  readonly #stage: Stage;
  readonly #grpcPort: number;
  #gatewayPort = 0;

  constructor(stage: Stage, cluster: Cluster & { readonly http: string }, grpcPort: number) {
    this.#stage = stage;
    this.cluster = cluster;
    this.#grpcPort = grpcPort;
  }

  get name(): string {
    return this.cluster.name;
  }

  /** `host:port` of its mesh gateway. */
  get gatewayAddress(): string {
    return `127.0.0.1:${this.#gatewayPort}`;
  }

  async put(path: string, body?: JsonObject): Promise<void> {
    const answer = await fetch(`http://${this.cluster.http}${path}`, {
      method: "PUT",
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.text()}`);
  }

  async config(entry: JsonObject): Promise<void> {
    await this.cluster.client.config.write(entry as never);
  }

  async export(to: MeshSide, ...names: readonly string[]): Promise<void> {
    await this.config({
      Kind: "exported-services",
      Name: "default",
      Services: names.map((name) => ({ Name: name, Consumers: [{ Peer: to.name }] })),
    });
  }

  async intend(destination: string, ...sources: readonly JsonObject[]): Promise<void> {
    await this.config({ Kind: "service-intentions", Name: destination, Sources: [...sources] });
  }

  /** Runs a program with a sidecar. */
  async service(name: string, { speech, protocol = speech, says }: SideService): Promise<void> {
    const program = await application(says, speech);
    this.#stage.use({ name: says, output: "", [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() });
    await this.config({ Kind: "service-defaults", Name: name, Protocol: protocol });
    await this.#sidecar(name, program.port, {});
  }

  /** Runs the sidecar of a program that only calls; the ports of its upstreams. */
  async client(name: string, upstreams: readonly UpstreamOf[], proxy: JsonObject = {}): Promise<readonly number[]> {
    const ports = await this.#stage.processes.ports(upstreams.length);
    const Upstreams = upstreams.map((upstream, at) => ({ ...upstream, LocalBindPort: ports[at] ?? 0 }));
    await this.#sidecar(name, 1, { Upstreams, ...proxy });
    return ports;
  }

  async #sidecar(name: string, port: number, proxy: JsonObject): Promise<void> {
    const [sidecar = 0] = await this.#stage.processes.ports(1);
    const Address = "127.0.0.1";
    await this.put("/v1/agent/service/register", {
      ...{ Name: name, Port: port, Address },
      Check: { Name: "said", TTL: "1h", Status: "passing" },
      Connect: {
        SidecarService: {
          ...{ Port: sidecar, Address, Proxy: proxy },
          Checks: SIDECAR_CHECKS,
        },
      },
    });
    await this.envoy(["-sidecar-for", name], [sidecar]);
  }

  /** The id of the root that signs. */
  async activeRoot(): Promise<string> {
    const answer = await fetch(`http://${this.cluster.http}/v1/connect/ca/roots`);
    return textOf(asObject(parseJson(await answer.text(), "roots"), "roots"), "ActiveRootID");
  }

  /** Says whether the service and its sidecar are well. */
  async sayWell(service: string, well: boolean): Promise<void> {
    for (const name of [service, `${service}-sidecar-proxy`]) {
      await this.put(`/v1/agent/check/${well ? "pass" : "fail"}/service:${name}`);
    }
  }

  /** Registers the mesh gateway at a port of its own; a former one has moved then. */
  async registerGateway(): Promise<void> {
    const [port = 0] = await this.#stage.processes.ports(1);
    this.#gatewayPort = port;
    const address = { Address: "127.0.0.1", Port: port };
    await this.put("/v1/agent/service/register", {
      Kind: "mesh-gateway",
      Name: "mesh-gateway",
      ...address,
      TaggedAddresses: { lan: address, wan: address },
    });
  }

  async gateway(): Promise<Envoy> {
    await this.registerGateway();
    return this.envoy(["-gateway=mesh"], [this.#gatewayPort]);
  }

  async envoy(proxy: readonly string[], ports: readonly number[]): Promise<Envoy> {
    const binary = envoyBinary() ?? "";
    const { processes, binary: consul } = this.#stage;
    const options = { binary, consul: consul.path, http: this.cluster.http, proxy, grpcPort: this.#grpcPort, ports };
    return this.#stage.use(await Envoy.start(processes, options));
  }
}

/** A Consul and an agent of ours that do not know each other yet, both with Envoys. */
export class MeshPair {
  readonly ours: MeshSide;
  readonly consul: MeshSide;
  readonly #stage: Stage;

  private constructor(stage: Stage, ours: MeshSide, consul: MeshSide) {
    this.#stage = stage;
    this.ours = ours;
    this.consul = consul;
  }

  /** Undefined, with a remark: it cannot be had here. */
  static async start(stage: Stage): Promise<MeshPair | undefined> {
    if (envoyBinary() === undefined) {
      stage.remark("skipped: ENVOY_BIN names no Envoy to test with");
      return undefined;
    }
    if (isBefore(stage.binary.version, "1.18.0")) {
      stage.remark("skipped: this Consul knows no default for intentions");
      return undefined;
    }
    const [ourGrpc = 0, theirGrpc = 0] = await stage.processes.ports(2);
    const policy = 'default_intention_policy = "deny"';
    const [agent, consul] = await Promise.all([
      OurAgent.start(stage.processes, { flags: ["-grpc", `127.0.0.1:${ourGrpc}`], hcl: policy }),
      stage.consul({ hcl: `ports { grpc = ${theirGrpc} } ${policy}` }),
    ]);
    stage.use(agent);
    await consul.ready();
    return new MeshPair(stage, new MeshSide(stage, agent, ourGrpc), new MeshSide(stage, consul, theirGrpc));
  }

  /** Each side as the one that calls, with the one that is called. */
  get directions(): readonly { readonly near: MeshSide; readonly far: MeshSide }[] {
    return [
      { near: this.ours, far: this.consul },
      { near: this.consul, far: this.ours },
    ];
  }

  get acceptor(): MeshSide {
    return this.#stage.role === "acceptor" ? this.ours : this.consul;
  }

  get dialer(): MeshSide {
    return this.#stage.role === "acceptor" ? this.consul : this.ours;
  }

  /** Peers them, and waits until both read ACTIVE. */
  async peer(): Promise<void> {
    const token = await this.acceptor.cluster.client.peerings.generateToken({ peerName: this.dialer.name });
    await this.dialer.cluster.client.peerings.establish({ peerName: this.acceptor.name, token });
    await this.active();
  }

  async active(): Promise<void> {
    await settles(async () => {
      for (const { near, far } of this.directions) assert.equal(await stateOf(near.cluster, far.cluster), "ACTIVE");
    }, "both read ACTIVE");
  }
}
