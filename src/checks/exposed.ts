import { joinHostPort, readHostPort } from "../base/host-port.js";
import type { CheckMethod, ProbeMethod } from "./definition.js";

/** Requests that a proxy leads to the service, so that a check reaches it through the proxy. */
export interface ExposedTarget {
  readonly path: string;
  readonly protocol: "http" | "http2";
  /** Of the service. */
  readonly localPort: number;
}

/** The one method of gRPC's health service that checks call. */
const GRPC_PATH = "/grpc.health.v1.Health/Check";

/**
 * The target of a check that a proxy can lead to the service; undefined: this one goes there directly. The listener of a proxy speaks no TLS
 * to a check, nor to the service (D-72).
 */
export function exposedTarget(method: CheckMethod): ExposedTarget | undefined {
  if (method.type === "http") {
    if (!URL.canParse(method.url)) return undefined;
    const url = new URL(method.url);
    if (url.protocol !== "http:") return undefined;
    return { path: url.pathname, protocol: "http", localPort: Number(url.port || "80") };
  }
  if (method.type !== "grpc" || method.tls !== undefined) return undefined;
  const [address = ""] = method.target.split("/", 1);
  const place = readHostPort(address);
  if (typeof place === "string" || place.port === 0) return undefined;
  return { path: GRPC_PATH, protocol: "http2", localPort: place.port };
}

/** The same probe through the listener of a proxy. */
export function throughProxy(method: ProbeMethod, host: string, port: number): ProbeMethod {
  if (method.type === "http") {
    const url = new URL(method.url);
    url.host = joinHostPort(host, port);
    return { ...method, url: url.href };
  }
  if (method.type !== "grpc") return method;
  const slash = method.target.indexOf("/");
  return { ...method, target: joinHostPort(host, port) + (slash < 0 ? "" : method.target.slice(slash)) };
}
