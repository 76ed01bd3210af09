import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TRANSIT_PATH_KEY } from "../../../src/config/transit.js";
import { peer, register, type Site, World } from "../../support/world.js";

const NAMES = ["a", "b", "c", "d"] as const;
type Name = (typeof NAMES)[number];
const PAIRS = NAMES.flatMap((from) => NAMES.flatMap((to) => (from < to ? [[from, to] as const] : [])));

/** Who is peered, and for each host the ways through it, in the order of its rules. */
const topologies = fc.record({
  pairs: fc.subarray(PAIRS, { minLength: 3 }),
  orders: fc.array(fc.shuffledSubarray(PAIRS.flatMap(([from, to]) => [`${from}${to}`, `${to}${from}`])), {
    minLength: NAMES.length,
    maxLength: NAMES.length,
  }),
});

test("whatever the peerings and the rules: hosts come to rest, nothing comes back, and a removed service is gone everywhere", async () => {
  let carried = 0;
  await fc.assert(
    fc.asyncProperty(topologies, async ({ pairs, orders }) => {
      const world = new World();
      const sites = new Map<Name, Site>();
      const neighbours = (name: Name): readonly Name[] =>
        pairs.flatMap(([one, other]) => (one === name ? [other] : other === name ? [one] : []));
      for (const [index, name] of NAMES.entries()) {
        const transit = (orders[index] ?? []).flatMap((way) => {
          const [from = "", to = ""] = way;
          const near: readonly string[] = neighbours(name);
          return near.includes(from) && near.includes(to) ? [{ from, to, services: ["*"] }] : [];
        });
        sites.set(name, await world.site(name, { transit }));
      }
      const site = (name: Name): Site => sites.get(name) ?? assert.fail(name);
      for (const [acceptor, dialer] of pairs) await peer(world, site(acceptor), site(dialer));
      // The same name from two sides, and one of each host's own.
      for (const name of NAMES) {
        await world.result(register(site(name).host, `of-${name}`));
        if (name === "a" || name === "d") await world.result(register(site(name).host, "shared"));
        const consumers = neighbours(name).map((one) => ({ peer: one }));
        if (consumers.length > 0) {
          const services = [`of-${name}`, ...(name === "a" || name === "d" ? ["shared"] : [])];
          const entry = { services: services.map((one) => ({ name: one, consumers })) };
          await world.result(site(name).host.exports.set(entry));
        }
      }
      await rest(world);
      for (const name of NAMES) {
        for (const from of neighbours(name)) {
          for (const service of Object.keys(site(name).imported(from))) {
            const found = await world.result(site(name).host.imports.instances({ peer: from, service }));
            assert.equal(found.length, 1);
            const text = found[0]?.service.meta[TRANSIT_PATH_KEY];
            if (text === undefined) continue;
            carried++;
            const path = text.split(" ");
            assert.equal(new Set(path).size, path.length, `a simple way: ${text}`);
            assert.ok(!path.includes(site(name).host.trustDomain), "nothing comes back");
            assert.equal(path.at(-1), site(from).host.trustDomain);
          }
        }
      }
      for (const name of NAMES) await world.result(site(name).host.exports.delete());
      await rest(world);
      for (const name of NAMES) for (const from of neighbours(name)) assert.deepEqual(site(name).imported(from), {});
    }),
    { numRuns: 15, seed: 20_261_122 },
  );
  assert.ok(carried > 50, `${carried} services were carried over`);
});

/** Waits until no resource was sent for 10 s. */
async function rest(world: World): Promise<void> {
  const talk = (): number => world.sent.filter(({ message }) => message.type === "response").length;
  for (let round = 0; round < 12; round++) {
    const before = talk();
    await world.pass(10_000);
    if (talk() === before) return;
  }
  assert.fail("they do not come to rest");
}
