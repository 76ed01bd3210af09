import { createPrivateKey, createPublicKey, type KeyObject, sign, verify, X509Certificate } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Closable } from "../base/closable.js";
import {
  type Clock,
  type Logger,
  type Random,
  randomId,
  silentLogger,
  sleep,
  systemClock,
  systemRandom,
} from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import { RESTORE } from "../storage/damaged-entries.js";
import { CA_PREFIX } from "../storage/keys.js";
import type { Storage } from "../storage/storage.js";
import { type RowFormat, type RowWrite, type Stored, StoredTable, type TablePlan } from "../storage/stored-table.js";
import { certificatesIn, isIssuedBy, publicKeyOf } from "../token/pem.js";
import { isUuid } from "../wire/uuid.js";
import type {
  CaRoot,
  CertificateAuthority,
  IssuedCertificate,
  LeafIdentity,
  RequestedIdentity,
  SignedLeaf,
} from "./authority.js";
import {
  type CaConfigurationValue,
  type CaSettings,
  defaultConfiguration,
  isConfigurationValue,
  type ReadCaConfiguration,
  readCaConfiguration,
  unconfigurable,
} from "./ca-configuration.js";
import {
  BACKDATE_MS,
  DEFAULT_SIGNING_REQUEST_BYTES,
  generatePrivateKey,
  issueMeshLeaf,
  issueServerLeaf,
  type KeyKind,
  type LeafSigner,
  SignerMemory,
  signerProblem,
  signRequestedLeaf,
} from "./leaf.js";
import { rootIdOf } from "./pem.js";
import { plainSecretBox, type SecretBox } from "./secret-box.js";
import { keyFault } from "./signing-request.js";

const HOUR_MS = 3_600_000;
/** Lifetime of a leaf in Consul (1.13 to 1.22), in milliseconds. */
export const DEFAULT_LEAF_TTL_MS: number = 72 * HOUR_MS;
const MIN_LEAF_TTL_MS = HOUR_MS;
const MAX_LEAF_TTL_MS = 8_760 * HOUR_MS;
// Consul's cross-signed certificates live for 7 days. But a Consul dialer goes on with the roots it read when its dial
// loop began, for months if the stream holds. Here it can come back for a year (D-59).
const CROSS_SIGNED_TTL_MS = 8_760 * HOUR_MS;
const DEFAULT_CONFIGURATION_BYTES = 65_536;
const DEFAULT_TRUSTED_ROOTS = 32;
/** How long a certificate of a service waits for its turn to be signed, as in Consul. */
const SIGNING_PATIENCE_MS = 500;
const MAX_INTERMEDIATES = 4;
const PRUNE_INTERVAL_MS = HOUR_MS;
/** Serial numbers that a node takes at once. */
const SERIALS_BATCH = 64n;

const ROW_NAME = "part of the certificate authority";
const LATER_VERSION = "Start the version of Peerage that wrote it, or a later one.";

