import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { errorText } from "../../../src/base/errors.js";
import { machineryOf } from "../../../src/host/host.js";
import type { CommitFate } from "../../../src/testing/simulator/sim-storage.js";
import { exchange, REMOTE } from "../../support/messages.js";
import { exportTo, peer, peered, register, type Site, World } from "../../support/world.js";

/** The peering works: ACTIVE on both ends, and each has what the other exports. */
async function works(world: World, acceptor: Site, dialer: Site): Promise<void> {
  await world.settled(acceptor, "dialer", dialer, "acceptor");
  await world.until(
    () =>
      JSON.stringify(dialer.imported("acceptor")) === '{"db":1,"web":1}' &&
      JSON.stringify(acceptor.imported("dialer")) === '{"api":1}',
    "both have what the other exports",
  );
}

/** Nothing is left of the peering but, where it was told, a TERMINATED record without imports and bundle. */
function gone(site: Site, peerName: string): boolean {
  const view = site.host.peerings.read(peerName);
  if (view === undefined) return true;
  const clean =
    Object.keys(site.imported(peerName)).length === 0 && site.host.trustBundles.read(peerName) === undefined;
  return view.state === "terminated" && clean;
}

describe("a restart in any state goes on by itself", () => {
  for (const how of ["crash", "stop"] as const) {
    const again = async (site: Site): Promise<void> => {
      if (how === "stop") await site.stop();
      await site.restart();
    };

    it(`PENDING, after a ${how}: the token still works`, async () => {
      const world = new World();
      const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
      const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
      await again(acceptor);
      assert.equal(acceptor.state("dialer"), "pending");
      await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    });

    it(`ESTABLISHING, after a ${how}: the dialer dials with what it has stored`, async () => {
      const world = new World();
      const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
      await peer(world, acceptor, dialer);
      assert.equal(dialer.state("acceptor"), "establishing");
      await again(dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    });

    for (const role of ["acceptor", "dialer"] as const) {
      it(`ACTIVE, the ${role} after a ${how}: the stream comes back, imports were kept, later changes arrive`, async () => {
        const world = new World();
        const sites = await peered(world);
        const site = sites[role];
        const peerName = role === "acceptor" ? "dialer" : "acceptor";
        const [before, imported] = [site.peering(peerName), site.imported(peerName)];
        await again(site);
        assert.equal(site.state(peerName), role === "acceptor" ? "pending" : "establishing");
        assert.deepEqual(site.imported(peerName), imported);
        const after = site.peering(peerName);
        assert.deepEqual({ ...after, state: "", status: 0 }, { ...before, state: "", status: 0 });
        await works(world, sites.acceptor, sites.dialer);
        await world.result(register(sites.acceptor.host, "web", "2"));
        await world.until(() => sites.dialer.count("acceptor", "web") === 2, "a change arrives");
      });

      it(`DELETING, the ${role} after a ${how}: the deletion is finished`, async () => {
        const world = new World();
        const sites = await peered(world);
        const site = sites[role];
        const peerName = role === "acceptor" ? "dialer" : "acceptor";
        await world.result(site.host.peerings.delete(peerName));
        if (how === "stop") await site.stop();
        await site.restart();
        await world.until(() => site.state(peerName) === "none", "the record goes");
        const { entries } = await world.result(site.disk.read([]));
        assert.deepEqual(
          entries.filter(({ key }) => key.some((part) => part === peerName)).map(({ key }) => key),
          [],
        );
      });

      it(`TERMINATED, the ${role} after a ${how}: it stays so, is clean, and can be deleted or established again`, async () => {
        const world = new World();
        const sites = await peered(world);
        const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
        await world.result(other.host.peerings.delete(site.name));
        await world.until(() => site.state(other.name) === "terminated", "it is told");
        await again(site);
        await world.until(() => gone(site, other.name), "it is cleaned up");
        await world.pass(120_000);
        assert.equal(site.state(other.name), "terminated");
        assert.equal(world.messages(sites.dialer, "open").length, 1);
        if (role === "acceptor") await world.result(site.host.peerings.delete(other.name));
        await world.until(() => other.state(site.name) === "none", "the other one is rid of it");
        if (role === "acceptor") await world.until(() => site.state(other.name) === "none", "and so is this one");
        await peer(world, sites.acceptor, sites.dialer);
        await works(world, sites.acceptor, sites.dialer);
      });
    }

    it(`both at once, after a ${how}`, async () => {
      const world = new World();
      const { acceptor, dialer } = await peered(world);
      if (how === "stop") {
        await acceptor.stop();
        await dialer.stop();
      } else {
        acceptor.crash();
        dialer.crash();
      }
      await dialer.start();
      await world.pass(20_000);
      await acceptor.start();
      await works(world, acceptor, dialer);
    });
  }

  it("services that a peer withdrew while a host was down are gone when it is back, and new ones are there", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    dialer.crash();
    await exportTo(world, acceptor, "dialer", "web");
    await world.result(register(acceptor.host, "web", "2"));
    await dialer.start();
    await world.until(() => JSON.stringify(dialer.imported("acceptor")) === '{"web":2}', "it is in step");
  });
});

