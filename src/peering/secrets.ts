import { createHash, timingSafeEqual } from "node:crypto";
import { PeeringError } from "../base/errors.js";

/**
 * SHA-256 of a secret as lower-case hex; `""` stands for "no secret" and equals nothing. An acceptor keeps no more of a
 * secret than this: it must recognise it, never show it (D-21).
 */
export type SecretDigest = string;

/** The secrets of an acceptor: the token's secret until it is used, and up to two stream secrets. */
export interface AcceptorSecrets {
  readonly role: "acceptor";
  /** E: of the last token, until it was exchanged. */
  readonly establishment: SecretDigest;
  /** P: given out, not used yet. */
  readonly pending: SecretDigest;
  /** S: opens streams. */
  readonly active: SecretDigest;
}

/** The secret of a dialer: its one stream secret, as the host's secret box sealed it. */
export interface DialerSecrets {
  readonly role: "dialer";
  readonly sealedActive: Uint8Array;
}

/** The row of one peering, keyed by its local id. */
export type SecretsRow = AcceptorSecrets | DialerSecrets;

/** One step in the life of secrets. Everything an acceptor is given comes as a digest already. */
export type SecretsRequest =
  | { readonly type: "generate_token"; readonly establishment: SecretDigest }
  | { readonly type: "exchange_secret"; readonly establishment: SecretDigest; readonly pending: SecretDigest }
  | { readonly type: "promote_pending"; readonly active: SecretDigest }
  | { readonly type: "establish"; readonly sealedActive: Uint8Array };

/** The digest of `secret`; `""` of the empty one, so that "none given" never looks like a secret. */
export function digestSecret(secret: string): SecretDigest {
  return secret === "" ? "" : createHash("sha256").update(secret, "utf8").digest("hex");
}

/** Whether both are the same secret, in time that tells nothing about where they differ. No secret equals nothing. */
export function sameSecret(stored: SecretDigest, given: SecretDigest): boolean {
  if (stored === "" || given === "" || stored.length !== given.length) return false;
  return timingSafeEqual(Buffer.from(stored), Buffer.from(given));
}

/** Whether `given` is the secret that `row` opens streams with, or will once it is promoted. */
export function matchStreamSecret(row: AcceptorSecrets, given: SecretDigest): "active" | "pending" | undefined {
  if (sameSecret(row.active, given)) return "active";
  return sameSecret(row.pending, given) ? "pending" : undefined;
}

/** @throws {PeeringError} `invalid-secret`: the secret that this kind of request is about is missing. */
export function validateSecretsRequest(request: SecretsRequest): void {
  if (lacksSecret(request)) throw invalid("invalid secret write request: missing secret ID");
}

/**
 * The secrets after `request`; the given row is unchanged. The preconditions are checked here although callers looked
 * before: two exchanges with one token race, and exactly one may win.
 * @param inUse - whether an acceptor of this cluster holds that digest in any slot; dialers' secrets do not count.
 * @throws {PeeringError} `invalid-secret` with Consul's text (1.21).
 */
export function applySecretsRequest(
  role: "acceptor" | "dialer",
  row: SecretsRow | undefined,
  request: SecretsRequest,
  inUse: (digest: SecretDigest) => boolean,
): SecretsRow {
  if (role === "dialer") {
    if (request.type !== "establish") {
      throw invalid(`invalid request type ${request.type} when persisting stream secret for dialing peer`);
    }
    return { role, sealedActive: request.sealedActive };
  }
  const before = row?.role === "acceptor" ? row : undefined;
  switch (request.type) {
    case "generate_token":
      requireUnused(request.establishment, inUse);
      return { ...(before ?? NO_SECRETS), establishment: request.establishment };
    case "exchange_secret":
      requireUnused(request.pending, inUse);
      if (before === undefined) throw invalid("cannot exchange peering secret: no known secrets for peering");
      if (before.establishment === "") {
        throw invalid("invalid establishment secret: peering was already established");
      }
      if (!sameSecret(before.establishment, request.establishment)) throw invalid("invalid establishment secret");
      return { ...before, establishment: "", pending: request.pending };
    case "promote_pending":
      if (before === undefined) throw invalid("cannot promote pending secret: no known secrets for peering");
      if (!sameSecret(before.pending, request.active)) throw invalid("invalid pending stream secret");
      return { ...before, pending: "", active: request.active };
    case "establish":
      throw invalid("an accepting peer should not have called Establish RPC");
  }
}

const NO_SECRETS: AcceptorSecrets = { role: "acceptor", establishment: "", pending: "", active: "" };

function lacksSecret(request: SecretsRequest): boolean {
  switch (request.type) {
    case "generate_token":
      return request.establishment === "";
    case "exchange_secret":
      return request.pending === "";
    case "promote_pending":
      return request.active === "";
    case "establish":
      return request.sealedActive.length === 0;
  }
}

function requireUnused(digest: SecretDigest, inUse: (digest: SecretDigest) => boolean): void {
  if (inUse(digest)) throw invalid("peering secret is already in use, retry the operation");
}

function invalid(text: string): PeeringError {
  return new PeeringError("invalid-secret", text);
}
