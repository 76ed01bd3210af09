/** One place in the source, and what stands there instead while a fault is planted. */
export interface SourceEdit {
  /** A file of src/. */
  readonly file: string;
  /** It occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}

/** A fault that a developer could make, and the checks that must find it. */
export interface PlantedFault {
  /** For the table, and for `--only`. */
  readonly name: string;
  /** The fault in words. */
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

const CHECK_GROUPS = "src/model/check-groups.ts";
const SECRETS = "src/peering/secrets.ts";
const TRANSACTIONS = "src/peering/transactions.ts";
const MACHINE = "src/peering/state-machine.ts";
const RECORDS = "src/stores/records.ts";
const HELD_PEERINGS = "src/stores/held-peerings.ts";
const REPLICA = "src/storage/replica.ts";
const STREAMS = "src/host/streams.ts";
const HOST = "src/host/host.ts";
const EFFECTS = "src/host/effects.ts";
const DELETION = "src/host/deletion.ts";
const DIALER = "src/host/dialer.ts";
const APPLY_QUEUE = "src/host/apply-queue.ts";
const IMPORTS = "src/stores/import-store.ts";
const FOLLOWING = "test/unit/stores/import-following.test.ts";
const HELD_IMPORTS = "src/stores/held-imports.ts";
const PEER_LISTS = "src/stores/peer-lists.ts";
const SUMMARIES = "src/stores/import-summaries.ts";
const OF_SUMMARIES = "test/unit/stores/import-summaries.test.ts";
const SESSION = "src/replication/session.ts";
const OUTBOUND = "src/replication/outbound.ts";
const LEVEL = "src/storage/level.ts";
const KEPT_ANSWERS = "test/unit/rpc/kept-answers.test.ts";
const KEPT_REPLIES = "test/unit/dns/kept-replies.test.ts";
const MESH = "test/integration/mesh.test.ts";
const BOOTSTRAP = "test/unit/cli/envoy-bootstrap.test.ts";

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
    [TRANSACTIONS, '      case "drop-secrets":\n        row = undefined;', '      case "drop-secrets":'],
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
    "revisions-given-twice",
    "after a process that did not close the storage, revisions go on where the log ends",
    [LEVEL, "isWhole ? found : mayBeGiven + 1n", "found"],
    "test/compliance/storage.test.ts",
  ),
  fault(
    "simulated-revisions-given-twice",
    "after a loss of power, revisions go on where the disk ends",
    [
      "src/testing/simulator/sim-disk.ts",
      "    if (this.#reserved > this.#revision) this.#revision = this.#reserved + 1n;\n",
      "",
    ],
    SIMULATOR,
  ),
  fault(
    "revisions-reserved-too-few",
    "after a process that did not close the storage, the last revision that may have been given is that of what is left",
    [LEVEL, "isWhole ? found : mayBeGiven + 1n", "isWhole ? found : mayBeGiven"],
    "test/unit/storage/level-power.test.ts",
  ),
  fault(
    "lost-end-left",
    "what the engine reads behind a gap in its logs is not dropped",
    [LEVEL, "  if (cut !== undefined) await dropLost(place, cut.lost);\n", ""],
    "test/compliance/storage.test.ts",
  ),
  fault(
    "left-log-not-synced",
    "a log that the engine has left is not synced",
    ["src/storage/level-logs.ts", "    for (const log of logs) await syncFile(join(this.#path, log));\n", ""],
    "test/unit/storage/level-power.test.ts",
  ),
  fault(
    "changes-forgotten-in-silence",
    "a reader who is too far behind is told what is remembered, as if that were all",
    ["src/storage/change-log.ts", "if (after < this.#horizon) return", "if (after < 0n) return"],
    "test/compliance/storage.test.ts",
  ),
  fault(
    "imports-over-the-limit",
    "a service that is larger than the storage takes holds up all others",
    ["src/stores/import-plan.ts", "if (head.bytes > this.#payloadBytes)", "if (head.bytes < 0)"],
    "test/unit/host/storage-limits.test.ts",
  ),
  fault(
    "commits-not-synced",
    "commits are not on disk when they are answered",
    [
      LEVEL,
      "await this.#write(batch, { sync, bytes, rows });",
      "await this.#write(batch, { sync: false, bytes, rows });",
    ],
    "test/unit/storage/level-sync.test.ts",
  ),
  fault(
    "commits-without-expectations",
    "rows are written whatever another process has written since",
    [REPLICA, "const expected = [{ key, revision: section.head }, ...expect];", "const expected = [...expect];"],
    SIMULATOR,
  ),
  fault(
    "imports-not-bound-to-fence",
    "imports are committed whether or not the record is active",
    [
      STREAMS,
      "imports.apply(peering.id, batch, records.expectation(peering.id))",
      "imports.apply(peering.id, batch, [])",
    ],
    SIMULATOR,
  ),
  fault(
    "answer-lost-for-good",
    "a write is decided before it is known what became of one that was not answered",
    [REPLICA, "        if (section.isDoubtful) await this.#catchUp(section);\n", ""],
    "test/unit/storage/stored-table.test.ts",
  ),
  fault(
    "others-not-followed",
    "what another process commits is not seen before a write of one's own",
    [REPLICA, "    replica.#following = replica.#follow();\n", ""],
    "test/unit/storage/stored-table.test.ts",
  ),
  fault(
    "own-commits-taken-twice",
    "a commit of one's own is taken over again when the storage tells it",
    [REPLICA, "      if (entry.revision <= known) continue;\n", ""],
    "test/unit/storage/stored-table.test.ts",
  ),
  fault(
    "moved-check-is-lost",
    "a check that another process moved to another service counts as removed",
    ["src/model/row-draft.ts", "else if (!checkOwners.has(key) &&", "else if ("],
    "test/unit/stores/catalog-following.test.ts",
  ),
  fault(
    "fence-not-moved",
    "the fence of a record stays as it is when the record ceases to stand",
    [
      HELD_PEERINGS,
      "return (before === undefined) !== (after === undefined) || isActive(before) !== isActive(after);",
      "return (before === undefined) !== (after === undefined);",
    ],
    SIMULATOR,
  ),
  fault(
    "fence-open-for-inactive",
    "imports of a record that is deleted or terminated find a fence that fits",
    [
      RECORDS,
      "const revision = isActive(peering) ? this.#held.fences.get(id) : undefined;\n    return [{ key: fenceKey(id), revision: revision ?? NEVER }];\n  }\n\n  /**\n   * The conditions on a commit that cleans",
      "const revision = this.#held.fences.get(id);\n    return [{ key: fenceKey(id), revision: revision ?? NEVER }];\n  }\n\n  /**\n   * The conditions on a commit that cleans",
    ],
    SIMULATOR,
  ),
  fault(
    "cleanup-not-bound-to-fence",
    "a cleanup goes on when its record has been established again",
    [DELETION, "records.inactiveExpectation(peeringId)", "[]"],
    "test/unit/host/races.test.ts",
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
    "test/unit/stores/records.test.ts",
  ),
  fault(
    "replaced-stream-applies",
    "a stream that has been replaced goes on applying what its peer sends",
    [STREAMS, "    older?.applyQueue.close();\n", ""],
    SIMULATOR,
  ),
  fault(
    "replaced-stream-stays",
    "a stream that has been replaced is not ended",
    [STREAMS, '    older?.link.feed({ type: "abort", status: REPLACED });\n', ""],
    SIMULATOR,
  ),
  fault(
    "apply-queue-open-on-terminated",
    "what the peer sent before its Terminated is still applied after it",
    [
      STREAMS,
      "        live.peerTerminated = true;\n        live.applyQueue.close();",
      "        live.peerTerminated = true;",
    ],
    SIMULATOR,
  ),
  fault(
    "stream-outlives-terminated",
    "a stream that the peer opened after its Terminated stands for ever",
    [
      STREAMS,
      "    else if (live !== undefined && !live.peerTerminated && (peerId",
      "    else if (live === null && (peerId",
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
    [
      STREAMS,
      "await retry(() => records.terminate(id, { peerId }), {",
      "await retry(() => records.terminate(id, { peerId }), { maxAttempts: 1,",
    ],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-imports",
    "a cleanup leaves imports behind",
    [
      DELETION,
      "        return imports.removePeer(peeringId, records.inactiveExpectation(peeringId));",
      "        return;",
    ],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-bundle",
    "a cleanup leaves the trust bundle",
    [DELETION, "        if (peering !== undefined) await records.removeTrustBundle(peering.name);\n", ""],
    SIMULATOR,
  ),
  fault(
    "cleanup-leaves-damage",
    "a cleanup leaves stored imports that are damaged",
    [IMPORTS, "await turn.commit({ writes, expect, done });", "{}"],
    FOLLOWING,
  ),
  fault(
    "cleanup-leaves-head",
    "a cleanup leaves the head of the imports",
    [IMPORTS, "      await turn.commit({ writes: [], expect, isLast: true, done });\n", ""],
    SIMULATOR,
    FOLLOWING,
  ),
  fault(
    "own-commits-looked-at",
    "a host looks at each commit of its own again when the storage tells it",
    [REPLICA, "if (change.revision > this.#known) await", "await"],
    FOLLOWING,
  ),
  fault(
    "stale-imports-acknowledged",
    "a service is taken for stored by an index that another host has made stale",
    [IMPORTS, "      if (changes.length === 0) await turn.current();\n", ""],
    FOLLOWING,
  ),
  fault(
    "newer-import-taken-for-damage",
    "an import that another host has written since is dropped as damaged",
    ["src/stores/import-payloads.ts", "    if (damaged.length > 0) await turn.current();\n", ""],
    FOLLOWING,
  ),
  fault(
    "former-summary-listed",
    "a list shows of a service what it was when it was listed first",
    ["src/stores/catalog.ts", "kept?.records === records", "kept !== undefined"],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  fault(
    "awaited-read-from-disk",
    "a service that calls wait for is read from the storage again after each change",
    [HELD_IMPORTS, "peer.isKnown(key) || peer.isAwaited(key)", "peer.isKnown(key)"],
    "test/unit/stores/import-bounds.test.ts",
  ),
  fault(
    "lost-version-told-as-none",
    "a watch whose service another host wrote over is told that it had no instances before",
    ["src/stores/held-imports.ts", '(this.views.get(service) ?? "lost")', "this.views.get(service)"],
    FOLLOWING,
  ),
  fault(
    "followers-delete-damage",
    "a host that does not lead deletes damaged imports, which the one that leads then does not fetch again",
    [REPLICA, "    if (this.#options.expendable?.mayDelete?.() === false) return;\n", ""],
    FOLLOWING,
  ),
  fault(
    "cleanup-leaves-addresses",
    "the virtual addresses of imported services stay when the services go",
    [IMPORTS, "      if (released.length > 0) await this.#release(peer, released);\n", ""],
    SIMULATOR,
  ),
  fault(
    "withdrawals-relaxed",
    "a loss of power shows services again that a peer had withdrawn",
    [IMPORTS, 'removesAny(part) ? "durable" : "relaxed"', '"relaxed"'],
    "test/unit/host/storage-limits.test.ts",
  ),

  // --- Who dials, accepts and cleans -----------------------------------------------------------------------------------
  fault(
    "follower-dials",
    "a follower dials",
    [HOST, "(leads() ? records.dialable", "(enabled ? records.dialable"],
    SIMULATOR,
  ),
  fault(
    "follower-keeps-streams",
    "who leads no more keeps the streams it dialed",
    [STREAMS, 'if (roleOf(live.peering) === "dialer") live.link.feed({ type: "abort", status: SHUT_DOWN });', ""],
    SIMULATOR,
  ),
  fault(
    "follower-accepts",
    "a follower accepts streams",
    [
      STREAMS,
      "    if (!leadership.isLeader) {\n      return void stream.close({",
      "    if (false) {\n      return void stream.close({",
    ],
    SIMULATOR,
  ),
  fault(
    "follower-cleans",
    "a follower cleans up",
    [DELETION, "step === undefined || !mayRemove()", "step === undefined"],
    SIMULATOR,
  ),
  fault(
    "restart-forgets-what-was-begun",
    "a host that starts or comes to lead does nothing about the peerings that are stored",
    [EFFECTS, 'for (const { id } of records.list()) records.observe(id, { type: "resumed" });', ""],
    SIMULATOR,
    "test/unit/host/table.test.ts",
  ),
  fault(
    "stream-to-former-cluster-stays",
    "a stream to the former cluster of a record stands when the record is established with another one",
    [EFFECTS, "if (peering !== undefined) streams.retire(peeringId, peering.peerId);", ""],
    "test/unit/host/table.test.ts",
  ),
  fault(
    "dial-outlives-record",
    "a dial that succeeds after its record was deleted is served",
    [
      STREAMS,
      "if (!this.#connect(link, plan.peering)) {",
      "if (!this.#connect(link, plan.peering) && link === undefined) {",
    ],
    "test/unit/host/table.test.ts",
  ),
  fault(
    "former-removal-goes-on",
    "what was to be removed of a record is removed after it was established again, too",
    [
      DELETION,
      "      this.#rests.delete(peeringId);\n      return;\n    }\n    this.#rests.set",
      "      return;\n    }\n    this.#rests.set",
    ],
    "test/unit/host/races.test.ts",
  ),
  fault(
    "first-dial-plan-kept",
    "a dial loop keeps the record and secret it began with",
    [DIALER, "const plan = await this.#plan(peeringId);", "const plan = (loop.first ??= await this.#plan(peeringId));"],
    SIMULATOR,
  ),
  fault(
    "pushes-hasten-dials",
    "an acceptor that pushes another address on each stream is dialed again at once",
    [DIALER, "await sleep(clock, Math.max(0, round.begunMs + CHANGED_MS - clock.now()), signal).catch(() => {});", ""],
    SIMULATOR,
    "test/unit/host/dialing.test.ts",
  ),
  fault(
    "no-back-off",
    "a dialer waits for nothing between attempts",
    [DIALER, "dialBackoffMs(failures, statusCodeOf(error)),", "0,"],
    SIMULATOR,
    "test/unit/host/dialing.test.ts",
  ),
  fault(
    "dial-count-goes-on",
    "failures before a stream that stood for a minute lengthen the waits after it",
    [DIALER, "if (connectedMs >= STABLE_STREAM_MS) works();", ""],
    "test/unit/host/dialing.test.ts",
  ),
  fault(
    "xds-tells-unread",
    "a proxy is told that services are gone which are only not read yet",
    ["src/mesh/ads/proxy-feed.ts", "if (waitsFor.length > 0) return", "if (waitsFor.length > 1_000_000) return"],
    "test/unit/mesh/xds-server.test.ts",
  ),
  fault(
    "xds-waits-for-damaged",
    "a proxy waits for a service that cannot be read",
    ["src/mesh/ads/host-source.ts", "          read.failed = true;\n", ""],
    "test/unit/mesh/xds-server.test.ts",
  ),
  fault(
    "own-gateways-passed-by",
    "a dialer that is to go through its own mesh gateways dials the peer directly",
    [
      "src/host/dial-places.ts",
      "return direct.length === 0 ? [] : [...this.ownGateways(), ...direct];",
      "return direct;",
    ],
    "test/unit/host/dialing-through-gateways.test.ts",
  ),
  fault(
    "own-gateways-not-followed",
    "a dialer waits on when its own mesh gateways have changed",
    [HOST, "      dialer.allChanged();\n    }),\n    configEntries", "    }),\n    configEntries"],
    "test/unit/host/dialing-through-gateways.test.ts",
  ),
  fault(
    "own-gateways-forbidden",
    "own mesh gateways are not dialed where the rule about addresses of peers forbids them",
    [
      "src/host/dial-places.ts",
      "[...this.ownGateways(), ...direct]",
      "[...this.ownGateways().map(({ address }) => ({ address, mayDial })), ...direct]",
    ],
    "test/unit/host/dialing-through-gateways.test.ts",
  ),
  fault(
    "empty-addresses-accepted",
    "a push without any address is taken",
    [
      MACHINE,
      'if (event.type === "server-addresses-received" && event.addresses.length === 0 && isActive(peering)) {',
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
    "a resource is acknowledged before it is committed",
    [
      APPLY_QUEUE,
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
    "a stream goes on after its storage has failed, and the refused resource stays missing",
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
    "apply-queue-order",
    "a newer version takes the place in the order of the one it supersedes",
    [APPLY_QUEUE, "      this.#waiting.delete(key);\n      superseded.resource", "      superseded.resource"],
    SIMULATOR,
  ),
  fault(
    "list-ignored",
    "a list removes nothing",
    [
      "src/stores/import-plan.ts",
      "      if (!isAllowed(key)) this.#set(key, undefined);\n    }\n  }",
      "      isAllowed(key);\n    }\n  }",
    ],
    SIMULATOR,
  ),
  fault(
    "stale-node-record",
    "a node keeps the record of an entry that is gone",
    ["src/stores/import-index.ts", "    } else if (wasNewest", "    } else if (false"],
    SIMULATOR,
  ),
  fault(
    "newer-node-record-unseen",
    "a service is read as before although another one says otherwise of its node",
    ["src/stores/import-index.ts", "    if (differs && hold.older !== undefined) this.#changed.add(node);\n", ""],
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
  fault(
    "dials-without-secret",
    "a dialer opens streams while the secret of its token is still to be exchanged",
    [
      RECORDS,
      'if (peering === undefined || row?.role !== "dialer" || !isDialed(peering)) return undefined;\n    return { peering, streamSecret: this.#unseal(row.sealedActive) };',
      'if (peering === undefined || row?.role === "acceptor" || !isActive(peering) || peering.peerId === "")\n      return undefined;\n    return { peering, streamSecret: row === undefined ? "none" : this.#unseal(row.sealedActive) };',
    ],
    SIMULATOR,
  ),
  // --- Damage ------------------------------------------------------------------------------------------------------------
  fault(
    "damage-stops-start",
    "a host does not start when something is damaged that its peers send again",
    [REPLICA, "page.damaged.filter(({ key }) => !this.#isExpendable(key))", "page.damaged"],
    SIMULATOR,
  ),
  fault(
    "damage-untold",
    "damaged rows are dropped without a word",
    [REPLICA, "this.#incidents.report(expendable.incident, expendable.message, {", "void ({"],
    SIMULATOR,
  ),
  fault(
    "wake-up-lost",
    "a change that comes while no reader waits for it does not end the next wait",
    [
      "src/base/latest.ts",
      "if (this.#resolve === undefined) this.#isCalled = true;",
      "if (this.#resolve === undefined) return;",
    ],
    "test/unit/base/latest.test.ts",
  ),
  fault(
    "listener-stops-others",
    "a listener that throws keeps the others from hearing of it",
    [
      "src/base/signal.ts",
      "if (this.#incidents === undefined) failures.push(error);",
      "if (this.#incidents !== undefined) throw error;",
    ],
    "test/unit/base/signal.test.ts",
    "test/unit/stores/records.test.ts",
  ),
  fault(
    "attempts-without-end",
    "a bounded number of attempts is not kept to",
    ["src/base/retry.ts", "if (failures >= maxAttempts) throw error;", ""],
    "test/unit/base/retry.test.ts",
  ),
  fault(
    "newer-row-deleted",
    "a damaged row is deleted, though another process has written it again meanwhile",
    ["src/storage/damaged-entries.ts", "storage.commit(writes, entries)", "storage.commit(writes)"],
    "test/unit/storage/damaged-entries.test.ts",
    "test/unit/storage/stored-table.test.ts",
  ),
  fault(
    "damaged-catalog-dropped",
    "damaged services of the cluster's own are dropped, as if a peer sent them again",
    [REPLICA, "page.damaged.filter(({ key }) => !this.#isExpendable(key))", "page.damaged.slice(0, 0)"],
    "test/unit/storage/stored-table.test.ts",
  ),
  fault(
    "value-not-verified",
    "a stored value whose checksum does not fit is handed out",
    [
      "src/storage/level-rows.ts",
      'if (check !== uint32(stored, VALUE_CHECK_AT)) return { state: "damaged", revision };',
      "",
    ],
    "test/unit/storage/level-rows.test.ts",
    "test/unit/storage/level-damage.test.ts",
  ),
  fault(
    "log-gap-unseen",
    "writes that are missing between two of the log are not noticed",
    ["src/storage/level-files.ts", "if (isGap(record, last, manifest)) throw", "if (record.length < 0) throw"],
    "test/unit/storage/level-damage.test.ts",
  ),
  fault(
    "log-gap-at-start-unseen",
    "writes that are missing before the first of the log are not noticed",
    [
      "src/storage/level-files.ts",
      "return before === undefined ? sequence > manifest.lastSequence + 1 :",
      "return before === undefined ? false :",
    ],
    "test/unit/storage/level-damage.test.ts",
  ),
  fault(
    "opened-twice",
    "a process can open a data directory twice, by two paths",
    [
      "src/storage/level-directory.ts",
      '      if (errorCode(error) !== "EEXIST") throw error;\n      throw inUse(this.name, error);\n',
      "",
    ],
    "test/unit/storage/level-directory.test.ts",
  ),
  fault(
    "data-open-to-others",
    "a data directory that others can read is left so",
    ["src/storage/level-directory.ts", "if ((mode & OTHERS) === 0) return;", "if (mode >= 0) return;"],
    "test/unit/storage/level-directory.test.ts",
  ),
  fault(
    "root-key-unsealed",
    "the key of a root is stored as it is, although there is a key to seal it with",
    [
      "src/trust/built-in-authority.ts",
      'return Buffer.from(secretBox.seal(Buffer.from(keyPem))).toString("base64");',
      'return secretBox.isCurrent(Buffer.from([0, ...Buffer.from(keyPem)])) || keyPem === "" ? "" : Buffer.from([0, ...Buffer.from(keyPem)]).toString("base64");',
    ],
    "test/unit/trust/built-in-authority.test.ts",
  ),
  fault(
    "serial-given-before-it-is-taken",
    "a serial number is given that another host may take, too",
    [
      "src/trust/built-in-authority.ts",
      "        writes: [{ path: [SERIAL], row: end }],",
      "        writes: [{ path: [SERIAL], row: first + 1n }],",
    ],
    "test/unit/trust/shared-authority.test.ts",
  ),
  fault(
    "serial-of-a-damaged-row",
    "serial numbers are taken by the last row that could be read, although another host has written another one since",
    ["src/trust/built-in-authority.ts", "  requireReadable(table, SERIAL);\n", ""],
    "test/unit/trust/shared-authority.test.ts",
  ),
  fault(
    "unreadable-roots-written-over",
    "roots that another version wrote are written over by the state before them",
    ["src/trust/built-in-authority.ts", "  requireReadable(table, STATE);\n", ""],
    "test/unit/trust/shared-authority.test.ts",
  ),
  fault(
    "authority-made-again",
    "an authority whose rows are gone is made again under another cluster id",
    [
      "src/trust/built-in-authority.ts",
      "    if (table.revision > 0n) return",
      "    if (table.get(STATE) !== undefined) return",
    ],
    "test/unit/trust/built-in-authority.test.ts",
  ),
  fault(
    "configured-by-an-old-state",
    "a configuration is judged by what this host knows, although another host has taken another one since",
    [
      "src/trust/built-in-authority.ts",
      "    return this.#table.write(plan, { current: true });",
      "    return this.#table.write(plan);",
    ],
    "test/unit/trust/shared-authority.test.ts",
  ),
  fault(
    "state-of-another-cluster-followed",
    "the state of another cluster that is written over ours is followed",
    ["src/trust/built-in-authority.ts", "    format.clusterId = state.clusterId;", "    format.clusterId = undefined;"],
    "test/unit/trust/shared-authority.test.ts",
  ),
  // --- What strangers and tokens make an agent hold -------------------------------------------------------------------------
  fault(
    "answers-pile-up",
    "answers are made for those who have not read the last ones",
    [
      "src/http/answer-turns.ts",
      "    if (unsent < this.#limitOf(key)) return false;\n",
      "    if (unsent >= 0) return false;\n",
    ],
    "test/unit/http/answer-turns.test.ts",
  ),
  fault(
    "answers-of-all-pile-up",
    "what a connection and a source have not read is bounded, and what all have not is not",
    ["src/http/answer-turns.ts", '      this.#isFull(ALL, "all", source) ||\n', ""],
    "test/unit/http/answer-turns.test.ts",
  ),
  fault(
    "answers-all-at-once",
    "as many answers are made at once as are asked for",
    ["src/http/answer-turns.ts", "        if (isFresh && this.#making >= this.#limits.atOnce) continue;\n", ""],
    "test/unit/http/answer-turns.test.ts",
  ),
  fault(
    "long-lists-for-each",
    "each of many reads that ask the same at once makes a list of its own",
    [
      "src/http/held-answers.ts",
      "held === undefined || !isSame(held, asked)",
      "held === undefined || !isSame(held, asked) || held.calls > 0",
    ],
    "test/unit/http/long-reads.test.ts",
  ),
  fault(
    "lists-from-before-a-write",
    "a read that begins after a write has the list of one that began before it",
    ["src/http/held-answers.ts", "held.state.every((part, place) => part === asked.state[place])", "true"],
    "test/unit/http/held-answers.test.ts",
  ),
  fault(
    "waits-for-what-is-not-there",
    "a read that waits for a service that does not exist is not woken by what raises its index",
    ["src/stores/service-listeners.ts", "else this.#absent.add(key);", ""],
    "test/unit/stores/service-listeners.test.ts",
  ),
  fault(
    "dns-replies-from-before-a-change",
    "a kept DNS reply is given though its service has changed",
    ["src/dns/kept-replies.ts", "if (!this.#isCurrent(kept.of)) {", "if (false) {"],
    KEPT_REPLIES,
  ),
  fault(
    "dns-replies-changed-meanwhile",
    "a DNS reply is kept with the revision of after the read",
    [
      "src/dns/resolver.ts",
      "return { ...answer, of: { ...of, peer: context.peer, instances: instances.length } };",
      'return { ...answer, of: { ...of, revision: this.#source.revision?.(context.peer, of.service) ?? "", peer: context.peer, instances: instances.length } };',
    ],
    KEPT_REPLIES,
  ),
  fault(
    "dns-replies-of-aliases",
    "DNS replies are kept that show the target of an alias",
    ["src/dns/resolver.ts", "if (of === undefined || hasAlias) return answer;", "if (of === undefined) return answer;"],
    KEPT_REPLIES,
  ),
  fault(
    "dns-replies-of-former-rights",
    "kept DNS replies do not go with the rights of callers",
    ["src/dns/source.ts", "const rights = authorizer.revision;", "const rights = authorizer.revision && 0;"],
    KEPT_REPLIES,
  ),
  fault(
    "dns-replies-in-one-order",
    "one kept DNS reply is given again and again",
    ["src/dns/kept-replies.ts", "if (reply.given === MOST_GIVEN && ordersOf(of) > 1) {", "if (false) {"],
    KEPT_REPLIES,
  ),
  fault(
    "dns-replies-past-the-limit-of-large-ones",
    "kept DNS replies are given past the limit of large answers",
    [
      "src/dns/responder.ts",
      "return this.#mayHave(message, kept.reply, origin) ? kept.reply : kept.refusal();",
      "return kept.reply;",
    ],
    KEPT_REPLIES,
  ),
  fault(
    "summary-from-before-a-commit",
    "a list shows an imported service as it was before the last commit",
    [
      HELD_IMPORTS,
      "    this.views.drop(service);\n    peer.summaries?.changed(service);\n",
      "    this.views.drop(service);\n",
    ],
    OF_SUMMARIES,
  ),
  fault(
    "summary-without-a-new-proxy",
    "a list shows an imported service without the proxy that has come for it",
    [HELD_IMPORTS, "        peer.summaries?.changed(service);\n", ""],
    OF_SUMMARIES,
  ),
  fault(
    "summary-without-a-foreign-service",
    "a host that does not lead lists imports without a service that has come",
    [
      HELD_IMPORTS,
      "      peer.summaries?.changed(service);\n      if (meter",
      "      service.mark = revision;\n      if (meter",
    ],
    OF_SUMMARIES,
  ),
  fault(
    "summary-of-its-name-alone",
    "a list shows a service as before when a proxy for it has changed",
    [PEER_LISTS, "    for (const name of mesh) this.#forget(name);\n", ""],
    OF_SUMMARIES,
  ),
  fault(
    "summary-begun-before-a-commit",
    "a list keeps what it made of a payload that was written over meanwhile",
    [PEER_LISTS, "    for (const made of this.making) made.delete(key);\n", ""],
    OF_SUMMARIES,
  ),
  fault(
    "summaries-without-a-bound",
    "what lists show of imports takes as much memory as there is",
    [SUMMARIES, "    if (this.#bytes + one.bytes <= this.#most) {", "    if (this.#bytes >= 0) {"],
    OF_SUMMARIES,
  ),
  fault(
    "imports-sorted-again-and-again",
    "the services of a peer are put in order with every thousand that come",
    ["src/stores/import-index.ts", "Math.max(MANY_UNSORTED, this.#sorted.length / UNSORTED_PART)", "MANY_UNSORTED"],
    "test/unit/stores/import-index.test.ts",
  ),
  fault(
    "imports-listed-when-gone",
    "a service that has gone is listed among those of its peer",
    ["src/stores/import-index.ts", "const isWhole = gone === this.#sortedWith;", "const isWhole = gone >= 0;"],
    "test/unit/stores/import-index.test.ts",
  ),
  fault(
    "kept-map-out-of-order",
    "a map is written in the order of its list where a key that is not in order has come",
    [
      "src/http/kept-texts.ts",
      "if (records[index] === before[index] && records[index - 1] === before[index - 1]) continue;",
      "if (records[index] === before[index]) continue;",
    ],
    "test/unit/http/kept-texts.test.ts",
  ),
  fault(
    "order-without-another-one",
    "a thing that goes is taken for another one of its place in the order",
    ["src/base/kept-order.ts", "      while (place < moved.length && moved[place] !== item) place++;\n", ""],
    "test/unit/base/kept-order.test.ts",
  ),
  fault(
    "listed-node-of-an-older-description",
    "a list of imported nodes shows one as it was decoded first",
    [
      "src/stores/import-nodes.ts",
      "    if (kept?.low !== newest.low || kept.high !== newest.high) {",
      "    if (kept === undefined) {",
    ],
    OF_SUMMARIES,
  ),
  fault(
    "listed-node-of-an-older-revision",
    "a list of imported nodes has the index of an older change",
    ["src/stores/import-nodes.ts", "if (kept.listed.revision !== revision) nodes.set", "if (revision < 0n) nodes.set"],
    OF_SUMMARIES,
  ),
  fault(
    "kept-answers-from-before-a-write",
    "an answer that is kept is given again after a write to the catalog",
    ["src/http/kept-answers.ts", 'catalog.onChange(changed("catalog"));', ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-from-before-an-import",
    "an answer that is kept is given again after imports have changed",
    ["src/http/kept-answers.ts", 'imports.onAnyChange(changed("imports"));', ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-from-before-an-entry",
    "an answer that is kept is given again after a config entry was written",
    ["src/http/kept-answers.ts", 'configEntries.onChange(changed("config-entries"));', ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-from-before-a-change-of-theirs",
    "an answer that is kept is given again after what it tells of has changed, where it tells of a part of the catalog",
    [
      "src/http/kept-answers.ts",
      "if (basis !== undefined && !isSame(basis.marks, basis.marksNow())) return false;",
      "",
    ],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-void-by-all",
    "an answer that is kept is made again after any change of the catalog",
    ["src/http/kept-answers.ts", "if (basis === undefined) return standing;", "if (basis !== null) return standing;"],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-with-proxies-that-left",
    "an answer about the mesh that is kept shows a proxy that speaks for another service now",
    [
      "src/http/discovery.ts",
      "[catalog.index.connect(service), catalog.countConnect(service)]",
      "[catalog.index.connect(service)]",
    ],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-with-former-addresses",
    "an answer about an import that is kept shows a virtual address that was released",
    ["src/http/answer-read.ts", "[index(), catalog.index.virtualIps, found?.revision", "[index(), found?.revision"],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-of-former-exports",
    "the kept list of exported services is given again after services came or went",
    ["src/http/config.ts", "() => [exports.resolvedIndex]);", "() => []);"],
    KEPT_ANSWERS,
  ),
  fault(
    "exports-resolved-once",
    "the resolved exports stay as they were when somebody looked",
    [
      "src/model/catalog-state.ts",
      "if (this.#typicalNames?.get(key) !== service?.typicalName) this.#typicalNames = undefined;",
      "",
    ],
    "test/unit/exports/resolved.test.ts",
  ),
  fault(
    "kept-answers-mixed",
    "a request that comes while a long answer is being sent is answered in the middle of it",
    ["src/rpc/request-feed.ts", " || repeating?.isSending === true", ""],
    "test/unit/rpc/request-feed.test.ts",
  ),
  fault(
    "kept-answers-gathered-without-a-bound",
    "long answers are gathered while they are sent, whatever memory they take",
    ["src/http/kept-answers.ts", " || this.#gatheredBytes > this.#mostGathered", ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-of-other-rights",
    "an answer that is kept is given again after the rights of tokens have changed",
    ["src/http/kept-answers.ts", "      this.#authorizer.revision === rights &&\n", ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-of-a-new-file",
    "policies that are replaced count as the same ones",
    ["src/access/policies.ts", "      revision++;\n", ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-of-waits",
    "an answer that was waited for is given at once to those who ask the same again",
    ["src/http/handler.ts", "made.status !== 200 || call.isOwn", "made.status !== 200"],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-of-the-moment",
    "an answer that is kept tells of streams, and is given again after these have gone on",
    ["src/http/kept-answers.ts", "(streams === undefined || peerings.observations === streams) &&", ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-overtake",
    "an answer that is kept is given before that to an earlier request of its connection",
    ["src/rpc/http-server.ts", " && !pipeline.isBusy(socket)", ""],
    KEPT_ANSWERS,
  ),
  fault(
    "kept-answers-to-bodies",
    "bytes in the middle of a request are answered like a request",
    ["src/rpc/repeated-requests.ts", "this.#owed !== 0 || ", ""],
    KEPT_ANSWERS,
  ),
  fault(
    "routes-of-short-prefixes-alone",
    "a path is looked up by shorter prefixes than the longest there is",
    [
      "src/http/route-table.ts",
      'path.lastIndexOf("/", this.#longestPrefix - 1)',
      'path.lastIndexOf("/", this.#longestPrefix - 2)',
    ],
    "test/unit/http/route-table.test.ts",
  ),
  fault(
    "kept-answers-without-a-bound",
    "all answers are kept",
    ["src/http/kept-answers.ts", "if (this.#bytes <= this.#options.maxBytes - this.#mostGathered) break;", "break;"],
    KEPT_ANSWERS,
  ),
  fault(
    "long-lists-not-bounded",
    "a source has as many long lists in memory as it asks for",
    ["src/http/call-limits.ts", "options.longBytesPerSource ?? 64 * MIB", "Number.POSITIVE_INFINITY"],
    "test/unit/http/long-reads.test.ts",
  ),
  fault(
    "long-lists-hold-up-short-answers",
    "reads that wait for room keep the places of short answers",
    ["src/http/call-limits.ts", "    this.rest();\n    const cut =", "    const cut ="],
    "test/unit/http/long-reads.test.ts",
  ),
  fault(
    "long-lists-unread",
    "a client that does not read keeps the room that others wait for",
    ["src/http/call-limits.ts", "      if (this.#isLong) this.#longTurns.hold(this.#answerer, bytes);\n", ""],
    "test/unit/http/long-reads.test.ts",
  ),
  fault(
    "records-of-any-size",
    "a program may have a host judge a record with as many values as it likes",
    ["src/stores/record-limit.ts", "  if (!hasMoreValues(value, limit)) return;\n", "  if (limit >= 0) return;\n"],
    "test/unit/stores/write-limits.test.ts",
  ),
  fault(
    "templates-of-any-length",
    "a query template may be as long as a body",
    ["src/stores/prepared-queries.ts", "    this.#requireShort(query);\n", ""],
    "test/unit/stores/write-limits.test.ts",
  ),
  fault(
    "slow-readers-stay",
    "who reads nothing keeps others of its source waiting for a minute",
    ["src/http/answer-turns.ts", "        answerer.cutOff();\n", ""],
    "test/unit/http/slow-readers.test.ts",
  ),
  fault(
    "readers-cut-off-for-nobody",
    "slow readers are cut off whose source has no waiting call",
    [
      "src/http/answer-turns.ts",
      "      if (!waitedFor.has(answerer.source) && !waitedFor.has(answerer.connection)) continue;\n",
      "",
    ],
    "test/unit/http/slow-readers.test.ts",
  ),
  fault(
    "long-answers-at-once",
    "a long answer is made in one turn, also for a slow reader",
    [
      "src/http/answer-body.ts",
      "  writer.writeOn(PIECE_BYTES, turnEnd());\n",
      "  writer.writeOn(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);\n",
    ],
    "test/unit/http/slow-readers.test.ts",
  ),
  fault(
    "long-answers-unread",
    "the next piece of an answer is made before the client has read the last one",
    [
      "src/http/send.ts",
      "      await this.#write(response, piece, allowance);\n",
      "      void this.#write(response, piece, allowance);\n",
    ],
    "test/unit/http/slow-readers.test.ts",
  ),
  fault(
    "pieces-hold-up-answers",
    "new answers wait until all pieces of those that are begun are made",
    ["src/http/answer-turns.ts", "        waiting.begunLast = !isFresh;\n", ""],
    "test/unit/http/answer-turns.test.ts",
  ),
  fault(
    "pipelined-at-once",
    "requests of one connection are answered all at once",
    ["src/http/pipeline.ts", "    if (this.#busy) {\n", "    if (this.#busy && this.#waiting.length < 0) {\n"],
    "test/unit/http/pipeline.test.ts",
  ),
  fault(
    "waiting-not-bounded",
    "a source may have as many reads wait as it likes",
    [
      "src/http/call-limits.ts",
      "new Places({ perSource: waitingPerSource,",
      "new Places({ perSource: Number.POSITIVE_INFINITY,",
    ],
    "test/unit/http/waiting-reads.test.ts",
  ),
  fault(
    "strangers-send-long-bodies",
    "who may write nothing may send a body as long as any",
    [
      "src/http/body.ts",
      "const maxBytes = isStranger ? Math.min(limits.maxBytes, allowance.strangerBodyBytes) : limits.maxBytes;",
      "const maxBytes = limits.maxBytes;",
    ],
    "test/unit/http/bodies.test.ts",
  ),
  fault(
    "bodies-of-source-not-bounded",
    "one source may have as many bytes of bodies received as there is room for all",
    ["src/http/quota.ts", '    if (taken > this.#perSource) return "source";\n', ""],
    "test/unit/http/bodies.test.ts",
  ),
  fault(
    "bodies-not-given-back",
    "what a body took is never given back",
    ["src/http/quota.ts", "    this.#takenInAll -= amount;\n", ""],
    "test/unit/http/bodies.test.ts",
  ),
  fault(
    "gone-over-http2-unseen",
    "a call goes on although its client has reset the stream",
    [
      "src/http/handler.ts",
      'if (!answered) gone.abort(new PeeringError("aborted", "the client has gone"));',
      'if (!response.writableFinished) gone.abort(new PeeringError("aborted", "the client has gone"));',
    ],
    "test/unit/rpc/http2-streams.test.ts",
  ),
  fault(
    "streams-not-bounded",
    "a source may have as many calls over HTTP/2 open as its connections take",
    ["src/transport/connection-limits.ts", "    if (own > perSource) {\n", "    if (own < 0) {\n"],
    "test/unit/rpc/http2-streams.test.ts",
  ),
  fault(
    "streams-unfair",
    "sources that have all the calls that may be open leave none to others",
    ["src/transport/connection-limits.ts", "(inAll * (1 + 1 / own)) / 2", "inAll"],
    "test/unit/rpc/http2-streams.test.ts",
  ),
  fault(
    "resets-not-counted",
    "a connection may open and reset streams for ever",
    ["src/transport/resets.ts", "    if (left >= 0) return;\n", "    if (left < AT_ONCE) return;\n"],
    "test/unit/rpc/http2-streams.test.ts",
  ),
  fault(
    "answered-stream-counts-on",
    "a call over HTTP/2 counts as one until its client has sent all",
    [
      "src/rpc/http-server.ts",
      'stream.once("finish", answered).once("close", answered)',
      'stream.once("close", answered)',
    ],
    "test/unit/rpc/http-server.test.ts",
  ),
  fault(
    "kept-connection-of-other-roots",
    "a stream that is to trust other roots goes over the connection of an exchange that trusted former ones",
    [
      "src/transport/kept-connections.ts",
      "JSON.stringify([address, serverName, caPems])",
      "JSON.stringify([address, serverName, caPems.length > 0])",
    ],
    "test/unit/transport/kept-connections.test.ts",
  ),
  fault(
    "kept-roots-of-other-text",
    "roots that have changed are taken for those that were dialed with before",
    ["src/transport/trusted-roots.ts", "const key = JSON.stringify(caPems);", "const key = String(caPems.length);"],
    "test/unit/transport/kept-connections.test.ts",
  ),
  fault(
    "forbidden-address-dialed-before",
    "a stream goes over the connection of an exchange to an address that must not be dialed any more",
    [
      "src/transport/kept-connections.ts",
      "if (!stands || target.mayDial?.(host) === false) {",
      'if (!stands || host === "") {',
    ],
    "test/unit/transport/kept-connections.test.ts",
  ),
  fault(
    "list-of-another-peer",
    "a peer is sent the list of another one that is as long",
    [
      "src/exports/export-engine.ts",
      "last?.names.length === names.length && names.every((name, index) => name === last.names[index])",
      "last?.names.length === names.length",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "former-secrets-removed-without-pause",
    "each peering that is established has all tables with secrets rewritten",
    ["src/storage/level-former.ts", "        this.#notBefore = performance.now() + this.#pauseMs;\n", ""],
    "test/unit/storage/level-former.test.ts",
  ),
  fault(
    "former-secrets-taken-for-gone",
    "the mark of former secrets goes though the database was opened again before they were removed",
    ["src/storage/level-former.ts", "        if (this.#isLeft) return;\n", "        if (this.#isLeft) break;\n"],
    "test/unit/storage/level-former.test.ts",
  ),
  fault(
    "handshakes-not-bounded",
    "a source may have as many TLS handshakes under way as it has connections",
    [
      "src/transport/handshakes.ts",
      "new Places({ ...limits, onlyStale: true }, clock)",
      "new Places({ ...limits, perSource: Number.POSITIVE_INFINITY, onlyStale: true }, clock)",
    ],
    "test/unit/transport/handshakes.test.ts",
    "test/unit/rpc/https.test.ts",
  ),
  fault(
    "handshakes-never-displaced",
    "unfinished handshakes keep others waiting until their connections are closed",
    [
      "src/transport/handshakes.ts",
      "if (this.#waiting.size > 0) this.#graceOver.set(",
      "if (this.#waiting.size < 0) this.#graceOver.set(",
    ],
    "test/unit/transport/handshakes.test.ts",
    "test/unit/transport/strangers.test.ts",
  ),
  fault(
    "source-holds-all-places",
    "a source may have as many connections as there are places",
    [
      "src/base/sources.ts",
      '    if (own.size >= this.#limits.perSource && !this.#displaceStale(firstWaiting(own))) return "source";\n',
      "",
    ],
    "test/unit/base/sources.test.ts",
    "test/unit/transport/connection-limits.test.ts",
  ),
  fault(
    "silent-connections-stay",
    "a silent connection is reported, and not closed",
    [
      "src/transport/connection-limits.ts",
      'no request in time and was closed");\n      end();',
      'no request in time and was closed");',
    ],
    "test/unit/transport/connection-limits.test.ts",
  ),
  fault(
    "network-takes-all-attempts",
    "one network can use up all that strangers may try within a second",
    ["src/host/admission.ts", "(1 + 1 / ofNetwork)", "(1 + 1 / attempts)"],
    "test/unit/host/admission.test.ts",
  ),
  fault(
    "errors-as-long-as-told",
    "the text of an error repeats all that a client sent",
    [
      "src/base/errors.ts",
      "if (text.length <= MAX_TOLD_CHARACTERS) return text;",
      "if (text.length >= 0) return text;",
    ],
    "test/unit/http/error-texts.test.ts",
  ),
  fault(
    "protocol-headers-repeated",
    "calls repeat headers of any length in their errors",
    ["src/rpc/peering-rpc.ts", "(request.headers[name]?.length ?? 0) > MAX_PROTOCOL_HEADER", 'name === ""'],
    "test/unit/http/error-texts.test.ts",
  ),
  fault(
    "header-breaks-answer",
    "a name that no header can hold leaves its request without an answer",
    ["src/http/handler.ts", 'return text.replace(/[^\\t -~]/gu, " ");', "return text;"],
    "test/unit/http/error-texts.test.ts",
  ),
  fault(
    "every-incident-logged",
    "a stranger can have a line logged with each packet",
    ["src/base/incidents.ts", "if (now - tally.loggedAtMs < LOG_INTERVAL_MS) {", "if (now - tally.loggedAtMs < 0) {"],
    "test/unit/base/incidents.test.ts",
  ),
  fault(
    "large-answer-factor",
    "answers by DNS count as large when they are thirty times as long as the question",
    ["src/dns/large-answers.ts", "answerBytes <= factor * questionBytes", "answerBytes <= 10 * factor * questionBytes"],
    "test/unit/dns/large-answers.test.ts",
  ),
  fault(
    "writes-from-everywhere",
    "who may write from which network is looked at by the first of them alone",
    [
      "src/http/request-guard.ts",
      "new AddressRanges(allowWriteFrom, { needsLength: true })",
      "new AddressRanges(allowWriteFrom.slice(0, 1), { needsLength: true })",
    ],
    "test/unit/http/request-guard.test.ts",
  ),
  fault(
    "old-tls",
    "the HTTP API is served over TLS 1.0",
    ["src/rpc/server-tls.ts", 'minVersion: "TLSv1.2"', 'minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0"'],
    "test/unit/rpc/https.test.ts",
  ),
  // --- What peers may have us hold, dial and sign -----------------------------------------------------------------------------
  fault(
    "imports-not-counted",
    "a peer may have as many services imported as it likes",
    ["src/stores/import-plan.ts", "      more > 0 && has + planned + more > most;", "      more > most;"],
    "test/unit/stores/import-bounds.test.ts",
  ),
  fault(
    "bytes-of-all-not-counted",
    "what one peer has stored is bounded, and what all have is not",
    [
      "src/stores/import-plan.ts",
      "exceeds(bytes, totals.payloadBytes, growth.payloadBytes, limits.payloadBytesInAll)",
      "false",
    ],
    "test/unit/stores/import-bounds.test.ts",
  ),
  fault(
    "entries-not-counted",
    "a service may have any number of tags",
    ["src/payload/payload-inspection.ts", "    this.#entriesLeft -= count;\n", ""],
    "test/unit/payload/payload-inspection.test.ts",
  ),
  fault(
    "names-of-any-length",
    "the name of an imported service may be of any length",
    [
      "src/payload/payload-inspection.ts",
      "    if (end - start > most) this.#exhaustInstance(`the name of its service",
      "    if (end - start < 0) this.#exhaustInstance(`the name of its service",
    ],
    "test/unit/payload/payload-inspection.test.ts",
  ),
  fault(
    "one-turn-for-a-batch",
    "a batch of a stream is taken in without a turn for others",
    ["src/host/stream-link.ts", "const TAKEN_BATCH = 150;", "const TAKEN_BATCH = 5_000;"],
    "test/unit/host/stream-link.test.ts",
  ),
  fault(
    "pushed-addresses-not-judged",
    "what a peer pushes is dialed, although it is in a range that must not be",
    ["src/host/dial-rule.ts", "if (isIP(host) !== 0 && this.#forbidden.leadsInto(host)) {", "if (isIP(host) < 0) {"],
    "test/unit/host/forbidden-addresses.test.ts",
  ),
  fault(
    "resolved-addresses-not-judged",
    "a name that a peer pushes may stand for an address that must not be dialed",
    ["src/host/dial-rule.ts", "if (!this.#forbidden.leadsInto(ip)) return true;", 'if (ip !== "") return true;'],
    "test/unit/host/forbidden-addresses.test.ts",
  ),
  fault(
    "embedded-addresses-not-judged",
    "an address of IPv6 that leads to a forbidden one of IPv4 is dialed",
    ["src/base/address-ranges.ts", "return embedded !== undefined && this.includes(embedded);", "return false;"],
    "test/unit/base/address-ranges.test.ts",
  ),
  fault(
    "check-resolves-anywhere",
    "a check connects to any address, if it is told a name of it",
    [
      "src/checks/probe.ts",
      "const allowed = (addresses ?? []).filter(({ address }) => allows(address));",
      "const allowed = addresses ?? [];",
    ],
    "test/unit/checks/probe.test.ts",
  ),
  fault(
    "own-trust-domain-claimed",
    "a peer may claim our trust domain",
    ["src/trust/trust-domains.ts", "if (domain === this.#own) return", 'if (domain === "") return'],
    "test/unit/trust/trust-domains.test.ts",
  ),
  fault(
    "signs-several-identities",
    "a request for a certificate may ask for several identities",
    ["src/trust/signing-request.ts", "if (uri === undefined || more.length > 0) {", "if (uri === undefined) {"],
    "test/unit/trust/sign-request.test.ts",
  ),
  fault(
    "signs-any-name",
    "a request for a certificate of a service may ask for names beside its identity",
    [
      "src/trust/signing-request.ts",
      "    if (fault !== undefined) throw refusal(`CSR",
      '    if (fault === "") throw refusal(`CSR',
    ],
    "test/unit/trust/sign-request.test.ts",
  ),
  fault(
    "clock-set-unseen",
    "a certificate that was issued while the clock was wrong is shown on",
    [
      "src/trust/server-certificate.ts",
      "if (Math.abs(byMs) < CLOCK_STEP_MS || this.#renewing !== undefined) return false;",
      "if (byMs < Number.POSITIVE_INFINITY) return false;",
    ],
    "test/unit/trust/clocks.test.ts",
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
    ["src/base/sources.ts", "    let most = own;\n", "    let most = Number.POSITIVE_INFINITY;\n"],
    "test/unit/base/sources.test.ts",
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
    [
      "src/http/catalog.ts",
      "register(registration, { judge: judgeFor(access), inTurns: true })",
      "register(registration, { inTurns: true })",
    ],
    "test/unit/http/write-rights.test.ts",
  ),
  fault(
    "transaction-not-judged",
    "a transaction is judged by what it names alone",
    ["src/http/txn.ts", "      judge: judgeFor(access),\n", ""],
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
    ["src/trust/trust-domains.ts", "[...roots.keys()].every(", "[...roots.keys()].some("],
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
    [CHECK_GROUPS, "  if (!strictConsul && (critical", "  if (strictConsul && (critical"],
    "test/unit/model/health.test.ts",
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
    ["src/config/chain.ts", "if (this.#parts <= this.#maxParts) return;", "if (this.#parts > 0) return;"],
    "test/unit/stores/config-entries.test.ts",
  ),
  fault(
    "chain-not-looked-at",
    "a write does not look at the chains that lead to its service",
    [
      "src/config/export-guards.ts",
      "relatedServices(entry).includes(name)) names.add(chain);",
      "relatedServices(entry).includes(name)) names.has(chain);",
    ],
    "test/unit/http/recorded-writes.test.ts",
  ),
  fault(
    "chains-behind-not-looked-at",
    "a write does not look at the chains that lead to its service by way of others",
    ["src/config/export-guards.ts", "judged(after, after.leadingTo(name))", "judged(after, [])"],
    "test/unit/stores/config-entries.test.ts",
  ),
  fault(
    "certificate-key-not-read",
    "a certificate whose key cannot be read has its write end in an error of OpenSSL",
    ["src/config/entry-certificate.ts", " || publicKey === undefined)", ")"],
    "test/unit/config/entry-certificate.test.ts",
  ),
  fault(
    "root-key-not-read",
    "a root whose key cannot be read is taken, and roots cannot be listed any more",
    ["src/trust/provided-authority.ts", "publicKeyOf(certificate) !== undefined", "certificate !== undefined"],
    "test/unit/trust/provided-authority.test.ts",
  ),
  fault(
    "number-does-not-fit",
    "a number that 64 bits do not hold is kept as it is, and cannot be read back",
    [
      "src/syntax/go-json.ts",
      "whole >= -(2 ** 63) && whole < 2 ** 63 ? BigInt(whole)",
      "whole >= -1e300 ? BigInt(whole)",
    ],
    "test/unit/http/config-recorded.test.ts",
  ),
  fault(
    "intention-other-spelling",
    "an intention of a service is written with the right on another spelling of its name",
    ["src/http/intentions.ts", "before !== undefined && !mayWrite(access, before.name)", "false"],
    "test/unit/http/intentions.test.ts",
  ),
  fault(
    "intention-of-peer-replaced",
    "a write of a local source takes the place of one of a peer that has its name",
    ["src/config/intention-writes.ts", "source.name === name && source.peer === undefined", "source.name === name"],
    "test/unit/http/scripted.test.ts",
  ),
  fault(
    "chain-wait-ends-early",
    "a wait for a chain ends with writes for other services",
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
      "      if (defined.has(id)) continue;\n",
      "      if (id.length > 0 && defined.size >= 0) continue;\n",
    ],
    "test/unit/cli/agent-definitions.test.ts",
  ),
  fault(
    "monitor-without-bound",
    "lines of the log gather for a client that does not read them",
    ["src/http/line-queue.ts", "if (this.#lines.length >= this.#most) {", "if (this.#most < 0) {"],
    "test/unit/http/line-queue.test.ts",
  ),
  fault(
    "list-for-each-check",
    "a registration holds all checks of its node as they were before each of its checks",
    ["src/model/catalog-draft.ts", "    if (keys.has(key)) return false;\n", ""],
    "test/unit/stores/catalog-growth.test.ts",
  ),
  fault(
    "sorted-map-copied",
    "a change of one check, or of one config entry, copies all of them",
    [
      "src/base/sorted-map.ts",
      "return SortedMap.#made(chunks.toSpliced(position, 1, ...parts), this.size + 1 - replaced, this.#compare);",
      "return SortedMap.of(new Map([...this, [key, value]]), this.#compare);",
    ],
    "test/unit/stores/catalog-growth.test.ts",
  ),
  fault(
    "one-entry-under-every-prefix",
    "a map with one entry shows it under every prefix",
    ["src/base/sorted-map.ts", "if (content.key.startsWith(prefix)) yield", "yield"],
    "test/unit/base/sorted-map.test.ts",
  ),
  fault(
    "second-spelling-not-counted",
    "of two spellings of a name only the first is counted",
    [
      "src/model/catalog-state.ts",
      "(this.#only === undefined || this.#only === text)",
      "(this.#only === undefined || this.#only !== undefined)",
    ],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "check-stored-twice",
    "a check that goes to another service stays stored with the former one",
    [
      "src/model/catalog-state.ts",
      "if (before !== undefined && before !== owner) {",
      "if (before !== undefined && owner === undefined) {",
    ],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "check-takes-the-spelling",
    "an instance that gets a check no longer counts for the spelling of its name",
    [
      "src/model/catalog-state.ts",
      "if (this.#written?.get(key) === record) this.#written = this.#written.without(key);",
      "this.#written = this.#written?.without(key);",
    ],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "spelling-not-followed",
    "a write after the name was spelled in two ways does not count for its spelling",
    ["src/model/catalog-state.ts", "    this.#written = this.#written?.with(writeKey(record), record);\n", ""],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "spelling-looked-for-everywhere",
    "each change of a name that is spelled in two ways looks at all its instances",
    ["src/model/catalog-state.ts", "      this.#written ??= SortedMap.of(", "      this.#written = SortedMap.of("],
    "test/unit/model/catalog-state.test.ts",
  ),
  fault(
    "checks-of-earlier-versions",
    "checks that an earlier version stored with their node are lost in silence",
    ["src/model/catalog-record.ts", "if (json.checks === undefined) return;", "if (json !== undefined) return;"],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "peering-by-a-look-at-all",
    "a peering is looked for among all of them",
    [
      "src/peering/record-tables.ts",
      "const id = this.#idByName.get(lowerCase(name));",
      "const id = [...this.#peerings.values()].find((each) => lowerCase(each.name) === lowerCase(name))?.id;",
    ],
    "test/unit/stores/peering-growth.test.ts",
  ),
  fault(
    "secrets-used-for-ever",
    "a secret that was replaced still counts as used",
    ["src/peering/record-tables.ts", "    this.#count(this.#secrets.get(id), -1);\n", ""],
    "test/unit/peering/transactions.test.ts",
  ),
  fault(
    "trust-domain-judged-for-one",
    "when a trust domain gets another owner, the bundles of others that name it are not judged again",
    ["src/trust/trust-domains.ts", "new Set([name, ...domain.claims.keys()])", "new Set([name])"],
    "test/unit/trust/trust-domains.test.ts",
  ),
  fault(
    "manual-address-held-by-nobody",
    "an address that an operator gave to another service is taken for a free one",
    [
      "src/model/virtual-ips.ts",
      "if (this.#manual.get(address) === key) this.#manual.delete(address);",
      "this.#manual.delete(address);",
    ],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "gateway-followed-in-full",
    "a write of a terminating gateway looks at all that is exported",
    [
      "src/exports/export-engine.ts",
      "if (fronted.has(EVERY_SERVICE)) this.#entriesChanged();",
      "if (fronted.size > 0) this.#entriesChanged();",
    ],
    "test/unit/exports/export-growth.test.ts",
  ),
  fault(
    "gateway-that-is-gone",
    "a service is still exported for the mesh after the gateway in front of it is gone",
    [
      "src/exports/export-engine.ts",
      "new Set([...frontedBy(former), ...frontedBy(entry)])",
      "new Set(frontedBy(entry))",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "checks-without-bound",
    "one registration may have any number of checks",
    ["src/http/registration-json.ts", "if (count <= limit) return;", "if (count >= 0) return;"],
    "test/unit/http/agent-growth.test.ts",
  ),
  fault(
    "token-without-bound",
    "a peering token may have any number of characters, certificates and addresses",
    ["src/host/given-tokens.ts", "if (count <= limit) return;", "if (count >= 0) return;"],
    "test/unit/host/bad-input.test.ts",
  ),
  fault(
    "records-without-bound",
    "the JSON of a registration may have any number of objects",
    ["src/http/registration-json.ts", "if (count > limit) return true;", "if (count < 0) return true;"],
    "test/unit/http/agent-growth.test.ts",
  ),
  fault(
    "values-without-bound",
    "the JSON of a body may have any number of values",
    [
      "src/http/call.ts",
      "if (body.length <= limit || valuesAtMost(body) <= limit) return body;",
      "if (limit >= 0) return body;",
    ],
    "test/unit/http/agent-growth.test.ts",
  ),
  fault(
    "long-body-read-at-once",
    "a long body is read in one turn",
    ["src/http/call.ts", "if (body.length <= SHORT_BODY_BYTES)", "if (body.length >= 0)"],
    "test/unit/http/long-bodies.test.ts",
  ),
  fault(
    "long-bodies-read-together",
    "a step of each long body is done in every turn",
    [
      "src/http/call.ts",
      "return await this.server.longBodies.run(async () => {",
      "return await (async (work: () => Promise<T>) => work())(async () => {",
    ],
    "test/unit/http/long-bodies.test.ts",
  ),
  fault(
    "body-of-gone-client-read",
    "a long body is read to its end when its client has gone away",
    ["src/http/call.ts", "return inTurns(read(body), this.signal);", "return inTurns(read(body));"],
    "test/unit/http/long-bodies.test.ts",
  ),
  fault(
    "entry-written-at-once",
    "a config entry is parsed and judged in one turn",
    [
      "src/stores/config-entries.ts",
      "this.#table.write(() => inTurns(this.#planOf(make(), cas)))",
      "this.#table.write(() => doAll(this.#planOf(make(), cas)))",
    ],
    "test/unit/stores/config-entries.test.ts",
  ),
  fault(
    "chains-compiled-at-once",
    "all chains that a config entry may change are compiled without a pause",
    [
      "src/config/export-guards.ts",
      "if (meter.isOver(CHAIN_FIELDS * (chain.nodes.size + chain.targets.length))) yield;",
      "",
    ],
    "test/unit/config/export-guards.test.ts",
  ),
  fault(
    "addresses-claimed-at-once",
    "any number of virtual addresses is claimed in one turn",
    ["src/stores/catalog.ts", "Math.min(CLAIMED_BATCH, writes / CLAIM.writes", "Math.min(writes / CLAIM.writes"],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "registration-written-at-once",
    "a long write of the catalog is made in one turn",
    [
      "src/stores/catalog.ts",
      "let plan = await inTurns(this.#planOf(group));",
      "let plan = doAll(this.#planOf(group));",
    ],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "registration-read-at-once",
    "a long registration is read in one turn",
    ["src/model/registration.ts", "if (meter.isOver(CHECK_FIELDS)) yield;", ""],
    "test/unit/stores/catalog.test.ts",
  ),
  fault(
    "checks-started-at-once",
    "all checks of a registration are started in one turn",
    ["src/host/agent-checks.ts", "if (meter.isOver(START_FIELDS)) yield;", ""],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "checks-started-after-close",
    "checks of a registration are started when their host is closed",
    [
      "src/host/agent-checks.ts",
      "if (this.#closing.signal.aborted) return;\n      // Another host may",
      "// Another host may",
    ],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "shape-worked-out-for-each-record",
    "the shape of a record is worked out for each record of a registration",
    ["src/model/shape-reader.ts", "    this.#known.set(shape, known);\n", ""],
    "test/unit/model/shape-reader.test.ts",
  ),
  fault(
    "records-of-answer-made-at-once",
    "all records inside of one record are made before any is written",
    [
      "src/http/shape-json.ts",
      "LazyList.of(value.filter(isRecord), (item) => structJson(item, shape, names))",
      "value.filter(isRecord).map((item) => structJson(item, shape, names))",
    ],
    "test/unit/http/records.test.ts",
  ),
  fault(
    "checks-replaced-one-by-one",
    "each check that a registration replaces is removed in a commit of its own",
    [
      "src/http/agent-services.ts",
      "await Promise.all(stale.map(({ checkId }) => catalog.deregister({ node: node.node, checkId }, { judge })));",
      "for (const { checkId } of stale) await catalog.deregister({ node: node.node, checkId }, { judge });",
    ],
    "test/unit/http/agent-growth.test.ts",
  ),
  fault(
    "sidecar-port-given-twice",
    "sidecars that are registered at the same time look for a port side by side",
    [
      "src/http/agent-services.ts",
      "if (sidecar !== undefined && sidecar.Port === 0) await call.host.checks.choosing(write);",
      "if (sidecar?.Port === -1) await call.host.checks.choosing(write);",
    ],
    "test/unit/http/agent-checks.test.ts",
  ),
  fault(
    "checks-being-added-not-counted",
    "checks that are being added do not count for the bound of a node",
    [
      "src/host/agent-checks.ts",
      "this.#running.size + this.#adding + added > most",
      "this.#running.size + added > most",
    ],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "writes-of-a-check-overtake",
    "a write of a check does not wait for the write of it before",
    ["src/base/mutex.ts", "if (last !== undefined) before.add(last);", "if (last === undefined) before.clear();"],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "unreadable-check-deleted",
    "the definition of a check that a later version wrote is deleted",
    ["src/host/agent-checks.ts", "        mayDelete: () => false,\n", ""],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "unreadable-check-lost-to-a-refusal",
    "a definition that cannot be read is lost to a registration that the catalog refuses",
    [
      "src/host/agent-checks.ts",
      "rows.filter(({ path }) => this.#definitions.fault(...path) === undefined);",
      "rows.slice();",
    ],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "check-forgotten-before-it-comes",
    "the definition of a check that another host is about to register is deleted at once",
    ["src/host/agent-checks.ts", "const MISSING_MS = 60_000;", "const MISSING_MS = 0;"],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "forgotten-definition-not-stored-again",
    "a check runs without a stored definition, because another host had given it up",
    [
      "src/host/agent-checks.ts",
      "    await this.#put(rows.filter(({ path, row }) => stored(path) !== row));",
      "    await this.#put(rows.filter(({ path }) => this.#definitions.fault(...path) !== undefined));",
    ],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "reports-to-another-host-missed",
    "a TTL check is critical although it is reported to another host of the node",
    ["src/host/agent-checks.ts", "    reports.onChange((change) => this.#followReports(change));\n", ""],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "former-definition-goes-on",
    "a check goes on as it was before a later version wrote its definition",
    ["src/host/agent-checks.ts", '    for (const path of faults) this.#end(path.join("/"));\n', ""],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "new-result-not-waited-for",
    "a report is answered before the catalog has it, because another one is being written",
    [
      "src/host/agent-checks.ts",
      "    if (running.retrying) return this.#attempt(running);",
      "    if (running.retrying) return Promise.resolve();",
    ],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "check-without-definition-after-no-answer",
    "a check that the catalog has taken without an answer is never run",
    [
      "src/host/agent-checks.ts",
      'const isOpen = error instanceof PeeringError && error.code === "unavailable";',
      'const isOpen = error instanceof PeeringError && error.code === "aborted";',
    ],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "refused-definition-runs",
    "a definition that was stored without an answer, and taken back, goes on running",
    ["src/host/agent-checks.ts", '      for (const { path, row } of before) this.#run(path.join("/"), row);\n', ""],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "check-has-the-key-of-the-head",
    "a check of the id head takes the place of the head of its table",
    ["src/host/agent-checks.ts", 'const HEAD = "";', 'const HEAD = "head";'],
    "test/unit/host/agent-checks.test.ts",
  ),
  fault(
    "put-over-the-limits",
    "rows that are put at the same time are committed together however many they are",
    [
      "src/storage/stored-table.ts",
      "if (count > 0 && !fits({ writes, bytes }, limits)) break;",
      "if (count > 0 && !fits({ writes, bytes: 0 }, { ...limits, writes: 1e9 })) break;",
    ],
    "test/unit/storage/stored-table.test.ts",
  ),
  fault(
    "damaged-row-not-told",
    "a table does not know of a row whose value is not what was stored",
    ["src/storage/stored-table.ts", "        lose(path, why);\n", ""],
    "test/unit/storage/stored-table.test.ts",
    "test/unit/host/agent-checks.test.ts",
  ),
  // --- One description of records ---------------------------------------------------------------------------------------
  fault(
    "unread-node-locality",
    "texts in the locality of a node are not looked at",
    [
      "src/payload/payload-inspection.ts",
      "        case NODE_LOCALITY:\n          this.#inFull(end, readLocality);\n          break;\n",
      "",
    ],
    "test/unit/payload/field-numbers.test.ts",
  ),
  fault(
    "swapped-field-numbers",
    "interval and timeout of a check have each other's number",
    ["src/payload/field-numbers.ts", "    Interval: 15,\n    Timeout: 16,\n", "    Interval: 16,\n    Timeout: 15,\n"],
    "test/unit/payload/field-numbers.test.ts",
  ),
  fault(
    "no-locality-of-listed-services",
    "the client does not read the locality of services in lists of the catalog",
    ["src/client/records.ts", 'objectOf(record, "ServiceLocality")', "{}"],
    "test/unit/model/one-description.test.ts",
  ),
  fault(
    "equal-key-copies-the-map",
    "a body that names a map again copies the map each time",
    [
      "src/syntax/go-json.ts",
      "const map: Record<string, T> = before ?? {};",
      "const map: Record<string, T> = { ...before };",
    ],
    "test/unit/syntax/go-json.test.ts",
  ),
  fault(
    "filter-without-kept-fields",
    "filters look for all fields of a config entry where the interpreted ones are",
    [
      "src/http/shape-fields.ts",
      'const isExtra = names === "own" && described.kept === "extra";',
      "const isExtra = false;",
    ],
    "test/unit/http/config-filters.test.ts",
    "test/unit/http/scripted.test.ts",
  ),
  fault(
    "filter-sees-missing-objects",
    "a filter compares the fields of an object that is missing as if they were there and empty",
    ["src/http/filter/fields.ts", "return part !== undefined && holds(part);", "return holds(part as Inner);"],
    "test/unit/http/config-filters.test.ts",
  ),
  fault(
    "filter-takes-negative-unsigned",
    "a filter compares an unsigned number with a signed one",
    ["src/http/filter/filter.ts", "(!isSigned && /^[+-]/.test(value))", "false"],
    "test/unit/http/scripted.test.ts",
  ),
  fault(
    "filter-takes-any-unsigned",
    "a filter compares a number of 32 bits with one that does not fit in them",
    ["src/http/filter/filter.ts", "uint32: 2n ** 32n - 1n", "uint32: 2n ** 64n - 1n"],
    "test/unit/http/scripted.test.ts",
  ),
  fault(
    "node-datacenter-not-compared",
    "a node whose datacenter alone changes keeps the old record",
    ["src/model/equality.ts", "      left.datacenter === right.datacenter &&\n", ""],
    "test/unit/model/one-description.test.ts",
  ),
  fault(
    "check-timeout-not-stored",
    "the timeout of a check is gone after a restart",
    ["src/model/catalog-record.ts", "    timeout: check.timeout || undefined,\n", ""],
    "test/unit/model/one-description.test.ts",
  ),
  fault(
    "all-fields-count-as-written-out",
    "a field that is described, but not written out, is not read",
    ["src/model/record-table.ts", "    draft[key] = read(reading, from[key], path);\n", ""],
    "test/unit/model/one-description.test.ts",
  ),
  fault(
    "configuration-of-peer-nests-without-end",
    "a peer's configuration of a proxy may nest as deeply as it likes",
    ["src/payload/imported-payload.ts", "  if (depth < MAX_JSON_DEPTH) return;\n", "  if (depth >= 0) return;\n"],
    "test/unit/payload/imported-payload.test.ts",
  ),
  fault(
    "configuration-of-entry-nests-without-end",
    "an object of any content in a config entry may nest as deeply as JSON",
    ["src/model/entry-reader.ts", "  if (depth >= MAX_JSON_DEPTH) throw", "  if (depth >= 10_000) throw"],
    "test/unit/http/nested-bodies.test.ts",
  ),
  fault(
    "configuration-of-proxy-nests-without-end",
    "an object of any content in a registration may nest as deeply as JSON",
    ["src/model/registration.ts", "  if (depth >= MAX_JSON_DEPTH) throw", "  if (depth >= 10_000) throw"],
    "test/unit/http/nested-bodies.test.ts",
  ),
  fault(
    "records-gathered-in-one-turn",
    "a read gathers thousands of records without a turn for other calls",
    [
      "src/http/in-turns.ts",
      "  for (const source of sources) {\n    const pausing = pause();\n    if (pausing !== undefined) await pausing;\n",
      "  for (const source of sources) {\n    pause();\n",
    ],
    "test/unit/http/long-reads.test.ts",
  ),
  fault(
    "reads-in-one-turn",
    "a long read gives others no turn, however long it takes",
    [
      "src/base/turns.ts",
      "    if (performance.now() <= end) return undefined;\n",
      "    if (end > 0) return undefined;\n",
    ],
    "test/unit/http/turns-of-reads.test.ts",
  ),
  fault(
    "kept-records-of-before",
    "what is kept of a service may have been made before it changed, where that took several steps",
    ["src/model/catalog-state.ts", "    this.#makingRecords.delete(serviceKey);\n", ""],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  // --- The mesh --------------------------------------------------------------------------------------------------------
  fault(
    "xds-own-domain-of-a-peer",
    "the trust bundle of a peer that names our own trust domain is given to proxies",
    [
      "src/mesh/snapshot/bundles.ts",
      "  if (bundle.trustDomain.toLowerCase() === ownTrustDomain.toLowerCase())",
      "  if (bundle.trustDomain === ownTrustDomain.toUpperCase())",
    ],
    "test/unit/mesh/sidecar-resources.test.ts",
  ),
  fault(
    "xds-callers-of-every-peer",
    "a mesh gateway takes the callers of all peers for each exported service",
    [
      "src/mesh/snapshot/gateway.ts",
      "      bundles: bundles.filter(({ peerName }) => names.includes(peerName)),",
      "      bundles,",
    ],
    "test/unit/mesh/gateway-resources.test.ts",
  ),
  fault(
    "xds-http-without-leaf",
    "a mesh gateway without a certificate passes requests of peers on unlooked at",
    [
      "src/mesh/snapshot/gateway.ts",
      "    exported: services.filter(({ chain }) => known !== undefined || !isHttpLike(chain.protocol)),",
      '    exported: services.map((one) => (known === undefined ? { ...one, chain: { ...one.chain, protocol: "tcp" } } : one)),',
    ],
    "test/unit/mesh/gateway-resources.test.ts",
  ),
  fault(
    "xds-any-forwarded-caller",
    "the rules for requests believe every caller that says whose request it carries",
    [
      "src/mesh/xds/rbac.ts",
      "  return allOf([authenticated(gatewayPattern(trustDomain)), calling]);",
      '  return trustDomain === "" ? allOf([authenticated(gatewayPattern(trustDomain)), calling]) : calling;',
    ],
    "test/unit/mesh/rbac.test.ts",
  ),
  fault(
    "xds-unreadable-caller-allowed",
    "where callers are allowed by default, one of a peer that the header does not tell escapes the intention that denies it",
    [
      "src/mesh/xds/rbac.ts",
      "  if (throughGateway && allowsByDefault) {",
      "  if (throughGateway && allowsByDefault && policies.length > 99) {",
    ],
    "test/unit/mesh/rbac.test.ts",
  ),
  fault(
    "xds-own-default-chain",
    "the default filter chain of a listener that an operator writes lets everyone in",
    ["src/mesh/xds/own-resources.ts", 'replaced(withChains, "defaultFilterChain", protect(byDefault))', "withChains"],
    "test/unit/mesh/own-resources.test.ts",
  ),
  fault(
    "xds-own-mixed-chains",
    "a filter chain of an own listener that manages no requests judges nobody",
    [
      "src/mesh/xds/own-resources.ts",
      "http !== undefined && all.every((chain)",
      "http !== undefined && all.some((chain)",
    ],
    "test/unit/mesh/own-resources.test.ts",
  ),
  fault(
    "xds-own-cluster-anyone",
    "a cluster that an operator writes for an upstream takes anyone for it",
    [
      "src/mesh/xds/sidecar.ts",
      "encoder.own.cluster(text, bytesOf(TransportSocketSchema, transportSocket))",
      "encoder.own.cluster(text, undefined)",
    ],
    "test/unit/mesh/own-resources.test.ts",
  ),
  fault(
    "xds-kept-intentions",
    "a proxy keeps the rules for its callers when intentions change",
    ["src/mesh/xds/sidecar.ts", "return [...common, entries, ", "return [...common, "],
    "test/unit/mesh/kept.test.ts",
  ),
  fault(
    "xds-one-response",
    "a proxy is told everything in one response, however large",
    ["src/mesh/ads/session.ts", "      if (isPart) break;", ""],
    "test/unit/mesh/delta-session.test.ts",
  ),
  fault(
    "xds-silent-setting",
    "a setting of a proxy that is not served is not named",
    ["src/mesh/snapshot/unserved.ts", "    else if (!SERVED_PROXY.has(plainKey(key)))", '    else if (key === "")'],
    "test/unit/mesh/proxy-settings.test.ts",
  ),
  fault(
    "xds-required-extension",
    "a proxy runs without an Envoy extension that it is required to have",
    ["src/mesh/snapshot/sidecar.ts", "  const waitsFor = [...unserved.required];", "  const waitsFor: string[] = [];"],
    "test/unit/mesh/sidecar-resources.test.ts",
  ),
  fault(
    "xds-shadowed-intention",
    "an intention for every service lets in a caller that one for this service denies",
    ["src/mesh/xds/rbac.ts", "    if (rules.some((earlier) => covers(earlier.source, from))) continue;", ""],
    "test/unit/mesh/rbac.test.ts",
  ),
  fault(
    "xds-token-not-looked-at",
    "an intention that asks for a token allows callers without one",
    [
      "src/mesh/xds/rbac.ts",
      '    const decided = (jwt?.providers ?? []).length > 0 ? "deny" : action;',
      '    const decided = jwt === null ? "deny" : action;',
    ],
    "test/unit/mesh/rbac.test.ts",
  ),
  fault(
    "xds-late-answer",
    "a late answer says that a proxy has the endpoints that it has just forgotten",
    ["src/mesh/ads/session.ts", "      state.pending?.sent.delete(each);", ""],
    "test/unit/mesh/delta-session.test.ts",
  ),
  fault(
    "xds-right-of-before",
    "a proxy is told of a registration before its right on that one was looked at",
    [
      "src/mesh/ads/proxy-stream.ts",
      "          await this.#options.authorize(news?.registration ?? this.#registration);",
      "          await this.#options.authorize(this.#registration);",
    ],
    "test/unit/mesh/xds-server.test.ts",
  ),
  fault(
    "xds-any-address",
    "proxies are led to every address that a peer names",
    [
      "src/mesh/snapshot/peered.ts",
      "hostnames || view.mayDial(peer, address)",
      'hostnames || view.mayDial(peer, address) || address !== ""',
    ],
    "test/unit/mesh/sidecar-resources.test.ts",
  ),
  fault(
    "mesh-any-root",
    "a certificate in the mesh is judged by the roots of all trust domains, so that one peer signs for another",
    [
      "src/mesh/identity/verify-chain.ts",
      "  const roots = trust.get(trustDomain) ?? [];",
      "  const roots = [...trust.values()].flat();",
    ],
    "test/unit/mesh/verify-chain.test.ts",
    MESH,
  ),
  fault(
    "mesh-several-uris",
    "a certificate in the mesh may hold a second URI",
    [
      "src/mesh/identity/verify-chain.ts",
      "  if (uris.length === 0 || more.length > 0) throw",
      "  if (uris.length === 0) throw",
    ],
    "test/unit/mesh/verify-chain.test.ts",
    MESH,
  ),
  fault(
    "mesh-any-service",
    "a caller takes every service of the peer for the one that it dialed",
    ["src/mesh/connect/dial.ts", "  if (identities.includes(uri)) return uri;", '  if (uri !== "") return uri;'],
    MESH,
  ),
  fault(
    "mesh-unverified-chain",
    "a listener in the mesh does not look whether Node found the certificate to be trusted",
    ["src/mesh/connect/listener.ts", "      if (!client.authorized) throw", "      if (client.destroyed) throw"],
    MESH,
  ),
  fault(
    "mesh-sessions-resumed",
    "a server that verifies its clients resumes sessions, which show no intermediates and are not verified again",
    ["src/rpc/server-tls.ts", "constants.SSL_OP_NO_TICKET", "constants.SSL_OP_ALL"],
    MESH,
  ),
  fault(
    "mesh-connection-not-judged",
    "a listener in the mesh serves connections that intentions deny",
    [
      "src/mesh/connect/listener.ts",
      "(call) => rules.connection(call));",
      "(call) => ({ ...rules.connection(call), allowed: true }));",
    ],
    MESH,
  ),
  fault(
    "mesh-raw-path",
    "a listener in the mesh judges the path of a request as it was sent",
    ["src/mesh/connect/listener.ts", "      path: target.path,", '      path: request.url ?? "",'],
    MESH,
  ),
  fault(
    "mesh-carried-for-anybody",
    "a listener in the mesh believes every client that says whose request it carries",
    [
      "src/mesh/connect/callers.ts",
      '  if (id.kind === "service") return callerIn(id, uri, clusters);\n  if (id.kind !== "mesh-gateway" || trustDomainOf(id) !== own.trustDomain.toLowerCase()) return undefined;',
      '  if (id.kind === "service" && own.carriedFor === undefined) return callerIn(id, uri, clusters);',
    ],
    "test/unit/mesh/callers.test.ts",
    MESH,
  ),
  fault(
    "mesh-identity-in-a-subject",
    "a peer writes an identity of another peer into the subject of a certificate, and is believed",
    ["src/mesh/identity/carried.ts", 'Subject)="[^;,"\\\\\\\\]*")', 'Subject)="[^"]*")'],
    "test/unit/mesh/callers.test.ts",
    "test/unit/mesh/rbac.test.ts",
  ),
  fault(
    "mesh-without-roots",
    "a service is dialed though no root of this cluster is known",
    ["src/mesh/connect/routes.ts", "  if (rootPems.length === 0) {", "  if (rootPems.length < 0) {"],
    "test/unit/mesh/routes.test.ts",
  ),
  fault(
    "mesh-without-roots-of-a-peer",
    "a service of a peer is dialed, and told to proxies, though no root of the peer is known",
    [
      "src/mesh/snapshot/bundles.ts",
      "  if (bundle.rootPems.length === 0) return",
      "  if (bundle.rootPems.length < 0) return",
    ],
    "test/unit/mesh/routes.test.ts",
  ),
  fault(
    "number-matched-in-many-ways",
    "a text that is nearly a number is matched in as many ways as it is long",
    ["src/model/shape-reader.ts", "(?:\\d+(?:\\.\\d*)?|", "(?:\\d+\\.?\\d*|"],
    "test/unit/backtracking.test.ts",
  ),
  fault(
    "dns-pipeline-in-one-turn",
    "all DNS questions that a TCP connection has sent are answered in one turn of the event loop",
    ["src/dns/server.ts", "          await this.#nextTurn();\n", ""],
    "test/unit/dns/server.test.ts",
  ),
  fault(
    "labels-nest-without-end",
    "a block of HCL may have any number of labels",
    ["src/syntax/hcl.ts", "this.#value(depth + labels.length)", "this.#value(depth)"],
    "test/unit/syntax/hcl.test.ts",
  ),
  fault(
    "shared-checks-looked-at-for-each",
    "the checks of a node are looked at again for each instance on it",
    [CHECK_GROUPS, "    this.#health ??= healthIn(", "    this.#health = healthIn("],
    "test/unit/model/check-groups.test.ts",
  ),
  fault(
    "shared-checks-filtered-for-each",
    "a filter looks at the checks of a node again for each instance on it",
    [
      "src/http/filter/fields.ts",
      "      const found = known.get(list) ?? some(list, item, holds);",
      "      const found = some(list, item, holds);",
    ],
    "test/unit/model/check-groups.test.ts",
  ),
  fault(
    "shared-checks-queried-for-each",
    "a prepared query that ignores checks looks at those of a node again for each instance on it",
    [
      "src/config/prepared-query.ts",
      "    const fine = known.get(group) ?? areFine(group.list);",
      "    const fine = areFine(group.list);",
    ],
    "test/unit/model/check-groups.test.ts",
  ),
  fault(
    "shared-checks-summed-for-each",
    "a summary of a service looks at the checks of a node again for each instance on it",
    [
      "src/model/service-summary.ts",
      "      if (group.size > LISTED_AT_ONCE) this.#groups",
      "      if (group.size > 1e9) this.#groups",
    ],
    "test/unit/model/check-groups.test.ts",
  ),
  fault(
    "shared-checks-held-for-each",
    "each instance holds the checks of its node again",
    ["src/model/catalog-state.ts", "      this.#checkGroups.set(records, group);\n", ""],
    "test/unit/http/shared-checks-growth.test.ts",
  ),
  fault(
    "shared-checks-indexed-for-each",
    "each instance that is read with its indexes makes the checks of its node again",
    ["src/stores/catalog.ts", "      this.#indexedGroups.set(checks, group);\n", ""],
    "test/unit/http/shared-checks-growth.test.ts",
  ),
  fault(
    "subset-filters-without-bound",
    "the filters of subsets may have any length",
    [
      "src/stores/config-entries.ts",
      "      if (!longer(filters, filterCharacters)) return;",
      "      if (filters.length > 0) return;",
    ],
    "test/unit/stores/write-limits.test.ts",
  ),
  fault(
    "inline-certificates-without-bound",
    "the certificate of an entry may have any length",
    [
      "src/stores/config-entries.ts",
      "      if (!longer([Certificate, PrivateKey], certificateCharacters)) return;",
      '      if (typeof Certificate === "string") return;',
    ],
    "test/unit/stores/write-limits.test.ts",
  ),
  fault(
    "exports-to-all-held-for-each-service",
    "each service that goes to all peers holds a list of them",
    [
      "src/config/exports.ts",
      "        if (isEverywhere && peers.size === 0) return everywhere;",
      "        if (isEverywhere && peers.size === 0) return [...everywhere];",
    ],
    "test/unit/config/exported-view.test.ts",
  ),
  fault(
    "policies-held-for-each-token",
    "each token holds the rules of its policies again",
    ["src/access/policies.ts", "      shared.set(key, known);\n", ""],
    "test/unit/access/policies-growth.test.ts",
  ),
  fault(
    "definitions-in-one-turn",
    "services that no file defines any more are removed in one turn of the event loop",
    ["src/cli/agent-definitions.ts", "      await setImmediate();\n      try {", "      try {"],
    "test/unit/cli/agent-definitions.test.ts",
  ),
  fault(
    "names-resolved-in-one-turn",
    "all names that a new stream may be shown are resolved in one turn of the event loop",
    [
      "src/exports/export-engine.ts",
      "      if (this.#namesLeft <= 0) yield;\n      this.#namesLeft--;\n      const due = resolveName",
      "      this.#namesLeft--;\n      const due = resolveName",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "change-lost-while-names-are-resolved",
    "a stream never hears of names that change while all its names are resolved",
    [
      "src/exports/export-engine.ts",
      "for (const key of keys) backlog.names.add(key);",
      "if (backlog.whole === undefined) for (const key of keys) backlog.names.add(key);",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "taken-back-and-still-sent",
    "a peer is sent changes of a service that is not exported to it any more, until all names are looked at again",
    [
      "src/exports/export-engine.ts",
      "return resolveName({ ...this.#input, connect: false }, rules, key)?.name === name;",
      "return name.length + rules.exact.size > 0;",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "list-forgotten-by-the-next-change",
    "where the entries change again while names are resolved, the list that was due is not given",
    [
      "src/exports/export-engine.ts",
      "before?.isListChanged ?? attachment.list === undefined",
      "attachment.list === undefined",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "all-streams-in-one-turn",
    "a change of a service that many peers see is given to all of them in one turn of the event loop",
    [
      "src/exports/export-engine.ts",
      "      if (this.#hasRoom(attachment, batches)) {\n        published.waiting",
      "      if (published.peers.has(attachment)) {\n        published.waiting",
    ],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "rows-of-a-commit-in-one-turn",
    "all rows of a commit are put together in one turn of the event loop",
    ["src/storage/level.ts", "if (++put % PUT_IN_A_TURN === 0) await setImmediate();", "put++;"],
    "test/unit/storage/level-sync.test.ts",
  ),
  fault(
    "payloads-planned-in-one-step",
    "imports are planned in one step, however many payloads there are",
    ["src/stores/import-plan.ts", "if (bytes < STEP_BYTES) continue;", "if (bytes >= 0) continue;"],
    "test/unit/stores/import-plan.test.ts",
  ),
  fault(
    "batch-of-any-number",
    "resources without instances are applied all at once, however many there are",
    ["src/host/apply-queue.ts", "      if (batch.length >= this.#batchResources) break;\n", ""],
    "test/unit/host/apply-queue.test.ts",
  ),
  fault(
    "checks-cost-nothing-to-export",
    "a slice of encoding has as many instances as ever, however many checks each has",
    ["src/exports/export-engine.ts", "Math.max(1, costOf(instances))", "Math.max(1, instances.length)"],
    "test/unit/exports/export-engine.test.ts",
  ),
  fault(
    "request-of-another-identity",
    "a signing request is signed for the identity that it names, and not for the one that was asked for",
    ["src/trust/signing-request.ts", "  if (named !== expected) {", '  if (named === "") {'],
    "test/unit/trust/sign-request.test.ts",
  ),
  fault(
    "unable-authority-asked",
    "an authority that says it cannot sign is asked for certificates all the same",
    [
      "src/host/leaf-certificates.ts",
      "      if (problem !== undefined) throw cannotSign(problem);",
      '      if (problem === "") throw cannotSign(problem);',
    ],
    "test/unit/mesh/xds-server.test.ts",
  ),
  fault(
    "explained-without-failover",
    "a connection is said to fail though its chain fails over to a place that works",
    [
      "src/mesh/snapshot/explain.ts",
      "if (failures.length > 0 && !failures.includes(undefined)) return failures[0];",
      "if (failures.length > 0) return failures[0];",
    ],
    "test/unit/mesh/explain.test.ts",
  ),
  fault(
    "explained-to-everyone",
    "anyone who may read two services is told of peerings and gateways",
    [
      "src/http/explain.ts",
      `  // It tells of the peering, of gateways and of addresses that no service owns.
  await call.require({ resource: "operator", access: "read" });`,
      "",
    ],
    "test/unit/http/rights.test.ts",
  ),
  fault(
    "node-without-failover",
    "a call of Node does not go on to the places that its chain fails over to",
    [
      "src/mesh/connect/routes.ts",
      "  return [node.target, ...(node.failover?.targets ?? [])].flatMap((id) => {",
      "  return [node.target].flatMap((id) => {",
    ],
    "test/unit/mesh/routes.test.ts",
    "test/integration/mesh.test.ts",
  ),
  fault(
    "node-passes-mode-over",
    "a call of Node goes straight to the gateways of the peer, whatever the mode says",
    ["src/mesh/snapshot/peered.ts", '  return mode === "local";', '  return mode === "nowhere";'],
    "test/unit/mesh/routes.test.ts",
    "test/unit/mesh/explain.test.ts",
  ),
  fault(
    "own-deny-for-peers",
    "a deny for every caller of the peer is passed over, and warned of",
    [
      "src/config/peer-intentions.ts",
      '  if (every(peer) !== undefined || every("")?.action !== "deny") return undefined;',
      '  if (every("")?.action !== "deny") return undefined;',
    ],
    "test/unit/config/peer-intentions.test.ts",
  ),
  fault(
    "warned-again",
    "a warning of intentions is reported after every change",
    ["src/host/intention-warnings.ts", "if (!told.has(keyOf(warning))) report(warning);", "report(warning);"],
    "test/integration/intention-warnings.test.ts",
  ),
  // --- The command for Envoys ----------------------------------------------------------------------------------------------
  fault(
    "envoy-trusts-any-agent",
    "an Envoy takes any certificate for that of its agent, where no authority is given",
    ["src/cli/envoy-command.ts", "    if (tls && !hasAuthority) {", "    if (false) {"],
    BOOTSTRAP,
  ),
  fault(
    "envoy-secrets-for-each-page",
    "the secrets of pages are written once for each of them, which Envoy refuses",
    [
      "src/cli/envoy-pages.ts",
      "tls && shown.length > 0 ? secretsOf(prometheus) : []",
      "tls ? shown.flatMap(() => secretsOf(prometheus)) : []",
    ],
    BOOTSTRAP,
  ),
  fault(
    "envoy-settings-against-the-flag",
    "settings of the proxy count although they were to be left out",
    ["src/cli/envoy-command.ts", 'flags.boolean("no-central-config") ? {} : proxy.config', "proxy.config"],
    BOOTSTRAP,
  ),
  fault(
    "envoy-numbers-rounded",
    "a large number in an operator's JSON becomes another one",
    ["src/cli/envoy-settings.ts", "Number.isInteger(value) && !Number.isSafeInteger(value)", "Number.isNaN(value)"],
    BOOTSTRAP,
  ),
  fault(
    "envoy-sink-with-variable",
    "a variable that nobody put in stays in the address of a sink",
    [
      "src/cli/envoy-stats.ts",
      "if (place === undefined || /^$|[\\s{}$]/.test(place.host)) break;",
      "if (place === undefined) break;",
    ],
    BOOTSTRAP,
  ),
  fault(
    "template-reads-prototypes",
    "a template reads members that nobody gave it",
    ["src/syntax/go-template.ts", "!Object.hasOwn(value, name)", "!(name in value)"],
    "test/unit/syntax/go-template.test.ts",
  ),
  fault(
    "slow-key-verified",
    "the signature of a signing request is verified with a key that takes long",
    ["src/trust/x509.ts", "  readable(() => requireStrongKey(publicKeyPem));\n", ""],
    "test/unit/trust/sign-request.test.ts",
  ),
  fault(
    "slow-root-leads",
    "a root whose signatures take long to verify leads to certificates in the mesh",
    ["src/token/pem.ts", "publicExponent > LARGEST_RSA.exponent ? undefined", "publicExponent < 0n ? undefined"],
    "test/unit/mesh/verify-chain.test.ts",
  ),
  fault(
    "signatures-without-end",
    "any number of signatures is verified for one chain in the mesh",
    ["src/mesh/identity/verify-chain.ts", "if (++signatures > MAX_SIGNATURES)", "if (signatures > MAX_SIGNATURES)"],
    "test/unit/mesh/verify-chain.test.ts",
  ),
  fault(
    "certificates-in-one-entry",
    "a peering token may have any number of certificates in one entry",
    ["src/host/given-tokens.ts", "Math.max(token.ca.length, blocksAtMost(token.ca))", "token.ca.length"],
    "test/unit/http/token-bounds.test.ts",
  ),
  fault(
    "large-file-read",
    "a file without an end is taken for an empty one",
    [
      "src/cli/read-file.ts",
      "    if (bytes > limits.bytes) throw tooLarge(path, limits);\n    chunks.push(chunk.sub",
      '    if (bytes > limits.bytes) return "";\n    chunks.push(chunk.sub',
    ],
    "test/unit/cli/read-file.test.ts",
  ),
  fault(
    "pipe-taken-for-a-file",
    "a pipe is taken for an empty file",
    ["src/cli/read-file.ts", "if (!stats.isFIFO()) return", "return"],
    "test/unit/cli/read-file.test.ts",
  ),
  fault(
    "configuration-quoted",
    "an error about the configuration of an agent quotes a piece of it",
    [
      "src/cli/agent-options.ts",
      "json = plainJson(readWholeValue(Buffer.from(await io.readFile(path))));",
      "json = JSON.parse(await io.readFile(path));",
    ],
    "test/unit/cli/agent-files.test.ts",
  ),
  fault(
    "stored-record-quoted",
    "an error about a damaged record quotes a piece of it",
    ["src/base/unquoted.ts", 'throw new TypeError("it is not JSON");', "return parse();"],
    "test/unit/stores/config-entries.test.ts",
    "test/unit/stores/prepared-queries.test.ts",
  ),
  fault(
    "policies-at-once",
    "policies and configuration in HCL are parsed in one turn",
    ["src/syntax/hcl.ts", "if (this.#meter.isOver(CHARACTER_SIZE * read)) yield;", ""],
    "test/unit/cli/agent-files.test.ts",
  ),
  fault(
    "filter-at-once",
    "the instances that the filter of a subset chooses are found in one turn",
    ["src/mesh/host-view.ts", "if (meter.isOver(INSTANCE_SIZE + expression.length / FIELD_CHARACTERS)) yield;", ""],
    "test/unit/mesh/host-view.test.ts",
  ),
  fault(
    "line-searched-again",
    "the end of a line is searched for again for each key on it",
    [
      "src/syntax/hcl.ts",
      "    while (this.#end >= 0 && this.#end < offset) {",
      '    this.#text.split("\\n");\n    while (this.#end >= 0 && this.#end < offset) {',
    ],
    "test/unit/access/policies-growth.test.ts",
  ),
  fault(
    "exposed-to-anyone",
    "the listener for a check takes callers from everywhere",
    ["src/mesh/xds/sidecar.ts", "{ sourcePrefixRanges: checkSources.map(cidrRange) }", "undefined"],
    "test/unit/mesh/proxy-settings.test.ts",
    "test/unit/mesh/recorded-by-consul.test.ts",
  ),
  fault(
    "exposed-port-of-others",
    "a check gets the port that another one has",
    [
      "src/model/catalog-draft.ts",
      "if (keeps(port) && !taken.has(port)) taken.add(port);",
      "if (keeps(port) && !taken.has(port)) continue;",
    ],
    "test/unit/host/exposed-checks.test.ts",
  ),
  fault(
    "exposed-port-kept",
    "a check whose sidecar exposes it no more keeps its port",
    ["src/host/exposed-checks.ts", "else if (exposedPort !== 0) hidden.push(checkId);", ""],
    "test/unit/host/exposed-checks.test.ts",
  ),
  fault(
    "exposed-check-direct",
    "an exposed check goes to its service, past the sidecar",
    ["src/host/agent-checks.ts", "probe(this.#exposed.proxied(running.id, method), {", "probe(method, {"],
    "test/unit/host/exposed-checks.test.ts",
  ),
  fault(
    "list-node-stale",
    "a node that somebody has looked at is shown as it was, whatever changes on it",
    ["src/model/catalog-state.ts", "    entry.records = undefined;\n", ""],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  fault(
    "list-proxy-stale",
    "a service that somebody has looked at is shown with the proxies that it had",
    [
      "src/model/catalog-state.ts",
      "if (destination !== undefined) this.#forgetRecords(destination);",
      "if (destination === key) this.#serviceRecords.delete(destination);",
    ],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  fault(
    "list-failing-kept",
    "a node with a check that fails no more is still looked for such checks",
    ["src/model/catalog-state.ts", "this.#countFailing(nodeKey, draft.checkRecord(nodeKey, key), 1);", ""],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  fault(
    "list-counts-grow",
    "an instance that changes is counted again, and not taken off what it was before",
    ["src/model/catalog-state.ts", "counts.instance(before, -1);", ""],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  fault(
    "list-order-kept",
    "nodes that have come since somebody looked are not in the list",
    ["src/base/kept-order.ts", "this.#note(item, this.#removed, this.#added);", ""],
    "test/unit/stores/catalog-lists.test.ts",
  ),
  fault(
    "kept-text-of-first",
    "the text of elements is given to a list that begins with the same one, whatever follows",
    ["src/http/kept-texts.ts", "if (run.records[place] !== records[index + place]) return false;", ""],
    "test/unit/http/kept-texts.test.ts",
  ),
  fault(
    "kept-text-basis",
    "texts are kept while something changes that they depend on beside the records",
    ["src/http/kept-texts.ts", "if (this.#lists.get(form)?.basis !== basis) this.#drop(form);", ""],
    "test/unit/http/kept-texts.test.ts",
  ),
  fault(
    "kept-text-unbounded",
    "texts are kept whatever memory they take",
    ["src/http/kept-texts.ts", "if (!this.#makeRoom(form, bytesOf(run))) return;", ""],
    "test/unit/http/kept-texts.test.ts",
  ),
  fault(
    "kept-body-stale",
    "a whole answer is given again, whatever has changed since it was made",
    ["src/http/kept-bodies.ts", "body: kept?.basis === basis ? kept.body : undefined,", "body: kept?.body,"],
    "test/unit/http/kept-bodies.test.ts",
  ),
  fault(
    "kept-body-for-all",
    "a whole answer is given to callers who may see less",
    [
      "src/http/answer-read.ts",
      'const isKept = peer !== "" && scope.everything === true && central === undefined;',
      'const isKept = peer !== "" && central === undefined;',
    ],
    "test/unit/http/kept-bodies.test.ts",
  ),
  fault(
    "kept-body-unbounded",
    "whole answers are kept whatever memory they take",
    ["src/http/kept-bodies.ts", "if (this.#bytes <= this.#most) return;", "return;"],
    "test/unit/http/kept-bodies.test.ts",
  ),
  fault(
    "merges-at-once",
    "all short runs of a list that is sorted are merged in one step",
    ["src/base/turns.ts", "if (done < MERGED_BATCH) continue;", "if (done > 0) continue;"],
    "test/unit/base/turns.test.ts",
  ),
  fault(
    "sessions-at-once",
    "all sessions of clients that connect together begin in one turn",
    ["src/rpc/http-server.ts", "const SESSIONS_A_TURN = 4;", "const SESSIONS_A_TURN = 4_000;"],
    "test/unit/rpc/few-in-a-turn.test.ts",
  ),
  fault(
    "signer-of-before",
    "certificates are signed by the root of before after a rotation",
    [
      "src/trust/leaf.ts",
      "if (known?.certificatePem === certificatePem) return known.issuer;",
      "if (known !== undefined) return known.issuer;",
    ],
    "test/unit/trust/built-in-authority.test.ts",
  ),
  fault(
    "read-meanwhile",
    "imports that were read while a snapshot was made count as told, though they are not in it",
    [
      "src/mesh/ads/host-source.ts",
      "          if (read.failed) continue;",
      "          if (read.failed || read.instances !== undefined) continue;",
    ],
    "test/unit/mesh/xds-server.test.ts",
  ),
];
