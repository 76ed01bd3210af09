import { type Clock, type Random, randomId } from "../base/environment.js";
import { errorText, InvariantError, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import { validatePeeringMeta, validatePeerName } from "../peering/names.js";
import { isActive, type Peering, type TrustBundle } from "../peering/peering.js";
import { type PeeringWrite, writePeering } from "../peering/peering-write.js";
import type { RecordTables } from "../peering/record-tables.js";
import {
  digestSecret,
  matchStreamSecret,
  type SecretDigest,
  type SecretsRequest,
  type SecretsRow,
  sameSecret,
} from "../peering/secrets.js";
import {
  type EstablishFields,
  type HostEffect,
  isDialed,
  isHostEffect,
  type ObservedEvent,
  type PeeringEvent,
  type Transition,
  transition,
} from "../peering/state-machine.js";
import {
  deleteTrustBundle,
  isUnchanged,
  NO_CHANGES,
  performStep,
  prefixed,
  type RecordChanges,
  type StepMaterial,
} from "../peering/transactions.js";
import { fenceKey, PEERINGS_PREFIX } from "../storage/keys.js";
import { Replica } from "../storage/replica.js";
import type { Expectation, Storage } from "../storage/storage.js";
import { lowerCase } from "../syntax/names.js";
import type { SecretBox } from "../trust/secret-box.js";
import { expendableBundles, validateBundle } from "../trust/trust-bundle-store.js";
import type { TrustDomains } from "../trust/trust-domains.js";
import type { OpenMessage, RemoteInfo } from "../wire/messages.js";
import { defaultIdentityLimits, type IdentityLimits } from "../wire/resources.js";
import { StatusCode } from "../wire/status.js";
import { isUuid } from "../wire/uuid.js";
import { moveFormerRows } from "./former-peerings.js";
import { type CommittedRows, HeldPeerings } from "./held-peerings.js";
import { type PeeringChange, patchesBetween, wholeRecord } from "./peering-changes.js";

/** The fields of a peering token that end up in a record. */
export interface EstablishingToken {
  readonly ca: readonly string[];
  readonly manualServerAddresses: readonly string[];
  readonly serverAddresses: readonly string[];
  readonly serverName: string;
  readonly peerId: string;
  readonly remote: RemoteInfo;
}

/** A step in the life of secrets as Consul's PeeringWrite is given it: with the secrets themselves. */
export type GivenSecrets =
  | { readonly type: "generate_token"; readonly establishmentSecret: string }
  | { readonly type: "exchange_secret"; readonly establishmentSecret: string; readonly pendingStreamSecret: string }
  | { readonly type: "promote_pending"; readonly activeStreamSecret: string }
  | { readonly type: "establish"; readonly activeStreamSecret: string };

/** An establish between its two writes. */
export interface BegunEstablish {
  /** Of the record. */
  readonly id: string;
  /** The fields that the record gets once the exchange of secrets has succeeded, and where to exchange them. */
  readonly fields: EstablishFields;
  /** Whether a stream was up when it began. */
  readonly connected: boolean;
}

/** A record to dial, and the stream secret that its peer gave. */
export interface Dialable {
  readonly peering: Peering;
  readonly streamSecret: string;
}

/** Effects that the state machine asks the host to perform after an event. */
export interface HostTask {
  readonly peeringId: string;
  /** The record now; undefined where there is none. */
  readonly peering: Peering | undefined;
  /** In this order. */
  readonly effects: readonly HostEffect[];
  /** Whether they replace the effects that are still to be performed for the former state. */
  readonly replaces: boolean;
}

export interface PeeringRecordsOptions {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly random: Random;
  /** For the one secret that must be readable again: the dialer's. */
  readonly secretBox: SecretBox;
  /** Bounds on trust bundles. Default: {@link defaultIdentityLimits}. */
  readonly identityLimits?: IdentityLimits;
  /** Our own, which no peer may claim. */
  readonly trustDomain: string;
  /** Gets a report of damaged bundles, of a storage that cannot be followed, and of listeners that throw. Default: no reports. */
  readonly incidents?: Incidents;
}

/** A row with a sealed secret takes less. */
const SEALED_BYTES = 1_024;
const RANDOM_TRIES = 100;

/** How storage errors are wrapped for callers of a step. Refusals of the state machine have their full text already. */
interface Wrapping {
  readonly prefix: string;
  readonly status?: number;
}

const WRITING: Wrapping = { prefix: "failed to write peering" };
const EXCHANGING: Wrapping = { prefix: "failed to persist peering secret", status: StatusCode.Internal };
const PROMOTING: Wrapping = { prefix: "failed to persist peering", status: StatusCode.Internal };

interface Plan<T> {
  readonly changes: RecordChanges;
  /** The step of the state machine that they come from; undefined for changes that bypass it. */
  readonly step?: Transition<Peering>;
  /** Whom the step is about where there is no such record. */
  readonly peeringId?: string;
  /** Performs the effects of the step. Default: as for all steps. */
  readonly perform?: (task: HostTask) => void;
  /** The result for the caller once the changes are committed. */
  readonly result: () => T;
}

/**
 * The peerings of a cluster with their secrets and trust bundles: read from memory, written through storage. Each step
 * of the protocol is one commit; memory moves only after it. Secrets of tokens and streams leave this class only as
 * return values, and are kept as digests on acceptors.
 *
 * Every method that writes throws {@link PeeringError} `storage-failed` (nothing is changed), `unavailable` (it may have
 * been, and is read again), `conflict` (other writers kept being faster) and `closed`, besides its own.
 */
export class PeeringRecords implements AsyncDisposable {
  readonly #options: PeeringRecordsOptions;
  readonly #held: HeldPeerings;
  readonly #replica: Replica;
  readonly #changed: Signal<[PeeringChange]>;
  readonly #bundlesChanged: Signal<[withheld: readonly string[]]>;
  #perform: (task: HostTask) => void = () => {};
  #index: bigint;
  #bundleIndex: bigint;
  #closed = false;

  private constructor(options: PeeringRecordsOptions, held: HeldPeerings, replica: Replica) {
    this.#options = options;
    this.#held = held;
    this.#replica = replica;
    this.#index = replica.revision;
    this.#bundleIndex = replica.revision;
    const { incidents = new Incidents() } = options;
    this.#changed = new Signal(incidents);
    this.#bundlesChanged = new Signal(incidents);
    held.onForeign = (rows, revision) => this.#follow(rows, revision);
  }

  /**
   * Reads the stored records, and follows the writes of other processes.
   * @throws {PeeringError} `storage-failed`: the storage cannot be read, or an entry is damaged (its key is named).
   */
  static async open(options: PeeringRecordsOptions): Promise<PeeringRecords> {
    const { storage, trustDomain, clock, incidents } = options;
    await moveFormerRows(storage);
    const held = new HeldPeerings(trustDomain);
    const replica = await Replica.open({
      storage,
      prefix: PEERINGS_PREFIX,
      rowName: "peering entry",
      contents: held,
      expendable: expendableBundles(([, type]) => type === "bundle"),
      clock,
      incidents,
    });
    const records = new PeeringRecords(options, held, replica);
    await records.#sealAnew();
    return records;
  }

  /** All records, by name. */
  list(): readonly Peering[] {
    return [...this.#held.peerings.values()].sort(byName);
  }

  /** The record of that name, compared without case. */
  byName(name: string): Peering | undefined {
    return this.#held.byName(name);
  }

  /** The record of that local id. */
  byId(id: string): Peering | undefined {
    return this.#held.peerings.get(id);
  }

  /** Revision of the last change of any record; after a start, that of the storage. It only grows. */
  get index(): bigint {
    return this.#index;
  }

  /** Acceptors whose last token is unused, by name. */
  outstandingTokens(): readonly Peering[] {
    return this.list().filter((peering) => {
      const row = this.#held.secrets.get(peering.id);
      return isActive(peering) && row?.role === "acceptor" && row.establishment !== "";
    });
  }

  /** @internal The state that the simulator checks its invariants on: records, secrets, bundles. */
  get tables(): RecordTables {
    return this.#held;
  }

  /** Which trust bundles may be told. */
  get trustDomains(): TrustDomains {
    return this.#held.domains;
  }

  /** The trust bundle of that peer; undefined where there is none, or it names a trust domain that it may not name. */
  trustBundle(peerName: string): TrustBundle | undefined {
    const key = lowerCase(peerName);
    return this.#held.domains.withheld(key) === undefined ? this.#held.bundles.get(key) : undefined;
  }

  /** Revision since when that peer's trust bundle is served unchanged; where there is none, of the last change of any bundle. */
  trustBundleIndex(peerName: string): bigint {
    const key = lowerCase(peerName);
    const revision = this.#held.domains.withheld(key) ? undefined : this.#held.bundleRevisions.get(key);
    return revision ?? this.#bundleIndex;
  }

  /** Revision of the last change of any trust bundle; after a start, that of the storage. It only grows. */
  get bundleIndex(): bigint {
    return this.#bundleIndex;
  }

  /** All trust bundles that {@link trustBundle} tells, by peer name. */
  trustBundles(): readonly TrustBundle[] {
    const told = [...this.#held.bundles].filter(([key]) => this.#held.domains.withheld(key) === undefined);
    return told.sort(([a], [b]) => compare(a, b)).map(([, bundle]) => bundle);
  }

  /**
   * The conditions on a commit of imports for this peering. They hold while the record is active and change only when it
   * ceases to be, so that updates of a record and imports never conflict. For a record that is not active, an
   * expectation that always fails with `conflict`.
   */
  expectation(id: string): readonly Expectation[] {
    const peering = this.byId(id);
    const revision = isActive(peering) ? this.#held.fences.get(id) : undefined;
    return [{ key: fenceKey(id), revision: revision ?? NEVER }];
  }

  /**
   * The conditions on a commit that cleans up after this peering: the opposite of {@link expectation}. They hold from the
   * moment the record ceased to be active until it is active again or gone.
   */
  inactiveExpectation(id: string): readonly Expectation[] {
    const peering = this.byId(id);
    const revision = peering === undefined || isActive(peering) ? undefined : this.#held.fences.get(id);
    return [{ key: fenceKey(id), revision: revision ?? NEVER }];
  }

  /**
   * The record to dial and the secret to open its stream with, both as of one moment, so that no secret is shown to a
   * cluster that did not give it. Undefined for acceptors, before an establish succeeded, and once the record is not active.
   * @throws {PeeringError} `invalid-argument`: the secret was sealed with another key.
   */
  async dialable(id: string): Promise<Dialable | undefined> {
    await this.#replica.current();
    const row = this.#held.secrets.get(id);
    const peering = this.byId(id);
    if (peering === undefined || row?.role !== "dialer" || !isDialed(peering)) return undefined;
    return { peering, streamSecret: this.#unseal(row.sealedActive) };
  }

  /**
   * Makes an acceptor record, or takes the existing one, and gives it a new establishment secret; an unused former one
   * dies. `meta` serves a new record only (Consul 1.13 to 1.22).
   * @throws {PeeringError} `invalid-name`, `invalid-argument` (meta); `wrong-role`: we dial that peer; `invalid-record`:
   *   the record is DELETING or TERMINATED, where Consul gives out a dead token (D-15).
   */
  async generateToken(request: {
    readonly peerName: string;
    readonly meta?: Readonly<Record<string, string>>;
  }): Promise<{ readonly peering: Peering; readonly establishmentSecret: string }> {
    const { peerName, meta = {} } = request;
    validatePeerName(peerName);
    validatePeeringMeta(meta);
    return this.#write((tables) => {
      const id = this.#unusedId((candidate) => tables.peerings.has(candidate));
      const establishmentSecret = this.#unusedSecret(tables);
      const step = transition(this.byName(peerName), { type: "generate-token", id, name: peerName, meta });
      const establishment = digestSecret(establishmentSecret);
      const secrets: SecretsRequest = { type: "generate_token", establishment };
      return planned(WRITING, () =>
        this.#planStep(tables, step, (peering) => ({ peering, establishmentSecret }), { secrets }),
      );
    }, WRITING);
  }

  /**
   * The first write of an establish: a new record as the token tells it, or one whose exchange failed before, without a
   * secret. It stays when the exchange of secrets fails. A record that has a secret takes nothing but `meta` before the
   * exchange has succeeded, where Consul lets a token that fails replace the cluster of a peering that works (D-51).
   * @param request - `connected`: whether a stream is up now; then the known server addresses of that cluster are kept.
   *   `ownServerName`: our own, to recognise a token of our own.
   * @returns For {@link finishEstablish}.
   * @throws {PeeringError} `invalid-name`, `invalid-argument` (meta), `invalid-token`; `same-cluster`; `wrong-role`: that
   *   peer dials us; `invalid-record`: the record is DELETING.
   */
  async beginEstablish(request: {
    readonly peerName: string;
    readonly token: EstablishingToken;
    readonly meta?: Readonly<Record<string, string>>;
    readonly connected: boolean;
    readonly ownServerName?: string;
  }): Promise<BegunEstablish> {
    const { peerName, token, meta = {}, connected, ownServerName } = request;
    validatePeerName(peerName);
    validatePeeringMeta(meta);
    if (ownServerName !== undefined && token.serverName === ownServerName) {
      throw new PeeringError(
        "same-cluster",
        `cannot create a peering within the same cluster "${ownServerName}". Refer to the \`exported-services\` ` +
          "documentation if you want to export between partitions without peering",
      );
    }
    return this.#write((tables): Plan<BegunEstablish> => {
      const id = this.#unusedId((candidate) => tables.peerings.has(candidate));
      const existing = this.byName(peerName);
      const fields = withKnownAddresses(fieldsOf(token, meta), existing, connected);
      const step = transition(existing, { type: "establish-begun", id, name: peerName, fields });
      return planned(WRITING, () => this.#planStep(tables, step, (peering) => ({ id: peering.id, fields, connected })));
    }, WRITING);
  }

  /**
   * The second write of an establish: the record as ESTABLISHING, all facts of the token about the cluster, and its stream
   * secret, in one commit.
   * @param begun - the result of {@link beginEstablish}.
   * @throws {PeeringError} `invalid-record`: the record was deleted meanwhile; it is not created again (D-19).
   */
  async finishEstablish(begun: BegunEstablish, streamSecret: string): Promise<Peering> {
    const sealedActive = streamSecret === "" ? new Uint8Array() : this.#seal(streamSecret);
    return this.#write((tables) => {
      const current = this.byId(begun.id);
      const fields = withKnownAddresses(begun.fields, current, begun.connected);
      const step = transition(current, { type: "establish-finished", fields });
      const secrets: SecretsRequest = { type: "establish", sealedActive };
      return planned(WRITING, () => this.#planStep(tables, step, (peering) => peering, { secrets }));
    }, WRITING);
  }

  /**
   * Acceptor: trades the establishment secret of a token for a stream secret. Of several calls with one secret exactly
   * one succeeds.
   * @returns The stream secret, of which only a digest is kept.
   * @throws {PeeringError} with `status`: `permission-denied` for a secret that was used, superseded or never given, and
   *   for a peering that is not active; else INTERNAL.
   */
  async exchangeSecret(request: { readonly peerId: string; readonly establishmentSecret: string }): Promise<string> {
    const { peerId, establishmentSecret } = request;
    if (!isUuid(peerId)) {
      throw new PeeringError("invalid-message", `failed to read peering secret: invalid UUID "${peerId}"`, {
        status: StatusCode.Internal,
      });
    }
    const id = peerId.toLowerCase();
    const establishment = digestSecret(establishmentSecret);
    try {
      await this.#replica.current();
    } catch (error) {
      throw prefixed("failed to read peering secret", error, StatusCode.Internal);
    }
    // Looked at before the queue of writes as well: a flood of wrong secrets costs no more than a comparison.
    const row = this.#held.secrets.get(id);
    const right = row?.role === "acceptor" && sameSecret(row.establishment, establishment);
    transition(right ? this.byId(id) : undefined, { type: "secret-exchanged" });
    return this.#write((tables) => {
      const pending = this.#unusedSecret(tables);
      const step = transition(this.byId(id), { type: "secret-exchanged" });
      const secrets: SecretsRequest = { type: "exchange_secret", establishment, pending: digestSecret(pending) };
      return planned(EXCHANGING, () => this.#planStep(tables, step, () => pending, { secrets }));
    }, EXCHANGING);
  }

  /**
   * Acceptor: judges the first message of a stream, in Consul's order. The pending secret becomes the active one, with
   * the dialer's description of itself, in one commit, before it authorises anything.
   * @param perform - called once, at the moment of the verdict, with an effect that accepts or refuses the stream.
   */
  async authorizeOpen(open: OpenMessage, perform: (task: HostTask) => void): Promise<void> {
    const { peerId } = open;
    const refuse = (code: number, message: string): void => {
      const refusal: HostEffect = { type: "refuse-stream", status: { code, message }, terminated: false };
      perform({ peeringId: peerId, peering: undefined, effects: [refusal], replaces: false });
    };
    if (peerId === "") {
      return refuse(StatusCode.InvalidArgument, "initial subscription request must specify a PeerID");
    }
    if (!isUuid(peerId)) return refuse(StatusCode.Internal, `failed to find PeerID: ${peerId}`);
    const id = peerId.toLowerCase();
    const given = digestSecret(open.streamSecretId);
    let event: PeeringEvent;
    try {
      await this.#replica.current();
      event = this.#openEvent(id, open, given);
    } catch {
      // Memory could not be read again, or the dialer's secret could not be unsealed.
      return refuse(StatusCode.Internal, `failed to find peering secrets for PeerID: ${peerId}`);
    }
    if (event.type !== "opened-with-pending-secret") {
      const peering = this.byId(id);
      return perform(taskOf(id, transition(peering, event), peering));
    }
    try {
      await this.#write((tables): Plan<void> => {
        // Whatever became of the secret since: if it is not pending any more, the promotion fails as in Consul, and
        // the dialer that tries again with the secret that is active then succeeds.
        const step = transition(this.byId(id), event);
        const secrets: SecretsRequest = { type: "promote_pending", active: given };
        return planned(PROMOTING, () => ({
          ...this.#plan(tables, step, () => {}, { secrets }),
          perform,
          peeringId: id,
        }));
      }, PROMOTING);
    } catch (error) {
      refuse(StatusCode.Internal, errorText(error));
    }
  }

  /**
   * Stores the roots that the peer's cluster is trusted by, together with the record whose next dial uses them.
   * @param meant - `peerId` of the record when the stream was opened. `servers`: whether the peer's servers are trusted
   *   by it, too, which those of Consul 1.13 are not: the record keeps the roots it has then. Default true.
   * @throws {PeeringError} `invalid-bundle`: no usable roots (D-23), or a trust domain that this peer may not name;
   *   `invalid-record`: no such record, it is not active, or it was established again with another peer since.
   */
  async writeTrustBundle(
    id: string,
    bundle: Omit<TrustBundle, "peerName">,
    meant: { readonly peerId?: string; readonly servers?: boolean } = {},
  ): Promise<void> {
    const { servers = true } = meant;
    await this.#write((tables) => {
      const peering = this.byId(id);
      requireMeant(peering, meant);
      const name = peering?.name ?? id;
      const { trustDomain, rootPems, exportedPartition } = validateBundle(bundle, this.#options.identityLimits);
      const step = transition(peering, { type: "trust-bundle-received", name, rootPems, servers });
      const written = { peerName: name, trustDomain, rootPems, exportedPartition };
      this.#held.domains.requireFree(lowerCase(name), written);
      return this.#plan(tables, step, () => {}, { bundle: written });
    });
  }

  /**
   * Stores where the acceptor can be dialed from now on. Manual addresses stay and go first.
   * @param meant - `peerId` of the record when the stream was opened.
   * @throws {PeeringError} `wrong-role`: we are the acceptor, or the list is empty (D-32); `invalid-record`: no such
   *   record, it is not active, or it was established again with another peer since.
   */
  async writeServerAddresses(
    id: string,
    addresses: readonly string[],
    meant: { readonly peerId?: string } = {},
  ): Promise<void> {
    await this.#write((tables) => {
      requireMeant(this.byId(id), meant);
      const step = transition(this.byId(id), { type: "server-addresses-received", addresses });
      return this.#plan(tables, step, () => {});
    });
  }

  /**
   * The peer deleted the peering. Does nothing for a record that is gone, DELETING, or established again since (D-12).
   * @param meant - `peerId` of the record when the stream was opened.
   * @returns Whether the record became TERMINATED.
   */
  async terminate(id: string, meant: { readonly peerId?: string } = {}): Promise<boolean> {
    return this.#write((tables): Plan<boolean> => {
      const step = transition(this.byId(id), { type: "peer-terminated", ...meant });
      return { ...this.#plan(tables, step, () => step.written), peeringId: id };
    });
  }

  /**
   * Marks a record as DELETING and drops its secrets. The host removes everything that must be gone before the record
   * is. A record that is DELETING already, and a name that is unknown, are left alone. The name keeps its spelling (D-14).
   * @returns The record, undefined where there is none.
   */
  async markDeleting(name: string): Promise<Peering | undefined> {
    return this.#write((tables): Plan<Peering | undefined> => {
      const before = this.byName(name);
      // The epoch itself would count as no deletion time.
      const at = Math.max(1, Math.trunc(this.#options.clock.wall()));
      const step = transition(before, { type: "delete-requested", at });
      return this.#plan(tables, step, () => before && this.byId(before.id));
    });
  }

  /**
   * Writes a record as it is given, in place of the one of that name, whose id it keeps: Consul's PeeringWrite, an aid for
   * tests that goes round the state machine and is held by the rules of the store alone.
   * @throws {PeeringError} `invalid-record`, `wrong-role`, `invalid-secret`, `invalid-name` (of a new record).
   */
  async write(record: Omit<PeeringWrite, "id">, secrets?: GivenSecrets): Promise<void> {
    await this.#write((tables) => {
      const existing = this.byName(record.name);
      if (existing === undefined && record.name !== "") validatePeerName(record.name);
      const id = existing?.id ?? this.#unusedId((candidate) => tables.peerings.has(candidate));
      const request = secrets === undefined ? undefined : this.#secretsRequest(secrets);
      return { changes: writePeering(tables, { ...record, id }, request), result: () => {} };
    });
  }

  /**
   * Removes a DELETING record, with its bundle and its remaining secrets; its name is free then. A
   * TERMINATED one stays for the operator to see, an unknown one is no failure.
   * @throws {PeeringError} `invalid-record`: it is active.
   */
  async remove(id: string): Promise<void> {
    await this.#write((tables) => {
      const step = transition(this.byId(id), { type: "cleanup-finished" });
      return this.#plan(tables, step, () => {});
    });
  }

  /** Removes the bundle of that peer, if there is one and no active record it belongs to. The record keeps the roots. */
  async removeTrustBundle(peerName: string): Promise<void> {
    await this.#write((tables) => {
      // Established again since the cleanup began: this bundle is of the new life.
      const changes = isActive(this.byName(peerName)) ? NO_CHANGES : deleteTrustBundle(tables, peerName);
      return { changes, result: () => {} };
    });
  }

  /**
   * Makes the last token of that peer worthless, if it is unused. The stream, if any, is not disturbed.
   * @returns Whether there was one.
   */
  async revokeToken(peerName: string): Promise<boolean> {
    return this.#write((tables): Plan<boolean> => {
      const peering = this.byName(peerName);
      const row = peering === undefined ? undefined : tables.secrets.get(peering.id);
      if (peering === undefined || row?.role !== "acceptor" || row.establishment === "") {
        return { changes: NO_CHANGES, result: () => false };
      }
      const secrets = new Map([[peering.id, { ...row, establishment: "" }]]);
      return { changes: { ...NO_CHANGES, secrets }, result: () => true };
    });
  }

  /** Something was seen that is never stored: the effects of the event are performed before this returns. */
  observe(id: string, event: ObservedEvent): void {
    const peering = this.byId(id);
    this.#perform(taskOf(id, transition(peering, event), peering));
  }

  /**
   * Has `perform` do the effects that the state machine asks for, called at once after each step that is stored, and after each
   * change by another process with the effects that `resume` that record. It must not throw.
   */
  performWith(perform: (task: HostTask) => void): void {
    this.#perform = perform;
  }

  /**
   * The feed of changes: `listener` is called at once after each commit that changed a record, its secrets or its bundle,
   * before the caller of that step goes on. Commits of other processes are reported as soon as they are known here.
   * @returns Ends it.
   */
  onChange(listener: (change: PeeringChange) => void): () => void {
    return this.#changed.on(listener);
  }

  /**
   * Calls `listener` after each change of the record of that name, compared without case, until the returned function is
   * called.
   */
  onChangeOf(name: string, listener: (change: PeeringChange) => void): () => void {
    const key = lowerCase(name);
    return this.onChange((change) => {
      if (change.patches.length > 0 && lowerCase(change.name) === key) listener(change);
    });
  }

  /**
   * Calls `listener` at once after each commit that changed a trust bundle, with the names of peers whose bundles are withheld
   * since then.
   * @returns Ends it.
   */
  onBundlesChange(listener: (withheld: readonly string[]) => void): () => void {
    return this.#bundlesChanged.on(listener);
  }

  /** Waits for the writes under way. The storage is the caller's and stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#replica[Symbol.asyncDispose]();
  }

  #openEvent(id: string, open: OpenMessage, given: SecretDigest): PeeringEvent {
    const { peerId } = open;
    const row = this.#held.secrets.get(id);
    const match = row === undefined ? undefined : this.#match(row, given);
    if (match === "active") return { type: "opened-with-active-secret", peerId };
    if (match === undefined) {
      return { type: "opened-with-other-secret", peerId, secretsKnown: row !== undefined };
    }
    const remote = open.remote ?? { partition: "", datacenter: "" };
    return { type: "opened-with-pending-secret", peerId, remote };
  }

  #match(row: SecretsRow, given: SecretDigest): "active" | "pending" | undefined {
    if (row.role === "acceptor") return matchStreamSecret(row, given);
    return sameSecret(digestSecret(this.#unseal(row.sealedActive)), given) ? "active" : undefined;
  }

  /** A step of the machine, with the effects to store in the same commit. */
  #plan<T>(tables: RecordTables, step: Transition<Peering>, result: () => T, material?: StepMaterial): Plan<T> {
    return { changes: performStep(tables, step, material), step, result };
  }

  /** The same where the step leaves a record, which the result is made of. */
  #planStep<T>(
    tables: RecordTables,
    step: Transition<Peering>,
    result: (peering: Peering) => T,
    material?: StepMaterial,
  ): Plan<T> {
    const { peering } = step;
    if (peering === undefined) throw new InvariantError("this step leaves no record");
    return this.#plan(tables, step, () => result(this.byId(peering.id) ?? peering), material);
  }

  /** The stored form of secrets that were given in plain text. */
  #secretsRequest(given: GivenSecrets): SecretsRequest {
    switch (given.type) {
      case "generate_token":
        return { type: given.type, establishment: digestSecret(given.establishmentSecret) };
      case "exchange_secret": {
        const { type, establishmentSecret, pendingStreamSecret } = given;
        return { type, establishment: digestSecret(establishmentSecret), pending: digestSecret(pendingStreamSecret) };
      }
      case "promote_pending":
        return { type: given.type, active: digestSecret(given.activeStreamSecret) };
      case "establish": {
        const { type, activeStreamSecret } = given;
        return { type, sealedActive: activeStreamSecret === "" ? new Uint8Array() : this.#seal(activeStreamSecret) };
      }
    }
  }

  #unusedId(isUsed: (id: string) => boolean): string {
    for (let attempt = 0; attempt < RANDOM_TRIES; attempt++) {
      const id = randomId(this.#options.random);
      if (!isUsed(id)) return id;
    }
    throw new InvariantError("the source of randomness repeats itself");
  }

  #unusedSecret(tables: RecordTables): string {
    return this.#unusedId((secret) => tables.isSecretInUse(digestSecret(secret)));
  }

  /** Seals as the box does it today. A secret that it cannot open stays as it is; dialing with it fails and says why. */
  async #sealAnew(): Promise<void> {
    const { writes, bytes } = this.#options.storage.limits;
    const together = Math.max(1, Math.floor(Math.min(writes - 1, bytes / SEALED_BYTES)));
    while ((await this.#sealSome(together)) === together);
  }

  #sealSome(most: number): Promise<number> {
    const { secretBox } = this.#options;
    return this.#write((tables) => {
      const secrets = new Map<string, SecretsRow>();
      for (const [id, row] of tables.secrets) {
        if (secrets.size === most) break;
        if (row.role !== "dialer" || secretBox.isCurrent(row.sealedActive)) continue;
        try {
          secrets.set(id, { ...row, sealedActive: secretBox.seal(secretBox.open(row.sealedActive)) });
        } catch (error) {
          if (!(error instanceof PeeringError)) throw error;
        }
      }
      return { changes: { ...NO_CHANGES, secrets }, result: () => secrets.size };
    });
  }

  #seal(secret: string): Uint8Array {
    return this.#options.secretBox.seal(new TextEncoder().encode(secret));
  }

  #unseal(sealed: Uint8Array): string {
    return new TextDecoder().decode(this.#options.secretBox.open(sealed));
  }

  /**
   * One step: planned over the tables as they are, committed as a whole, then kept in memory and reported. Planned again
   * when another process was faster.
   * @param wrapping - of failures of the storage.
   */
  async #write<T>(plan: (tables: RecordTables) => Plan<T>, wrapping?: Wrapping): Promise<T> {
    if (this.#closed) throw new PeeringError("closed", "the peering records are closed");
    let isRefused = false;
    try {
      return await this.#replica.write(() => {
        isRefused = true;
        const planned = plan(this.#held);
        isRefused = false;
        const isChanged = !isUnchanged(planned.changes);
        return {
          writes: isChanged ? this.#held.writesOf(planned.changes) : [],
          done: (revision) => {
            if (isChanged) this.#commit(planned, revision);
            return this.#done(planned);
          },
        };
      });
    } catch (error) {
      throw isRefused || wrapping === undefined ? error : prefixed(wrapping.prefix, error, wrapping.status);
    }
  }

  /** After its changes are stored. */
  #done<T>({ step, peeringId, perform = this.#perform, result }: Plan<T>): T {
    const id = (step?.peering ?? step?.before)?.id ?? peeringId;
    if (step !== undefined && id !== undefined) perform(taskOf(id, step, this.byId(id)));
    return result();
  }

  /** Memory follows the commit of `revision`. */
  #commit(planned: Pick<Plan<unknown>, "changes" | "step">, revision: bigint): void {
    const { changes, step } = planned;
    const rows = this.#held.committed(changes, revision);
    const told = step === undefined ? this.#changesBy(rows, revision) : this.#changesOf(step, changes, rows, revision);
    this.#take(rows, told, revision);
  }

  /** The changes of a step of the state machine, of a commit that memory is still to follow. */
  #changesOf(
    step: Transition<Peering>,
    changes: RecordChanges,
    rows: CommittedRows,
    revision: bigint,
  ): readonly PeeringChange[] {
    const { event, before, patches } = step;
    const record = step.peering ?? before;
    if (record === undefined) return [];
    const { id: peeringId, name } = record;
    const isWritten = rows.peerings.has(peeringId);
    const peering = isWritten ? rows.peerings.get(peeringId) : before;
    return [
      {
        peeringId,
        name,
        event,
        before,
        peering,
        patches: !isWritten
          ? []
          : before === undefined || peering === undefined
            ? wholeRecord(peering)
            : [...patches, { op: "replace", path: ["modifyIndex"], value: revision }],
        beside: [
          ...(changes.secrets.size > 0 ? (["secrets"] as const) : []),
          ...(changes.bundles.size > 0 ? (["trustBundle"] as const) : []),
        ],
        revision,
      },
    ];
  }

  /** The changes of a commit without a step of the state machine, before memory follows it. */
  #changesBy({ peerings }: CommittedRows, revision: bigint): readonly PeeringChange[] {
    return [...peerings].map(([peeringId, peering]): PeeringChange => {
      const before = this.byId(peeringId);
      const patches = patchesBetween(before, peering);
      const name = (peering ?? before)?.name ?? "";
      return { peeringId, name, event: undefined, before, peering, patches, beside: [], revision };
    });
  }

  /** Takes over the commits of other processes, and reports them. */
  #follow(rows: CommittedRows, revision: bigint): void {
    this.#take(rows, this.#changesBy(rows, revision), revision);
  }

  #take(rows: CommittedRows, changes: readonly PeeringChange[], revision: bigint): void {
    const withheld = this.#held.take(rows, revision);
    if (rows.peerings.size > 0 && revision > this.#index) this.#index = revision;
    for (const change of changes) this.#changed.emit(change);
    for (const { event, peeringId } of changes) if (event === undefined) this.observe(peeringId, { type: "resumed" });
    if (rows.claims.size === 0) return;
    if (revision > this.#bundleIndex) this.#bundleIndex = revision;
    this.#bundlesChanged.emit(withheld);
  }
}

