/** One place in the source, and what stands there instead while a fault is planted. */
export interface SourceEdit {
  /** A file of src/. */
  readonly file: string;
  /** It occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}

/** A fault that somebody could make, and the checks that must find it. */
export interface PlantedFault {
  /** For the table, and for `--only`. */
  readonly name: string;
  /** What is wrong while it is planted. */
  readonly what: string;
  readonly edits: readonly SourceEdit[];
  /** Each of these must find it: `"simulator"`, or a test file. */
  readonly foundBy: readonly string[];
}

const SIMULATOR = "simulator";

function fault(
  name: string,
  what: string,
  [file, find, replace]: readonly [file: string, find: string, replace: string],
  ...foundBy: readonly string[]
): PlantedFault {
  return { name, what, edits: [{ file, find, replace }], foundBy };
}

const SECRETS = "src/peering/secrets.ts";
const TRANSACTIONS = "src/peering/transactions.ts";
const MACHINE = "src/peering/state-machine.ts";
const RECORDS = "src/host/records.ts";
const LINKS = "src/host/links.ts";
const HOST = "src/host/host.ts";
const DIALER = "src/host/dialer.ts";
const INTAKE = "src/host/intake.ts";
const IMPORTS = "src/host/import-store.ts";
const SESSION = "src/replication/session.ts";
const OUTBOUND = "src/replication/outbound.ts";
const LEVEL = "src/storage/level.ts";

/** The faults that `npm run mutate` plants, one after another. */
export const plantedFaults: readonly PlantedFault[] = [
  // --- Secrets ---------------------------------------------------------------------------------------------------------
  fault(
    "secret-by-four-digits",
    "secrets are compared by the first four hex digits of their digests",
    [
      SECRETS,
      "  return timingSafeEqual(Buffer.from(stored), Buffer.from(given));",
      "  return stored.slice(0, 4) === given.slice(0, 4);",
    ],
    SIMULATOR,
  ),
  fault(
    "secrets-readable",
    "an acceptor stores its secrets in a form that can be read back, instead of as digests",
    [
      SECRETS,
      'createHash("sha256").update(secret, "utf8").digest("hex")',
      'Buffer.from(secret).toString("hex").slice(0, 64).padEnd(64, "0")',
    ],
    SIMULATOR,
  ),
  fault(
    "dialer-secret-unsealed",
    "a dialer stores its stream secret without the secret box of its host",
    [
      RECORDS,
      "return this.#options.secretBox.seal(new TextEncoder().encode(secret));",
      "return Uint8Array.of(0, ...new TextEncoder().encode(secret));",
    ],
    SIMULATOR,
  ),
  fault(
    "any-stream-secret",
    "any stream secret is taken as the active one",
    [SECRETS, 'if (sameSecret(row.active, given)) return "active";', 'if (row.active !== "") return "active";'],
    SIMULATOR,
  ),
  fault(
    "no-secret-is-a-secret",
    "no secret equals no secret",
    [
      SECRETS,
      'if (stored === "" || given === "" || stored.length !== given.length) return false;',
      "if (stored.length !== given.length) return false;",
    ],
    SIMULATOR,
  ),
  fault(
    "token-works-twice",
    "an establishment secret can be exchanged again",
    [
      SECRETS,
      'return { ...before, establishment: "", pending: request.pending };',
      "return { ...before, pending: request.pending };",
    ],
    SIMULATOR,
  ),
  fault(
    "promoted-secret-stays-pending",
    "a promoted secret keeps its place among the pending ones",
    [
      SECRETS,
      'return { ...before, pending: "", active: request.active };',
      "return { ...before, active: request.active };",
    ],
    SIMULATOR,
  ),
  fault(
    "deleted-keeps-secrets",
    "a record that is deleted keeps its secrets",
    [TRANSACTIONS, "if (!isActive(record) || (row", "if ((row"],
    SIMULATOR,
  ),
  fault(
    "establish-replaces-cluster-early",
    "a token replaces the cluster of a record before its secret has been exchanged",
    [MACHINE, 'if (event.type === "establish-begun" && isEstablished(draft)) return;', ""],
    SIMULATOR,
  ),
  // --- Storage ---------------------------------------------------------------------------------------------------------
  fault(
    "commits-not-synced",
    "commits are not on disk when they are answered",
    [
      LEVEL,
      "await batch.write({ sync: true });\n    if (replaces)",
      "await batch.write({ sync: false });\n    if (replaces)",
    ],
    "test/unit/storage/level-sync.test.ts",
  ),
  fault(
    "commits-without-expectations",
    "a record is written whatever another process has written since",
    [RECORDS, "return this.#options.storage.commit(writes, expect);", "return this.#options.storage.commit(writes);"],
    SIMULATOR,
  ),
  fault(
    "imports-not-bound-to-gate",
    "imports are committed whether or not the record is active",
    [
      LINKS,
      "imports.apply(peering.id, batch, records.expectation(peering.id))",
      "imports.apply(peering.id, batch, [])",
    ],
    SIMULATOR,
  ),
  fault(
    "gate-not-moved",
    "the gate of a record stays as it is when the record ceases to stand",
    [
      RECORDS,
      "return (before === undefined) !== (after === undefined) || isActive(before) !== isActive(after);",
      "return (before === undefined) !== (after === undefined);",
    ],
    SIMULATOR,
  ),
  fault(
    "gate-open-for-inactive",
    "imports of a record that is deleted or terminated find a gate that fits",
    [
      RECORDS,
      "const revision = isActive(peering) ? this.#tables.gates.get(id) : undefined;\n    return [{ key: [...PEERING_GATES_PREFIX, id], revision: revision ?? NEVER }];\n  }\n\n  /**\n   * What a commit that cleans",
      "const revision = this.#tables.gates.get(id);\n    return [{ key: [...PEERING_GATES_PREFIX, id], revision: revision ?? NEVER }];\n  }\n\n  /**\n   * What a commit that cleans",
    ],
    SIMULATOR,
  ),
  fault(
    "cleanup-not-bound-to-gate",
    "a cleanup goes on when its record has been established anew",
    [HOST, "records.inactiveExpectation(peeringId)", "[]"],
    SIMULATOR,
  ),

  // --- Generations of streams and records ------------------------------------------------------------------------------
  fault(
    "bundle-of-old-stream",
    "the trust bundle of a stream to the former peer of a record is stored",
    [
      RECORDS,
      "      requireMeant(peering, meant);\n      const name = peering?.name ?? id;",
      "      const name = peering?.name ?? id;",
    ],
    SIMULATOR,
  ),
  fault(
    "addresses-of-old-stream",
    "the server addresses of a stream to the former peer of a record are stored",
    [RECORDS, "      requireMeant(this.byId(id), meant);\n", ""],
    SIMULATOR,
  ),
  fault(
    "terminated-of-old-stream",
    "a Terminated of a stream to the former peer of a record ends the new peering",
    [MACHINE, "return event.peerId !== undefined && event.peerId !== peering.peerId;", "return false;"],
    SIMULATOR,
  ),
  fault(
    "replaced-stream-applies",
    "a stream that has been replaced goes on applying what its peer sends",
    [LINKS, "    older?.intake.close();\n", ""],
    SIMULATOR,
  ),
  fault(
    "replaced-stream-stays",
    "a stream that has been replaced is not ended",
    [LINKS, '    older?.link.feed({ type: "abort", status: REPLACED });\n', ""],
    SIMULATOR,
  ),
  fault(
    "intake-open-on-terminated",
    "what the peer sent before its Terminated is still applied after it",
    [LINKS, "        live.peerTerminated = true;\n        live.intake.close();", "        live.peerTerminated = true;"],
    SIMULATOR,
  ),
  fault(
    "stream-outlives-terminated",
    "a stream that the peer opened after its Terminated stands for ever",
    [
      LINKS,
      "    if (live === undefined || live.peerTerminated) return;\n    const message",
      "    if (live !== null) return;\n    const message",
    ],
    SIMULATOR,
  ),
  fault(
    "deleted-record-recreated",
    "an establish that ends after its record was deleted makes the record again",
    [
      RECORDS,
      'const step = transition(current, { type: "establish-finished", fields });',
      'const step = transition(current ?? { ...fields, id: begun.id, name: "back", state: "pending", createIndex: 0n, modifyIndex: 0n }, { type: "establish-finished", fields });',
    ],
    SIMULATOR,
  ),
  fault(
    "terminated-not-stored-again",
    "a Terminated that could not be stored is forgotten",
    [LINKS, "      await sleep(clock, waitMs, this.#stop.signal).catch(() => {});\n    }", "      return;\n    }"],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-imports",
    "a cleanup leaves what was imported",
    [HOST, "      await importStore.removePeer(peeringId, records.inactiveExpectation(peeringId));\n", ""],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-bundle",
    "a cleanup leaves the trust bundle",
    [HOST, "      await records.removeTrustBundle(peering.name);\n", ""],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-unanswered-commits",
    "a cleanup leaves what a commit without an answer has stored",
    [
      IMPORTS,
      "          await this.#storage.commit(deletionsOf(keys.slice(start, start + REMOVED_TOGETHER)), expect);\n",
      "",
    ],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-addresses",
    "the virtual addresses of imported services stay when the services go",
    [IMPORTS, "    if (released.length > 0) await this.#release(peer, released);\n", ""],
    SIMULATOR,
  ),

  // --- Who dials, accepts and cleans -----------------------------------------------------------------------------------
  fault(
    "follower-dials",
    "a follower dials",
    [HOST, "(enabled && leadership.isLeader ? records.dialable", "(enabled ? records.dialable"],
    SIMULATOR,
  ),
  fault(
    "follower-keeps-streams",
    "who leads no more keeps the streams it dialed",
    [LINKS, 'if (roleOf(live.peering) === "dialer") live.link.feed({ type: "abort", status: SHUT_DOWN });', ""],
    SIMULATOR,
  ),
  fault(
    "follower-accepts",
    "a follower accepts streams",
    [
      LINKS,
      "    if (!leadership.isLeader) {\n      return void stream.close({",
      "    if (false) {\n      return void stream.close({",
    ],
    SIMULATOR,
  ),
  fault(
    "follower-cleans",
    "a follower cleans up",
    [
      HOST,
      "      if (!enabled || !leadership.isLeader) return;\n      const peering",
      "      if (!enabled) return;\n      const peering",
    ],
    SIMULATOR,
  ),
  fault(
    "first-dial-plan-kept",
    "a dial loop keeps the record and secret it began with",
    [
      DIALER,
      "      let plan: Dialable | undefined;\n      try {\n        plan = await this.#options.plan(peeringId);\n      } catch (error) {\n        // Such",
      "      let plan: Dialable | undefined;\n      try {\n        plan = (loop.first ??= await this.#options.plan(peeringId));\n      } catch (error) {\n        // Such",
    ],
    SIMULATOR,
  ),
  fault(
    "pushes-hasten-dials",
    "an acceptor that pushes another address on each stream is dialed again at once",
    [DIALER, "await sleep(clock, begunMs + CHANGED_MS - clock.now(), signal).catch(() => {});", ""],
    SIMULATOR,
    "test/unit/host/dialing.test.ts",
  ),
  fault(
    "no-back-off",
    "a dialer waits for nothing between attempts",
    [DIALER, "const waitMs = retries.failed(error.status ?? StatusCode.Unknown, connectedMs);", "const waitMs = 0;"],
    SIMULATOR,
  ),
  fault(
    "empty-addresses-accepted",
    "a push without any address is taken",
    [
      MACHINE,
      'if (event.type === "server-addresses-received" && event.addresses.length === 0 && isLiving(peering)) {',
      "if (false) {",
    ],
    SIMULATOR,
  ),

  // --- The protocol of a stream ----------------------------------------------------------------------------------------
  fault(
    "nonce-reused",
    "two messages in a row carry one nonce",
    [
      OUTBOUND,
      'const nonce = this.#sent.toString(16).padStart(8, "0");',
      'const nonce = (this.#sent - (this.#sent % 2)).toString(16).padStart(8, "0");',
    ],
    SIMULATOR,
  ),
  fault(
    "nonce-wraps",
    "nonces begin again after sixteen messages",
    [
      OUTBOUND,
      'const nonce = this.#sent.toString(16).padStart(8, "0");',
      'const nonce = (this.#sent % 16).toString(16).padStart(8, "0");',
    ],
    SIMULATOR,
  ),
  fault(
    "any-nonce-acknowledges",
    "an ACK of any nonce counts for the oldest message that waits for one",
    [
      OUTBOUND,
      "const row = this.#unanswered.get(nonce);\n    if (row === undefined) return;\n    this.#unanswered.delete(nonce);",
      "const row = this.#unanswered.get(nonce) ?? this.#unanswered.values().next().value;\n    if (row === undefined) return;\n    this.#unanswered.delete(row.nonce);",
    ],
    SIMULATOR,
  ),
  fault(
    "ack-before-commit",
    "what was received is acknowledged before it is committed",
    [
      INTAKE,
      "const results = await this.#apply(batch);",
      "void this.#apply(batch);\n      const results = answers(batch, []);",
    ],
    SIMULATOR,
  ),
  fault(
    "refused-payload-acknowledged",
    "what could not be applied is acknowledged",
    [
      SESSION,
      "        refusal = notApplied(change, resourceUrl, resourceId, error.message);\n        this.#noteReceiveError(refusal.reason);",
      "        this.#noteReceiveError(error.message);",
    ],
    SIMULATOR,
  ),
  fault(
    "storage-failure-forgotten",
    "a stream goes on after its storage has failed, and what was refused stays missing",
    [SESSION, "if (failure === undefined || this.#strictConsul) return;", "if (failure !== null) return;"],
    SIMULATOR,
  ),
  fault("no-heartbeats", "no heartbeats are sent", [SESSION, "      this.#heartbeatWaits = true;\n", ""], SIMULATOR),
  fault(
    "no-stall-watchdog",
    "a stream whose peer takes nothing stands for ever",
    [SESSION, "if (now >= this.#acceptedByMs) {", "if (now < 0) {"],
    SIMULATOR,
  ),
  fault(
    "no-silence-watchdog",
    "a stream whose peer is silent stands for ever",
    [SESSION, "if (now >= this.#heartbeatInByMs) {", "if (now < 0) {"],
    SIMULATOR,
  ),
  fault(
    "drain-without-bound",
    "a stream drains for as long as the peer likes",
    [
      SESSION,
      "this.#drainedByMs = this.#nowMs + this.#timings.drainMs;",
      "this.#drainedByMs = Number.POSITIVE_INFINITY;",
    ],
    SIMULATOR,
  ),
  fault(
    "unchanged-sent-again",
    "what has not changed is sent again",
    [OUTBOUND, "    if (digest === row.sentDigest) this.#unqueue(row);\n    else this", "    this"],
    SIMULATOR,
  ),
  fault(
    "intake-order",
    "a newer version takes the place in the order of the one it supersedes",
    [INTAKE, "      this.#waiting.delete(key);\n      superseded.resource", "      superseded.resource"],
    SIMULATOR,
  ),
  fault(
    "list-ignored",
    "a list removes nothing",
    [
      "src/host/import-plan.ts",
      "      if (!isAllowed(key)) this.#set(key, undefined);\n    }\n  }",
      "      isAllowed(key);\n    }\n  }",
    ],
    SIMULATOR,
  ),
  fault(
    "stale-node-record",
    "a node keeps the record of an entry that is gone",
    ["src/host/import-index.ts", "    } else if (wasNewest", "    } else if (false"],
    SIMULATOR,
  ),
  fault(
    "flood-not-limited",
    "one source may try as many secrets a second as it likes",
    [
      "src/host/admission.ts",
      "if (attempts > unauthorizedPerSecond || this.#attemptsInAll >= mostInAll) {",
      "if (this.#attemptsInAll >= mostInAll) {",
    ],
    SIMULATOR,
  ),
  // --- Guards against strangers, peers and holders of tokens -----------------------------------------------------------
  fault(
    "host-check-off",
    "a loopback server answers to any host",
    ["src/http/request-guard.ts", "(loopback && LOOPBACK_HOST.test(host))", "loopback"],
    "test/unit/http/request-guard.test.ts",
  ),
  fault(
    "origin-check-off",
    "a page of another site may write when its browser says where it comes from",
    [
      "src/http/request-guard.ts",
      'if (site === "same-origin" || site === "none") return undefined;',
      "if (site !== undefined) return undefined;",
    ],
    "test/unit/http/request-guard.test.ts",
  ),
  fault(
    "request-rate-off",
    "no source asks too often",
    ["src/http/request-rate.ts", "    if (bucket.tokens < 1) return false;\n", ""],
    "test/unit/http/request-rate.test.ts",
  ),
  fault(
    "clients-not-verified",
    "a client without a certificate is let in where clients are verified",
    ["src/rpc/http-server.ts", "rejectUnauthorized: verifiesClients", "rejectUnauthorized: false"],
    "test/unit/rpc/https.test.ts",
  ),
  fault(
    "commits-fail-unseen",
    "a failed commit is neither logged nor counted",
    ["src/host/host.ts", "reportedStorage(options.storage, incidents)", "options.storage"],
    "test/unit/host/reported-storage.test.ts",
  ),
  fault(
    "places-unfair",
    "those who hold all places keep newcomers out",
    ["src/sources.ts", "    let most = own;\n", "    let most = Number.POSITIVE_INFINITY;\n"],
    "test/unit/sources.test.ts",
    "test/unit/host/admission.test.ts",
  ),
  fault(
    "no-descriptor-reserve",
    "descriptors that others hold are not counted",
    ["src/transport/connection-limits.ts", "this.#ceiling - this.#others", "this.#ceiling"],
    "test/unit/transport/connection-limits.test.ts",
  ),
  fault(
    "stranger-says-much",
    "a stream that is not authorised may send as much as it likes",
    ["src/transport/grpc-stream.ts", "this.#count(chunk.length);", ""],
    "test/unit/transport/grpc-server.test.ts",
  ),
  fault(
    "register-not-judged",
    "a registration is judged by what it names alone",
    ["src/http/catalog.ts", "register(registration, { judge: judgeFor(access) })", "register(registration)"],
    "test/unit/http/write-rights.test.ts",
  ),
  fault(
    "transaction-not-judged",
    "a transaction is judged by what it names alone",
    ["src/http/txn.ts", "transaction(operations, { judge: judgeFor(access) })", "transaction(operations)"],
    "test/unit/http/write-rights.test.ts",
  ),
  fault(
    "wildcard-intention",
    "intentions of all services take no right on them",
    ["src/access/rules.ts", 'resource === "intention" && name === "*"', "false"],
    "test/unit/access/rules.test.ts",
  ),
  fault(
    "raw-terminal",
    "what peers name reaches the terminal as it is",
    ["src/cli/run.ts", "visible(line)", "line"],
    "test/unit/cli/hostile-output.test.ts",
  ),
  fault(
    "dns-amplifies",
    "large answers go to one network without a bound",
    ["src/dns/large-answers.ts", "(sent ?? 0) >= perSecond", "false"],
    "test/unit/dns/large-answers.test.ts",
  ),
  fault(
    "trust-domain-taken",
    "one root in common is enough to share a trust domain",
    ["src/trust/trust-domains.ts", ".every(", ".some("],
    "test/unit/trust/trust-domains.test.ts",
  ),
  fault(
    "establish-over-working",
    "a failing establish changes a record that works",
    ["src/peering/state-machine.ts", 'if (event.type === "establish-begun" && isEstablished(draft)) return;', ""],
    "test/unit/host/lifecycle.test.ts",
  ),
  fault(
    "maintenance-handed-out",
    "an instance in maintenance is exported as one that can be handed out",
    ["src/catalog/health.ts", "  if (!strictConsul && checks", "  if (false && checks"],
    "test/unit/catalog/health.test.ts",
  ),
  fault(
    "check-goes-anywhere",
    "a check connects to addresses that are not allowed",
    ["src/checks/probe.ts", "  if (isIP(host) !== 0 && !allows(host)) throw forbidden(host);", ""],
    "test/unit/checks/probe.test.ts",
  ),
  fault(
    "chain-without-bound",
    "splitters behind splitters make a chain as long as they like",
    ["src/catalog/chain.ts", "if (this.#parts <= this.#maxParts) return;", "if (this.#parts > 0) return;"],
    "test/unit/host/config-entries.test.ts",
  ),
  fault(
    "chain-not-looked-at",
    "a write does not look at the chains that lead to its service",
    [
      "src/catalog/export-guards.ts",
      'kind === "proxy-defaults" || leadsTo(before, chain, name)',
      'kind === "proxy-defaults"',
    ],
    "test/unit/http/recorded-writes.test.ts",
  ),
  fault(
    "intention-other-spelling",
    "an intention of a service is written with the right on another spelling of its name",
    ["src/http/intentions.ts", "before !== undefined && !mayWrite(access, before.name)", "false"],
    "test/unit/http/write-rights.test.ts",
  ),
  fault(
    "intention-of-peer-replaced",
    "a write of a local source takes the place of one of a peer that has its name",
    ["src/catalog/intention-writes.ts", "source.name === name && source.peer === undefined", "source.name === name"],
    "test/unit/http/scripted.test.ts",
  ),
  fault(
    "chain-wait-ends-early",
    "a wait for a chain ends with what is written for other services",
    ["src/http/blocking.ts", "return same ? { ...reading, index: minIndex } : reading;", "return reading;"],
    "test/unit/http/discovery-chain.test.ts",
  ),
  fault(
    "debugger-on-signal",
    "SIGUSR1 has Node open a port for debuggers",
    ["src/cli/main.ts", 'process.on("SIGUSR1", () => actions.SIGUSR1());', ""],
    "test/unit/cli/signals.test.ts",
  ),
  fault(
    "empty-option-taken",
    "an option that is given and empty is taken for one that is not given",
    ["src/cli/agent-options.ts", 'if (value.trim() === "") throw fail("it cannot be empty");', ""],
    "test/unit/cli/wrong-options.test.ts",
  ),
  fault(
    "unknown-key-passed-over",
    "a key that Consul does not know is passed over in its configuration",
    ["src/cli/consul-files.ts", "if (shape === undefined) unknown.push(", "if (shape === undefined) void ("],
    "test/unit/cli/consul-config.test.ts",
  ),
  fault(
    "definitions-stay",
    "a service that is gone from the configuration stays registered",
    [
      "src/cli/agent-definitions.ts",
      'for (const id of before.services) if (!this.#services.has(id)) await this.#remove("service", id);',
      "",
    ],
    "test/unit/cli/consul-config.test.ts",
  ),
  fault(
    "monitor-without-bound",
    "lines of the log gather for a client that does not read them",
    ["src/http/line-queue.ts", "if (this.#lines.length >= this.#most) {", "if (this.#most < 0) {"],
    "test/unit/http/line-queue.test.ts",
  ),
];
