/**
 * The data that crosses between two clusters: the messages of a replication stream, the resources inside them, and the protobuf
 * schemas of both; and the schemas of the services that `peerage/rpc` serves, for their clients.
 *
 * @module
 */

export { PeeringError, type PeeringErrorCode, type PeeringErrorOptions } from "../base/errors.js";
export {
  decodeMessage,
  defaultEnvelopeLimits,
  type EnvelopeLimits,
  encodeMessage,
  encodeMessages,
} from "./codec.js";
/** The schemas of Consul's `PeeringService`, for clients of `peerage/rpc`. */
export * as peeringApi from "./gen/hashicorp/consul/internal/peering/peering_pb.js";
export {
  type ExportedService,
  ExportedServiceSchema,
  PeerStreamService,
  ReplicationMessageSchema,
} from "./gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
export {
  type CheckServiceNode,
  CheckServiceNodeSchema,
} from "./gen/hashicorp/consul/internal/service/service_pb.js";
/** The schemas of the watch service, for clients of `peerage/rpc`. */
export * as watchApi from "./gen/peerage/watch/v1/watch_pb.js";
export {
  type AnyResource,
  LEADER_ADDRESS_URL,
  type OpenMessage,
  Operation,
  type RemoteInfo,
  type ReplicationMessage,
  type RequestMessage,
  ResourceId,
  ResourceUrl,
  type ResponseMessage,
} from "./messages.js";
export {
  decodeExportedServiceList,
  decodeLeaderAddress,
  decodeServerAddresses,
  decodeTrustBundle,
  defaultIdentityLimits,
  encodeExportedServiceList,
  encodeLeaderAddress,
  encodeServerAddresses,
  encodeTrustBundle,
  type IdentityLimits,
  type TrustBundlePayload,
} from "./resources.js";
export { type Status, StatusCode } from "./status.js";
export { decodeStatusDetails, encodeStatusDetails } from "./status-details.js";
export { isUuid } from "./uuid.js";
