import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ChangeFeed, type Cursor } from "../../../src/base/change-feed.js";
import { doAll } from "../../../src/base/steps.js";

interface Follower {
  readonly cursor: Cursor;
  /** How every key was when it looked last. */
  seen: ReadonlyMap<string, number>;
}

describe("a feed of changes", () => {
  const key = fc.constantFrom("a", "b", "c", "d");
  const who = fc.nat(4);
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ type: fc.constant("change" as const), key }) },
    { weight: 3, arbitrary: fc.record({ type: fc.constant("look" as const), who }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("join" as const), who }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("leave" as const), who }) },
  );

  it("tells each follower what has changed since it looked last, and knows how everything was then", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const feed = new ChangeFeed<number>();
        const now = new Map<string, number>(["a", "b", "c", "d"].map((name) => [name, 0]));
        const followers = new Map<number, Follower>();
        let version = 0;
        const look = (follower: Follower): void => {
          const untold = doAll(feed.catchUp(follower.cursor));
          const expected = [...now].filter(([name, value]) => follower.seen.get(name) !== value);
          assert.deepEqual(
            new Map(untold.map(({ key, before }) => [key, before])),
            new Map(expected.map(([name]) => [name, follower.seen.get(name)])),
          );
          follower.seen = new Map(now);
        };
        for (const each of steps) {
          if (each.type === "change") {
            const known = [...followers.values()].some(({ seen }) => seen.get(each.key) === now.get(each.key));
            assert.equal(feed.isKnown(each.key), known);
            feed.changed(each.key, known ? (now.get(each.key) ?? -1) : Number.NaN);
            now.set(each.key, ++version);
          } else {
            const follower = followers.get(each.who);
            if (each.type === "join" && follower === undefined) {
              followers.set(each.who, { cursor: feed.join(), seen: new Map(now) });
            } else if (each.type === "leave" && follower !== undefined) {
              feed.leave(follower.cursor);
              followers.delete(each.who);
            } else if (each.type === "look" && follower !== undefined) look(follower);
          }
          let versions = 0;
          for (const name of now.keys()) {
            const past = new Set<number>();
            for (const { cursor, seen } of followers.values()) {
              const value = seen.get(name) ?? -1;
              assert.equal(feed.at(cursor, name)?.version ?? now.get(name), value);
              if (value !== now.get(name)) past.add(value);
            }
            versions += past.size;
          }
          assert.equal(feed.size.versions, versions, "no more is kept than some follower needs");
        }
        assert.equal(feed.followers, followers.size);
        for (const follower of followers.values()) look(follower);
        for (const { cursor } of followers.values()) feed.leave(cursor);
        assert.deepEqual([feed.followers, feed.size], [0, { changes: 0, versions: 0 }]);
      }),
      { numRuns: 2_000 },
    );
  });

  it("keeps one change a key, and one version for all who are at the same moment", () => {
    const feed = new ChangeFeed<number>();
    const cursors = Array.from({ length: 100 }, () => feed.join());
    for (let round = 0; round < 50; round++) for (const name of ["a", "b"]) feed.changed(name, round);
    assert.deepEqual(feed.size, { changes: 2, versions: 2 });
    const [first] = cursors;
    assert.ok(first !== undefined);
    assert.deepEqual(doAll(feed.catchUp(first)), [
      { key: "a", before: 0 },
      { key: "b", before: 0 },
    ]);
    feed.changed("a", 50);
    assert.deepEqual(feed.size, { changes: 2, versions: 3 });
    for (const cursor of cursors) feed.leave(cursor);
    assert.deepEqual(feed.size, { changes: 0, versions: 0 });
  });
});