interface Prepared {
  readonly acceptor: Site;
  readonly dialer: Site;
  readonly token?: string;
}

/** A step whose every commit is to be survived: what to prepare, what to do, and what must hold in the end. */
interface Step {
  readonly name: string;
  readonly side: "acceptor" | "dialer";
  readonly prepare: (world: World) => Promise<Prepared>;
  /** Rejects when the process died meanwhile, or what it needs did. */
  readonly work: (world: World, prepared: Prepared) => Promise<unknown>;
  /** After the restart: what an operator would do again, then what must hold. */
  readonly afterwards: (world: World, acceptor: Site, dialer: Site) => Promise<void>;
}

const apart = async (world: World): Promise<Prepared> => ({
  acceptor: await world.site("acceptor"),
  dialer: await world.site("dialer"),
});

async function withToken(world: World): Promise<Prepared> {
  const sites = await apart(world);
  return { ...sites, token: await world.result(sites.acceptor.host.peerings.generateToken({ peerName: "dialer" })) };
}

const steps: readonly Step[] = [
  {
    name: "generate",
    side: "acceptor",
    prepare: apart,
    work: (_world, { acceptor }) => acceptor.host.peerings.generateToken({ peerName: "dialer" }),
    afterwards: async (world, acceptor, dialer) => {
      assert.ok(["none", "pending"].includes(acceptor.state("dialer")));
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    },
  },
  {
    name: "generate over a live peering",
    side: "acceptor",
    prepare: (world) => peered(world),
    work: (_world, { acceptor }) => acceptor.host.peerings.generateToken({ peerName: "dialer" }),
    afterwards: works,
  },
  {
    name: "the exchange and the promotion",
    side: "acceptor",
    prepare: withToken,
    work: async (world, { acceptor, token = "" }) => {
      const stream = await world.raw(acceptor);
      await stream.say({ type: "open", ...(await exchange(world, acceptor, token)), remote: REMOTE });
      await world.until(() => stream.received.length > 0 || stream.end !== undefined, "it is judged");
    },
    afterwards: async (world, acceptor, dialer) => {
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    },
  },
  {
    name: "establish and its first stream",
    side: "dialer",
    prepare: apart,
    work: async (world, { acceptor, dialer }) => {
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    },
    afterwards: async (world, acceptor, dialer) => {
      // Once the second write is there it dials by itself; before, the operator establishes again.
      if (dialer.state("acceptor") !== "establishing") await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    },
  },
  {
    name: "establish and its first stream",
    side: "acceptor",
    prepare: apart,
    work: async (world, { acceptor, dialer }) => {
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    },
    afterwards: async (world, acceptor, dialer) => {
      if (dialer.state("acceptor") === "none" || dialer.state("acceptor") === "pending") {
        await peer(world, acceptor, dialer);
      }
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    },
  },
  {
    name: "replication",
    side: "dialer",
    prepare: async (world) => {
      const sites = await peered(world);
      sites.dialer.crash();
      await world.result(register(sites.acceptor.host, "web", "2"));
      await exportTo(world, sites.acceptor, "dialer", "web");
      sites.acceptor.authority.rotate();
      await sites.dialer.start();
      return sites;
    },
    work: (world, { acceptor, dialer }) => world.settled(acceptor, "dialer", dialer, "acceptor"),
    afterwards: async (world, acceptor, dialer) => {
      await world.settled(acceptor, "dialer", dialer, "acceptor");
      await world.until(() => JSON.stringify(dialer.imported("acceptor")) === '{"web":2}', "it is in step");
      assert.deepEqual(
        dialer.host.trustBundles.read("acceptor")?.rootPems,
        acceptor.authority.roots().map((root) => root.certificatePem),
      );
    },
  },
  ...(["acceptor", "dialer"] as const).map(
    (side): Step => ({
      name: "delete",
      side,
      prepare: (world) => peered(world),
      work: async (world, { acceptor, dialer }) => {
        const [site, peerName] = side === "acceptor" ? [acceptor, "dialer"] : [dialer, "acceptor"];
        await world.result(site.host.peerings.delete(peerName));
        await world.until(() => site.up && site.state(peerName) === "none", "the record goes");
      },
      afterwards: async (world, acceptor, dialer) => {
        const [site, peerName] = side === "acceptor" ? [acceptor, "dialer"] : [dialer, "acceptor"];
        // A crash before the first write leaves the peering as it was.
        if (site.state(peerName) !== "none" && site.state(peerName) !== "deleting") {
          await world.result(site.host.peerings.delete(peerName));
        }
        await world.until(() => site.state(peerName) === "none", "the record goes");
        assert.deepEqual(machineryOf(site.host).records.trustBundles(), []);
        const { entries } = await world.result(site.disk.read([]));
        assert.deepEqual(
          entries.filter(({ key }) => key[0] === "imports").map(({ key }) => key),
          [],
        );
      },
    }),
  ),
  ...(["acceptor", "dialer"] as const).map(
    (side): Step => ({
      name: "being terminated",
      side,
      prepare: (world) => peered(world),
      work: async (world, { acceptor, dialer }) => {
        const [site, other] = side === "acceptor" ? [acceptor, dialer] : [dialer, acceptor];
        await world.result(other.host.peerings.delete(site.name));
        await world.until(() => site.up && gone(site, other.name), "it is told and clean");
      },
      afterwards: async (world, acceptor, dialer) => {
        const [site, other] = side === "acceptor" ? [acceptor, dialer] : [dialer, acceptor];
        // Before its write it does not know, and nobody will tell it (L4): its operator deletes.
        if (site.state(other.name) !== "terminated") {
          assert.notEqual(site.state(other.name), "deleting");
          await world.result(site.host.peerings.delete(other.name));
        }
        await world.until(() => gone(site, other.name), "it is clean");
        const { entries } = await world.result(site.disk.read([]));
        assert.deepEqual(
          entries.filter(({ key }) => key[0] === "imports").map(({ key }) => key),
          [],
        );
      },
    }),
  ),
];

