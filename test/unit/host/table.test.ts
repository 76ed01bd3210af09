import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { machineryOf } from "../../../src/host/host.js";
import type { Peering, Role } from "../../../src/peering/peering.js";
import { encodePeering } from "../../../src/stores/record-codec.js";
import type { PeeringRecords } from "../../../src/stores/records.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { exchange, REMOTE } from "../../support/messages.js";
import { MovableLeadership, peered, type Site, World } from "../../support/world.js";
import { elsewhere, judged } from "../stores/records-fixture.js";

// Each cell of the table of the state machine that a host can reach, at a host: `npm run mutate:table` changes one cell after
// another and runs this.

type Column = "living" | "deleting" | "terminated";

const ROLES: readonly Role[] = ["acceptor", "dialer"];
const ONE: Readonly<Record<Role, string>> = { acceptor: "an acceptor", dialer: "a dialer" };
const ENDED: readonly Column[] = ["deleting", "terminated"];

/** A host with a record of this role in this column. What is imported, and the trust bundle, are there still. */
interface Scene {
  readonly world: World;
  readonly site: Site;
  readonly other: Site;
  /** The name of the peering at `site`. */
  readonly name: string;
  readonly id: string;
  /** The secret of a token that was not used; at an acceptor. */
  readonly unused: string;
  /** The stream secret of the peering. */
  readonly secret: string;
  readonly leadership: MovableLeadership;
}

async function scene(column: Column, role: Role): Promise<Scene> {
  const world = new World();
  const leadership = new MovableLeadership();
  const sites = await peered(world, { [role]: { leadership } });
  const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
  const { id } = site.peering(other.name);
  const dialerId = sites.dialer.peering("acceptor").id;
  const { streamSecret = "" } = (await world.result(machineryOf(sites.dialer.host).records.dialable(dialerId))) ?? {};
  let unused = "";
  if (role === "acceptor") {
    const token = await world.result(site.host.peerings.generateToken({ peerName: other.name }));
    unused = TokenCodec.decode(token).establishmentSecret;
  }
  if (column === "deleting") await world.result(site.host.peerings.delete(other.name));
  if (column === "terminated") await world.result(machineryOf(site.host).records.terminate(id));
  if (column !== "living") await hold(world, site, id);
  return { world, site, other, name: other.name, id, unused, secret: streamSecret, leadership };
}

/** From now on the disk refuses, and the stream is over. */
async function hold(world: World, site: Site, id: string): Promise<void> {
  site.fate = () => "fail";
  await world.until(() => machineryOf(site.host).streams.phaseOf(id) === undefined, "the stream ends");
  await world.pass(1);
}

function release(site: Site): void {
  site.fate = () => "succeed";
}

function stored({ site, id }: Scene): Peering | undefined {
  return machineryOf(site.host).records.byId(id);
}

function hasSecrets({ site, id }: Scene): boolean {
  return machineryOf(site.host).records.tables.secrets.has(id);
}

/** Everything of the peering goes, each in its turn: imports, bundle and, of one that is deleted, the record. */
async function goes({ world, site, name, id }: Scene, record: boolean): Promise<void> {
  const { records, imports } = machineryOf(site.host);
  const bundle = (): boolean => records.tables.bundles.has(name);
  await world.until(() => imports.services(id).length === 0 && bundle(), "first the imports go", 70_000);
  await world.until(() => !bundle() && records.byId(id) !== undefined, "then the bundle", 70_000);
  if (record) await world.until(() => records.byId(id) === undefined, "and at last the record", 70_000);
  else await world.pass(1_000);
  assert.equal(records.byId(id) === undefined, record);
}

async function refused(at: Scene, work: Promise<unknown>, code: string, message: string): Promise<void> {
  const before = JSON.stringify(stored(at), text);
  const error = await at.world.refusal(work);
  assert.deepEqual([error.code, error.message], [code, message]);
  assert.equal(JSON.stringify(stored(at), text), before, "the record stays as it is");
}

