// One side of the benchmark: a host on disk and TLS, or one end of a bare HTTP/2 stream, driven by the parent.
import { once } from "node:events";
import { type FileHandle, open } from "node:fs/promises";
import { connect, createSecureServer, type Http2SecureServer } from "node:http2";
import { connect as connectTcp, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { systemClock, systemRandom } from "../src/base/environment.js";
import type { DnsServer } from "../src/dns/index.js";
import { createHost, type PeeringHost } from "../src/host/host.js";
import { defaultLimits, type HostLimits } from "../src/host/options.js";
import { httpHandler } from "../src/http/index.js";
import type { ServiceInstance } from "../src/model/instance.js";
import { encodeServicePayload } from "../src/payload/exported-payload.js";
import { type HttpServer, httpServer, peeringRpc } from "../src/rpc/index.js";
import { openLevel } from "../src/storage/level.js";
import { memoryStorage } from "../src/storage/memory.js";
import type { ImportDifference } from "../src/stores/import-store.js";
import { grpcTransport } from "../src/transport/grpc.js";
import type { Transport } from "../src/transport/transport.js";
import { peeringServerName } from "../src/trust/authority.js";
import { builtInAuthority } from "../src/trust/built-in-authority.js";
import { plainSecretBox } from "../src/trust/secret-box.js";
import { encodeMessage } from "../src/wire/codec.js";
import { Operation, ResourceId, ResourceUrl } from "../src/wire/messages.js";
import { encodeExportedServiceList } from "../src/wire/resources.js";
import type { BenchCalls, Load } from "./calls.js";
import { serveCalls } from "./calls.js";
import { sharedNow } from "./figures.js";
import { RawPeer } from "./raw-peer.js";

let host: PeeringHost | undefined;
let http: HttpServer | undefined;
let dns: DnsServer | undefined;
let bare: Http2SecureServer | undefined;
let echo: Server | undefined;
let toEcho: Socket | undefined;
/** Beside the directory of the storage: nothing else may lie in that. */
let syncedPath = "";
let synced: FileHandle | undefined;
const rawPeers: RawPeer[] = [];
let rawTransport: Transport | undefined;
/** So that their handshakes do not wait for one another longer than an acceptor waits. */
const CONNECTED_AT_ONCE = 8;
const watching = new AbortController();
let onDifference: (change: ImportDifference) => void = () => {};

const MIB = 1024 * 1024;
const turns = monitorEventLoopDelay({ resolution: 1 });
turns.enable();

/** The limits of a host that imports so many instances, where those by default admit fewer. */
function limitsFor(instances: number): Partial<HostLimits> {
  if (instances <= defaultLimits.instancesPerPeer) return {};
  return {
    instancesPerPeer: instances,
    servicesPerPeer: instances,
    payloadBytesPerPeer: 1_000 * instances,
    indexBytesPerPeer: 500 * instances,
    indexBytesInAll: 1_000 * instances,
  };
}

const theHost = (): PeeringHost => {
  if (host === undefined) throw new Error("the host was not started");
  return host;
};

/** As the transport's: the windows of the receiver bound what the sender may have under way. */
const bareSettings = { initialWindowSize: 4 * 1024 * 1024, maxFrameSize: 64 * 1024 };

/** About as many bytes as a commit of one service has. */
const SYNCED = Buffer.alloc(400, "x");

/** Instances of one service are spread over nodes that ten services share, or over five nodes in all. */
function registration(load: Load, service: number, instance: number, tag: string) {
  const number = service * load.instances + instance;
  const node =
    load.nodes === undefined ? Math.floor(service / load.perNode) * load.instances + instance : number % load.nodes;
  const { prefix = "svc" } = load;
  const id = `${prefix}-${service}-${instance}`;
  return {
    node: `${load.prefix ?? ""}node-${node}`,
    address: `10.${(node >> 16) & 255}.${(node >> 8) & 255}.${node & 255}`,
    service: { id, name: `${prefix}-${service}`, port: 8000 + instance, tags: [tag], meta: { rev: tag } },
    checks: [{ checkId: `chk-${id}`, name: "alive", serviceId: id, status: "passing" }],
  };
}

const hasTag = (instances: readonly ServiceInstance[], tag: string): boolean =>
  instances.some((instance) => instance.service.tags.includes(tag));

/** Of one response, with its envelope and the frame of gRPC. */
function wireBytes(resourceUrl: string, resourceId: string, value: Uint8Array): number {
  const message = encodeMessage({
    type: "response",
    nonce: "00000001",
    resourceUrl,
    resourceId,
    operation: Operation.Upsert,
    resource: { typeUrl: resourceUrl, value },
  });
  return message.length + 5;
}

const calls: BenchCalls = {
  async start({ directory, datacenter, instances = 0 }) {
    const began = sharedNow();
    syncedPath = `${directory}.synced`;
    host = await createHost({
      datacenter,
      storage: await openLevel(directory),
      transport: grpcTransport({ listen: "127.0.0.1:0" }),
      // All peers of a benchmark come from one address.
      limits: { ...limitsFor(instances), unauthorizedPerSecond: 10_000, unauthorizedPerSecondInAll: 100_000 },
    });
    const { catalog, imports, peerings } = host;
    const peers = peerings.list().map(({ name }) => imports.count({ peer: name }).instances);
    return {
      seconds: (sharedNow() - began) / 1_000,
      registered: catalog.count().services,
      imported: peers.reduce((sum, count) => sum + count, 0),
    };
  },
  async forget({ peerName }) {
    await theHost().peerings.delete(peerName);
    while (
      theHost()
        .peerings.list()
        .some(({ name }) => name === peerName)
    ) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  },
  async fill({ load, consumers }) {
    const batch = [];
    for (let service = 0; service < load.services; service++) {
      for (let instance = 0; instance < load.instances; instance++) {
        batch.push(registration(load, service, instance, "r0"));
        if (batch.length === 1_000) await theHost().catalog.registerAll(batch.splice(0));
      }
    }
    await theHost().catalog.registerAll(batch);
    await theHost().exports.set({ services: [{ name: "*", consumers: consumers.map((peer) => ({ peer })) }] });
  },
  async token({ peerName }) {
    return theHost().peerings.generateToken({ peerName });
  },
  async establish({ peerName, token }) {
    const began = sharedNow();
    await theHost().peerings.establish({ peerName, token });
    return began;
  },
  async imported({ peerName, instances }) {
    while (theHost().imports.count({ peer: peerName }).instances < instances) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return sharedNow();
  },
  async update({ load, service, tag }) {
    const began = sharedNow();
    await theHost().catalog.register(registration(load, service, 0, tag));
    return began;
  },
  watch({ peerName }) {
    return new Promise((resolve, reject) => {
      const follow = async (): Promise<void> => {
        for await (const change of theHost().imports.watch({ peer: peerName, signal: watching.signal })) {
          if (change.type === "difference") onDifference(change);
          else resolve();
        }
      };
      follow().catch(reject);
    });
  },
  sees({ count, tag }) {
    return new Promise((resolve) => {
      const seen = new Set<string>();
      onDifference = (change) => {
        if (hasTag([...change.added, ...change.changed], tag)) seen.add(change.service);
        if (seen.size === count) resolve(sharedNow());
      };
    });
  },
  async burst({ load, count, tag }) {
    const began = sharedNow();
    await Promise.all(
      Array.from({ length: count }, (_, service) => theHost().catalog.register(registration(load, service, 0, tag))),
    );
    return began;
  },
  async now() {
    return sharedNow();
  },
  async usage() {
    const { user, system } = process.cpuUsage();
    const turnMs = turns.max / 1e6;
    turns.reset();
    globalThis.gc?.();
    const { rss, heapUsed } = process.memoryUsage();
    return { cpuSeconds: (user + system) / 1e6, rssMiB: rss / MIB, heapMiB: heapUsed / MIB, turnMs };
  },
  async exportedBytes({ peerName }) {
    const names = theHost().exports.forPeer(peerName);
    let bytes = wireBytes(
      ResourceUrl.exportedServiceList,
      ResourceId.exportedServiceList,
      encodeExportedServiceList(names),
    );
    for (const name of names) {
      const { value } = encodeServicePayload(name, theHost().catalog.instances(name));
      bytes += wireBytes(ResourceUrl.exportedService, name, value);
    }
    return bytes;
  },
  async drain({ token, services }) {
    await using transport = grpcTransport();
    const began = sharedNow();
    const peer = await RawPeer.connect(transport, token);
    const ended = await peer.sent(services);
    await peer.close();
    return (ended - began) / 1_000;
  },
  async serveHttp() {
    http = await httpServer({
      listen: "127.0.0.1:0",
      rpc: peeringRpc(theHost()),
      http: httpHandler(theHost()),
    });
    return Number(http.address.split(":").at(-1));
  },
  async serveDns() {
    const largeAnswers = { perSecond: Number.MAX_SAFE_INTEGER };
    // Not loaded with the rest: it would count in the resident memory of the rows that do not ask for it.
    const { dnsServer } = await import("../src/dns/index.js");
    dns = await dnsServer(theHost(), { listen: "127.0.0.1:0", largeAnswers });
    return Number(dns.address.split(":").at(-1));
  },
  async becomePeers({ tokens, services }) {
    rawTransport = grpcTransport();
    const transport = rawTransport;
    const left = tokens.values();
    const ends: number[] = [];
    const connectSome = async (): Promise<void> => {
      for (const token of left) {
        const peer = await RawPeer.connect(transport, token);
        rawPeers.push(peer);
        ends.push(await peer.sent(services));
      }
    };
    await Promise.all(Array.from({ length: CONNECTED_AT_ONCE }, connectSome));
    return Math.max(...ends);
  },
  async peersSee({ service }) {
    return Math.max(...(await Promise.all(rawPeers.map((peer) => peer.sees(service)))));
  },
  async serveEcho() {
    echo = createTcpServer({ noDelay: true }, (socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
    await once(echo, "listening");
    const address = echo.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return address.port;
  },
  async roundTrip({ port }) {
    if (toEcho === undefined) {
      toEcho = connectTcp({ host: "127.0.0.1", port, noDelay: true });
      await once(toEcho, "connect");
    }
    const began = sharedNow();
    const answered = once(toEcho, "data");
    toEcho.write("1");
    await answered;
    return sharedNow() - began;
  },
  async sync() {
    synced ??= await open(syncedPath, "a");
    await synced.write(SYNCED);
    const began = sharedNow();
    await synced.datasync();
    return sharedNow() - began;
  },
  async serveBare() {
    const authority = await builtInAuthority({
      storage: memoryStorage(),
      clock: systemClock,
      random: systemRandom,
      secretBox: plainSecretBox,
    });
    const { certificateChainPem, privateKeyPem } = await authority.issueServer("dc1");
    const server = createSecureServer({ cert: certificateChainPem, key: privateKeyPem, settings: bareSettings });
    bare = server;
    server.on("session", (session) => session.setLocalWindowSize(16 * 1024 * 1024));
    server.on("stream", (stream) => {
      stream.on("data", () => {});
      stream.on("end", () => {
        stream.respond({ ":status": 200, "x-end": String(sharedNow()) });
        stream.end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const [root] = authority.roots();
    if (root === undefined) throw new Error("no root");
    const serverName = peeringServerName("dc1", authority.trustDomain);
    return { port: address.port, root: root.certificatePem, serverName };
  },
  async sendBare({ port, root, serverName, bytes }) {
    const began = sharedNow();
    // With the root, as a peer has it: Node would otherwise read the hundred and more that come with it.
    const session = connect(`https://127.0.0.1:${port}`, { ca: root, servername: serverName, settings: bareSettings });
    await new Promise((resolve) => session.once("remoteSettings", resolve));
    const stream = session.request({ ":method": "POST", ":path": "/" });
    const chunk = Buffer.alloc(64 * 1024, 7);
    const ended = new Promise<number>((resolve, reject) => {
      stream.on("response", (headers) => resolve(Number(headers["x-end"])));
      stream.on("error", reject);
    });
    for (let sent = 0; sent < bytes; sent += chunk.length) {
      const part = bytes - sent < chunk.length ? chunk.subarray(0, bytes - sent) : chunk;
      if (!stream.write(part)) await new Promise((resolve) => stream.once("drain", resolve));
    }
    stream.end();
    const at = await ended;
    session.close();
    return (at - began) / 1_000;
  },
  async stop() {
    watching.abort();
    bare?.close();
    await http?.[Symbol.asyncDispose]();
    await dns?.close();
    toEcho?.destroy();
    echo?.close();
    await synced?.close();
    for (const peer of rawPeers) await peer.close();
    await rawTransport?.[Symbol.asyncDispose]();
    await host?.[Symbol.asyncDispose]();
  },
};

serveCalls(calls);
