// One side of the benchmark: a host on disk and TLS, or one end of a bare HTTP/2 stream, driven by the parent.
import { connect, createSecureServer, type Http2SecureServer } from "node:http2";
import { encodeServicePayload } from "../../src/catalog/exported-payload.js";
import type { ServiceInstance } from "../../src/catalog/instance.js";
import { systemClock, systemRandom } from "../../src/environment.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { builtInAuthority } from "../../src/trust/built-in-authority.js";
import { plainSecretBox } from "../../src/trust/secret-box.js";
import type { BenchCalls, Load } from "./calls.js";
import { serveCalls } from "./calls.js";

let host: PeeringHost | undefined;
let bare: Http2SecureServer | undefined;

const theHost = (): PeeringHost => {
  if (host === undefined) throw new Error("the host was not started");
  return host;
};

/** Milliseconds on the clock that every process of this machine shares. */
const sharedNow = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Instances of one service are spread over nodes that ten services share, or over five nodes in all. */
function registration(load: Load, service: number, instance: number, tag: string) {
  const number = service * load.instances + instance;
  const node =
    load.nodes === undefined ? Math.floor(service / load.perNode) * load.instances + instance : number % load.nodes;
  const id = `svc-${service}-${instance}`;
  return {
    node: `node-${node}`,
    address: `10.${(node >> 16) & 255}.${(node >> 8) & 255}.${node & 255}`,
    service: { id, name: `svc-${service}`, port: 8000 + instance, tags: [tag], meta: { rev: tag } },
    checks: [{ checkId: `chk-${id}`, name: "alive", serviceId: id, status: "passing" }],
  };
}

const hasTag = (instances: readonly ServiceInstance[], tag: string): boolean =>
  instances.some((instance) => instance.service.tags.includes(tag));

const calls: BenchCalls = {
  async start({ directory, datacenter }) {
    host = await createHost({
      datacenter,
      storage: await openLevel(directory),
      transport: grpcTransport({ listen: "127.0.0.1:0" }),
    });
  },
  async fill({ load, consumer }) {
    const batch = [];
    for (let service = 0; service < load.services; service++) {
      for (let instance = 0; instance < load.instances; instance++) {
        batch.push(registration(load, service, instance, "r0"));
        if (batch.length === 1_000) await theHost().catalog.registerAll(batch.splice(0));
      }
    }
    await theHost().catalog.registerAll(batch);
    await theHost().exports.set({ services: [{ name: "*", consumers: [{ peer: consumer }] }] });
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
  async sees({ peerName, service, tag }) {
    const stop = new AbortController();
    for await (const change of theHost().imports.watch({
      peer: peerName,
      service: `svc-${service}`,
      signal: stop.signal,
    })) {
      if (change.type === "difference" && hasTag([...change.added, ...change.changed], tag)) {
        const at = sharedNow();
        stop.abort();
        return at;
      }
    }
    throw new Error("the watch ended");
  },
  async burst({ load, count, tag }) {
    const began = sharedNow();
    await Promise.all(
      Array.from({ length: count }, (_, service) => theHost().catalog.register(registration(load, service, 0, tag))),
    );
    return began;
  },
  async seesAll({ peerName, count, tag }) {
    const stop = new AbortController();
    const seen = new Set<string>();
    for await (const change of theHost().imports.watch({ peer: peerName, signal: stop.signal })) {
      if (change.type === "difference" && hasTag(change.changed, tag)) seen.add(change.service);
      if (seen.size === count) {
        const at = sharedNow();
        stop.abort();
        return at;
      }
    }
    throw new Error("the watch ended");
  },
  async usage() {
    const { user, system } = process.cpuUsage();
    return { cpuSeconds: (user + system) / 1e6, rssMiB: process.memoryUsage.rss() / 1024 / 1024 };
  },
  async exportedBytes({ peerName }) {
    let bytes = 0;
    for (const name of theHost().exports.forPeer(peerName)) {
      bytes += encodeServicePayload(name, theHost().catalog.instances(name)).value.length;
    }
    return bytes;
  },
  async serveBare() {
    const authority = await builtInAuthority({
      storage: memoryStorage(),
      clock: systemClock,
      random: systemRandom,
      secretBox: plainSecretBox,
    });
    const { certificateChainPem, privateKeyPem } = await authority.issueServer("dc1");
    const server = createSecureServer({ cert: certificateChainPem, key: privateKeyPem });
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
    return address.port;
  },
  async sendBare({ port, bytes }) {
    const session = connect(`https://127.0.0.1:${port}`, {
      rejectUnauthorized: false,
      settings: { initialWindowSize: 4 * 1024 * 1024 },
    });
    await new Promise((resolve) => session.once("remoteSettings", resolve));
    const stream = session.request({ ":method": "POST", ":path": "/" });
    const chunk = Buffer.alloc(64 * 1024, 7);
    const began = sharedNow();
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
    bare?.close();
    await host?.[Symbol.asyncDispose]();
  },
};

serveCalls(calls);
