import type { Right } from "../access/authorizer.js";
import { PeeringError } from "../base/errors.js";
import type { PeeringView } from "../host/peerings.js";
import { type BlockingQuery, blocking } from "../http/blocking.js";
import { validatePeeringMeta, validatePeerName } from "../peering/names.js";
import { isActive, type TrustBundle } from "../peering/peering.js";
import { ConnectError, connectError, type HandlerContext, type ServiceImpl } from "../transport/connect.js";
import type { PeeringService } from "../wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { StatusCode } from "../wire/status.js";
import { givenRecord, givenSecrets, peeringMessage, trustBundleMessage } from "./peering-message.js";
import { RpcCall, type RpcServer } from "./rpc-call.js";

const WRITE: Right = { resource: "peering", access: "write" };
const READ: Right = { resource: "peering", access: "read" };

/** Consul's PeeringService over a host, with its texts. A malformed request is refused before rights are looked at. */
export function peeringService(server: RpcServer): ServiceImpl<typeof PeeringService> {
  const method =
    <Request, Response>(run: (request: Request, call: RpcCall) => Promise<Response>) =>
    async (request: Request, context: HandlerContext): Promise<Response> => {
      try {
        server.host.peerings.requireEnabled();
        return await run(request, new RpcCall(server, context));
      } catch (error) {
        throw error instanceof ConnectError ? error : connectError(error);
      }
    };
  return {
    generateToken: method(async ({ PeerName, Partition, Meta, ServerExternalAddresses }, call) => {
      refuseEnterprise("Partitions", Partition);
      validatePeerName(PeerName);
      validatePeeringMeta(Meta);
      await call.require(WRITE);
      const token = await call.host.peerings.generateToken({
        peerName: PeerName,
        meta: Meta,
        serverExternalAddresses: ServerExternalAddresses,
      });
      return { PeeringToken: token };
    }),

    establish: method(async ({ PeerName, PeeringToken, Meta }, call) => {
      validatePeerName(PeerName);
      call.host.peerings.requireSound(PeeringToken);
      validatePeeringMeta(Meta);
      await call.require(WRITE);
      await call.host.peerings.establish({ peerName: PeerName, token: PeeringToken, meta: Meta, signal: call.signal });
      return {};
    }),

    peeringRead: method(async ({ Name, Partition }, call) => {
      refuseEnterprise("Partitions", Partition);
      await call.require(READ);
      const { view } = call.host;
      const { result } = await query<PeeringView | undefined>(call, {
        read: () => {
          const read = call.host.peerings.read(Name);
          return { index: read?.modifyIndex ?? view.index, result: read, found: read !== undefined };
        },
        subscribe: (wake) => view.onChangeOf(Name, wake),
      });
      return result === undefined ? {} : { Peering: peeringMessage(result) };
    }),

    peeringList: method(async ({ Partition }, call) => {
      refuseEnterprise("Partitions", Partition);
      await call.require(READ);
      const { view } = call.host;
      const { index, result } = await query<readonly PeeringView[]>(call, {
        read: () => ({ index: view.index, result: call.host.peerings.list() }),
        index: () => view.index,
        subscribe: (wake) => view.onChange(wake),
      });
      return { Peerings: result.map(peeringMessage), OBSOLETEIndex: index };
    }),

    peeringDelete: method(async ({ Name, Partition }, call) => {
      refuseEnterprise("Partitions", Partition);
      await call.require(WRITE);
      await call.host.peerings.delete(Name);
      return {};
    }),

    peeringWrite: method(async ({ Peering, SecretsRequest }, call) => {
      if (Peering === undefined) throw new PeeringError("invalid-argument", "missing required peering body");
      refuseEnterprise("Partitions", Peering.Partition);
      await call.require(WRITE);
      if (!server.allowPeeringWrite) {
        throw new PeeringError("invalid-argument", "PeeringWrite goes round the rules of peerings and is not served", {
          status: StatusCode.Unimplemented,
          remedy: "Use GenerateToken, Establish and PeeringDelete; in a test, serve it with allowPeeringWrite.",
        });
      }
      await call.host.peerings.write(givenRecord(Peering), givenSecrets(SecretsRequest));
      return {};
    }),

    trustBundleRead: method(async ({ Name, Partition }, call) => {
      refuseEnterprise("Partitions", Partition);
      await call.require({ resource: "service", access: "write", scope: "any" });
      const { view } = call.host;
      const { index, result } = await query<TrustBundle | undefined>(call, {
        read: () => {
          const bundle = view.trustBundle(Name);
          return { index: view.trustBundleIndex(Name), result: bundle, found: bundle !== undefined };
        },
        subscribe: (wake) => view.onChange(wake),
      });
      return { OBSOLETEIndex: index, ...(result === undefined ? {} : { Bundle: trustBundleMessage(result, index) }) };
    }),

    trustBundleListByService: method(async ({ ServiceName, Namespace, Partition, Kind }, call) => {
      refuseEnterprise("Partitions", Partition);
      refuseEnterprise("Namespaces", Namespace);
      if (ServiceName === "") throw new PeeringError("invalid-argument", "missing service name");
      await call.require({ resource: "service", access: "write", name: ServiceName });
      const { configEntries, exports, view } = call.host;
      const bundleOf = (name: string): readonly TrustBundle[] => {
        const peering = view.peering(name);
        // Consumers are matched with capitals, and only peers with a peering count.
        const bundle = isActive(peering) && peering?.name === name ? view.trustBundle(name) : undefined;
        return bundle === undefined ? [] : [bundle];
      };
      const bundles = (): readonly TrustBundle[] =>
        Kind === "mesh-gateway" ? view.trustBundles() : exports.peersReaching(ServiceName).flatMap(bundleOf);
      const { index, result } = await query<readonly TrustBundle[]>(call, {
        read: () => ({ index: latest(view.trustBundlesIndex, view.index, configEntries.index), result: bundles() }),
        subscribe: (wake) => {
          const stops = [view.onChange(wake), configEntries.onChange(wake)];
          return () => {
            for (const stop of stops) stop();
          };
        },
      });
      const messages = result.map((bundle) => trustBundleMessage(bundle, view.trustBundleIndex(bundle.peerName)));
      return { OBSOLETEIndex: index, Bundles: messages };
    }),
  };
}

/** Answers a read, at once or when its index exceeds the one that the caller's metadata names. */
async function query<Result>(
  call: RpcCall,
  read: BlockingQuery<Result>,
): Promise<{ readonly index: bigint; readonly result: Result }> {
  const reading = await blocking(call, call.queryOptions(), read);
  call.tellIndex(reading.index);
  return reading;
}

/** @throws {PeeringError} with status INVALID_ARGUMENT: Community Edition has no partitions and namespaces. */
function refuseEnterprise(what: "Partitions" | "Namespaces", name: string): void {
  if (name === "" || name.toLowerCase() === "default") return;
  throw new PeeringError("invalid-argument", `${what} are a Consul Enterprise feature`, {
    status: StatusCode.InvalidArgument,
  });
}

function latest(...indexes: readonly bigint[]): bigint {
  let highest = 0n;
  for (const index of indexes) if (index > highest) highest = index;
  return highest;
}