export interface BuiltInAuthorityOptions {
  /** Holds the cluster's id, its roots and the key of the active one, below `ca`. Not disposed of with the authority. */
  readonly storage: Storage;
  /** Seals the key at rest. Default: stored as it is. */
  readonly secretBox?: SecretBox;
  /**
   * The UUID in the trust domain, where the authority is founded; a storage that has one keeps its own. Default: drawn. Clusters that
   * peer need different ones.
   */
  readonly clusterId?: string;
  /** Lifetime of leafs, in milliseconds: 1 hour to 8 760 hours. Default 72 hours, as in Consul. */
  readonly leafTtlMs?: number;
  /** Largest certificate signing request that is read, in bytes. Default 16 384; a larger one is refused. */
  readonly signingRequestBytes?: number;
  /** Largest configuration that is taken, keys and certificates included, in bytes. Default 65 536; a larger one is refused. */
  readonly configurationBytes?: number;
  /**
   * Most roots that are trusted at a time, the active one included. Default 32, which is below what peers take; beyond, a new root
   * is refused until an old one is dropped.
   */
  readonly trustedRoots?: number;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Default: silent. */
  readonly logger?: Logger;
  /** Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

/** The configuration of an authority. There is no private key in it. */
export interface CaConfiguration {
  /** As it was given, with Consul's names; `RootCert` where the active root or its key was given. */
  readonly config: Readonly<Record<string, CaConfigurationValue>>;
  readonly forceWithoutCrossSigning: boolean;
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

/** A configuration to be taken over, whole: a setting that it does not name has its default. */
export interface CaConfigurationChange {
  /**
   * As Consul's built-in provider is configured: `LeafCertTTL`, `RootCertTTL`, `PrivateKeyType`, `PrivateKeyBits`, `PrivateKey`,
   * `RootCert` and so on.
   */
  readonly config: Readonly<Record<string, unknown>>;
  /** A new root is not signed by the former one. Default false. */
  readonly forceWithoutCrossSigning?: boolean;
  /** Acts only on the configuration of this `modifyIndex`, where the root stays. Default: on any. */
  readonly modifyIndex?: bigint;
}

/** The certificate authority a cluster keeps itself: see {@link builtInAuthority}. */
export interface BuiltInAuthority extends CertificateAuthority, Closable {
  /** The UUID in the trust domain, drawn once for the life of the storage. */
  readonly clusterId: string;
  /** The present configuration. */
  configuration(): CaConfiguration;
  /**
   * Takes over a configuration, in one commit, and makes a new root active where that asks for another one, as
   * {@link BuiltInAuthority.rotate} does: another kind of key, a key or root that is given, or none where one was given before. The
   * root that is active already may be given without its key. A configuration that changes nothing writes nothing.
   * @returns whether there is a new root.
   * @throws {PeeringError} `invalid-argument`: a value is out of range, or key and root are none that fit together; nothing was
   *   changed. Others as `rotate`.
   */
  configure(change: CaConfigurationChange): Promise<boolean>;
  /**
   * Makes a new root active, in one commit. The former one signs it too, so that clients that know only the former accept what
   * the new one issues; it stays in the list until {@link BuiltInAuthority.prune} drops it. Its key is of the kind that is
   * configured, and one of its own.
   * @throws {PeeringError} `conflict`: another node of this cluster changed the roots meanwhile. `resource-exhausted`: there are as
   *   many roots as may be. Storage's errors.
   */
  rotate(): Promise<CaRoot>;
  /**
   * Drops the roots that were rotated out more than twice the lifetime of a leaf ago; whether there were any. It is done
   * every hour by itself. @throws {PeeringError} Storage's errors.
   */
  prune(): Promise<boolean>;
}

/**
 * Opens the certificate authority kept in a storage, or founds it there with a new cluster id and root (EC P-256, ten
 * years). Nodes of one cluster that share a storage share it too, and see each other's rotations.
 * @throws {PeeringError} `storage-failed`: the stored data are damaged; nothing was changed. `invalid-argument`: the key
 *   is sealed and the box does not open it. Storage's errors.
 * @throws {TypeError} `leafTtlMs` out of range; `clusterId` is no UUID.
 */
export async function builtInAuthority(options: BuiltInAuthorityOptions): Promise<BuiltInAuthority> {
  const leafTtlMs = options.leafTtlMs ?? DEFAULT_LEAF_TTL_MS;
  if (!(leafTtlMs >= MIN_LEAF_TTL_MS && leafTtlMs <= MAX_LEAF_TTL_MS)) {
    throw new TypeError("leafTtlMs must be from 1 hour to 8760 hours");
  }
  if (options.clusterId !== undefined && !isUuid(options.clusterId)) throw new TypeError("clusterId must be a UUID");
  const settings: Settings = {
    storage: options.storage,
    secretBox: options.secretBox ?? plainSecretBox,
    clusterId: options.clusterId?.toLowerCase(),
    leafTtlMs,
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    logger: options.logger ?? silentLogger,
    incidents: options.incidents ?? new Incidents(options),
    signingRequestBytes: options.signingRequestBytes ?? DEFAULT_SIGNING_REQUEST_BYTES,
    configurationBytes: options.configurationBytes ?? DEFAULT_CONFIGURATION_BYTES,
    trustedRoots: options.trustedRoots ?? DEFAULT_TRUSTED_ROOTS,
  };
  const format = authorityFormat(settings);
  const { storage, clock, incidents } = settings;
  const table = await StoredTable.open({ storage, prefix: CA_PREFIX, rowName: ROW_NAME, format, clock, incidents });
  try {
    await found(table, settings);
    const { row: state } = stateOf(table);
    serialOf(table);
    // Now rather than at the first leaf: a host without its key should not start.
    openKey(activeOf(state), settings.secretBox);
    format.clusterId = state.clusterId;
    return new StoredAuthority(settings, table);
  } catch (error) {
    await table[Symbol.asyncDispose]();
    throw error;
  }
}

/** Whether an authority is a built-in one, which can be configured. */
export function isBuiltIn(authority: CertificateAuthority): authority is BuiltInAuthority {
  return authority instanceof StoredAuthority;
}

type Settings = Required<Omit<BuiltInAuthorityOptions, "clusterId">> & { readonly clusterId: string | undefined };

/** A root, with the parts that only the authority needs. */
interface StoredRoot {
  readonly certificatePem: string;
  /** Cross-signed certificates, newest first; sent after each leaf. */
  readonly intermediatePems: readonly string[];
  /** The sealed key, base64; only the active root still has one. */
  readonly sealedKey: string | undefined;
  readonly rotatedOutAt: number | undefined;
  /** The parts that were given, and not made here: its key, or its key and certificate. */
  readonly given?: "key" | "root" | undefined;
}

/** The configuration. */
interface StoredConfiguration {
  readonly shown: Readonly<Record<string, CaConfigurationValue>>;
  readonly forceWithoutCrossSigning: boolean;
}

interface State {
  readonly clusterId: string;
  readonly roots: readonly StoredRoot[];
  /** Undefined: never configured. */
  readonly configuration?: StoredConfiguration | undefined;
}

/**
 * The rows of an authority: its state, and, as a number by itself, the first serial number that no node has taken. They are one
 * table, so that a new root and its serial number are one commit.
 */
type AuthorityRow = State | bigint;
type AuthorityTable = StoredTable<AuthorityRow>;

const STATE = "state";
const SERIAL = "serial";

class StoredAuthority implements BuiltInAuthority {
  readonly trustDomain: string;
  readonly clusterId: string;
  readonly #settings: Settings;
  readonly #rootsChanged: Signal;
  readonly #abort = new AbortController();
  readonly #table: AuthorityTable;
  readonly #signers = new SignerMemory();
  /** Serial numbers that this node has taken and not given yet. */
  #serials = { next: 0n, end: 0n };
  #roots: readonly CaRoot[];
  #config: CaSettings;
  /** When the next certificate of a service may be signed, on the monotonic clock. */
  #nextSigningMs = 0;
  #pruneTimer: { cancel(): void };

