import { errorText, PeeringError } from "../base/errors.js";
import { isPort, splitHostPort, splitPushedAddress } from "../base/host-port.js";
import type { TransitRule } from "../exports/transit.js";
import { validatePeerName } from "../peering/names.js";
import { isLabel, lowerCase } from "../syntax/names.js";

const BASIC_NAME = /^[a-z0-9_-]+$/;
/** The longest part of a DNS name between dots. */
const MAX_LABEL_BYTES = 63;
const EVERY_ADDRESS: readonly string[] = ["0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "0"];
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62})?)*\.?$/i;
const IP_V6 = /^[0-9a-f:.]+(?:%[a-z0-9._-]+)?$/i;
/** Longest name of a machine. */
const MAX_NODE_NAME_BYTES = 253;
/** A machine's own name may have dots and capitals; everything else has no place in one. */
const UNUSABLE_IN_NODE_NAME = /[^A-Za-z0-9._-]|^\.|\.$|\.\./;

function invalid(problem: string): PeeringError {
  return new PeeringError("invalid-argument", problem);
}

/**
 * A name that a datacenter can have, in lower case, as Consul keeps it (1.13 to 1.22). It is a label of the server name in
 * tokens and certificates.
 * @throws {PeeringError} `invalid-argument`, with Consul's text where Consul refuses it, too.
 */
export function datacenterName(given: string): string {
  const name = given.toLowerCase();
  if (name === "") throw invalid("datacenter cannot be empty");
  if (!BASIC_NAME.test(name)) {
    const shown = JSON.stringify(name);
    throw invalid(`datacenter can only contain lowercase alphanumeric, - or _ characters. received: ${shown}`);
  }
  if (name.length > MAX_LABEL_BYTES) {
    throw invalid(`datacenter cannot be longer than ${MAX_LABEL_BYTES} characters. received: ${JSON.stringify(name)}`);
  }
  return name;
}

/** Why a name that is taken may still give trouble; undefined: it does not. With Consul's texts. */
export function datacenterWarning(name: string): string | undefined {
  if (isLabel(name)) return undefined;
  return (
    `Datacenter : ${JSON.stringify(name)} will not be PKI X.509 compatible due to invalid characters. ` +
    "Valid characters include lowercase alphanumeric characters with dashes in between."
  );
}

/**
 * A name that a node can have.
 * @throws {PeeringError} `invalid-argument`: no name, or one with a special meaning in a path, a log or a DNS name.
 */
export function checkNodeName(name: string): void {
  if (name === "") throw invalid("node_name cannot be empty");
  if (Buffer.byteLength(name) > MAX_NODE_NAME_BYTES) {
    throw invalid(`node_name cannot be longer than ${MAX_NODE_NAME_BYTES} bytes`);
  }
  if (UNUSABLE_IN_NODE_NAME.test(name)) {
    throw invalid(
      `node_name can only contain letters, digits and the characters -, _ and dot between them. received: ${JSON.stringify(name)}`,
    );
  }
}

/** Why a node is not found by its name; undefined: it is. With Consul's texts. */
export function nodeNameWarning(name: string): string | undefined {
  if (/[^A-Za-z0-9-]/.test(name)) {
    return (
      `Node name ${JSON.stringify(name)} will not be discoverable via DNS due to invalid characters. ` +
      "Valid characters include all alpha-numerics and dashes."
    );
  }
  if (name.length > MAX_LABEL_BYTES) {
    return (
      `Node name ${JSON.stringify(name)} will not be discoverable via DNS due to it being too long. ` +
      "Valid lengths are between 1 and 63 bytes."
    );
  }
  return undefined;
}

/**
 * Addresses for peers to dial, without empty ones.
 * @throws {PeeringError} `invalid-argument`: one cannot be dialed; it is named.
 */
export function advertisedAddresses(given: readonly string[]): readonly string[] {
  const addresses = given.map((address) => address.trim()).filter((address) => address !== "");
  for (const address of addresses) {
    const problem = addressProblem(address);
    if (problem !== undefined) throw invalid(`cannot advertise ${JSON.stringify(address)}: ${problem}`);
  }
  return addresses;
}

function addressProblem(address: string): string | undefined {
  // Also an IPv6 host without brackets, as Consul writes its own.
  const parts = splitPushedAddress(address);
  if (parts === undefined) return "it is not host:port";
  const { host, port } = parts;
  if (port < 1 || port > 65_535) return "its port is not one from 1 to 65535";
  if (EVERY_ADDRESS.includes(host.toLowerCase()))
    return "it stands for every address of this machine, and leads nowhere";
  if (!HOST_NAME.test(host) && !(host.includes(":") && IP_V6.test(host))) return "its host is no name and no address";
  return undefined;
}

/**
 * Where a host is reached that advertises nothing: where it listens.
 * @throws {PeeringError} `invalid-argument`: it listens on every address.
 */
export function listeningAddress(address: string): string {
  const { host } = splitHostPort(address) ?? { host: "" };
  if (host !== "" && !EVERY_ADDRESS.includes(host.toLowerCase())) return address;
  throw new PeeringError("invalid-argument", `a host that listens on ${address} does not know where peers reach it`, {
    remedy: "Say in `advertise` where peers reach it, or listen on one address.",
  });
}

/** @throws {PeeringError} `invalid-argument`: a rule for a peer that can never be; it is named. */
export function checkTransitRules(rules: readonly TransitRule[]): void {
  for (const { from, to } of rules) {
    const shown = `transit from ${JSON.stringify(from)} to ${JSON.stringify(to)}`;
    for (const name of [from, to]) {
      try {
        validatePeerName(lowerCase(name));
      } catch (error) {
        throw new PeeringError("invalid-argument", `${shown}: ${errorText(error)}`, { cause: error });
      }
    }
  }
}

/**
 * @throws {PeeringError} `invalid-argument`: no range of ports; a last one of 0 stands for none.
 */
export function checkExposedPorts(range: { readonly first: number; readonly last: number } | undefined): void {
  if (range === undefined) return;
  const { first, last } = range;
  const isPortOrNone = (port: number): boolean => port === 0 || isPort(port);
  if (isPortOrNone(first) && isPortOrNone(last) && first <= last) return;
  throw invalid(`checks.exposedPorts must be a range of ports, not ${first} to ${last}`);
}

/**
 * Takes numbers that are given in place of defaults.
 * @param name - of the option, for the error.
 * @throws {PeeringError} `invalid-argument`: one that is negative or not a number; it is named.
 */
export function checkNumbers(name: string, given: Readonly<Record<string, unknown>>): void {
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (typeof value !== "number" || Number.isNaN(value) || value < 0) {
      throw invalid(`${name}.${key} must be a number that is not negative, not ${String(value)}`);
    }
  }
}
