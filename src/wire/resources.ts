import { PeeringError } from "../base/errors.js";
import { doAll, STEP_FIELDS, type Steps } from "../base/steps.js";
import { lengthTag, ProtobufReader, ProtobufWriter, ReadBudget } from "./protobuf.js";
import { StatusCode } from "./status.js";

/** A cluster's identity as it crosses the stream. Consul sends no peer name, partition or index (1.13 to 1.22). */
export interface TrustBundlePayload {
  readonly trustDomain: string;
  /** PEM, one certificate each. */
  readonly rootPems: readonly string[];
  /** Enterprise; `""` in Community Edition. */
  readonly exportedPartition: string;
}

/** The value of a resource of type `ExportedServiceList`. */
export function encodeExportedServiceList(names: readonly string[]): Uint8Array {
  return encodeStrings(names);
}

/**
 * @param most - names that a list may have.
 * @throws {PeeringError} `invalid-message`, or `resource-exhausted` for more or for longer names than services have; both
 *   with status INTERNAL.
 */
export function decodeExportedServiceList(value: Uint8Array, most: number = Number.POSITIVE_INFINITY): string[] {
  return doAll(exportedServiceListSteps(value, most));
}

/** As {@link decodeExportedServiceList}, in steps. */
export function exportedServiceListSteps(value: Uint8Array, most: number): Steps<string[]> {
  return readStrings(value, most);
}

/** The value of a resource of type `PeeringServerAddresses`: `host:port` each. */
export function encodeServerAddresses(addresses: readonly string[]): Uint8Array {
  return encodeStrings(addresses);
}

/** Bounds on the facts that a peer sends of itself, which are stored with its record and shown with it. Ours; Consul has none. */
export interface IdentityLimits {
  /** Characters of a peering token; a longer one is refused before it is read. Default 524 288. */
  readonly tokenCharacters: number;
  /** Addresses of servers, or of mesh gateways in their place, also in a token; more are refused. Default 1 000. */
  readonly addressesPerPeer: number;
  /** Root certificates in a trust bundle or a token; one with more is refused. Default 100. */
  readonly rootsPerPeer: number;
  /** Bytes of a trust bundle, whatever is in it; a larger one is refused. Default 1 MiB. */
  readonly trustBundleBytes: number;
}

export const defaultIdentityLimits: IdentityLimits = {
  tokenCharacters: 524_288,
  addressesPerPeer: 1_000,
  rootsPerPeer: 100,
  trustBundleBytes: 1024 * 1024,
};

/** The addresses as they came, unchecked. @throws {PeeringError} as {@link decodeExportedServiceList}. */
export function decodeServerAddresses(
  value: Uint8Array,
  { addressesPerPeer }: Pick<IdentityLimits, "addressesPerPeer"> = defaultIdentityLimits,
): string[] {
  return doAll(readStrings(value, addressesPerPeer));
}

/** The value of a resource of type `PeeringTrustBundle`. */
export function encodeTrustBundle(bundle: TrustBundlePayload): Uint8Array {
  return new ProtobufWriter(2048)
    .stringField(1, bundle.trustDomain)
    .repeatedStringField(4, bundle.rootPems)
    .stringField(5, bundle.exportedPartition)
    .finish();
}

/**
 * The bundle as it came: whether its roots are certificates is for the receiver to judge. The sender's own peer name,
 * partition and indexes mean nothing here and are left out.
 *
 * @throws {PeeringError} `invalid-message`, or `resource-exhausted` beyond a limit; both with status INTERNAL.
 */
export function decodeTrustBundle(
  value: Uint8Array,
  limits: Pick<IdentityLimits, "rootsPerPeer" | "trustBundleBytes"> = defaultIdentityLimits,
): TrustBundlePayload {
  const { rootsPerPeer, trustBundleBytes } = limits;
  if (value.length > trustBundleBytes) throw exhausted(`a trust bundle of ${value.length} bytes`);
  const budget = new ReadBudget(rootsPerPeer + MAX_OTHER_FIELDS, trustBundleBytes);
  const reader = new ProtobufReader(value, 0, value.length, budget);
  let trustDomain = "";
  const rootPems: string[] = [];
  let exportedPartition = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(1)) trustDomain = shortText(reader);
    else if (tag === lengthTag(4)) {
      if (rootPems.length >= rootsPerPeer) throw exhausted(`more than ${rootsPerPeer} root certificates`);
      rootPems.push(reader.string());
    } else if (tag === lengthTag(5)) exportedPartition = shortText(reader);
    // Unused, but text all the same: Consul refuses the whole message when it is no UTF-8.
    else if (tag === lengthTag(2) || tag === lengthTag(3)) reader.string();
    else reader.skip(tag);
  }
  return { trustDomain, rootPems, exportedPartition };
}

function shortText(reader: ProtobufReader): string {
  const string = reader.string();
  if (string.length > MAX_TEXT_BYTES) throw exhausted(`a text of ${string.length} characters`);
  return string;
}

/** The value of the status detail `LeaderAddress`. */
export function encodeLeaderAddress(address: string): Uint8Array {
  return new ProtobufWriter().stringField(1, address).finish();
}

/** @throws {PeeringError} `invalid-message`, status INTERNAL. */
export function decodeLeaderAddress(value: Uint8Array): string {
  return doAll(readStrings(value, Number.POSITIVE_INFINITY)).at(-1) ?? "";
}

/** A message whose only field is number 1, `repeated string`. */
function encodeStrings(values: readonly string[]): Uint8Array {
  return new ProtobufWriter().repeatedStringField(1, values).finish();
}

/** Far above what names a service, a server or a cluster. */
const MAX_TEXT_BYTES = 1_024;
/** Unknown fields that a later version may have. */
const MAX_OTHER_FIELDS = 1_000;

/** Texts read in one step. */
const STEP_TEXTS = STEP_FIELDS / 10;

function* readStrings(value: Uint8Array, most: number): Steps<string[]> {
  const reader = new ProtobufReader(value, 0, value.length, new ReadBudget(most + MAX_OTHER_FIELDS, MAX_TEXT_BYTES));
  const values: string[] = [];
  let fields = 0;
  while (!reader.done) {
    if (++fields % STEP_TEXTS === 0) yield;
    const tag = reader.tag();
    if (tag !== lengthTag(1)) {
      reader.skip(tag);
      continue;
    }
    if (values.length >= most) throw exhausted(`more than ${most} texts`);
    values.push(reader.string());
  }
  return values;
}

function exhausted(why: string): PeeringError {
  return new PeeringError("resource-exhausted", why, { status: StatusCode.Internal });
}
