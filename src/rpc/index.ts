/** `PeeringService` and the watch service over a host, by Connect, gRPC and gRPC-web. */
export { type HttpServer, type HttpServerOptions, httpServer } from "./http-server.js";
export { type PeeringRpcOptions, peeringRpc, type RpcListener } from "./peering-rpc.js";
export type { ServerTls } from "./server-tls.js";
