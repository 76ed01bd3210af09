import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";
import { errorText, InvariantError, PeeringError } from "../base/errors.js";
import { parseAddress } from "./address.js";

/**
 * Has a server listen on `host:port`; port 0: any that is free.
 * @returns where it really listens.
 * @throws {PeeringError} `invalid-argument` for an invalid address, `unavailable` when it cannot be bound.
 */
export async function bind(server: Server, address: string): Promise<AddressInfo> {
  const { host, port } = parseAddress(address);
  try {
    const listening = once(server, "listening");
    server.listen({ port, ...(host === "" ? {} : { host }) });
    await listening;
  } catch (error) {
    throw new PeeringError("unavailable", `cannot listen on ${address}: ${errorText(error)}`, { cause: error });
  }
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new InvariantError("a listener on a port has a port");
  return bound;
}