function fieldsOf(token: EstablishingToken, meta: Readonly<Record<string, string>>): EstablishFields {
  return {
    peerId: token.peerId,
    peerCaPems: token.ca,
    peerServerName: token.serverName,
    peerServerAddresses: token.serverAddresses,
    manualServerAddresses: token.manualServerAddresses,
    remote: token.remote,
    meta,
  };
}

/** Over a live stream a cluster keeps us informed of its addresses; a token of it may be older than the last of these. */
function withKnownAddresses(
  fields: EstablishFields,
  existing: Peering | undefined,
  connected: boolean,
): EstablishFields {
  if (!connected || existing?.peerServerName !== fields.peerServerName) return fields;
  return { ...fields, peerServerAddresses: existing.peerServerAddresses };
}

/** A stream speaks for the peering it was opened for (D-12), even while the record is another one's already (I19). */
function requireMeant(peering: Peering | undefined, meant: { readonly peerId?: string }): void {
  if (peering === undefined || meant.peerId === undefined || meant.peerId === peering.peerId) return;
  throw new PeeringError("invalid-record", "peering was established again with another peer");
}

/** No entry has it: revisions grow from 1. */
const NEVER = -1n;

/** Plans under `wrapping`. @throws {PeeringError} A refusal of the store, with the prefix. */
function planned<T>(wrapping: Wrapping, plan: () => T): T {
  try {
    return plan();
  } catch (error) {
    throw prefixed(wrapping.prefix, error, wrapping.status);
  }
}

function taskOf(peeringId: string, step: Transition<Peering>, peering: Peering | undefined): HostTask {
  const { event, before, effects } = step;
  const replaces = event === "resumed" || before?.state !== step.peering?.state;
  return { peeringId, peering, effects: effects.filter(isHostEffect), replaces };
}

function byName(a: Peering, b: Peering): number {
  return compare(lowerCase(a.name), lowerCase(b.name));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
