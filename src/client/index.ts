/**
 * A client for the HTTP API of Peerage agents and Consul servers.
 *
 * @module
 */

export { PeeringError, type PeeringErrorCode, type PeeringErrorOptions } from "../base/errors.js";
export {
  type AgentClient,
  type CatalogClient,
  type CatalogReadOptions,
  type ClientEstablishOptions,
  type ClientGenerateTokenOptions,
  type ConfigClient,
  type ConfigWriteRequestOptions,
  type ConnectClient,
  type ConnectionQuestion,
  ConsulClient,
  type ConsulClientOptions,
  type HealthClient,
  type HealthReadOptions,
  type IntentionEnds,
  type IntentionsClient,
  type MaintenanceOptions,
  type MembersOptions,
  type NodeServicesReadOptions,
  type PeeringsClient,
  type ReadAnswer,
  type ReadOptions,
  type RequestOptions,
  type ServiceReadOptions,
} from "./consul-client.js";
export type { ClientTlsOptions } from "./http-connection.js";
export { HttpError } from "./http-error.js";
export type { Json, JsonObject } from "./json-reader.js";
export type {
  AddressRecord,
  CaConfigurationRecord,
  CatalogNodeRecord,
  CatalogServiceRecord,
  CheckRecord,
  ConfigEntryRecord,
  ExportedServiceRecord,
  InstanceRecord,
  IntentionRecord,
  NodeRecord,
  NodeServicesRecord,
  PeeringFailure,
  PeeringRecord,
  PeeringRemote,
  PeeringStreamStatus,
  PeeringTroubles,
  PortRecord,
  ServiceRecord,
} from "./records.js";
export { type WatchOptions, watch } from "./watch.js";
