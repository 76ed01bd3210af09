import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { readGolden } from "../../golden/read.js";
import { query, readAnswer } from "./client.js";
import { instance, originOf, responderOf, sourceOf } from "./setup.js";

// How many records Consul 1.21.4, with `enable_truncate`, sent of services with 1 to 2,000 instances. The name of each of these
// services and of its nodes is as long as in the recording, on which it depends how much fits.

type Case = readonly [
  service: string,
  instances: number,
  type: string,
  transport: string,
  answers: number,
  additionals: number,
  truncated: boolean,
];

const padded = (index: number): string => String(index).padStart(4, "0");
const low = (index: number): string => `${index >> 8}.${index & 255}`;

const SETUPS: Readonly<Record<string, (index: number) => ServiceInstance>> = {
  web: (index) =>
    instance({ node: { name: `n${padded(index)}`, address: `10.1.${low(index)}` }, service: { name: "web" } }),
  /** Of nodes that have metadata. */
  met: (index) =>
    instance({
      node: { name: `m${padded(index)}`, address: `10.2.${low(index)}`, meta: { rack: "r1", zone: "eu-west-1a" } },
      service: { name: "met" },
    }),
  /** At addresses of their own. */
  own: (index) =>
    instance({
      node: { name: "shared", address: "10.3.0.1" },
      service: { id: `own${index}`, name: "own", address: `10.4.${low(index)}` },
    }),
  six: (index) =>
    instance({
      node: { name: `x${padded(index)}`, address: `fd00::${(index + 4_096).toString(16)}` },
      service: { name: "six" },
    }),
};

/** Consul drops an answer where it would have been enough to drop metadata. */
const FEWER_IN_CONSUL = "met 12 SRV 1232";

describe("as many records as Consul 1.21.4 sends", () => {
  const [, ...lines] = readGolden("dns-sizes/1.21.4.jsonl").trimEnd().split("\n");
  const cases = lines.map((line): Case => JSON.parse(line));
  for (const count of [...new Set(cases.map(([, instances]) => instances))]) {
    it(`of a service with ${count} instances`, async () => {
      const instances = Object.values(SETUPS).flatMap((make) =>
        Array.from({ length: count }, (_, index) => make(index + 1)),
      );
      const web = instances.filter(({ service }) => service.name === "web");
      const responder = responderOf(
        sourceOf({
          instances: { "": instances },
          queries: { q: { service: "web", peer: "", instances: web, ttl: undefined } },
        }),
        { enableTruncate: true, maxUdpBytes: 65_467 },
      );
      const ofCount = cases.filter(([, recorded]) => recorded === count);
      assert.equal(ofCount.length, 110);
      for (const [service, , type, transport, answers, additionals, truncated] of ofCount) {
        const name = service === "q" ? "q.query.consul" : `${service}.service.consul`;
        const edns = /^\d+$/.test(transport) ? Number(transport) : undefined;
        const packet = query({ name, type, ...(edns !== undefined && { edns }) });
        const reply = await responder.respond(packet, originOf(transport === "tcp" ? "tcp" : "udp"));
        assert.ok(reply !== undefined);
        const answer = readAnswer(reply);
        const beside = answer.additionals.filter((record) => !record.includes(" OPT "));
        const what = `${service} ${count} ${type} ${transport}`;
        const got = [answer.answers.length, beside.length, answer.flags.includes("tc")];
        assert.deepEqual(got, what === FEWER_IN_CONSUL ? [12, 12, false] : [answers, additionals, truncated], what);
      }
    });
  }
});
