/**
 * Consul cluster peering as a library: {@link createHost} is the way in. Four of its parts can be used alone:
 * {@link TokenCodec}, {@link PeeringStateMachine}, {@link TrustBundleStore}, {@link ReplicationSession}. The rest of the
 * machinery is in `peerage/protocol`.
 *
 * @packageDocumentation
 */

export type { Abortable } from "./base/abortable.js";
export type { Closable } from "./base/closable.js";
export {
  type Clock,
  type LogFields,
  type Logger,
  type Random,
  silentLogger,
  systemClock,
  systemRandom,
  type Timer,
} from "./base/environment.js";
export { InvariantError, PeeringError, type PeeringErrorCode, type PeeringErrorOptions } from "./base/errors.js";
export { Incidents } from "./base/incidents.js";
export type { SortedMap } from "./base/sorted-map.js";
export type {
  CheckDefinition,
  CheckMethod,
  CheckResult,
  CheckStatus,
  CheckTls,
  ProbeMethod,
} from "./checks/definition.js";
export type { ExposedTarget } from "./checks/exposed.js";
export type {
  ConfigEntry,
  ConfigEntryInput,
  ExportConsumer,
  ExportedServiceBlock,
  ExportedServicesEntry,
  FailoverTarget,
  KeptEntry,
  KeptKind,
  LinkedService,
  MeshEntry,
  ProxyDefaultsEntry,
  ResolverFailover,
  ResolverRedirect,
  ResolverSubset,
  RouteDestination,
  ServiceDefaultsEntry,
  ServiceIntentionsEntry,
  ServiceResolverEntry,
  ServiceRoute,
  ServiceRouterEntry,
  ServiceSplit,
  ServiceSplitterEntry,
  TerminatingGatewayEntry,
} from "./config/config-entry.js";
export type { ChainLimits, ConfigEntrySet, Referred } from "./config/config-entry-set.js";
export type { ExportRules, PeerRules } from "./config/export-rules.js";
export type { ExportExplanation, ExportedServiceView, ExportReason } from "./config/exports.js";
export type {
  IntentionAction,
  IntentionClaim,
  IntentionHeader,
  IntentionHttp,
  IntentionJwt,
  IntentionPermission,
  IntentionSource,
} from "./config/intentions.js";
export type {
  PreparedQuery,
  PreparedQueryInput,
  QueriedService,
  QueryTarget,
  QueryTemplate,
} from "./config/prepared-query.js";
export { TRANSIT_PATH_KEY, type TransitObstacle } from "./config/transit.js";
export type { ExportedServicesInput, Exports } from "./exports/exports.js";
export type { ExportSync, ImportProgress, ImportSync, ServiceSync } from "./exports/service-sync.js";
export type { TransitRule } from "./exports/transit.js";
export type { AgentChecks, CheckLimits } from "./host/agent-checks.js";
export type { ExposedCheck, ExposedPortRange } from "./host/exposed-checks.js";
export type { Gateways } from "./host/gateways.js";
export { createHost, PeeringHost } from "./host/host.js";
export type { Imports, WatchImportsOptions } from "./host/imports.js";
export { alwaysLeader, type Leadership } from "./host/leadership.js";
export type {
  LeafCertificates,
  LeafCertificatesOptions,
  LeafHolder,
  LeafLimits,
  ServiceLeaf,
} from "./host/leaf-certificates.js";
export type { Metric } from "./host/metrics.js";
export type { HostLimits, HostOptions } from "./host/options.js";
export type {
  EstablishOptions,
  GenerateTokenOptions,
  Peerings,
  PeeringsChange,
  PeeringView,
  WatchPeeringsOptions,
} from "./host/peerings.js";
export type { PeeringFailure, PeeringStatus } from "./host/status-board.js";
export type { ReceiveLimits } from "./host/stream-link.js";
export type { PeeringTransition } from "./host/transitions.js";
export type { HostChange, HostView } from "./host/view.js";
export type { CatalogChange, CatalogSource } from "./model/catalog-source.js";
export type { ConfigEntryKind } from "./model/entry-kinds.js";
export type {
  Check,
  Connect,
  JsonObject,
  JsonValue,
  Locality,
  Node,
  PeerMeta,
  Proxy,
  Service,
  ServiceAddress,
  ServiceInstance,
  ServiceKind,
  ServicePort,
  StringMap,
  Weights,
} from "./model/instance.js";
export type { Listing } from "./model/listing.js";
export {
  type CheckRegistration,
  type Deregistration,
  type Given,
  type NodeRegistration,
  type OperationError,
  type Registration,
  type ServiceRegistration,
  TransactionError,
  type TransactionOperation,
  type TransactionVerb,
} from "./model/registration.js";
export type { ServiceSummary } from "./model/service-summary.js";
export type { WriteLimits } from "./model/write-limits.js";
export type { PayloadLimits } from "./payload/payload-inspection.js";
export type { StreamFacts, StreamStatus } from "./peering/observed.js";
export type { Peering, PeeringState, Role, StoredState, TrustBundle } from "./peering/peering.js";
export type { PeeringWrite } from "./peering/peering-write.js";
export * from "./pieces.js";
export type {
  CommitOptions,
  DamagedEntry,
  Entry,
  Expectation,
  Key,
  Removal,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
  Write,
} from "./storage/storage.js";
export type {
  Catalog,
  CatalogIndexes,
  CatalogNode,
  CatalogUpdate,
  CatalogWriteOptions,
  CheckExposure,
  CountedCatalog,
  HealthCounts,
  IndexedCheck,
  IndexedInstance,
  IndexedNode,
  IndexedService,
  Indexes,
  Judge,
  NodeListings,
  ServiceKinds,
  ServiceWithProxies,
  TaggedService,
  Touched,
  TransactionAnswer,
  TransactionResult,
} from "./stores/catalog.js";
export type {
  ConfigEntries,
  ConfigEntryChange,
  ConfigWriteOptions,
  StoredConfigEntry,
} from "./stores/config-entries.js";
export type {
  ImportChange,
  ImportDifference,
  ImportedService,
  ImportedSummary,
  ImportLimits,
  ImportPart,
  ImportSnapshot,
  ListedNode,
} from "./stores/import-store.js";
export type { PeeringPatches } from "./stores/peering-changes.js";
export type { PreparedQueries, StoredQuery } from "./stores/prepared-queries.js";
export type { GivenSecrets } from "./stores/records.js";
export {
  type Connection,
  type ConnectionGuard,
  ConnectionLimits,
  type ConnectionLimitsOptions,
  type ListenerLimits,
} from "./transport/connection-limits.js";
export type {
  AcceptHandler,
  DialTarget,
  ExchangeSecretRequest,
  Listener,
  ReplicationStream,
  ServerIdentity,
  Transport,
} from "./transport/transport.js";
export type {
  CaRoot,
  CertificateAuthority,
  IssuedCertificate,
  LeafIdentity,
  RequestedIdentity,
  SignedLeaf,
} from "./trust/authority.js";
export {
  type BuiltInAuthority,
  type BuiltInAuthorityOptions,
  builtInAuthority,
  type CaConfiguration,
  type CaConfigurationChange,
} from "./trust/built-in-authority.js";
export type { CaConfigurationValue } from "./trust/ca-configuration.js";
export {
  type ProvidedAuthority,
  type ProvidedAuthorityOptions,
  type ProvidedMaterial,
  providedAuthority,
} from "./trust/provided-authority.js";
export { plainSecretBox, type SecretBox, sealedSecretBox } from "./trust/secret-box.js";
export type { TrustBundles, TrustBundlesOptions, TrustBundleView } from "./trust/trust-bundle-store.js";
export type { WithheldReason } from "./trust/trust-domains.js";
