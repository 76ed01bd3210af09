import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { systemClock, systemRandom } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import type { HostOptions } from "../../../src/host/options.js";
import { HostSource } from "../../../src/mesh/ads/host-source.js";
import { type XdsServer, type XdsServerOptions, xdsServer } from "../../../src/mesh/index.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { fixedAuthority } from "../../../src/testing/fixed-authority.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import type { CertificateAuthority } from "../../../src/trust/authority.js";
import { AggregatedDiscoveryService, ClusterLoadAssignmentSchema } from "../../../src/wire/envoy.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { TestAuthority } from "../../support/certificates.js";
import { eventually } from "../../support/hosts.js";
import { type MeshPair, meshPair, registerGateway, serverName } from "../../support/mesh.js";
import { XdsClient } from "../../support/xds-client.js";

interface Served extends AsyncDisposable {
  readonly host: PeeringHost;
  readonly server: XdsServer;
  readonly incidents: Incidents;
}

/** A host with a service `web` and its sidecar, and a mesh gateway. */
async function served(
  options: Partial<XdsServerOptions> = {},
  hostOptions: Partial<HostOptions> = {},
): Promise<Served> {
  const incidents = new Incidents();
  const host = await createHost({
    storage: memoryStorage(),
    transport: memoryNetwork().transport(),
    nodeName: "n1",
    incidents,
    ...hostOptions,
  });
  await register(host);
  const server = await xdsServer(host, { listen: "127.0.0.1:0", gatherMs: 1, incidents, ...options });
  return {
    host,
    server,
    incidents,
    async [Symbol.asyncDispose]() {
      await server.close();
      await host.close();
    },
  };
}

async function register(host: PeeringHost): Promise<void> {
  const node = { node: "n1", address: "127.0.0.1" };
  const proxy = { destinationServiceName: "web", localServicePort: 80 };
  await host.catalog.register({ ...node, service: { name: "web", port: 80 } });
  await host.catalog.register({
    ...node,
    service: { kind: "connect-proxy", id: "web-sidecar-proxy", name: "web-sidecar-proxy", port: 21_000, proxy },
  });
  await host.catalog.register({
    ...node,
    service: { kind: "mesh-gateway", name: "gateway", address: "127.0.0.1", port: 8443 },
  });
}

async function refusal(client: XdsClient): Promise<ConnectError> {
  client.send("cluster");
  try {
    for (;;) await client.next();
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error;
  }
}

const WEB = 'service "web" { policy = "write" }';
const ID = "web-sidecar-proxy";

