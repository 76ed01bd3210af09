/**
 * The machinery behind a host, for programs that use parts of it by themselves: the table of the state machine, what a stream
 * says and when, the contents of tokens, and the stores a host composes. Programs that run a host need `peerage` alone.
 *
 * @module
 */

export { AgentChecks, type AgentChecksOptions, type CheckLimits } from "./host/agent-checks.js";
export { type StreamFacts, type StreamStatus, ZERO_TIME } from "./peering/observed.js";
export {
  type Cell,
  type EstablishFields,
  type MachinePeering,
  type Outcome,
  PEERING_STATES,
  type PeeringEffect,
  type PeeringEffectType,
  type PeeringEvent,
  type PeeringEventType,
  type PeeringPatch,
  PeeringStateMachine,
  type Reached,
  type Refusal,
  type RoleCells,
  type StreamRefusal,
  TRANSITIONS,
  type Transition,
  type TransitionTable,
  transition,
  type Unchanged,
} from "./peering/state-machine.js";
export { defaultSessionLimits, defaultSessionTimings, ReplicationSession } from "./replication/session.js";
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
export { Catalog, type CatalogOptions } from "./stores/catalog.js";
export { ConfigEntries, type ConfigEntriesOptions } from "./stores/config-entries.js";
export { PreparedQueries, type PreparedQueriesOptions } from "./stores/prepared-queries.js";
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
