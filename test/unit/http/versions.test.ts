import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { readGolden } from "../../golden/read.js";

// Answers of the recorded servers of other versions that differ from 1.21.4, case by case, and why ours does not follow
// them. The same cases are replayed against ours as 1.21.4 answered them (recorded.test.ts, imported.test.ts).

interface Difference {
  readonly version: string;
  readonly group: string;
  readonly name: string;
  /** `answer.status: 200 -> 404`, `answer.body.Hash gone`. */
  readonly differs: readonly string[];
}

const differences: readonly Difference[] = readGolden("http/versions.jsonl")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line));

interface Reason {
  readonly why: string;
  readonly versions: readonly string[];
  readonly groups?: readonly string[];
  readonly names?: RegExp;
  /** Each of the differences is one of these; undefined: whatever they are. */
  readonly all?: RegExp;
  /** One of them is. */
  readonly some?: RegExp;
}

const OLD = ["1.13.8", "1.15.4", "1.18.2"];
const OLDER = ["1.13.8", "1.15.4"];
const EVERY = [...OLD, "1.22.0-dev"];

/** The first that fits counts. */
const reasons: readonly Reason[] = [
  { why: "an empty answer has a content type since 1.20", versions: OLD, all: /^answer\.headers\.Content-Type gone$/ },
  {
    why: "a server tells its own version in its metadata, or none before 1.16; a host of ours is no node of its catalog",
    versions: EVERY,
    all: /Meta\.(consul-version|version)/,
  },
  { why: "?sg= is looked at since 1.21", versions: OLD, names: /^sg$/ },
  { why: "the redirect of a path without its slash is a 307 since 1.19", versions: OLD, names: /^no name, no slash$/ },
  {
    why: "?peer= counts on catalog/service and catalog/connect since 1.21.1",
    versions: OLD,
    names: /^catalog (service|connect) /,
    all: /answer\.body has \d+ -> \d+ items/,
  },
  {
    why: "/v1/exported-services exists since 1.17.3",
    versions: OLDER,
    groups: ["exported-services", "acl"],
    some: /answer\.headers\.Vary gone/,
  },
  { why: "entries have a Hash since 1.15.8; ours have none (D-49)", versions: ["1.15.4"], all: /\.Hash gone$/ },
  {
    why: "a consumer may name a sameness group since 1.16, if only to be told that it may not",
    versions: OLDER,
    names: /^(peer and partition|sameness group)$/,
  },
  {
    why: "where a text that is no base64 breaks off depends on how long the recorded token was",
    versions: EVERY,
    names: /^token (URL-safe alphabet|without padding)$/,
    all: /illegal base64 data at input byte/,
  },
  {
    why: "1.22 answers those reads from its streaming backend, which says that no leader is known",
    versions: ["1.22.0-dev"],
    names: /^(cached|blocking at the current index)$/,
  },
  {
    why: "behind the text of a bad parameter Consul goes on with the answer; ours stops there (D-34)",
    versions: ["1.13.8", "1.22.0-dev"],
    names: /^\?(stale&consistent|index=bad|wait=bad)$/,
  },
  {
    why: "how far a deletion, an exchange or a stream had come at the time of the read is chance",
    versions: ["1.15.4", "1.18.2", "1.22.0-dev"],
    groups: ["peering-delete", "peering-establish", "two-names-one-acceptor"],
    some: /State|StreamStatus|answer\.status|->.*marked for deletion/,
  },

  // 1.13, the preview of peering, differs most: ours speaks to it on the wire, and to its clients as 1.21 does.
  {
    why: "texts from behind the RPC have its prefix before 1.15",
    versions: ["1.13.8"],
    some: /-> "rpc error: code = /,
  },
  { why: "the consumer's key is PeerName in 1.13", versions: ["1.13.8"], some: /Consumers?\[|PeerName/ },
  {
    why: "reads of peerings do not wait in 1.13, and show counts where later versions show the stream",
    versions: ["1.13.8"],
    some: /headers\.X-Consul-Knownleader gone|StreamStatus gone/,
  },
  {
    why: "the service consul, and sidecars of services in no mesh, are exported by 1.13",
    versions: ["1.13.8"],
    groups: ["imported", "exported-services"],
    some: /has \d+ -> \d+ items|Total/,
  },
  {
    why: "the consumer's key is PeerName in 1.13",
    versions: ["1.13.8"],
    names: /^the other spelling of the peer key$/,
  },
  { why: "names of peerings may have capitals before 1.14.4", versions: ["1.13.8"], names: /^name "UPPER"$/ },
  {
    why: "how far a deletion had come at the time of the read is chance, and a refused establish leaves other rows",
    versions: ["1.13.8"],
    groups: ["peering-delete", "peering-establish", "two-names-one-acceptor"],
  },
];

function matches(reason: Reason, { version, group, name, differs }: Difference): boolean {
  const { versions, groups, names, all, some } = reason;
  return (
    versions.includes(version) &&
    (groups?.includes(group) ?? true) &&
    (names?.test(name) ?? true) &&
    differs.every((one) => all?.test(one) ?? true) &&
    (some === undefined || differs.some((one) => some.test(one)))
  );
}

describe("answers of other versions of Consul", () => {
  for (const version of EVERY) {
    it(`${version}: each case in which it differs from 1.21.4 has its reason`, () => {
      const unexplained = differences.filter(
        (one) => one.version === version && !reasons.some((reason) => matches(reason, one)),
      );
      assert.deepEqual(unexplained, []);
    });
  }

  it("every reason is one for some case", () => {
    const used = new Set(differences.map((one) => reasons.find((reason) => matches(reason, one))));
    assert.deepEqual(
      reasons.filter((reason) => !used.has(reason)),
      [],
    );
  });

  it("the same cases are replayed as 1.21.4 answered them", () => {
    const replayed = new Map<string, ReadonlySet<string>>();
    const missing = differences.filter(({ group, name }) => {
      let names = replayed.get(group);
      if (names === undefined) {
        assert.ok(existsSync(`test/golden/http/${group}.jsonl`), group);
        const [, ...lines] = readGolden(`http/${group}.jsonl`).trimEnd().split("\n");
        names = new Set(lines.map((line) => String(JSON.parse(line).name)));
        replayed.set(group, names);
      }
      return !names.has(name);
    });
    assert.deepEqual(missing, []);
  });
});
