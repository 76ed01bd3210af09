/**
 * DNS for a host's own and imported services, as Consul answers it.
 * @module
 */
export type { Node, ServiceInstance } from "../model/instance.js";
export { type DnsServer, type DnsServerOptions, dnsServer } from "./server.js";
export { type AddressOwner, type DnsSource, hostSource, type QueryAnswer, type VisibleInstances } from "./source.js";
