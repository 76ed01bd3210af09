import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { apiEntry, apiValue, entryTypes } from "../../support/api-values.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";
import { missing } from "../../support/missing.js";

function withoutIndexes(entry: object): object {
  return Object.fromEntries(Object.entries(entry).filter(([key]) => key !== "CreateIndex" && key !== "ModifyIndex"));
}

function nameOf(entry: object): string {
  return "Name" in entry ? String(entry.Name) : "mesh";
}

async function written(served: ServedHost, entry: object): Promise<object | undefined> {
  const { Kind = "" } = Object.fromEntries(Object.entries(entry));
  const answer = await served.ask("PUT", "/v1/config", { body: JSON.stringify(entry) });
  if (answer.status !== 200) return undefined;
  assert.equal(answer.text, "true");
  const read = await served.ask("GET", `/v1/config/${Kind}/${nameOf(entry)}`);
  assert.equal(read.status, 200, read.text);
  return JSON.parse(read.text);
}

const VALUES = 30;

describe("entries that Consul's own Go client can express", { timeout: 120_000 }, () => {
  for (const kind of Object.keys(entryTypes)) {
    it(`of ${kind} comes back, and is the same when it is written again`, async () => {
      await using pair = await HttpPair.start();
      await written(pair.a, { Kind: "proxy-defaults", Name: "global", Config: { protocol: "http" } });
      let taken = 0;
      await fc.assert(
        fc.asyncProperty(apiEntry(kind), async (entry) => {
          const shown = await written(pair.a, entry);
          if (shown === undefined) return;
          taken++;
          assert.equal(missing(sortedSources(entry), sortedSources(shown), kind), undefined, JSON.stringify(shown));
          const again = await written(pair.a, shown);
          assert.ok(again);
          assert.deepEqual(withoutIndexes(again), withoutIndexes(shown));
          const path = `/v1/config/${kind}/${nameOf(entry)}`;
          if (kind.endsWith("-gateway")) await pair.a.ask("DELETE", path);
        }),
        { numRuns: VALUES },
      );
      assert.ok(taken > VALUES / 5, `only ${taken} of ${VALUES} were taken`);
    });
  }
});

describe("registrations that Consul's own Go client can express", { timeout: 120_000 }, () => {
  it("comes back from the catalog", async () => {
    await using pair = await HttpPair.start();
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(apiValue("CatalogRegistration"), async (registration) => {
        const answer = await pair.a.ask("PUT", "/v1/catalog/register", { body: JSON.stringify(registration) });
        if (answer.status !== 200) return;
        taken++;
        const read = await pair.a.ask("GET", "/v1/internal/ui/node/node");
        const { Services: [service] = [], Checks: checks, ...node } = JSON.parse(read.text);
        const { Service: given, Checks: givenChecks, NodeMeta: Meta, Locality: _, ...rest } = registration;
        assert.equal(missing({ ...rest, Meta }, node, "node"), undefined);
        const of = given === null || given === undefined ? undefined : await pair.a.ask("GET", `/v1/catalog/node/node`);
        if (of !== undefined) {
          const [shown] = Object.values<object>(JSON.parse(of.text).Services);
          assert.equal(missing(given, shown, "service"), undefined, JSON.stringify(shown));
          assert.ok(service);
        }
        const byId = (list: unknown): unknown =>
          Object.fromEntries((Array.isArray(list) ? list : []).map((check) => [check.CheckID, check]));
        assert.equal(missing(byId(givenChecks), byId(checks), "checks"), undefined, JSON.stringify(checks));
        await pair.a.ask("PUT", "/v1/catalog/deregister", { body: JSON.stringify({ Node: "node" }) });
      }),
      { numRuns: 60 },
    );
    assert.ok(taken > 15, `only ${taken} of 60 were taken`);
  });

  it("comes back from the agent, and from the catalog", async () => {
    await using pair = await HttpPair.start();
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(apiValue("AgentServiceRegistration"), async (made) => {
        const { Name, Proxy: proxy, ...fields } = made;
        const rest = { ...fields, ID: "id" };
        const given = { ...rest, Proxy: proxy };
        const body = JSON.stringify({ Name, ...given });
        const answer = await pair.a.ask("PUT", "/v1/agent/service/register", { body });
        if (answer.status !== 200) return;
        taken++;
        const own = JSON.parse((await pair.a.ask("GET", "/v1/agent/service/id")).text);
        // Of an ordinary service an agent shows no proxy; the catalog does.
        assert.equal(missing(rest, own, "service"), undefined, JSON.stringify(own));
        // An agent tells of extensions those that config entries give, as Consul's does; the catalog keeps what it was given.
        const { EnvoyExtensions: _, ...shown } = Object(proxy);
        if (own.Kind === "connect-proxy") assert.equal(missing(shown, own.Proxy, "proxy"), undefined);
        const [instance] = JSON.parse((await pair.a.ask("GET", `/v1/health/service/${Name}`)).text);
        assert.equal(missing(given, instance.Service, "instance"), undefined, JSON.stringify(instance));
        await pair.a.ask("PUT", "/v1/agent/service/deregister/id");
      }),
      { numRuns: 60 },
    );
    assert.ok(taken > 15, `only ${taken} of 60 were taken`);
  });
});

/** Sources are in the order of their precedence when they come back. */
function sortedSources(entry: object): object {
  if (!("Sources" in entry) || !Array.isArray(entry.Sources)) return entry;
  const id = ({ Peer = "", Name }: { Peer?: string; Name: string }): string => `${Peer}/${Name}`;
  return { ...entry, Sources: [...entry.Sources].sort((left, right) => (id(left) < id(right) ? -1 : 1)) };
}
