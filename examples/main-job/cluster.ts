// One cluster as a process of its own: a host with its data on disk and real TLS, driven by messages of the parent.
import { builtInAuthority, createHost, PeeringError, type PeeringHost, type ServiceInstance } from "peerage";
import { openLevel } from "peerage/storage/level";
import { grpcTransport } from "peerage/transport/grpc";
import type { ClusterCall, ClusterReply, ClusterRequest } from "./calls.js";

const [, , directory, listen, datacenter] = process.argv;
if (directory === undefined || listen === undefined || datacenter === undefined) {
  throw new Error("usage: cluster DIRECTORY HOST:PORT DATACENTER");
}

const storage = await openLevel(directory);
// A host makes its own CA when it is given none; this one is made here because it is to be rotated.
const authority = await builtInAuthority({ storage });
const host: PeeringHost = await createHost({ datacenter, storage, authority, transport: grpcTransport({ listen }) });

const calls: ClusterCall = {
  address: async () => host.listenAddress ?? "",
  register: async ({ registrations }) => {
    await host.catalog.registerAll(registrations);
  },
  export: async ({ entry }) => host.exports.set(entry),
  generateToken: async ({ peerName }) => host.peerings.generateToken({ peerName }),
  establish: async ({ peerName, token }) => {
    await host.peerings.establish({ peerName, token });
  },
  state: async ({ peerName }) => host.peerings.read(peerName)?.state ?? "initial",
  imported: async ({ peerName }) => host.imports.count({ peer: peerName }),
  services: async ({ peerName }) => host.imports.services({ peer: peerName }),
  instances: async ({ peerName, service }) => host.imports.instances({ peer: peerName, service }),
  exported: async ({ peerName }) => {
    const services: Record<string, readonly ServiceInstance[]> = {};
    for (const name of host.exports.forPeer(peerName)) services[name] = host.catalog.instances(name);
    return services;
  },
  rotateCertificateAuthority: async () => {
    await authority.rotate();
    return authority.roots().length;
  },
  trustedRoots: async ({ peerName }) => host.peerings.read(peerName)?.peerCaPems.length ?? 0,
  stop: async () => {
    await host.close();
  },
};

process.on("message", (request: ClusterRequest) => {
  void answer(request).then((reply) => {
    process.send?.(reply, () => {
      if (request.method === "stop") process.disconnect();
    });
  });
});
// Ctrl-C reaches every process of the terminal; when to end is the parent's to say.
process.on("SIGINT", () => {});
process.on("disconnect", () => process.exit(0));
process.send?.({ ready: true });

async function answer(request: ClusterRequest): Promise<ClusterReply> {
  try {
    // The parent is this program's other half, so its calls are taken at their word.
    const call = calls[request.method] as (argument: unknown) => Promise<unknown>;
    return { id: request.id, result: await call(request.argument) };
  } catch (error) {
    const code = error instanceof PeeringError ? `${error.code}: ` : "";
    return { id: request.id, error: code + (error instanceof Error ? error.message : String(error)) };
  }
}