  constructor(settings: Settings, table: AuthorityTable) {
    const { row: state } = stateOf(table);
    this.#settings = settings;
    this.#rootsChanged = new Signal(settings.incidents);
    this.#table = table;
    this.#roots = rootsOf(state);
    this.#config = settingsOf(state, settings);
    this.clusterId = state.clusterId;
    this.trustDomain = trustDomainOf(this.clusterId);
    // As many as wait for their turn to be signed.
    setMaxListeners(0, this.#abort.signal);
    this.#pruneTimer = this.#pruneLater();
    table.onChange(({ changes }) => {
      for (const { after } of changes) if (isState(after?.row)) this.#accept(after.row);
    });
  }

  roots(): readonly CaRoot[] {
    return this.#roots;
  }

  onRootsChanged(listener: () => void): () => void {
    return this.#rootsChanged.on(listener);
  }

  async issueServer(datacenter: string): Promise<IssuedCertificate> {
    const serialNumber = await this.#takeSerial();
    return issueServerLeaf({ ...this.#leafTerms(), serialNumber, datacenter, trustDomain: this.trustDomain });
  }

  signingProblem(): string | undefined {
    const { signer, nowMs } = this.#leafTerms();
    return signerProblem(signer, nowMs);
  }

  async issueLeaf(identity: LeafIdentity): Promise<IssuedCertificate> {
    await this.#signingTurn();
    const serialNumber = await this.#takeSerial();
    const { datacenter } = identity;
    const { trustDomain } = this;
    return issueMeshLeaf(identity, { ...this.#leafTerms(), serialNumber, datacenter, trustDomain });
  }

  /** @throws {PeeringError} `resource-exhausted`: so many wait for theirs that it would come too late. */
  async #signingTurn(): Promise<void> {
    const { clock, incidents } = this.#settings;
    const perSecond = this.#config.signaturesPerSecond;
    if (perSecond === 0) return;
    const now = clock.now();
    const turn = Math.max(now, this.#nextSigningMs);
    if (turn - now > SIGNING_PATIENCE_MS) {
      incidents.report("signing-rate", "more certificates of services are asked for than may be signed in a second", {
        limit: perSecond,
      });
      throw new PeeringError("resource-exhausted", "Rate limit reached, try again later");
    }
    this.#nextSigningMs = turn + 1_000 / perSecond;
    if (turn > now) await sleep(clock, turn - now, this.#abort.signal);
  }

  async signRequest(requestPem: string, identity: RequestedIdentity): Promise<SignedLeaf> {
    return signRequestedLeaf(requestPem, { ...identity, trustDomain: this.trustDomain }, this.#settings, async () => {
      await this.#signingTurn();
      const serialNumber = await this.#takeSerial();
      return { ...this.#leafTerms(), serialNumber };
    });
  }

  configuration(): CaConfiguration {
    const { row: state, created, revision } = stateOf(this.#table);
    const { shown, forceWithoutCrossSigning } = configurationOf(state, this.#settings);
    const { given, certificatePem } = activeOf(state);
    return {
      config: given === undefined ? shown : { ...shown, RootCert: certificatePem },
      forceWithoutCrossSigning,
      createIndex: created,
      modifyIndex: revision,
    };
  }

  async configure(change: CaConfigurationChange): Promise<boolean> {
    const { config, forceWithoutCrossSigning = false } = change;
    this.#boundConfiguration(config);
    const wanted = readCaConfiguration(config, this.#settings.leafTtlMs);
    const material = checkMaterial(wanted, this.#settings.clock.wall());
    const plan = async (): Promise<AuthorityPlan<boolean>> => {
      const { row: state, revision } = writableState(this.#table);
      const configuration = { shown: wanted.shown, forceWithoutCrossSigning };
      const kept = keptRoot(activeOf(state), wanted.settings.key, material);
      if (kept === undefined) {
        if (material !== undefined && material.keyPem === undefined) throw keyMissing();
        const next = { ...wanted, material, forceWithoutCrossSigning, configuration };
        const writes = await rotated(state, serialOf(this.#table), this.#settings, next);
        return { writes, result: () => true };
      }
      const present = configurationOf(state, this.#settings);
      if (kept === activeOf(state) && sameValues(present.shown, wanted.shown))
        return { writes: [], result: () => false };
      if (change.modifyIndex !== undefined && change.modifyIndex !== revision) {
        throw new PeeringError("conflict", "ModifyIndex did not match existing");
      }
      const roots = state.roots.map((root) => (root === activeOf(state) ? kept : root));
      return { writes: [stateWrite({ ...state, roots, configuration })], result: () => false };
    };
    // Refusals, and "nothing changed", are decided by the newest configuration, whichever node took it.
    return this.#table.write(plan, { current: true });
  }

  #boundConfiguration(config: Readonly<Record<string, unknown>>): void {
    const { configurationBytes, incidents } = this.#settings;
    const bytes = Buffer.byteLength(JSON.stringify(config));
    if (bytes <= configurationBytes) return;
    incidents.report(
      "ca-configuration-too-large",
      "a configuration of the certificate authority is too large and is refused",
      {
        bytes,
        limit: configurationBytes,
      },
    );
    throw unconfigurable(`the configuration has ${bytes} bytes, of which ${configurationBytes} are allowed`);
  }

  rotate(): Promise<CaRoot> {
    let expected: bigint | undefined;
    return this.#table.write(async (): Promise<AuthorityPlan<CaRoot>> => {
      const { row: state, revision } = writableState(this.#table);
      expected ??= revision;
      if (revision !== expected) {
        throw new PeeringError("conflict", "the roots were changed by another node of this cluster");
      }
      const next = { settings: this.#config, material: undefined, forceWithoutCrossSigning: false };
      const writes = await rotated(state, serialOf(this.#table), this.#settings, next);
      return { writes, result: () => activeRootOf(this.#roots) };
    });
  }

  prune(): Promise<boolean> {
    return this.#table.write((): AuthorityPlan<boolean> => {
      const { row: state } = writableState(this.#table);
      const oldest = this.#settings.clock.wall() - 2 * this.#config.leafTtlMs;
      const roots = state.roots.filter(({ rotatedOutAt }) => rotatedOutAt === undefined || rotatedOutAt >= oldest);
      if (roots.length === state.roots.length) return { writes: [], result: () => false };
      return { writes: [stateWrite({ ...state, roots })], result: () => true };
    });
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#pruneTimer.cancel();
    this.#rootsChanged.clear();
    await this.#table[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #leafTerms(): { signer: LeafSigner; nowMs: number; ttlMs: number } {
    const { clock, secretBox } = this.#settings;
    const nowMs = clock.wall();
    const active = activeOf(stateOf(this.#table).row);
    const root = activeRootOf(this.#roots);
    const signer: LeafSigner = {
      memory: this.#signers,
      certificatePem: active.certificatePem,
      keyPem: openKey(active, secretBox),
      intermediatePems: active.intermediatePems.filter((pem) => notAfterOf(new X509Certificate(pem)) > nowMs),
      rootId: root.id,
      notAfter: root.notAfter,
    };
    return { signer, nowMs, ttlMs: this.#config.leafTtlMs };
  }

  /**
   * A serial number that was never given. Several are taken at once, in one commit before any of them is used: so the nodes of a
   * cluster seldom wait for one another, and a crash loses some numbers and has none given twice.
   */
  async #takeSerial(): Promise<bigint> {
    if (this.#abort.signal.aborted) throw new PeeringError("closed", "the certificate authority is closed");
    const taken = this.#takenSerial();
    if (taken !== undefined) return taken;
    return this.#table.write((): AuthorityPlan<bigint> => {
      const meanwhile = this.#takenSerial();
      if (meanwhile !== undefined) return { writes: [], result: () => meanwhile };
      const first = serialOf(this.#table);
      const end = first + SERIALS_BATCH;
      return {
        writes: [{ path: [SERIAL], row: end }],
        result: () => {
          this.#serials = { next: first + 1n, end };
          return first;
        },
      };
    });
  }

  #takenSerial(): bigint | undefined {
    const { next, end } = this.#serials;
    if (next === end) return undefined;
    this.#serials = { next: next + 1n, end };
    return next;
  }

  #accept(state: State): void {
    const config = settingsOf(state, this.#settings);
    // Turns that were given out at another rate do not hold up those of this one.
    if (config.signaturesPerSecond !== this.#config.signaturesPerSecond) this.#nextSigningMs = 0;
    this.#config = config;
    const roots = rootsOf(state);
    if (sameRoots(roots, this.#roots)) return;
    const former = activeRootOf(this.#roots);
    this.#roots = roots;
    const { id } = activeRootOf(roots);
    if (id !== former.id)
      this.#settings.logger.info("another root certificate is active now", { root: id, former: former.id });
    this.#rootsChanged.emit();
  }

  #pruneLater(): { cancel(): void } {
    const { clock } = this.#settings;
    const calendarAheadMs = clock.wall() - clock.now();
    return clock.after(PRUNE_INTERVAL_MS, () => {
      this.#pruneTimer = this.#pruneLater();
      // A root may look old only because the clock was set, and a dropped root is gone for good.
      if (Math.abs(clock.wall() - clock.now() - calendarAheadMs) > BACKDATE_MS) return;
      this.prune().catch((error: unknown) => {
        if (this.#abort.signal.aborted) return;
        this.#settings.logger.warn("old roots could not be pruned", { error: errorText(error) });
      });
    });
  }
}

/** Creates cluster id and root, but only where nothing was ever stored: a row that is missing later is damage. */
function found(table: AuthorityTable, settings: Settings): Promise<void> {
  return table.write(async (): Promise<AuthorityPlan<void>> => {
    if (table.revision > 0n) return { writes: [], result: () => {} };
    const { random, clusterId = randomId(random) } = settings;
    const root = await makeRoot(clusterId, 1n, settings, settingsOf(undefined, settings));
    return { writes: [stateWrite({ clusterId, roots: [root] }), { path: [SERIAL], row: 2n }], result: () => {} };
  });
}

function sealKey(keyPem: string, secretBox: SecretBox): string {
  return Buffer.from(secretBox.seal(Buffer.from(keyPem))).toString("base64");
}

/** A root that the cluster makes itself, for a key that is given, or for one of its own. */
async function makeRoot(
  clusterId: string,
  serialNumber: bigint,
  settings: Settings,
  { key, rootTtlMs }: Pick<CaSettings, "key" | "rootTtlMs">,
  givenKeyPem?: string,
): Promise<StoredRoot> {
  const { clock, random, secretBox } = settings;
  const keyPem = givenKeyPem ?? (await generatePrivateKey(key));
  const now = clock.wall();
  const { issueCertificate } = await import("./x509.js");
  const certificatePem = await issueCertificate({
    usage: "authority",
    serialNumber,
    subject: { commonName: `pri-${randomBase36(8, random)}.peerage.ca.${clusterId.slice(0, 8)}.consul` },
    keyPem,
    issuerKeyPem: keyPem,
    notBefore: now,
    notAfter: now + rootTtlMs,
    uri: `spiffe://${trustDomainOf(clusterId)}`,
    dnsNames: [],
  });
  return {
    certificatePem,
    intermediatePems: [],
    sealedKey: sealKey(keyPem, secretBox),
    rotatedOutAt: undefined,
    given: givenKeyPem === undefined ? undefined : "key",
  };
}

/** A key, a root, or both, that a configuration gives; checked. */
interface GivenMaterial {
  /** PEM. Undefined: only the active root may be given without its key. */
  readonly keyPem: string | undefined;
  readonly publicKey: KeyObject;
  /** Undefined: a root is to be made for the key. */
  readonly root: { readonly pem: string; readonly certificate: X509Certificate } | undefined;
}

/**
 * The key and certificate that a configuration gives; undefined when it gives neither.
 * @throws {PeeringError} `invalid-argument`: it is no key, no root, or they do not belong together. Key and errors of parsers, which
 *   may quote it, are in no text.
 */
function checkMaterial(
  { privateKeyPem, rootCertPem }: Pick<ReadCaConfiguration, "privateKeyPem" | "rootCertPem">,
  nowMs: number,
): GivenMaterial | undefined {
  if (privateKeyPem === undefined) return rootCertPem === undefined ? undefined : rootAlone(rootCertPem);
  const key = checkKey(privateKeyPem);
  const root = rootCertPem === undefined ? undefined : checkRoot(rootCertPem, nowMs);
  const publicKey = root?.certificate.publicKey ?? createPublicKey(key);
  const fault = keyFault(publicKey);
  if (fault !== undefined) throw unconfigurable(`the key of the root ${fault}`);
  // An Ed25519 key is strong; but Consul's clusters do not know it.
  if (publicKey.asymmetricKeyType === "ed25519") {
    throw unconfigurable("error extracting root key info: unsupported key type");
  }
  // By a signature, and not by comparing: the public half that a private key names may be wrong.
  if (!signsFor(key, publicKey)) {
    throw unconfigurable(
      root === undefined ? "the private key does not work" : "the private key is not the one of the root cert",
    );
  }
  return { keyPem: key.export({ type: "pkcs8", format: "pem" }).toString(), publicKey, root };
}

/** A root without its key, which may only be the active one. */
function rootAlone(pem: string): GivenMaterial {
  const [root] = certificatesIn(pem);
  const publicKey = root === undefined ? undefined : publicKeyOf(root.certificate);
  if (root === undefined || publicKey === undefined) throw keyMissing();
  return { keyPem: undefined, publicKey, root };
}

/** With Consul's text. */
function keyMissing(): PeeringError {
  return unconfigurable("must provide a private key when providing a root cert");
}

function checkKey(pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    throw unconfigurable("error parsing private key: it is no private key in PEM, or needs a passphrase");
  }
}

function checkRoot(pem: string, nowMs: number): NonNullable<GivenMaterial["root"]> {
  const [root, ...more] = certificatesIn(pem);
  if (root === undefined) throw unconfigurable("the root cert is no certificate in PEM");
  if (more.length > 0) throw unconfigurable(`the root cert holds ${more.length + 1} certificates: give the root alone`);
  const { certificate } = root;
  if (!certificate.ca) throw unconfigurable("the root cert is not a certificate authority");
  if (!isIssuedBy(certificate, certificate)) {
    throw unconfigurable("the root cert is not signed by itself: give the root to which it leads");
  }
  if (notAfterOf(certificate) <= nowMs)
    throw unconfigurable(`the root cert has expired on ${timeOf(notAfterOf(certificate))}`);
  const notBefore = Date.parse(certificate.validFrom);
  if (notBefore > nowMs + BACKDATE_MS) throw unconfigurable(`the root cert is not valid before ${timeOf(notBefore)}`);
  return root;
}

function timeOf(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

function signsFor(key: KeyObject, publicKey: KeyObject): boolean {
  const proof = Buffer.from("whether this key is the one of the certificate");
  try {
    return verify("sha256", proof, publicKey, sign("sha256", proof, key));
  } catch {
    return false;
  }
}

/** The active root, with its settings from now on; undefined: a configuration asks for another one. */
function keptRoot(active: StoredRoot, wanted: KeyKind, material: GivenMaterial | undefined): StoredRoot | undefined {
  const certificate = new X509Certificate(active.certificatePem);
  if (material?.root !== undefined) {
    if (!material.root.certificate.raw.equals(certificate.raw)) return undefined;
    // A root that was made for a given key is shown, and comes back with it when another value is changed.
    return active.given === undefined ? { ...active, given: "root" } : active;
  }
  if (material !== undefined) {
    return active.given === "key" && material.publicKey.equals(certificate.publicKey) ? active : undefined;
  }
  if (active.given !== undefined) return undefined;
  const { type, bits } = keyKindOf(certificate.publicKey);
  return type === wanted.type && bits === wanted.bits ? active : undefined;
}

const CURVE_BITS: ReadonlyMap<string, number> = new Map([
  ["secp224r1", 224],
  ["prime256v1", 256],
  ["secp384r1", 384],
  ["secp521r1", 521],
]);

/** The kind of key, as Consul shows it with a root. `type` is the name in Node, for keys that Consul does not know. */
export function keyKindOf(publicKey: KeyObject): { readonly type: string; readonly bits: number } {
  const { namedCurve = "", modulusLength } = publicKey.asymmetricKeyDetails ?? {};
  return { type: publicKey.asymmetricKeyType ?? "", bits: modulusLength ?? CURVE_BITS.get(namedCurve) ?? 0 };
}

interface NextRoot {
  readonly settings: CaSettings;
  /** Undefined: key and root are to be made. */
  readonly material: GivenMaterial | undefined;
  readonly forceWithoutCrossSigning: boolean;
  /** The configuration from then on. Default: as it is. */
  readonly configuration?: StoredConfiguration;
}

/** Makes a state with a new active root, which takes two serial numbers. @param serial - the first one. */
async function rotated(
  state: State,
  serial: bigint,
  settings: Settings,
  next: NextRoot,
): Promise<AuthorityPlan<unknown>["writes"]> {
  const former = activeOf(state);
  if (!next.forceWithoutCrossSigning && !settingsOf(state, settings).crossSigning) {
    throw new PeeringError(
      "invalid-argument",
      "The current CA Provider does not support cross-signing. You can try again with " +
        "ForceWithoutCrossSigningSet but this may cause disruption - see documentation for more.",
    );
  }
  const root = await nextRoot(state, serial, settings, next);
  // A root that was rotated out can come back.
  const others = state.roots.filter(({ certificatePem }) => certificatePem !== root.certificatePem);
  if (others.length >= settings.trustedRoots) {
    settings.incidents.report("trusted-roots", "there are as many roots as may be trusted, and a new one is refused", {
      limit: settings.trustedRoots,
    });
    throw new PeeringError(
      "resource-exhausted",
      `${others.length} roots are trusted already: the next one can follow when the oldest is dropped`,
    );
  }
  const now = settings.clock.wall();
  const roots = others.map((known) =>
    // Nothing will be signed with the old key again, so it is not kept.
    known === former ? { ...known, sealedKey: undefined, rotatedOutAt: now } : known,
  );
  const intermediatePems = next.forceWithoutCrossSigning ? [] : await crossSigned(root, state, serial + 1n, settings);
  return [
    stateWrite({
      ...state,
      configuration: next.configuration ?? state.configuration,
      roots: [...roots, { ...root, intermediatePems }],
    }),
    { path: [SERIAL], row: serial + 2n },
  ];
}

async function nextRoot(
  state: State,
  serial: bigint,
  settings: Settings,
  { settings: wanted, material }: NextRoot,
): Promise<StoredRoot> {
  if (material?.root === undefined || material.keyPem === undefined) {
    return makeRoot(state.clusterId, serial, settings, wanted, material?.keyPem);
  }
  const sealedKey = sealKey(material.keyPem, settings.secretBox);
  const { pem } = material.root;
  return { certificatePem: pem, intermediatePems: [], sealedKey, rotatedOutAt: undefined, given: "root" };
}

/** The root as the active one signs it, newest first before those that lead on to what was active before that. */
async function crossSigned(
  root: StoredRoot,
  state: State,
  serialNumber: bigint,
  { clock, secretBox }: Settings,
): Promise<readonly string[]> {
  const former = activeOf(state);
  const now = clock.wall();
  const { crossSign } = await import("./x509.js");
  const pem = await crossSign({
    certificatePem: root.certificatePem,
    serialNumber,
    issuerPem: former.certificatePem,
    issuerKeyPem: openKey(former, secretBox),
    notBefore: now - BACKDATE_MS,
    notAfter: Math.min(now + CROSS_SIGNED_TTL_MS, notAfterOf(new X509Certificate(former.certificatePem))),
  });
  return [pem, ...former.intermediatePems].slice(0, MAX_INTERMEDIATES);
}

function configurationOf(state: State | undefined, { leafTtlMs }: Settings): StoredConfiguration {
  return state?.configuration ?? { shown: defaultConfiguration(leafTtlMs), forceWithoutCrossSigning: false };
}

/** The settings in the configuration, which was judged when it was taken over. */
function settingsOf(state: State | undefined, settings: Settings): CaSettings {
  try {
    return readCaConfiguration(configurationOf(state, settings).shown, settings.leafTtlMs).settings;
  } catch (error) {
    throw unreadable(`its configuration cannot be read (${errorText(error)})`);
  }
}

function sameValues(
  left: Readonly<Record<string, CaConfigurationValue>>,
  right: Readonly<Record<string, CaConfigurationValue>>,
): boolean {
  const keys = Object.keys(left);
  return keys.length === Object.keys(right).length && keys.every((key) => left[key] === right[key]);
}

function sameRoots(left: readonly CaRoot[], right: readonly CaRoot[]): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

function trustDomainOf(clusterId: string): string {
  return `${clusterId}.consul`.toLowerCase();
}

function randomBase36(length: number, random: Random): string {
  return Array.from({ length }, () => Math.floor(random.fraction() * 36).toString(36)).join("");
}

function notAfterOf(certificate: X509Certificate): number {
  return Date.parse(certificate.validTo);
}

function rootsOf(state: State): readonly CaRoot[] {
  return state.roots.map(({ certificatePem, intermediatePems, rotatedOutAt }) => {
    const certificate = new X509Certificate(certificatePem);
    return {
      id: rootIdOf(certificate),
      certificatePem,
      active: rotatedOutAt === undefined,
      intermediatePems,
      notAfter: notAfterOf(certificate),
      ...(rotatedOutAt === undefined ? {} : { rotatedOutAt }),
    };
  });
}

function activeOf(state: State): StoredRoot {
  const active = state.roots.find(({ rotatedOutAt }) => rotatedOutAt === undefined);
  if (active === undefined) throw damaged(STATE, "no root is active");
  return active;
}

function activeRootOf(roots: readonly CaRoot[]): CaRoot {
  const active = roots.find((root) => root.active);
  if (active === undefined) throw damaged(STATE, "no root is active");
  return active;
}

function openKey(root: StoredRoot, secretBox: SecretBox): string {
  if (root.sealedKey === undefined) throw damaged(STATE, "the active root has no key");
  const pem = Buffer.from(secretBox.open(Buffer.from(root.sealedKey, "base64"))).toString();
  if (!pem.startsWith("-----BEGIN ")) throw damaged(STATE, "the active root's key is not one");
  return pem;
}

/** The rows of `authority` in a storage. */
interface AuthorityFormat extends RowFormat<AuthorityRow> {
  /** Once it is known: the state of another cluster is none of ours. */
  clusterId: string | undefined;
}

function authorityFormat(settings: Settings): AuthorityFormat {
  const { secretBox } = settings;
  return {
    clusterId: undefined,
    encode: (row, created) => (isState(row) ? encodeState(row, created, secretBox) : encoder.encode(row.toString())),
    decode([name, ...more], value) {
      if (name === SERIAL && more.length === 0) return { row: decodeSerial(value) };
      if (name !== STATE || more.length > 0) throw unreadable("it is no part of one", LATER_VERSION);
      const { row: state, created } = decodeState(value);
      if (this.clusterId !== undefined && this.clusterId !== state.clusterId)
        throw unreadable("its cluster id has changed");
      // The configuration is judged here, where the row is named if it cannot be read.
      settingsOf(state, settings);
      const { sealedKey } = activeOf(state);
      const outdated = sealedKey !== undefined && !secretBox.isCurrent(Buffer.from(sealedKey, "base64"));
      return { row: state, ...(created !== undefined && { created }), outdated };
    },
  };
}

type AuthorityPlan<Result> = TablePlan<AuthorityRow, Result>;

function stateWrite(state: State): RowWrite<AuthorityRow> {
  return { path: [STATE], row: state };
}

function isState(row: AuthorityRow | undefined): row is State {
  return typeof row === "object";
}

/** The state, as it was read last. @throws {PeeringError} `storage-failed`: it is gone. */
function stateOf(table: AuthorityTable): Stored<State> {
  const stored = table.get(STATE);
  if (!isState(stored?.row)) throw damaged(STATE, "it is missing");
  return { ...stored, row: stored.row };
}

/**
 * The state, for a write that takes its place.
 * @throws {PeeringError} `storage-failed`: it is gone, or another node has written it in a form that cannot be read and must not be lost.
 */
function writableState(table: AuthorityTable): Stored<State> {
  requireReadable(table, STATE);
  return stateOf(table);
}

/**
 * The first serial number that no node has taken.
 * @throws {PeeringError} `storage-failed`: it is gone or cannot be read: by the row that was read last, numbers would be given twice.
 */
function serialOf(table: AuthorityTable): bigint {
  requireReadable(table, SERIAL);
  const row = table.get(SERIAL)?.row;
  if (typeof row !== "bigint") throw damaged(SERIAL, "it is missing");
  return row;
}

function requireReadable(table: AuthorityTable, row: string): void {
  const fault = table.fault(row);
  if (fault !== undefined)
    throw damaged(row, errorText(fault), fault instanceof PeeringError ? fault.remedy : undefined);
}

const encoder = new TextEncoder();

function decodeSerial(value: Uint8Array): bigint {
  const text = new TextDecoder().decode(value);
  if (!/^[1-9][0-9]*$/.test(text)) throw unreadable("the serial number is not one");
  return BigInt(text);
}

/** The stored form, with the key sealed as the box seals it today. @throws {PeeringError} as {@link openKey}. */
function encodeState(state: State, created: bigint | undefined, secretBox: SecretBox): Uint8Array {
  const roots = state.roots.map((root) => {
    if (root.sealedKey === undefined || secretBox.isCurrent(Buffer.from(root.sealedKey, "base64"))) return root;
    return { ...root, sealedKey: sealKey(openKey(root, secretBox), secretBox) };
  });
  const since = created === undefined ? {} : { createdAt: created.toString() };
  return encoder.encode(JSON.stringify({ version: 1, ...state, roots, ...since }));
}

function decodeState(value: Uint8Array): { readonly row: State; readonly created: bigint | undefined } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(value));
  } catch {
    // Without the cause: it would quote the stored text, keys included.
    throw unreadable("it is not JSON");
  }
  const fields = fieldsOf(parsed);
  if (fields.get("version") !== 1) throw unreadable("it has another version", LATER_VERSION);
  const clusterId = fields.get("clusterId");
  const roots = fields.get("roots");
  if (typeof clusterId !== "string" || clusterId === "") throw unreadable("it has no cluster id");
  if (!Array.isArray(roots)) throw unreadable("it has no roots");
  const createdAt = fields.get("createdAt");
  if (createdAt !== undefined && !(typeof createdAt === "string" && /^\d{1,20}$/.test(createdAt))) {
    throw unreadable("its first revision is not one");
  }
  const configuration = decodeConfiguration(fields.get("configuration"));
  const state: State = { clusterId, roots: roots.map(decodeRoot), configuration };
  if (state.roots.filter(({ rotatedOutAt }) => rotatedOutAt === undefined).length !== 1) {
    throw unreadable("not exactly one root is active");
  }
  return { row: state, created: createdAt === undefined ? undefined : BigInt(createdAt) };
}

function decodeRoot(value: unknown): StoredRoot {
  const fields = fieldsOf(value);
  const certificatePem = fields.get("certificatePem");
  const intermediatePems = fields.get("intermediatePems");
  const sealedKey = fields.get("sealedKey");
  const rotatedOutAt = fields.get("rotatedOutAt");
  if (!isCertificate(certificatePem)) throw unreadable("a root is not a certificate");
  if (!Array.isArray(intermediatePems) || !intermediatePems.every(isCertificate)) {
    throw unreadable("an intermediate is not a certificate");
  }
  if (sealedKey !== undefined && typeof sealedKey !== "string") throw unreadable("a key is not text");
  if (rotatedOutAt !== undefined && typeof rotatedOutAt !== "number") throw unreadable("a time is not a number");
  const given = fields.get("given");
  if (given !== undefined && given !== "key" && given !== "root")
    throw unreadable("the stored kind of a given root is unknown");
  return { certificatePem, intermediatePems, sealedKey, rotatedOutAt, given };
}

function decodeConfiguration(value: unknown): StoredConfiguration | undefined {
  if (value === undefined) return undefined;
  const fields = fieldsOf(value);
  const force = fields.get("forceWithoutCrossSigning");
  const shown = Object.fromEntries(fieldsOf(fields.get("shown")));
  if (typeof force !== "boolean" || !isShown(shown)) throw unreadable("its configuration is not one");
  return { shown, forceWithoutCrossSigning: force };
}

function isShown(values: Readonly<Record<string, unknown>>): values is Readonly<Record<string, CaConfigurationValue>> {
  return Object.values(values).every(isConfigurationValue);
}

function isCertificate(value: unknown): value is string {
  if (typeof value !== "string") return false;
  try {
    return new X509Certificate(value).ca;
  } catch {
    return false;
  }
}

function fieldsOf(value: unknown): ReadonlyMap<string, unknown> {
  return typeof value === "object" && value !== null ? new Map(Object.entries(value)) : new Map();
}

/** Why bytes are no row. The table names the row. */
function unreadable(why: string, remedy = RESTORE): PeeringError {
  return new PeeringError("storage-failed", why, { remedy });
}

function damaged(row: string, why: string, remedy = RESTORE): PeeringError {
  return new PeeringError("storage-failed", `stored ${ROW_NAME} ${[...CA_PREFIX, row].join("/")} is damaged: ${why}`, {
    remedy,
  });
}
