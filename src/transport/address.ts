import { PeeringError } from "../base/errors.js";
import { type HostPort, readHostPort } from "../base/host-port.js";
import { StatusCode } from "../wire/status.js";

/** As `readHostPort`, for an address to dial or to listen on. @throws {PeeringError} `invalid-argument`, status 14. */
export function parseAddress(address: string): HostPort {
  const read = readHostPort(address);
  if (typeof read !== "string") return read;
  throw new PeeringError("invalid-argument", `address ${address}: ${read}`, { status: StatusCode.Unavailable });
}
