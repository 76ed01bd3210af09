// Two peered hosts: why a connection between them works or does not, as each of them explains it, and what a dial then does.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { explainConnection, type MeshListener, meshDial, meshListener } from "../../src/mesh/index.js";
import { intend, type MeshPair, meshPair } from "../support/mesh.js";

describe("a connection between two hosts, explained", () => {
  let pair: MeshPair;
  let listener: MeshListener;
  before(async () => {
    pair = await meshPair();
    listener = await meshListener(pair.exporter.host, {
      service: "web",
      listen: "127.0.0.1:0",
      onConnection: (connection) => connection.end("hello"),
    });
  });
  after(async () => {
    await listener.close();
    await pair[Symbol.asyncDispose]();
  });

  const outside = () =>
    explainConnection(pair.importer.host, { source: "client", destination: "web", peer: pair.exporter.name });
  const inside = () =>
    explainConnection(pair.exporter.host, { source: "client", destination: "web", sourcePeer: pair.importer.name });
  const dialed = async (): Promise<string> => {
    const connection = await meshDial(pair.importer.host, { service: "web", peer: pair.exporter.name, as: "client" });
    let text = "";
    for await (const chunk of connection) text += String(chunk);
    return text;
  };

  it("fails at the first part that is missing, until there is none, as a dial does", async () => {
    assert.equal((await outside()).failed?.part, "import");
    assert.equal((await inside()).failed?.part, "export");
    await assert.rejects(dialed(), { code: "not-found" });
    await pair.offer("web", listener.address);
    const { failed, steps } = await outside();
    assert.equal(failed, undefined);
    assert.equal(steps.at(-1)?.result, "unknown");
    assert.equal((await inside()).failed?.part, "intention");
    assert.match((await inside()).hints.join(), /no intention lets any service of/);
    await assert.rejects(dialed(), /perhaps it is denied by an intention/);
    await intend(pair.exporter.host, "web", [{ name: "client", peer: pair.importer.name, action: "allow" }]);
    assert.equal((await inside()).failed, undefined);
    assert.deepEqual((await inside()).hints, []);
    assert.equal(await dialed(), "hello");
  });

  it("knows a peering in other capitals, and no other one", async () => {
    const peer = pair.exporter.name.toUpperCase();
    assert.equal(
      (await explainConnection(pair.importer.host, { source: "client", destination: "web", peer })).failed,
      undefined,
    );
    const none = await explainConnection(pair.importer.host, { source: "client", destination: "web", peer: "nobody" });
    assert.equal(none.failed?.part, "peering");
    const caller = await explainConnection(pair.exporter.host, {
      source: "a",
      destination: "web",
      sourcePeer: "nobody",
    });
    assert.equal(caller.failed?.part, "peering");
  });

  it("refuses questions that have no answer", async () => {
    const { host } = pair.importer;
    for (const question of [
      { source: "", destination: "web" },
      { source: "client", destination: "" },
      { source: "client", destination: "web", peer: "a", sourcePeer: "b" },
      { source: "client", destination: "web", path: "no path" },
    ]) {
      await assert.rejects(explainConnection(host, question), { code: "invalid-argument" });
    }
  });

  it("issues no certificate, and says why a name can have none", async () => {
    const { host } = pair.importer;
    const before = host.leafCertificates.size;
    const { failed } = await explainConnection(host, { source: "a/b", destination: "web", peer: pair.exporter.name });
    assert.equal(failed?.part, "certificate");
    assert.match(failed?.text ?? "", /SPIFFE ID is not in the expected format/);
    await explainConnection(host, { source: "somebody", destination: "web", peer: pair.exporter.name });
    assert.equal(host.leafCertificates.size, before);
  });
});
