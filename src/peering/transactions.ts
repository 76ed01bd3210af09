import { errorText, InvariantError, PeeringError } from "../base/errors.js";
import { lowerCase } from "../syntax/names.js";

import { type Peering, type Role, roleOf, type TrustBundle } from "./peering.js";
import type { RecordTables } from "./record-tables.js";
import { applySecretsRequest, type SecretsRequest, type SecretsRow, validateSecretsRequest } from "./secrets.js";
import { isCommitEffect, type Transition } from "./state-machine.js";

/**
 * The rows that a transaction writes: new rows by key, `undefined` for removed ones; empty for a transaction that changes nothing.
 * Indexes of written records are those of the commit, so `modifyIndex` here (and `createIndex` of new ones) is 0n.
 */
export interface RecordChanges {
  readonly peerings: ReadonlyMap<string, Peering | undefined>;
  readonly secrets: ReadonlyMap<string, SecretsRow | undefined>;
  readonly bundles: ReadonlyMap<string, TrustBundle | undefined>;
}

export const NO_CHANGES: RecordChanges = { peerings: new Map(), secrets: new Map(), bundles: new Map() };

export function isUnchanged(changes: RecordChanges): boolean {
  return changes.peerings.size === 0 && changes.secrets.size === 0 && changes.bundles.size === 0;
}

/** The values that the effects of a step are to store. */
export interface StepMaterial {
  readonly secrets?: SecretsRequest;
  readonly bundle?: TrustBundle;
}

/** How refusals of secrets begin: written with their record, or alone. Consul's words. */
export const WRITING_RECORD = "failed to write peering establishment secret";
const WRITING_SECRETS = "failed to write peering secret";

/**
 * Performs a step of the state machine as far as it belongs into one commit: the record as the step left it, and its
 * effects on secrets and trust bundle. The host performs the other effects after the commit.
 * @throws {PeeringError} `invalid-secret` with Consul's texts: the secrets do not fit the stored ones.
 */
export function performStep(
  tables: RecordTables,
  step: Transition<Peering>,
  material: StepMaterial = {},
): RecordChanges {
  const { before, written, effects } = step;
  const record = step.peering ?? before;
  if (record === undefined) return NO_CHANGES;
  const { id, name } = record;
  const stored = tables.secrets.get(id);
  const bundles = new Map<string, TrustBundle | undefined>();
  const secrets = (type: SecretsRequest["type"]): SecretsRow => {
    if (material.secrets?.type !== type) throw new InvariantError(`no secrets were given to ${type}`);
    const prefix = written ? WRITING_RECORD : WRITING_SECRETS;
    return secretsAfter(tables, roleOf(record), row, material.secrets, prefix);
  };
  let row = stored;
  const bundleKey = lowerCase(name);
  const dropBundle = (): void => {
    if (tables.bundles.has(bundleKey)) bundles.set(bundleKey, undefined);
  };
  if (written && step.peering === undefined) {
    // A record that is gone keeps nothing.
    row = undefined;
    dropBundle();
  }
  if (written && before !== undefined && namesAnother(before, step)) {
    // A stream secret is shown only to the cluster that gave it.
    if (!isSameCluster(before, record)) row = undefined;
    // The roots of the former cluster say nothing of this one.
    if (before.peerServerName !== record.peerServerName) dropBundle();
  }
  for (const effect of effects) {
    if (!isCommitEffect(effect)) continue;
    switch (effect.type) {
      case "store-establishment-secret":
        row = secrets("generate_token");
        break;
      case "exchange-secret":
        row = secrets("exchange_secret");
        break;
      case "promote-secret":
        row = secrets("promote_pending");
        break;
      case "store-stream-secret":
        row = secrets("establish");
        break;
      case "drop-secrets":
        row = undefined;
        break;
      case "store-trust-bundle":
        if (material.bundle === undefined) throw new InvariantError("no trust bundle was given to store");
        bundles.set(bundleKey, material.bundle);
        break;
      default:
        return effect satisfies never;
    }
  }
  return {
    peerings: written ? new Map([[id, step.peering && { ...step.peering, modifyIndex: 0n }]]) : NO_CHANGES.peerings,
    secrets: row === stored ? NO_CHANGES.secrets : new Map([[id, row]]),
    bundles,
  };
}

/** Removes a bundle; the record keeps its roots. Unknown: nothing. */
export function deleteTrustBundle(tables: RecordTables, name: string): RecordChanges {
  const key = lowerCase(name);
  return tables.bundles.has(key) ? { ...NO_CHANGES, bundles: new Map([[key, undefined]]) } : NO_CHANGES;
}

/** The row of secrets after `request`. @throws {PeeringError} `invalid-secret`, with `prefix` before Consul's text. */
export function secretsAfter(
  tables: RecordTables,
  role: Role,
  row: SecretsRow | undefined,
  request: SecretsRequest,
  prefix: string,
): SecretsRow {
  try {
    validateSecretsRequest(request);
    return applySecretsRequest(role, row, request, (digest) => tables.isSecretInUse(digest));
  } catch (error) {
    throw prefixed(prefix, error);
  }
}

/** `error` with `prefix` before its text, as Consul wraps errors; code, status and cause are kept. */
export function prefixed(prefix: string, error: unknown, status?: number): PeeringError {
  const options = { cause: error, ...(status === undefined ? {} : { status }) };
  if (!(error instanceof PeeringError))
    return new PeeringError("storage-failed", `${prefix}: ${errorText(error)}`, options);
  return new PeeringError(error.code, `${prefix}: ${error.message}`, {
    ...(error.status === undefined ? {} : { status: error.status }),
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    ...options,
  });
}

/** Whether a dial of `after` reaches whom a dial of `before` reached, wherever they are by now. */
export function isSameCluster(before: Peering | undefined, after: Peering): boolean {
  return (
    before?.peerId === after.peerId &&
    before.peerServerName === after.peerServerName &&
    before.peerCaPems.join() === after.peerCaPems.join()
  );
}

/** Whether the record is that of another cluster now. Roots that a cluster sends over its stream are its own. */
function namesAnother(before: Peering, { peering, effects }: Transition<Peering>): boolean {
  if (peering === undefined || peering.peerId === "") return false;
  return !isSameCluster(before, peering) && !effects.some(({ type }) => type === "store-trust-bundle");
}
