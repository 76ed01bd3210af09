/**
 * The mesh. With Envoy: {@link xdsServer} tells the sidecars and mesh gateways of a host what to do. For programs of Node without Envoy:
 * {@link meshDial}, {@link meshAgent} and {@link meshHttp2} call services of this cluster and of its peers, {@link meshListener} serves one.
 *
 * @packageDocumentation
 */

export type { PeerIntentionWarning } from "../config/peer-intentions.js";
export {
  type FindIntentionWarningsOptions,
  type IntentionWarningsOptions,
  intentionWarnings,
  reportIntentionWarnings,
  type WarnedHost,
} from "../host/intention-warnings.js";
export type { ConnectedProxy, Refusal, ResourceType, ShownRefusal } from "../model/connected-proxy.js";
export type {
  ConnectionExplanation,
  ConnectionPart,
  ConnectionQuestion,
  ConnectionStep,
  ExplainConnection,
  MeshEnd,
} from "../model/connection-explanation.js";
export { defaultXdsLimits, type XdsLimits } from "./ads/limits.js";
export { type XdsServer, type XdsServerOptions, xdsServer } from "./ads/server.js";
export type { MeshCaller } from "./connect/callers.js";
export { type MeshAgentOptions, type MeshHttp2Options, meshAgent, meshHttp2 } from "./connect/clients.js";
export type { MeshConnection } from "./connect/connection.js";
export { type MeshDialLimits, type MeshDialOptions, meshDial } from "./connect/dial.js";
export {
  type MeshHttpListenerOptions,
  type MeshListener,
  type MeshListenerOptions,
  type MeshTcpListenerOptions,
  meshListener,
} from "./connect/listener.js";
export type { MeshGatewayMode } from "./connect/routes.js";
export { type ExplainConnectionOptions, explainConnection } from "./explain.js";
export type { TlsPlacement } from "./xds/tls.js";
