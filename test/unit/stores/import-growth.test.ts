// Work on imports takes time in proportion to their number, however much is on one node or of one peer.
import { describe, it } from "node:test";
import { memoryStorage } from "../../../src/storage/memory.js";
import { type ImportItem, ImportStore } from "../../../src/stores/import-store.js";
import { assertLinear } from "../../support/growth.js";
import { payload, wireInstance } from "../payload/import-fixtures.js";

const PEER = "11111111-0000-0000-0000-000000000000";

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);

function onNodes(name: string, size: number, port = 80): ImportItem {
  const instances = numbers(size).map((index) =>
    wireInstance(name, { node: `n${index}`, id: `${name}-${index}`, port }),
  );
  return { type: "service", name, value: payload(...instances) };
}

const small = (index: number, port = 80): ImportItem => ({
  type: "service",
  name: `s${index}`,
  value: payload(wireInstance(`s${index}`, { port })),
});
const gone = (name: string): ImportItem => ({ type: "service", name, value: new Uint8Array() });
const list = (of: number): ImportItem => ({ type: "list", names: numbers(of).map((index) => `s${index}`) });

interface Imports {
  readonly store: ImportStore;
  readonly watch: AsyncIterator<unknown>;
  readonly end: AbortController;
}

async function prepare(): Promise<Imports> {
  const store = await ImportStore.open(memoryStorage());
  const end = new AbortController();
  const watch = store.watch({ peeringId: PEER, signal: end.signal })[Symbol.asyncIterator]();
  await watch.next();
  return { store, watch, end };
}

async function dispose({ store, end }: Imports): Promise<void> {
  end.abort();
  await store[Symbol.asyncDispose]();
}

describe("the time of imports grows with their size", () => {
  it("in two services on the same nodes", () => {
    // Encoded beforehand: that is the work of the peer.
    const encoded = new Map<string, ImportItem>();
    const item = (name: string, of: number, port = 80): ImportItem => {
      const key = `${name} ${of} ${port}`;
      const known = encoded.get(key) ?? onNodes(name, of, port);
      encoded.set(key, known);
      return known;
    };
    return assertLinear<Imports>({
      size: 500,
      prepare: async (of) => {
        for (const name of ["web", "db"]) for (const port of [80, 81]) item(name, of, port);
        return prepare();
      },
      dispose,
      steps: {
        apply: ({ store }, of) => store.apply(PEER, [item("web", of), item("db", of)]),
        "watch what came": ({ watch }) => watch.next(),
        "read the nodes": ({ store }) => store.nodes(PEER),
        change: ({ store }, of) => store.apply(PEER, [item("web", of, 81)]),
        "withdraw one": ({ store }) => store.apply(PEER, [gone("db")]),
        "read the other": ({ store }) => store.instances(PEER, "web"),
        "read the nodes of the other": ({ store }) => store.nodes(PEER),
        "bring it back": ({ store }, of) => store.apply(PEER, [item("db", of, 81)]),
        "delete the peer": ({ store }) => store.removePeer(PEER),
      },
    });
  });

  it("in services on one node", () =>
    assertLinear<Imports>({
      size: 1_000,
      prepare,
      dispose,
      steps: {
        apply: ({ store }, of) =>
          store.apply(
            PEER,
            numbers(of).map((index) => small(index)),
          ),
        "watch what came": async ({ watch }, of) => {
          for (const _ of numbers(of)) await watch.next();
        },
        "change one by one": async ({ store }, of) => {
          for (const index of numbers(of)) await store.apply(PEER, [small(index, 81)]);
        },
        "read one by one": async ({ store }, of) => {
          for (const index of numbers(of)) await store.instances(PEER, `s${index}`);
        },
        "read the node": ({ store }) => store.node(PEER, "n1"),
        "the same list": ({ store }, of) => store.apply(PEER, [list(of)]),
        "withdraw by a list": ({ store }, of) => store.apply(PEER, [list(of / 2)]),
        "withdraw one by one": async ({ store }, of) => {
          for (const index of numbers(of / 2)) await store.apply(PEER, [gone(`s${index}`)]);
        },
      },
    }));
});
