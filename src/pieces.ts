/**
 * The four parts of a host that can be used alone, with the types that their callers need. Both `peerage` and `peerage/protocol`
 * export them.
 */

export {
  type EstablishFields,
  type MachinePeering,
  type PeeringEffect,
  type PeeringEffectType,
  type PeeringEvent,
  type PeeringEventType,
  type PeeringPatch,
  PeeringStateMachine,
  type Refusal,
  type StreamRefusal,
  type Transition,
} from "./peering/state-machine.js";
export { ReplicationSession } from "./replication/session.js";
export type {
  AppliedResult,
  ExportedResource,
  ExportProgress,
  ReceivedResource,
  Session,
  SessionDialect,
  SessionInput,
  SessionLimits,
  SessionOptions,
  SessionOutput,
  SessionPhase,
  SessionServices,
  SessionStatus,
  SessionTimings,
} from "./replication/types.js";
export { type PeeringToken, type TokenCertificate, TokenCodec, type TokenDescription } from "./token/token-codec.js";
export { TrustBundleStore, type TrustBundleStoreOptions } from "./trust/trust-bundle-store.js";
export type {
  AnyResource,
  OpenMessage,
  RemoteInfo,
  ReplicationMessage,
  RequestMessage,
  ResponseMessage,
} from "./wire/messages.js";
export type { Status } from "./wire/status.js";
