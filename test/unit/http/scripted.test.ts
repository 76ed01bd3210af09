// Scripted requests, answered as Consul 1.21.4 answered them; recorded by tools/record-scripted.ts.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { secretFor, tokensFor } from "../../support/acl.js";
import { HttpPair } from "../../support/http-pair.js";
import { type RecordedRequest, recorded, type ScriptedAnswer, ScriptRun } from "../../support/scripted.js";
import { scripts } from "../../support/scripts.js";

const MANAGEMENT = `service_prefix "" { policy = "write" intentions = "write" }
node_prefix "" { policy = "write" }
operator = "write"
mesh = "write"`;

/** The intended differences, and why. */
interface Deviation {
  readonly why: string;
  readonly answer: Partial<ScriptedAnswer>;
}

const OTHER_NAMESPACE = "Consul passes over the namespace or partition, and writes what nobody asked for";
const OTHER_CLUSTER = "Consul takes a source of a peer for the local one of its name";
const refused = (body: string): Partial<ScriptedAnswer> => ({ status: 500, contentType: "text/plain", body });
const done: Partial<ScriptedAnswer> = { status: 200, contentType: "application/json", body: true };
const NAMESPACES = "Namespaces is a Consul Enterprise feature";

const ONE_WITHOUT_ID = "Consul shows one intention without an id, whichever it finds first, and leaves out all others";
const intention = (
  SourceName: string,
  DestinationName: string,
  Action: string,
  Precedence: number,
  more = {},
): object => ({
  ...{ SourceNS: "default", SourceName, DestinationNS: "default", DestinationName, SourceType: "consul", Action },
  ...{ Precedence, CreateIndex: "<index>", ModifyIndex: "<index>", ...more },
});
const webToDb = intention("web", "db", "allow", 9);
const oneToGone = intention("one", "gone", "deny", 9, { ID: "{first}", CreatedAt: "<time>", UpdatedAt: "<time>" });
const allToAll = intention("*", "*", "deny", 5);

const deviations: Readonly<Record<string, Deviation>> = {
  "intentions of exit with intentions": { why: ONE_WITHOUT_ID, answer: { body: [webToDb, oneToGone, allToAll] } },
  "intentions of Exit in capitals": { why: ONE_WITHOUT_ID, answer: { body: [webToDb, oneToGone, allToAll] } },
  "intentions of enter for two listeners": { why: ONE_WITHOUT_ID, answer: { body: [webToDb, allToAll] } },
  "/v1/config/service-defaults of which Destination.Addresses matches `1`, of none": {
    why: "Patterns are looked for in the texts of a list, too",
    answer: { status: 200, contentType: "application/json", body: [] },
  },
  "exact PUT from web to two": { why: OTHER_CLUSTER, answer: done },
  "exact PUT from team/web to elsewhere": {
    why: OTHER_NAMESPACE,
    answer: refused(`Invalid SourceNS "team": ${NAMESPACES}`),
  },
  "exact PUT from web to team/elsewhere": {
    why: OTHER_NAMESPACE,
    answer: refused(`Invalid DestinationNS "team": ${NAMESPACES}`),
  },
  "exact PUT from team/default/web to elsewhere": {
    why: OTHER_NAMESPACE,
    answer: refused('Invalid SourcePartition "team": Partitions is a Consul Enterprise feature'),
  },
  "exact DELETE from team/web to elsewhere": {
    why: OTHER_NAMESPACE,
    answer: refused(`Invalid SourceNS "team": ${NAMESPACES}`),
  },
  "the entry of two": {
    why: OTHER_CLUSTER,
    answer: {
      status: 200,
      contentType: "application/json",
      body: {
        Kind: "service-intentions",
        Name: "two",
        Sources: [{ Name: "web", Action: "allow", Precedence: 9, Type: "consul", Peer: "west" }],
        CreateIndex: "<index>",
        ModifyIndex: "<index>",
      },
    },
  },
};

/** Ours tells an index with every read, so that a client can wait for the next, and none with a refusal. */
function expected({ about, answer }: RecordedRequest, own: ScriptedAnswer): ScriptedAnswer {
  const { headers, ...rest } = { ...answer, ...deviations[about]?.answer };
  const wanted = new Set(rest.status === 200 ? headers : []);
  if (own.headers.includes("x-consul-index")) wanted.add("x-consul-index");
  return { ...rest, headers: own.headers.filter((name) => wanted.delete(name)).concat(...wanted) };
}

for (const script of scripts) {
  describe(`requests of ${script.name}`, () => {
    const requests = recorded(script.name);

    it("are all recorded", () => {
      assert.deepEqual(
        requests.map(({ answer: _, ...request }) => request),
        JSON.parse(JSON.stringify(script.requests)),
      );
    });

    it("are answered as by Consul 1.21.4", async () => {
      const rules = requests.flatMap((request) => request.rules ?? MANAGEMENT).filter((each) => each !== "");
      const options = script.rights ? { authorizer: tokensFor(rules) } : {};
      await using pair = await HttpPair.start(1, options);
      const run = new ScriptRun(`http://127.0.0.1:${pair.a.port}`, (given = MANAGEMENT) =>
        given === "" || !script.rights ? "" : secretFor(given),
      );
      const wrong: unknown[] = [];
      for (const request of requests) {
        const answer = await run.send(request);
        try {
          assert.deepEqual(answer, expected(request, answer), `${request.about} (${request.method} ${request.path})`);
        } catch (error) {
          wrong.push(error);
        }
      }
      if (wrong.length > 0) throw new AggregateError(wrong, `${wrong.length} answers differ: ${wrong.join("\n")}`);
    });
  });
}