describe("a crash at each write", () => {
  for (const step of steps) {
    for (const fate of ["crash-before", "crash-after", "fail"] as const) {
      it(`${step.name}, ${fate} at the ${step.side} (ch3 cases 77 and 87)`, async () => {
        let commits = 1;
        let hit = true;
        for (let at = 1; hit; at++) {
          assert.ok(at < 40, "a step has an end");
          const world = new World();
          const prepared = await step.prepare(world);
          const { acceptor, dialer } = prepared;
          const site = step.side === "acceptor" ? acceptor : dialer;
          const from = site.commits;
          hit = false;
          site.fate = (commit): CommitFate => {
            if (commit !== from + at) return "succeed";
            hit = true;
            return fate;
          };
          await outcome(world, site, step.work(world, prepared));
          if (!site.up) await site.start();
          site.fate = () => "succeed";
          try {
            await step.afterwards(world, acceptor, dialer);
          } catch (error) {
            throw new Error(`${fate} at write ${at}: ${errorText(error)}`, { cause: error });
          }
          commits = at;
        }
        assert.ok(commits > 1, "there was a write to be hit");
      });
    }
  }
});

/** Waits until the work is over, either way, or its process is gone. */
async function outcome(world: World, site: Site, work: Promise<unknown>): Promise<void> {
  let over = false;
  work.then(
    () => {
      over = true;
    },
    () => {
      over = true;
    },
  );
  await world.until(() => over || !site.up, "the work is over");
}