describe("the server for Envoys", () => {
  it("tells a sidecar what it is to do, and every change", async () => {
    await using parts = await served();
    await using client = new XdsClient(parts.server.address, { id: ID });
    client.send("cluster");
    assert.deepEqual(await client.acknowledged("cluster"), ["local_app"]);
    client.send("listener");
    assert.deepEqual(await client.acknowledged("listener"), ["public_listener:0.0.0.0:21000"]);
    const [shown] = parts.server.proxies();
    assert.equal(shown?.service, "web");
    assert.deepEqual(shown?.waitsFor, []);
    const intention = { kind: "service-intentions", name: "web", sources: [{ name: "db", action: "deny" }] } as const;
    await parts.host.configEntries.set(intention);
    assert.deepEqual(await client.acknowledged("listener"), ["public_listener:0.0.0.0:21000"]);
  });

  it("waits for a registration that comes later", async () => {
    await using parts = await served();
    await using client = new XdsClient(parts.server.address, { id: "db-sidecar-proxy" });
    client.send("cluster");
    await eventually(() => parts.server.proxies()[0]?.waitsFor.join().includes("no service") === true, "it waits");
    const proxy = { destinationServiceName: "db", localServicePort: 80 };
    await parts.host.catalog.register({
      node: "n1",
      address: "127.0.0.1",
      service: { kind: "connect-proxy", id: "db-sidecar-proxy", name: "db-sidecar-proxy", port: 21_001, proxy },
    });
    assert.deepEqual(await client.acknowledged("cluster"), ["local_app"]);
  });

  it("tells a sidecar nothing while the authority cannot sign, and says why", async () => {
    const own = fixedAuthority({ trustDomain: "11111111-2222-3333-4444-555555555555.consul" });
    let problem: string | undefined = "its key is kept in a vault that does not answer";
    let issued = 0;
    const authority: CertificateAuthority = {
      ...own,
      signingProblem: () => problem,
      issueLeaf(identity) {
        issued++;
        return own.issueLeaf(identity);
      },
    };
    await using parts = await served({}, { authority });
    await using client = new XdsClient(parts.server.address, { id: ID });
    client.send("cluster");
    const reason =
      'the certificate of service "web": the certificate authority cannot sign: its key is kept in a vault that does not answer';
    await eventually(() => parts.server.proxies()[0]?.waitsFor.includes(reason) === true, "it waits");
    assert.equal(issued, 0);
    problem = undefined;
    assert.deepEqual(await client.acknowledged("cluster"), ["local_app"]);
    assert.deepEqual(parts.server.proxies()[0]?.waitsFor, []);
  });

  it("tells a gateway that there is no cluster yet", async () => {
    await using parts = await served();
    await using client = new XdsClient(parts.server.address, { id: "gateway" });
    client.send("cluster");
    const names = await client.acknowledged("cluster");
    assert.ok(
      names.every((name) => name.startsWith("web.")),
      names.join(),
    );
  });

  it("tells a sidecar where our own gateways are, and each change of that", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await pair.offer("web", "127.0.0.1:9");
    const upstreams = [
      { destinationName: "web", destinationPeer: exporter.name, localBindPort: 9_191, meshGateway: { mode: "local" } },
    ];
    await importer.host.catalog.register({
      node: importer.host.nodeName,
      address: "127.0.0.1",
      service: {
        kind: "connect-proxy",
        id: "client-sidecar-proxy",
        name: "client-sidecar-proxy",
        port: 21_000,
        proxy: { destinationServiceName: "client", upstreams },
      },
    });
    await using server = await xdsServer(importer.host, { listen: "127.0.0.1:0", gatherMs: 1 });
    await using client = new XdsClient(server.address, { id: "client-sidecar-proxy" });
    const ports = async (): Promise<readonly (number | undefined)[]> => {
      const { resources, nonce } = await client.next();
      client.send("endpoint", { responseNonce: nonce });
      return resources.flatMap(({ resource }) =>
        fromBinary(ClusterLoadAssignmentSchema, resource?.value ?? new Uint8Array()).endpoints.flatMap(
          ({ lbEndpoints }) =>
            lbEndpoints.map(({ hostIdentifier }) => {
              const address = hostIdentifier.case === "endpoint" ? hostIdentifier.value.address?.address : undefined;
              const specifier = address?.case === "socketAddress" ? address.value.portSpecifier : undefined;
              return specifier?.case === "portValue" ? specifier.value : undefined;
            }),
        ),
      );
    };
    const cluster = `web.default.${exporter.name}.external.${exporter.host.trustDomain}`;
    client.send("endpoint", { resourceNamesSubscribe: [cluster] });
    assert.deepEqual(await ports(), []);
    await registerGateway(importer.host, "own-1", 8_443);
    assert.deepEqual(await ports(), [8_443]);
    await registerGateway(importer.host, "own-2", 8_444);
    assert.deepEqual(await ports(), [8_443, 8_444]);
    await importer.host.catalog.deregister({ node: "own-1" });
    assert.deepEqual(await ports(), [8_444]);
  });

  /** A sidecar that calls services of the peer, and a gateway, at the importer; a gateway at the exporter. */
  async function registerProxies(pair: MeshPair, services: readonly string[]): Promise<void> {
    const { exporter, importer } = pair;
    const destinationPeer = exporter.name;
    const upstreams = services.map((destinationName, at) => ({
      ...{ destinationName, destinationPeer, localBindPort: 9_191 + at },
    }));
    const id = "client-sidecar-proxy";
    const proxy = { destinationServiceName: "client", upstreams };
    const node = { node: importer.host.nodeName, address: "127.0.0.1" };
    await importer.host.catalog.register({ ...node, service: { kind: "connect-proxy", id, name: id, port: 1, proxy } });
    for (const { host } of [importer, exporter]) {
      const gateway = { kind: "mesh-gateway", name: "gateway", address: "127.0.0.1", port: 8_443 } as const;
      await host.catalog.register({ ...node, node: host.nodeName, service: gateway });
    }
  }

  it("waits until all that it looks at was read, so that a proxy which comes back from a former server loses nothing", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    for (const name of ["web", "api"])
      await exporter.host.configEntries.set({ kind: "service-defaults", name, protocol: "http" });
    for (const name of ["web", "api"]) await pair.offer(name, "127.0.0.1:9");
    await registerProxies(pair, ["web", "api"]);
    const domain = exporter.host.trustDomain;
    const names = (make: (service: string) => string): readonly string[] => ["web", "api"].map(make);
    for (const [host, id, expected] of [
      [importer.host, "client-sidecar-proxy", names((name) => `${name}.default.${exporter.name}.external.${domain}`)],
      [importer.host, "gateway", names((name) => serverName(name, exporter.host, importer.name))],
      [exporter.host, "gateway", names((name) => `exported~${name}.default.acceptor.internal.${domain}`)],
    ] as const) {
      await using server = await xdsServer(host, { listen: "127.0.0.1:0", gatherMs: 1 });
      await using client = new XdsClient(server.address, { id });
      client.send("cluster");
      const first = await client.acknowledged("cluster");
      for (const name of expected) assert.ok(first.includes(name), `${id} is told of ${first.join()}`);
    }
  });

  it("has an import that is read while a snapshot is made still under way for that one, which is without it", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await pair.offer("web", "127.0.0.1:9");
    await using source = new HostSource({
      ...{ host: importer.host, allowsByDefault: true, clock: systemClock, random: systemRandom },
    });
    const before = source.record();
    assert.equal(before.view.imported(exporter.name, "web"), undefined);
    await eventually(() => {
      const later = source.record();
      const found = later.view.imported(exporter.name, "web");
      assert.equal(later.underWay().size, found === undefined ? 1 : 0);
      later.release();
      return found !== undefined;
    }, "it is read");
    assert.equal(before.underWay().size, 1);
    before.release();
  });

  it("does not wait for what cannot be read", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    for (const name of ["web", "api"]) await pair.offer(name, "127.0.0.1:9");
    await registerProxies(pair, ["web", "api"]);
    const { imports, incidents } = importer.host;
    const instances = imports.instances.bind(imports);
    const reads = mock.method(imports, "instances", async (asked: Parameters<typeof instances>[0]) => {
      if (asked.service === "api-sidecar-proxy") throw new PeeringError("storage-damaged", "a row is damaged");
      return instances(asked);
    });
    await using server = await xdsServer(importer.host, { listen: "127.0.0.1:0", gatherMs: 1 });
    await using client = new XdsClient(server.address, { id: "client-sidecar-proxy" });
    client.send("cluster");
    const first = await client.acknowledged("cluster");
    const cluster = (service: string): string =>
      `${service}.default.${exporter.name}.external.${exporter.host.trustDomain}`;
    assert.ok(first.includes(cluster("web")) && !first.includes(cluster("api")), first.join());
    assert.ok((incidents.counts().get("mesh-import-not-read") ?? 0) > 0);
    reads.mock.restore();
  });

  it("tells nothing without the right to write the service", async () => {
    const authorizer = tokensFor([WEB, 'service "web" { policy = "read" }', 'service "gateway" { policy = "write" }']);
    await using parts = await served({ authorizer });
    const ends = async (id: string, token: string): Promise<Code> => {
      await using client = new XdsClient(parts.server.address, { id, token });
      return (await refusal(client)).code;
    };
    assert.equal(await ends(ID, "no such token"), Code.Unauthenticated);
    assert.equal(await ends(ID, ""), Code.PermissionDenied);
    assert.equal(await ends(ID, secretFor('service "web" { policy = "read" }')), Code.PermissionDenied);
    assert.equal(await ends("gateway", secretFor(WEB)), Code.PermissionDenied);
    await using allowed = new XdsClient(parts.server.address, { id: ID, token: secretFor(WEB) });
    allowed.send("cluster");
    assert.deepEqual(await allowed.acknowledged("cluster"), ["local_app"]);
    await using gateway = new XdsClient(parts.server.address, {
      id: "gateway",
      token: secretFor('service "gateway" { policy = "write" }'),
    });
    gateway.send("cluster");
    await gateway.acknowledged("cluster");
  });

  it("ends a stream whose registration comes to be for another service, before it tells anything of that", async () => {
    await using parts = await served();
    await using client = new XdsClient(parts.server.address, { id: ID });
    client.send("cluster");
    await client.acknowledged("cluster");
    const proxy = { destinationServiceName: "vault", localServicePort: 80 };
    await parts.host.catalog.register({
      node: "n1",
      address: "127.0.0.1",
      service: { kind: "connect-proxy", id: ID, name: ID, port: 21_000, proxy },
    });
    await assert.rejects(client.next(), { code: Code.Aborted });
  });

  it("shows and counts a refusal, until another response is accepted", async () => {
    await using parts = await served();
    await using client = new XdsClient(parts.server.address, { id: ID });
    client.send("listener");
    const { nonce } = await client.next();
    client.send("listener", { responseNonce: nonce, errorDetail: { code: 13, message: "no such thing" } });
    await eventually(() => parts.server.proxies()[0]?.refusals.length === 1, "the refusal is shown");
    const [refused] = parts.server.proxies()[0]?.refusals ?? [];
    assert.equal(refused?.message, "no such thing");
    assert.deepEqual(refused?.names, ["public_listener:0.0.0.0:21000"]);
    assert.equal(parts.incidents.counts().get("xds-response-refused"), 1);
    client.send("listener");
    await client.acknowledged("listener");
    await eventually(() => parts.server.proxies()[0]?.refusals.length === 0, "the refusal is over");
  });

  it("has the certificates of many proxies that connect at once signed without a refusal", async () => {
    await using parts = await served();
    const names = Array.from({ length: 40 }, (_, at) => `s${at}`);
    await Promise.all(
      names.map((name) => {
        const proxy = { destinationServiceName: name, localServicePort: 80 };
        const service = {
          kind: "connect-proxy",
          id: `${name}-proxy`,
          name: `${name}-proxy`,
          port: 21_000,
          proxy,
        } as const;
        return parts.host.catalog.register({ node: "n1", address: "127.0.0.1", service });
      }),
    );
    const clients = names.map((name) => new XdsClient(parts.server.address, { id: `${name}-proxy` }));
    for (const client of clients) client.send("cluster");
    for (const client of clients) assert.deepEqual(await client.acknowledged("cluster"), ["local_app"]);
    const counts = parts.incidents.counts();
    assert.equal(counts.get("signing-rate"), undefined);
    assert.equal(counts.get("leaf-certificate-not-issued"), undefined);
    await Promise.all(clients.map((client) => client[Symbol.asyncDispose]()));
  });

  it("takes as many proxies as its limit, and again when one has gone", async () => {
    await using parts = await served({ limits: { proxies: 1 } });
    const first = new XdsClient(parts.server.address, { id: ID });
    first.send("cluster");
    await first.acknowledged("cluster");
    await using second = new XdsClient(parts.server.address, { id: ID });
    assert.equal((await refusal(second)).code, Code.ResourceExhausted);
    assert.equal(parts.incidents.counts().get("xds-proxies"), 1);
    await first[Symbol.asyncDispose]();
    await eventually(() => parts.server.proxies().length === 0, "the first one has gone");
    await using third = new XdsClient(parts.server.address, { id: ID });
    third.send("cluster");
    await third.acknowledged("cluster");
  });

  it("ends a stream with a message that is too large", async () => {
    await using parts = await served({ limits: { messageBytes: 1_000 } });
    await using client = new XdsClient(parts.server.address, { id: ID });
    client.send("endpoint", { resourceNamesSubscribe: ["x".repeat(2_000)] });
    await assert.rejects(client.next(), { code: Code.ResourceExhausted });
    await eventually(() => parts.incidents.counts().get("xds-message-too-large") === 1, "it is counted");
  });

  it("ends a stream with too many names, and tells no proxy of more resources than the limit", async () => {
    await using parts = await served({ limits: { subscribedNames: 2, proxyResources: 1 } });
    await using names = new XdsClient(parts.server.address, { id: ID });
    names.send("endpoint", { resourceNamesSubscribe: ["1", "2", "3"] });
    await assert.rejects(names.next(), { code: Code.ResourceExhausted });
    assert.equal(parts.incidents.counts().get("xds-names"), 1);
    await using client = new XdsClient(parts.server.address, { id: ID });
    client.send("cluster");
    await eventually(() => parts.incidents.counts().get("xds-proxy-resources") === 1, "it is counted");
    await eventually(
      () => parts.server.proxies().some(({ waitsFor }) => waitsFor.join().includes("are allowed")),
      "it is shown",
    );
  });

  it("serves over TLS, and shows the next clients other certificates once they are replaced", async () => {
    const [first, second] = await Promise.all([TestAuthority.create(), TestAuthority.create("Second")]);
    const tlsOf = async (authority: TestAuthority) => authority.issue("server", { names: ["localhost"] });
    await using parts = await served({ tls: await tlsOf(first) });
    const told = async (authority: TestAuthority): Promise<readonly string[]> => {
      const tls = { ca: authority.certificate, servername: "localhost" };
      await using client = new XdsClient(parts.server.address, { id: ID, tls });
      client.send("cluster");
      return await client.acknowledged("cluster");
    };
    assert.deepEqual(await told(first), ["local_app"]);
    await assert.rejects(told(second), { code: Code.Internal });
    parts.server.replaceCertificates(await tlsOf(second));
    assert.deepEqual(await told(second), ["local_app"]);
    await assert.rejects(told(first), { code: Code.Internal });
    await using plain = new XdsClient(parts.server.address, { id: ID });
    plain.send("cluster");
    await assert.rejects(plain.next());
  });

  it("answers the other call of the service as Consul does", async () => {
    await using parts = await served();
    const transport = createGrpcTransport({ baseUrl: `http://${parts.server.address}` });
    const client = createClient(AggregatedDiscoveryService, transport);
    const read = async (): Promise<void> => {
      for await (const _ of client.streamAggregatedResources((async function* () {})()))
        assert.fail("there is no response");
    };
    await assert.rejects(read, { code: Code.Unimplemented, rawMessage: "not implemented" });
  });

  it("gives up what it kept for proxies that have gone", async () => {
    await using parts = await served();
    const client = new XdsClient(parts.server.address, { id: ID });
    client.send("cluster");
    await client.acknowledged("cluster");
    await client[Symbol.asyncDispose]();
    await eventually(() => parts.server.proxies().length === 0, "it has gone");
    await parts.server.close();
    await assert.rejects(new XdsClient(parts.server.address, { id: ID }).next());
  });
});
