/** Consul's HTTP API of a host, for a server of `node:http`. */
export {
  type AclResource,
  type Authorizer,
  allowAll,
  type Identity,
  type Right,
} from "../access/authorizer.js";
export { type HttpHandlerOptions, httpHandler } from "./handler.js";
