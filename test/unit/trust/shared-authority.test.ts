import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Snapshot, Storage } from "../../../src/storage/storage.js";
import { certificatesIn } from "../../../src/token/pem.js";
import type { IssuedCertificate } from "../../../src/trust/authority.js";
import { type BuiltInAuthority, builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { eventually } from "../../support/hosts.js";
import { storageWith } from "../../support/storage.js";
import { fieldsOf } from "./go-verifier.js";
import { ManualClock } from "./support.js";

const START = Date.UTC(2026, 0, 1);

interface Node extends AsyncDisposable {
  readonly authority: BuiltInAuthority;
  readonly incidents: Incidents;
  /** Entries that it wrote, by the last part of their keys, one list a commit. */
  readonly commits: (readonly string[])[];
  /** Runs before its next commit. */
  before: (() => Promise<unknown>) | undefined;
}

async function node(shared: Storage): Promise<Node> {
  const commits: (readonly string[])[] = [];
  const clock = new ManualClock(START);
  const incidents = new Incidents({ clock });
  const storage = storageWith(shared, {
    async commit(...given) {
      commits.push(given[0].map(({ key }) => key.at(-1) ?? ""));
      const { before } = opened;
      opened.before = undefined;
      await before?.();
      return shared.commit(...given);
    },
  });
  const opened: { before: Node["before"] } = { before: undefined };
  const authority = await builtInAuthority({ storage, clock, incidents });
  return Object.assign(opened, {
    authority,
    incidents,
    commits,
    [Symbol.asyncDispose]: () => authority[Symbol.asyncDispose](),
  });
}

function serialOf({ certificateChainPem }: IssuedCertificate): bigint {
  const [leaf] = certificatesIn(certificateChainPem);
  assert.ok(leaf !== undefined);
  return fieldsOf(leaf.pem).serialNumber;
}

async function replaced(storage: Storage, row: string, change: (text: string) => string): Promise<Uint8Array> {
  const { entries } = await storage.read(["ca", row]);
  const [entry] = entries;
  assert.ok(entry !== undefined);
  await write(storage, row, Buffer.from(change(Buffer.from(entry.value).toString())));
  return entry.value;
}

/** As another node writes it. */
async function write(storage: Storage, row: string, value: Uint8Array | undefined): Promise<void> {
  await storage.commit([
    { key: ["ca", row], value },
    { key: ["ca", "head"], value: new Uint8Array() },
  ]);
}

describe("nodes that share an authority", () => {
  it("give no serial number twice, and seldom wait for one another", async () => {
    const storage = memoryStorage();
    await using first = await node(storage);
    await using second = await node(storage);
    for (const { commits } of [first, second]) commits.length = 0;
    const leafs: IssuedCertificate[] = [];
    for (let round = 0; round < 20; round++) {
      leafs.push(...(await Promise.all([first, second].map(({ authority }) => authority.issueServer("dc1")))));
    }
    await first.authority.rotate();
    leafs.push(await second.authority.issueServer("dc1"));
    const roots = first.authority.roots().map(({ certificatePem }) => fieldsOf(certificatePem).serialNumber);
    const serials = [...leafs.map(serialOf), ...roots];
    assert.equal(new Set(serials).size, serials.length);
    // Twenty certificates each, and at most one attempt that came too late.
    assert.ok(second.commits.length <= 2, `${second.commits.length} commits`);
  });

  it("give none twice over a restart and a storage that does not answer", async () => {
    const shared = memoryStorage();
    let lose = false;
    const storage = storageWith(shared, {
      async commit(...given) {
        const revision = await shared.commit(...given);
        if (lose) throw new Error("no answer");
        return revision;
      },
    });
    const serials: bigint[] = [];
    for (let life = 0; life < 3; life++) {
      await using at = await node(storage);
      lose = true;
      await assert.rejects(at.authority.issueServer("dc1"));
      lose = false;
      for (let count = 0; count < 70; count++) serials.push(serialOf(await at.authority.issueServer("dc1")));
    }
    assert.equal(new Set(serials).size, 210);
  });

  it("follow a rotation: the other signs with the new root, and signs the next one with it", async () => {
    const storage = memoryStorage();
    await using leader = await node(storage);
    await using other = await node(storage);
    assert.deepEqual(other.authority.roots(), leader.authority.roots());
    const rotated = await leader.authority.rotate();
    await eventually(() => other.authority.roots().length === 2, "the rotation is followed");
    assert.deepEqual(other.authority.roots(), leader.authority.roots());
    assert.equal((await other.authority.issueServer("dc1")).rootId, rotated.id);

    const next = await other.authority.rotate();
    assert.equal(next.intermediatePems?.length, 2);
    await eventually(() => leader.authority.roots().length === 3, "that one is followed, too");
    assert.equal((await leader.authority.issueServer("dc1")).rootId, next.id);
    assert.deepEqual(leader.authority.configuration(), other.authority.configuration());
  });

  it("refuse a rotation where another one is faster, and take a serial number all the same", async () => {
    const storage = memoryStorage();
    await using mine = await node(storage);
    await using other = await node(storage);
    mine.before = () => other.authority.rotate();
    await assert.rejects(mine.authority.rotate(), { code: "conflict", message: /changed by another node/ });
    const [, active] = other.authority.roots();
    assert.deepEqual(mine.authority.roots(), other.authority.roots());
    mine.before = () => other.authority.prune();
    assert.equal((await mine.authority.issueServer("dc1")).rootId, active?.id);
  });

  it("judge a configuration by the newest one, also before they have followed it", async () => {
    const storage = memoryStorage();
    // Until it asks by itself, it is told nothing of the other one.
    let follows = false;
    const deaf = storageWith(storage, {
      async *changes(...given) {
        if (follows) yield* storage.changes(...given);
      },
    });
    await using mine = await node(deaf);
    await using other = await node(storage);
    const hour = { LeafCertTTL: "1h" };
    await other.authority.configure({ config: hour });
    const { modifyIndex } = other.authority.configuration();
    assert.notEqual(mine.authority.configuration().modifyIndex, modifyIndex);
    follows = true;
    // By the one that it knows, this would change nothing.
    await mine.authority.configure({ config: { LeafCertTTL: "72h" }, modifyIndex });
    await eventually(() => other.authority.configuration().config["LeafCertTTL"] === "72h", "it is taken over");
  });
});

describe("a row that another node wrote and that cannot be read", () => {
  it("is not written over by the state before it", async () => {
    const storage = memoryStorage();
    await using at = await node(storage);
    const before = at.authority.roots();
    const text = await replaced(storage, "state", (state) => state.replace('"version":1', '"version":2'));
    await eventually(() => at.incidents.counts().get("stored-row-damaged") === 1, "it is reported");
    const named = {
      code: "storage-failed",
      message: "stored part of the certificate authority ca/state is damaged: it has another version",
      remedy: "Start the version of Peerage that wrote it, or a later one.",
    };
    for (const attempt of [
      () => at.authority.rotate(),
      () => at.authority.prune(),
      () => at.authority.configure({ config: { LeafCertTTL: "1h" } }),
    ]) {
      await assert.rejects(attempt, named);
    }
    // The roots that are known go on: they are trusted for twice the life of a leaf.
    assert.deepEqual(at.authority.roots(), before);
    await at.authority.issueServer("dc1");
    await write(storage, "state", text);
    await eventually(
      () =>
        at.authority.prune().then(
          () => true,
          () => false,
        ),
      "it can be written again",
    );
  });

  it("has no serial number given by the row before it", async () => {
    const storage = memoryStorage();
    await using at = await node(storage);
    await replaced(storage, "serial", () => "x");
    await eventually(() => at.incidents.counts().get("stored-row-damaged") === 1, "it is reported");
    for (const attempt of [() => at.authority.issueServer("dc1"), () => at.authority.rotate()]) {
      await assert.rejects(attempt, {
        code: "storage-failed",
        message: "stored part of the certificate authority ca/serial is damaged: the serial number is not one",
      });
    }
  });

  it("is no authority of another cluster that takes the place of ours", async () => {
    const storage = memoryStorage();
    await using at = await node(storage);
    const before = at.authority.roots();
    const other = "aaaaaaaa-2222-3333-4444-555555555555";
    await replaced(storage, "state", (state) => state.replace(at.authority.clusterId, other));
    await eventually(() => at.incidents.counts().get("stored-row-damaged") === 1, "it is reported");
    await assert.rejects(at.authority.rotate(), { message: /ca\/state is damaged: its cluster id has changed$/ });
    assert.deepEqual(at.authority.roots(), before);
  });
});

describe("the stored authority", () => {
  it("is signed with no more once it was deleted", async () => {
    const storage = memoryStorage();
    await using at = await node(storage);
    await write(storage, "state", undefined);
    // To take a serial number it has to know what others wrote.
    await assert.rejects(at.authority.issueServer("dc1"), {
      code: "storage-failed",
      message: "stored part of the certificate authority ca/state is damaged: it is missing",
    });
  });

  it("is sealed with the newest key when it is opened, and by each write", async () => {
    const [former, newest] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
    const storage = memoryStorage();
    const sealedKey = async (): Promise<Buffer> => {
      const [entry] = (await storage.read(["ca", "state"])).entries;
      return Buffer.from(/"sealedKey":"([^"]+)"/.exec(Buffer.from(entry?.value ?? []).toString())?.[1] ?? "", "base64");
    };
    const [before, both] = [sealedSecretBox(former), sealedSecretBox([newest, former])];
    {
      await using _ = await builtInAuthority({ storage, secretBox: before });
      assert.ok(before.isCurrent(await sealedKey()));
    }
    await using after = await builtInAuthority({ storage, secretBox: both });
    assert.ok(both.isCurrent(await sealedKey()));
    // A node that has not got the newest key yet.
    const text = await sealedKey();
    const back = Buffer.from(before.seal(both.open(text))).toString("base64");
    await replaced(storage, "state", (state) => state.replace(text.toString("base64"), back));
    assert.ok(!both.isCurrent(await sealedKey()));
    await after.configure({ config: { LeafCertTTL: "1h" } });
    assert.ok(both.isCurrent(await sealedKey()));
    await after.issueServer("dc1");
    await assert.rejects(builtInAuthority({ storage, secretBox: before }), { code: "invalid-argument" });
  });

  it("of an early version, which had no head, is taken over as it is", async () => {
    const storage = memoryStorage();
    const { trustDomain, roots } = await (async () => {
      await using at = await node(storage);
      return { trustDomain: at.authority.trustDomain, roots: at.authority.roots() };
    })();
    await storage.commit([{ key: ["ca", "head"], value: undefined }]);
    await using first = await node(storage);
    await using second = await node(storage);
    assert.deepEqual([first.authority.trustDomain, first.authority.roots()], [trustDomain, roots]);
    const serials = await Promise.all(
      [first, second].map(async ({ authority }) => serialOf(await authority.issueServer("dc1"))),
    );
    assert.equal(new Set(serials).size, 2);
  });

  it("is whole after a loss of power at any moment, and gives no number twice", async () => {
    const shared = memoryStorage();
    let durable: Snapshot = await shared.read([]);
    const moments: { readonly durable: Snapshot; readonly given: readonly bigint[]; readonly roots: number }[] = [];
    const given: bigint[] = [];
    let roots = 0;
    const look = (): void => {
      moments.push({ durable, given: [...given], roots });
    };
    const storage = storageWith(shared, {
      async commit(writes, expect, options) {
        look();
        const revision = await shared.commit(writes, expect, options);
        if (options?.durability !== "relaxed") durable = await shared.read([]);
        look();
        return revision;
      },
    });
    await using at = await node(storage);
    for (let round = 0; round < 3; round++) {
      roots = at.authority.roots().length;
      for (const { certificatePem } of at.authority.roots()) given.push(fieldsOf(certificatePem).serialNumber);
      given.push(serialOf(await at.authority.issueServer("dc1")));
      look();
      await at.authority.rotate();
    }
    for (const before of moments) {
      await using again = await node(memoryStorage({ from: before.durable }));
      assert.ok(again.authority.roots().length >= before.roots, "no root is lost that was told");
      if (before.roots === 0) continue;
      assert.ok(!before.given.includes(serialOf(await again.authority.issueServer("dc1"))));
    }
    assert.ok(moments.length >= 12, `${moments.length} moments`);
  });
});
