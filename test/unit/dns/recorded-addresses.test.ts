import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readGolden } from "../../golden/read.js";
import { answerOf, instance, responderOf, sourceOf } from "./setup.js";

// Which of the addresses of nodes and services Consul 1.21.4 answered with, by their families and tags.

type Node = readonly [name: string, address: string, tagged: Readonly<Record<string, string>>];
type Service = readonly [address: string, tagged: Readonly<Record<string, string>>];
type Answers = Readonly<Record<string, readonly [code: string, answers: readonly string[], beside: readonly string[]]>>;

const [, ...lines] = readGolden("dns-addresses/1.21.4.jsonl").trimEnd().split("\n");
const cases = lines.map((line): readonly [Node, Service | null, Answers] => JSON.parse(line));

describe("the addresses that Consul 1.21.4 answers with", () => {
  for (const peer of ["", "east"]) {
    it(`are those we answer with, ${peer === "" ? "of our own" : "and imported ones alike"}`, async () => {
      for (const [[name, address, taggedAddresses], service, recorded] of cases) {
        const [own = "", tagged = {}] = service ?? [];
        const one = instance({
          node: { name, address, taggedAddresses, datacenter: peer === "" ? "dc1" : "dc9" },
          service: {
            name: "web",
            address: own,
            taggedAddresses: Object.fromEntries(
              Object.entries(tagged).map(([tag, each]) => [tag, { address: each, port: 7 }]),
            ),
          },
        });
        const responder = responderOf(sourceOf({ instances: { [peer]: [one] } }));
        const below = (text: string): string => {
          if (peer === "") return text;
          return text
            .replace(/\.addr\.dc1\.consul/g, ".addr.consul")
            .replace(/\.node\.dc1\.consul/g, `.node.${peer}.peer.consul`)
            .replace(/\bweb\.service\.consul/g, `web.service.${peer}.peer.consul`)
            .replace(new RegExp(`\\b${name}\\.node\\.consul`, "g"), `${name}.node.${peer}.peer.consul`);
        };
        const asked = below(service === null ? `${name}.node.consul` : "web.service.consul");
        for (const [type, [code, answers, beside]] of Object.entries(recorded)) {
          const answer = await answerOf(responder, { name: asked, type });
          assert.deepEqual(
            [answer.code, answer.answers, answer.additionals],
            [code, answers.map(below), beside.map(below)],
            `${JSON.stringify([name, address, taggedAddresses, service])} ${type}`,
          );
        }
      }
    });
  }

  it("are many", () => {
    assert.equal(cases.length, 100);
  });
});
