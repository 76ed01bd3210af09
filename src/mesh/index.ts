/**
 * The mesh for programs of Node without Envoy: {@link meshDial}, {@link meshAgent} and {@link meshHttp2} call services of this cluster and of its
 * peers, {@link meshListener} serves one.
 *
 * @packageDocumentation
 */

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