function text(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

const MARKED = "failed to write peering: cannot write to peering that is marked for deletion";
const GONE = "peering does not exist or has been marked for deletion";
const NOT_MARKED = "cannot delete a peering without first marking for deletion";

describe("generate-token", () => {
  it("makes a record, and of one that lives a newer version with a new secret", async () => {
    const at = await scene("living", "acceptor");
    const before = stored(at);
    const token = await at.world.result(at.site.host.peerings.generateToken({ peerName: at.name }));
    const after = stored(at);
    assert.ok(before !== undefined && after !== undefined && after.modifyIndex > before.modifyIndex);
    assert.deepEqual({ ...after, modifyIndex: before.modifyIndex }, before);
    const { records } = machineryOf(at.site.host);
    assert.equal((await at.world.refusal(exchangeOf(at, at.unused))).code, "permission-denied");
    await exchange(at.world, at.site, token);
    await at.world.result(at.site.host.peerings.generateToken({ peerName: "new" }));
    assert.equal(records.byName("new")?.state, "pending");
    assert.ok(records.outstandingTokens().some(({ name }) => name === "new"));
  });

  for (const column of ["living", ...ENDED] as const) {
    it(`is refused of a dialer that is ${column}`, async () => {
      const at = await scene(column, "dialer");
      const message = `cannot create peering with name: "${at.name}"; there is already an established peering`;
      await refused(at, at.site.host.peerings.generateToken({ peerName: at.name }), "wrong-role", message);
    });
  }

  it("is refused of an acceptor that has ended", async () => {
    for (const column of ENDED) {
      const at = await scene(column, "acceptor");
      release(at.site);
      const terminated = `cannot create peering with name: "${at.name}"; the peering was terminated by the peer and must be deleted first`;
      const message = column === "deleting" ? MARKED : terminated;
      await refused(at, at.site.host.peerings.generateToken({ peerName: at.name }), "invalid-record", message);
    }
  });
});

function exchangeOf({ site, id }: Scene, establishmentSecret: string): Promise<string> {
  return machineryOf(site.host).records.exchangeSecret({ peerId: id, establishmentSecret });
}

/** A token of a cluster that cannot be reached. */
function deadToken(): string {
  return TokenCodec.encode({
    ca: fixedRootPems.slice(0, 1),
    manualServerAddresses: [],
    serverAddresses: ["nowhere:8503"],
    serverName: "server.dc9.peering.99999999-2222-3333-4444-555555555555.consul",
    peerId: "99999999-9999-4999-8999-999999999999",
    establishmentSecret: "88888888-8888-4888-8888-888888888888",
    remote: { partition: "", datacenter: "dc9" },
  });
}

describe("establish-begun", () => {
  for (const column of ["living", ...ENDED] as const) {
    it(`is refused of an acceptor that is ${column}`, async () => {
      const at = await scene(column, "acceptor");
      const message = `cannot create peering with name: "${at.name}"; there is an existing peering expecting to be dialed`;
      const token = deadToken();
      await refused(at, at.site.host.peerings.establish({ peerName: at.name, token }), "wrong-role", message);
    });
  }

  it("is refused of a dialer that is deleted", async () => {
    const at = await scene("deleting", "dialer");
    release(at.site);
    const work = at.site.host.peerings.establish({ peerName: at.name, token: deadToken() });
    await refused(at, work, "invalid-record", MARKED);
  });

  it("gives a dialer that lives new metadata, and nothing else when the exchange fails", async () => {
    const at = await scene("living", "dialer");
    const before = stored(at);
    const meta = { team: "b" };
    await at.world.refusal(at.site.host.peerings.establish({ peerName: at.name, token: deadToken(), meta }));
    const after = stored(at);
    assert.ok(before !== undefined && after !== undefined && after.modifyIndex > before.modifyIndex);
    assert.deepEqual(after, { ...before, meta, modifyIndex: after.modifyIndex });
    assert.ok(hasSecrets(at));
    assert.equal(at.site.state(at.name), "active");
  });

  it("gives a dialer that was terminated another cluster, and drops the secret of the former", async () => {
    const at = await scene("terminated", "dialer");
    release(at.site);
    assert.ok(hasSecrets(at));
    const before = stored(at);
    await at.world.refusal(
      at.site.host.peerings.establish({
        peerName: at.name,
        token: TokenCodec.encode({
          ...TokenCodec.decode(deadToken()),
          ca: before?.peerCaPems ?? [],
          serverName: before?.peerServerName ?? "",
          peerId: before?.peerId ?? "",
        }),
        meta: { team: "b" },
      }),
    );
    assert.deepEqual([stored(at)?.state, stored(at)?.meta], ["terminated", { team: "b" }]);
    assert.equal(hasSecrets(at), false);
  });

  it("makes a record where there is none", async () => {
    const at = await scene("living", "dialer");
    await at.world.refusal(at.site.host.peerings.establish({ peerName: "nobody", token: deadToken() }));
    assert.equal(machineryOf(at.site.host).records.byName("nobody")?.state, "pending");
  });
});

describe("establish-finished", () => {
  async function begun(at: Scene, name: string): Promise<Awaited<ReturnType<PeeringRecords["beginEstablish"]>>> {
    const token = TokenCodec.decode(deadToken());
    return at.world.result(
      machineryOf(at.site.host).records.beginEstablish({ peerName: name, token, connected: false }),
    );
  }

  it("is refused of a record that is deleted meanwhile, or gone", async () => {
    const at = await scene("living", "dialer");
    const { records } = machineryOf(at.site.host);
    const establish = await begun(at, at.name);
    await at.world.result(at.site.host.peerings.delete(at.name));
    await hold(at.world, at.site, at.id);
    release(at.site);
    await refused(at, records.finishEstablish(establish, "secret"), "invalid-record", MARKED);
    await at.world.until(() => stored(at) === undefined, "the record goes");
    const error = await at.world.refusal(records.finishEstablish(establish, "secret"));
    assert.deepEqual([error.code, error.message, stored(at)], ["invalid-record", MARKED, undefined]);
  });

  for (const column of ["living", "terminated"] as const) {
    it(`makes a dialer that is ${column} dial the cluster of the token, and ends its stream to the former one`, async () => {
      const at = await scene(column, "dialer");
      release(at.site);
      const { records, dialer, streams } = machineryOf(at.site.host);
      const establish = await begun(at, at.name);
      await at.world.result(records.finishEstablish(establish, "secret"));
      const record = stored(at);
      assert.deepEqual([record?.state, record?.peerId], ["establishing", establish.fields.peerId]);
      assert.equal((await at.world.result(records.dialable(at.id)))?.streamSecret, "secret");
      await at.world.until(() => dialer.isDialing(at.id), "it is dialed");
      await at.world.until(() => streams.phaseOf(at.id) === undefined, "the former stream ends", 10_000);
      await at.world.until(
        () => at.site.peering(at.name).status.lastFailure?.address === "nowhere:8503",
        "at its address",
        200_000,
      );
    });
  }
});

describe("secret-exchanged", () => {
  const denied = ["permission-denied", "invalid peering establishment secret"] as const;

  it("is refused of a record that is not there, marked in the same moment, or terminated", async () => {
    const at = await scene("living", "acceptor");
    const { records } = machineryOf(at.site.host);
    const nobody = { peerId: "77777777-7777-4777-8777-777777777777", establishmentSecret: at.unused };
    const error = await at.world.refusal(records.exchangeSecret(nobody));
    assert.deepEqual([error.code, error.message], denied);
    const deleting = at.site.host.peerings.delete(at.name);
    const late = await at.world.refusal(exchangeOf(at, at.unused));
    await at.world.result(deleting);
    assert.deepEqual([late.code, late.message], denied);
    const ended = await scene("terminated", "acceptor");
    release(ended.site);
    assert.ok(ended.unused !== "" && hasSecrets(ended));
    await refused(ended, exchangeOf(ended, ended.unused), ...denied);
  });

  it("gives an acceptor's peer a secret, and leaves the record as it is", async () => {
    const at = await scene("living", "acceptor");
    const before = stored(at);
    const secret = await at.world.result(exchangeOf(at, at.unused));
    assert.deepEqual(stored(at), before);
    const { verdict } = await at.world.result(judged(machineryOf(at.site.host).records, openOf(at, secret)));
    assert.equal(verdict, "authorized");
  });
});

function openOf(
  { id }: Scene,
  streamSecretId: string,
): { type: "open"; peerId: string; streamSecretId: string; remote: typeof REMOTE } {
  return { type: "open", peerId: id, streamSecretId, remote: REMOTE };
}

/** How a host ends a stream that is opened with this secret: `Terminated` where it says so, then the status. */
async function answer(at: Scene, secret: string, peerId = at.id): Promise<string> {
  const open = { ...openOf(at, secret), peerId };
  const { verdict } = await at.world.result(judged(machineryOf(at.site.host).records, open));
  assert.equal(verdict, "refused", "at its opening, not once it is up");
  const stream = await at.world.raw(at.site);
  await stream.say(open);
  const end = await stream.ended();
  const said = stream.received.map(({ type }) => `${type}, `).join("");
  return `${said}${end === "ok" ? "ok" : `${end.status} ${end.message}`}`;
}

describe("a stream that is opened", () => {
  it("with another secret is refused as the record stands", async () => {
    const nobody = "77777777-7777-4777-8777-777777777777";
    const at = await scene("living", "acceptor");
    assert.match(
      await answer(at, "other", nobody),
      new RegExp(`^3 .*initial subscription for unknown PeerID: ${nobody}$`),
    );
    assert.match(await answer(at, "other"), /^7 .*invalid peering stream secret$/);
    assert.match(await answer(await scene("living", "dialer"), "other"), /^7 .*invalid peering stream secret$/);
    for (const role of ROLES) {
      const deleting = await scene("deleting", role);
      assert.match(await answer(deleting, "other"), new RegExp(`^terminated, 10 .*marked as deleted: ${deleting.id}$`));
      const terminated = await scene("terminated", role);
      assert.match(await answer(terminated, "other"), new RegExp(`^10 .*marked as deleted: ${terminated.id}$`));
    }
  });

  it("with the secret of the last one is accepted of an acceptor that lives, and else refused", async () => {
    const at = await scene("living", "acceptor");
    const before = stored(at);
    const stream = await at.world.raw(at.site);
    await stream.say(openOf(at, at.secret));
    await at.world.until(() => stream.received.length > 0, "it is accepted");
    assert.deepEqual(stored(at), before, "the record stays as it is");
    const dialer = await scene("living", "dialer");
    assert.match(await answer(dialer, dialer.secret), /^3 .*; the wrong end of peering is being dialed$/);
    for (const role of ROLES) {
      const terminated = await scene("terminated", role);
      assert.match(
        await answer(terminated, terminated.secret),
        new RegExp(`^10 .*marked as deleted: ${terminated.id}$`),
      );
    }
  });

  it("with a pending secret makes it the active one of an acceptor that lives", async () => {
    const at = await scene("living", "acceptor");
    const secret = await at.world.result(exchangeOf(at, at.unused));
    const before = stored(at);
    const stream = await at.world.raw(at.site);
    await stream.say(openOf(at, secret));
    await at.world.until(() => stream.received.length > 0, "it is accepted");
    const after = stored(at);
    assert.ok(before !== undefined && after !== undefined && after.modifyIndex > before.modifyIndex);
    assert.equal(after.remote.datacenter, REMOTE.datacenter);
    assert.match(await answer(at, at.secret), /^7 /, "the former is none any more");
  });

  it("with a pending secret is refused once the record has ended", async () => {
    const at = await scene("living", "acceptor");
    const secret = await at.world.result(exchangeOf(at, at.unused));
    const { records } = machineryOf(at.site.host);
    const marking = at.site.host.peerings.delete(at.name);
    const marked = await at.world.result(judged(records, openOf(at, secret)));
    await at.world.result(marking);
    const message = `peering is marked as deleted: ${at.id}`;
    assert.deepEqual(marked, { verdict: "refused", status: { code: 10, message }, terminated: true });

    const ended = await scene("living", "acceptor");
    const pending = await ended.world.result(exchangeOf(ended, ended.unused));
    await ended.world.result(machineryOf(ended.site.host).records.terminate(ended.id));
    assert.match(await answer(ended, pending), new RegExp(`^10 .*marked as deleted: ${ended.id}$`));

    const gone = await scene("living", "acceptor");
    const last = await gone.world.result(exchangeOf(gone, gone.unused));
    await elsewhere(gone.world, gone.site, async (others) => {
      await others.markDeleting(gone.name);
      await others.remove(gone.id);
    });
    const unknown = await gone.world.result(judged(machineryOf(gone.site.host).records, openOf(gone, last)));
    const nobody = `initial subscription for unknown PeerID: ${gone.id}`;
    assert.deepEqual(unknown, { verdict: "refused", status: { code: 3, message: nobody }, terminated: false });
  });
});

describe("stream-connected", () => {
  it("lets a stream stand while the record lives, of either end", async () => {
    const { world, site, other, name } = await scene("living", "dialer");
    await world.pass(30_000);
    assert.deepEqual([site.state(name), other.state(site.name)], ["active", "active"]);
  });

  for (const column of ["gone", ...ENDED] as const) {
    it(`ends a stream that comes up when its record is ${column}, before it says a word`, async () => {
      const at = await scene("living", "dialer");
      const { world, site, other, id } = at;
      const { records, streams } = machineryOf(site.host);
      const plan = await world.result(records.dialable(id));
      assert.ok(plan !== undefined);
      if (column === "terminated") await world.result(records.terminate(id));
      else await world.result(site.host.peerings.delete(at.name));
      if (column === "gone") await world.until(() => stored(at) === undefined, "it goes");
      else await hold(world, site, id);
      const opens = world.messages(site, "open").length;
      const target = {
        address: other.address,
        serverName: plan.peering.peerServerName,
        caPems: plan.peering.peerCaPems,
      };
      const dial = streams.dial(plan, target, new AbortController().signal);
      const error = await world.refusal(dial);
      assert.equal(error.message, "the peering changed while it was being dialed");
      assert.equal(world.messages(site, "open").length, opens);
    });
  }
});

describe("stream-lost", () => {
  it("has a dialer dial again", async () => {
    const { world, site, other, name } = await scene("living", "dialer");
    const opens = world.messages(site, "open").length;
    other.crash();
    await world.until(() => site.state(name) === "failing", "the stream is lost");
    await world.pass(10_000);
    await other.start();
    await world.until(() => site.state(name) === "active", "it comes again", 200_000);
    assert.equal(world.messages(site, "open").length, opens + 1);
  });
});

describe("resumed", () => {
  it("dials the peers of active records after a restart, and when this host comes to lead", async () => {
    const at = await scene("living", "dialer");
    const { world, site, name, leadership } = at;
    await site.restart();
    await world.until(() => site.state(name) === "active", "it dials", 60_000);
    leadership.move(false);
    await world.until(() => site.state(name) !== "active", "the stream ends");
    leadership.move(true);
    await world.until(() => site.state(name) === "active", "it dials again", 60_000);
    assert.equal(machineryOf(site.host).dialer.isDialing(at.id), true);
  });

  it("leaves the stream of an acceptor as it is when another process has written its record", async () => {
    const at = await scene("living", "acceptor");
    const opens = at.world.messages(at.other, "open").length;
    await elsewhere(at.world, at.site, (others) => others.generateToken({ peerName: at.name }));
    await at.world.pass(60_000);
    assert.equal(at.site.state(at.name), "active");
    assert.equal(at.world.messages(at.other, "open").length, opens);
    assert.notDeepEqual(at.site.imported(at.name), {});
  });

  for (const role of ROLES) {
    for (const column of ENDED) {
      it(`finishes after a restart with what ${ONE[role]} that is ${column} leaves behind`, async () => {
        const at = await scene(column, role);
        at.site.crash();
        release(at.site);
        await at.site.start();
        await goes(at, column === "deleting");
        assert.equal(machineryOf(at.site.host).dialer.isDialing(at.id), false);
      });
    }

    it(`tells the peer of ${ONE[role]} that another process deletes`, async () => {
      const at = await scene("living", role);
      await elsewhere(at.world, at.site, (others) => others.markDeleting(at.name));
      await at.world.until(() => at.other.state(at.site.name) === "terminated", "it is told", 20_000);
      assert.equal(at.world.messages(at.site, "terminated").length, 1);
    });

    it(`ends the stream of ${ONE[role]} that another process terminates, or removes`, async () => {
      for (const end of ["terminate", "remove"] as const) {
        const at = await scene("living", role);
        const { streams, dialer } = machineryOf(at.site.host);
        await elsewhere(at.world, at.site, async (others) => {
          if (end === "terminate") return others.terminate(at.id);
          await others.markDeleting(at.name);
          return others.remove(at.id);
        });
        await at.world.until(() => streams.phaseOf(at.id) === undefined, "the stream ends", 10_000);
        await at.world.until(() => !dialer.isDialing(at.id), "and nobody dials", 1_000);
        // Of a removal the host sees first that the record is marked: it tells its peer.
        assert.equal(at.world.messages(at.site, "terminated").length, end === "remove" ? 1 : 0);
      }
    });
  }

  it("ends a dial loop that waits when another process deletes, terminates or removes its record", async () => {
    for (const end of ["delete", "terminate", "remove"] as const) {
      const at = await scene("living", "dialer");
      await waiting(at);
      await elsewhere(at.world, at.site, async (others) => {
        if (end === "terminate") return others.terminate(at.id);
        const marked = await others.markDeleting(at.name);
        return end === "remove" ? others.remove(at.id) : marked;
      });
      at.site.fate = () => "fail";
      await at.world.pass(10);
      assert.equal(machineryOf(at.site.host).dialer.isDialing(at.id), false, end);
    }
  });
});

/** The peer is down for long: the loop waits for its next attempt, which is more than a minute away. */
async function waiting({ world, site, other, name }: Scene): Promise<void> {
  other.crash();
  await world.until(() => site.peering(name).status.failedAttempts >= 7, "it has been tried", 400_000);
  await world.until(() => site.peering(name).status.phase === "waiting", "the next attempt is far away");
}

describe("what a peer sends about itself", () => {
  const bundle = {
    trustDomain: "77777777-2222-3333-4444-555555555555.consul",
    rootPems: fixedRootPems.slice(1, 2),
    exportedPartition: "",
  };

  it("a trust bundle is stored with a record that lives, and refused otherwise", async () => {
    for (const role of ROLES) {
      const at = await scene("living", role);
      const { records } = machineryOf(at.site.host);
      const before = stored(at);
      await at.world.result(records.writeTrustBundle(at.id, bundle));
      assert.deepEqual(records.trustBundle(at.name)?.rootPems, bundle.rootPems);
      assert.deepEqual([stored(at)?.state, stored(at)?.peerCaPems], [before?.state, bundle.rootPems.map(ended)]);
      for (const column of ENDED) {
        const end = await scene(column, role);
        release(end.site);
        const message = column === "deleting" ? "cannot write to peering that is marked for deletion" : GONE;
        await refused(
          end,
          machineryOf(end.site.host).records.writeTrustBundle(end.id, bundle),
          "invalid-record",
          message,
        );
      }
    }
    const at = await scene("living", "acceptor");
    const nobody = "77777777-7777-4777-8777-777777777777";
    const message = `cannot write peering trust bundle for unknown peering ${nobody}`;
    await refused(at, machineryOf(at.site.host).records.writeTrustBundle(nobody, bundle), "invalid-record", message);
  });

  it("server addresses are stored with a dialer that lives, and refused otherwise", async () => {
    const addresses = ["10.9.9.9:8503"];
    const at = await scene("living", "dialer");
    const before = stored(at);
    await at.world.result(machineryOf(at.site.host).records.writeServerAddresses(at.id, addresses));
    const after = stored(at);
    assert.ok(before !== undefined && after !== undefined && after.modifyIndex > before.modifyIndex);
    assert.deepEqual(after, { ...before, peerServerAddresses: addresses, modifyIndex: after.modifyIndex });
    const write = (end: Scene, id = end.id): Promise<void> =>
      machineryOf(end.site.host).records.writeServerAddresses(id, addresses);
    const acceptor = await scene("living", "acceptor");
    await refused(acceptor, write(acceptor), "wrong-role", "Cannot switch peering dialing mode from false to true");
    await refused(acceptor, write(acceptor, "77777777-7777-4777-8777-777777777777"), "invalid-record", GONE);
    for (const role of ROLES) {
      for (const column of ENDED) {
        const end = await scene(column, role);
        release(end.site);
        await refused(end, write(end), "invalid-record", GONE);
      }
    }
  });
});

function ended(pem: string): string {
  return pem.endsWith("\n") ? pem : `${pem}\n`;
}

describe("peer-terminated", () => {
  for (const role of ROLES) {
    it(`makes ${ONE[role]} that lives TERMINATED: its stream ends, nobody dials, and what it brought goes`, async () => {
      const at = await scene("living", role);
      const { records, streams, dialer } = machineryOf(at.site.host);
      assert.equal(await at.world.result(records.terminate(at.id)), true);
      assert.equal(stored(at)?.state, "terminated");
      await at.world.until(() => streams.phaseOf(at.id) === undefined, "the stream ends", 2_000);
      await goes(at, false);
      assert.equal(dialer.isDialing(at.id), false);
      assert.equal(at.world.messages(at.site, "terminated").length, 0);
    });

    for (const column of ENDED) {
      it(`leaves ${ONE[role]} that is ${column} as it is`, async () => {
        const at = await scene(column, role);
        release(at.site);
        const before = stored(at);
        assert.equal(await at.world.result(machineryOf(at.site.host).records.terminate(at.id)), false);
        assert.deepEqual(stored(at), before);
        await goes(at, column === "deleting");
      });
    }
  }

  it("ends a dial loop that waits", async () => {
    const at = await scene("living", "dialer");
    await waiting(at);
    await at.world.result(machineryOf(at.site.host).records.terminate(at.id));
    await at.world.pass(10);
    assert.equal(machineryOf(at.site.host).dialer.isDialing(at.id), false);
  });

  it("does nothing where there is no record", async () => {
    const at = await scene("living", "acceptor");
    const nobody = "77777777-7777-4777-8777-777777777777";
    assert.equal(await at.world.result(machineryOf(at.site.host).records.terminate(nobody)), false);
  });
});

describe("delete-requested", () => {
  for (const role of ROLES) {
    it(`marks ${ONE[role]} that lives, tells its peer, drops its secrets, and removes everything`, async () => {
      const at = await scene("living", role);
      await at.world.result(at.site.host.peerings.delete(at.name));
      assert.equal(stored(at)?.state, "deleting");
      assert.equal(hasSecrets(at), false);
      await goes(at, true);
      await at.world.until(() => at.other.state(at.site.name) === "terminated", "the peer is told", 10_000);
      assert.equal(at.world.messages(at.site, "terminated").length, 1);
    });

    it(`marks ${ONE[role]} that was terminated, and removes what is left`, async () => {
      const at = await scene("terminated", role);
      release(at.site);
      assert.ok(hasSecrets(at));
      await at.world.result(at.site.host.peerings.delete(at.name));
      assert.equal(stored(at)?.state, "deleting");
      assert.equal(hasSecrets(at), false);
      await goes(at, true);
    });

    it(`does nothing to ${ONE[role]} that is deleted already`, async () => {
      const at = await scene("deleting", role);
      release(at.site);
      const before = stored(at);
      await at.world.result(at.site.host.peerings.delete(at.name));
      assert.deepEqual(stored(at), before);
      await goes(at, true);
    });
  }

  it("ends a dial loop that waits", async () => {
    const at = await scene("living", "dialer");
    await waiting(at);
    await at.world.result(at.site.host.peerings.delete(at.name));
    at.site.fate = () => "fail";
    await at.world.pass(10);
    assert.equal(machineryOf(at.site.host).dialer.isDialing(at.id), false);
  });

  it("is success where there is no record", async () => {
    const at = await scene("living", "acceptor");
    await at.world.result(at.site.host.peerings.delete("nobody"));
  });
});

describe("cleanup-finished", () => {
  it("removes a record that is deleted, is refused of one that lives, and leaves the others as they are", async () => {
    for (const role of ROLES) {
      const living = await scene("living", role);
      await refused(living, machineryOf(living.site.host).records.remove(living.id), "invalid-record", NOT_MARKED);
      const terminated = await scene("terminated", role);
      release(terminated.site);
      const before = stored(terminated);
      await terminated.world.result(machineryOf(terminated.site.host).records.remove(terminated.id));
      assert.deepEqual(stored(terminated), before);
      const deleting = await scene("deleting", role);
      release(deleting.site);
      await deleting.world.result(machineryOf(deleting.site.host).records.remove(deleting.id));
      assert.equal(stored(deleting), undefined);
      await deleting.world.result(machineryOf(deleting.site.host).records.remove(deleting.id));
    }
  });
});

describe("a state that this version does not know", () => {
  it("is in no record of a host: it does not start on one", async () => {
    const at = await scene("living", "acceptor");
    const record = stored(at);
    assert.ok(record !== undefined);
    const known = new TextDecoder().decode(encodePeering(record));
    const value = new TextEncoder().encode(known.replace('"pending"', '"resting"'));
    assert.notEqual(new TextDecoder().decode(value), known);
    at.site.crash();
    await at.site.disk.commit([{ key: ["peerings", at.id], value }]);
    assert.equal((await at.world.refusal(at.site.start())).code, "storage-failed");
  });
});
