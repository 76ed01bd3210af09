// node-consul over its whole surface. Prints a line for each check.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import Consul from "consul";

const [host, port] = process.env.CONSUL_HTTP_ADDR.split(":");
const consul = new Consul({ host, port: Number(port) });

async function check(name, run) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}: ${String(error.message).replaceAll("\n", " ")}`);
  }
}

/** Looks again until `look` no longer throws. */
async function soon(look) {
  const end = Date.now() + 10_000;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

const { Config } = await consul.agent.self();
const node = Config.NodeName;

await check("status.leader is an address", async () =>
  assert.match(await consul.status.leader(), /^127\.0\.0\.1:\d+$/),
);
await check("status.peers names the leader", async () => {
  assert.deepEqual(await consul.status.peers(), [await consul.status.leader()]);
});
await check("agent.self names the datacenter", async () => assert.equal(Config.Datacenter, process.env.DATACENTER));
await check("agent.members has this node", async () => {
  assert.ok((await consul.agent.members()).some(({ Name, Status }) => Name === node && Status === 1));
});
await check("agent.reload", () => consul.agent.reload());
await check("agent.maintenance is a check of the node and goes", async () => {
  await consul.agent.maintenance({ enable: true, reason: "tests" });
  const { _node_maintenance: maintenance } = await consul.agent.check.list();
  assert.equal(maintenance.Status, "critical");
  assert.equal(maintenance.Notes, "tests");
  await consul.agent.maintenance(false);
  assert.equal((await consul.agent.check.list())._node_maintenance, undefined);
});
await check("agent.forceLeave of a stranger fails", async () => {
  await assert.rejects(consul.agent.forceLeave("nobody"), /agent: No node found with name 'nobody'/);
});

await check("agent.check.register, pass, warn, fail, deregister", async () => {
  await consul.agent.check.register({ name: "ttl", ttl: "30s", notes: "by hand" });
  const status = async () => (await consul.agent.check.list()).ttl;
  assert.equal((await status()).Status, "critical");
  assert.equal((await status()).Notes, "by hand");
  await consul.agent.check.pass({ id: "ttl", note: "good" });
  assert.equal((await status()).Status, "passing");
  assert.equal((await status()).Output, "good");
  await consul.agent.check.warn({ id: "ttl" });
  assert.equal((await status()).Status, "warning");
  await consul.agent.check.fail("ttl");
  assert.equal((await status()).Status, "critical");
  await consul.agent.check.deregister("ttl");
  assert.equal(await status(), undefined);
});
await check("agent.check.deregister of none fails", async () => {
  await assert.rejects(consul.agent.check.deregister("none"), /not found/);
});
await check("agent.check.pass of none fails", async () => {
  await assert.rejects(consul.agent.check.pass("none"), /not found/);
});
await check("agent.check.register without a kind fails", async () => {
  const answer = await fetch(`http://${host}:${port}/v1/agent/check/register`, { method: "PUT", body: '{"Name":"x"}' });
  assert.equal(answer.status, 400);
});

await check("agent.service.register with checks, tags, meta", async () => {
  await consul.agent.service.register({
    ...{ name: "shop", id: "shop-1", tags: ["a", "b"], address: "127.0.0.1", port: 8080, meta: { version: "2" } },
    check: { ttl: "30s", status: "passing", notes: "n" },
    taggedAddresses: { lan: { address: "127.0.0.9", port: 81 } },
  });
  const { "shop-1": shop } = await consul.agent.service.list();
  assert.deepEqual([shop.Service, shop.Port, shop.Address], ["shop", 8080, "127.0.0.1"]);
  assert.deepEqual(shop.Tags, ["a", "b"]);
  assert.deepEqual(shop.Meta, { version: "2" });
  assert.deepEqual(shop.TaggedAddresses.lan, { Address: "127.0.0.9", Port: 81 });
  const { "service:shop-1": ttl } = await consul.agent.check.list();
  assert.deepEqual([ttl.Status, ttl.ServiceID, ttl.ServiceName, ttl.Type], ["passing", "shop-1", "shop", "ttl"]);
});
await check("agent.service.register with several checks names them", async () => {
  await consul.agent.service.register({ name: "many", checks: [{ ttl: "30s" }, { ttl: "31s" }] });
  const checks = await consul.agent.check.list();
  assert.ok(checks["service:many:1"]);
  assert.ok(checks["service:many:2"]);
  await consul.agent.service.deregister("many");
});
await check("agent.service.register with a sidecar", async () => {
  await consul.agent.service.register({ name: "mesh", port: 80, connect: { sidecarService: {} } });
  const { "mesh-sidecar-proxy": sidecar } = await consul.agent.service.list();
  assert.equal(sidecar.Kind, "connect-proxy");
  assert.equal(sidecar.Proxy.DestinationServiceName, "mesh");
  assert.equal(sidecar.Proxy.LocalServicePort, 80);
  assert.ok(sidecar.Port >= 21_000 && sidecar.Port <= 21_255);
  await soon(async () => assert.equal((await consul.catalog.connect.nodes("mesh")).length, 1));
  await consul.agent.service.deregister("mesh");
  assert.equal((await consul.agent.service.list())["mesh-sidecar-proxy"], undefined);
});
await check("agent.service.maintenance", async () => {
  await consul.agent.service.maintenance({ id: "shop-1", enable: true, reason: "tests" });
  const { "_service_maintenance:shop-1": maintenance } = await consul.agent.check.list();
  assert.deepEqual([maintenance.Status, maintenance.Notes], ["critical", "tests"]);
  await soon(async () => assert.equal((await consul.health.service({ service: "shop", passing: true })).length, 0));
  await consul.agent.service.maintenance({ id: "shop-1", enable: false });
  await soon(async () => assert.equal((await consul.health.service({ service: "shop", passing: true })).length, 1));
});
await check("agent.service.maintenance of none fails", async () => {
  await assert.rejects(consul.agent.service.maintenance({ id: "none", enable: true }), /not found/);
});
await check("agent.service.deregister of none fails", async () => {
  await assert.rejects(consul.agent.service.deregister("none"), /not found/);
});
await check("an HTTP check becomes passing, then critical", async () => {
  let status = 200;
  const server = createServer((_, answer) => {
    answer.statusCode = status;
    answer.end("hello");
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const url = `http://127.0.0.1:${server.address().port}/`;
  await consul.agent.service.register({ name: "checked", check: { http: url, interval: "1s", timeout: "1s" } });
  const state = async () => (await consul.agent.check.list())["service:checked"];
  await soon(async () => assert.equal((await state()).Status, "passing"));
  assert.equal((await state()).Output, `HTTP GET ${url}: 200 OK Output: hello`);
  status = 500;
  await soon(async () => assert.equal((await state()).Status, "critical"));
  await soon(async () => {
    const [record] = await consul.health.checks("checked");
    assert.deepEqual([record.Status, record.Type, record.Interval], ["critical", "http", "1s"]);
  });
  await consul.agent.service.deregister("checked");
  server.close();
  server.closeAllConnections();
});

await check("catalog.datacenters", async () => {
  assert.deepEqual(await consul.catalog.datacenters(), [process.env.DATACENTER]);
});
await check("catalog.register, node.list, node.services, service.nodes, deregister", async () => {
  await consul.catalog.register({
    ...{ node: "outside", address: "192.0.2.1", service: { service: "db", id: "db-1", port: 5432, tags: ["main"] } },
    check: { node: "outside", serviceid: "db-1", checkid: "db-1-alive", name: "alive", status: "warning" },
  });
  assert.ok(
    (await consul.catalog.node.list()).some(({ Node, Address }) => Node === "outside" && Address === "192.0.2.1"),
  );
  const { Node, Services } = await consul.catalog.node.services("outside");
  assert.equal(Node.Node, "outside");
  assert.deepEqual([Services["db-1"].Service, Services["db-1"].Port], ["db", 5432]);
  const [instance] = await consul.catalog.service.nodes({ service: "db", tag: "main" });
  assert.deepEqual([instance.ServiceID, instance.ServicePort, instance.Address], ["db-1", 5432, "192.0.2.1"]);
  assert.deepEqual(await consul.catalog.service.nodes({ service: "db", tag: "other" }), []);
  assert.deepEqual((await consul.catalog.service.list()).db, ["main"]);
  const [health] = await consul.health.node("outside");
  assert.deepEqual([health.CheckID, health.Status, health.ServiceName], ["db-1-alive", "warning", "db"]);
  assert.equal((await consul.health.state("warning")).length, 1);
  await consul.catalog.deregister({ node: "outside", serviceid: "db-1" });
  assert.deepEqual(await consul.catalog.service.nodes("db"), []);
  await consul.catalog.deregister("outside");
  assert.equal(
    (await consul.catalog.node.list()).find(({ Node: name }) => name === "outside"),
    undefined,
  );
});
await check("catalog.node.services of none", async () =>
  assert.equal(await consul.catalog.node.services("none"), undefined),
);
await check("catalog.register of nothing fails", async () => {
  const answer = await fetch(`http://${host}:${port}/v1/catalog/register`, { method: "PUT", body: "{}" });
  assert.equal(answer.status, 500);
});
await check("health.service with tag and filter", async () => {
  assert.equal((await consul.health.service("web")).length, 2);
  assert.equal((await consul.health.service({ service: "web", tag: "i1" })).length, 1);
  const filter = 'Service.Meta.version == "0"';
  assert.equal((await consul.health.service({ service: "web", filter })).length, 1);
});
await check("health.state any", async () => assert.ok((await consul.health.state("any")).length > 3));
await check("health.checks of a service", async () => assert.equal((await consul.health.checks("web")).length, 2));
await check("a stranger's datacenter is refused", async () => {
  await assert.rejects(consul.health.service({ service: "web", dc: "elsewhere" }), /No path to datacenter/);
});
await check("withResponse shows index and headers", async () => {
  const http = await fetch(`http://${host}:${port}/v1/health/service/web`);
  for (const name of ["x-consul-index", "x-consul-knownleader", "x-consul-lastcontact"])
    assert.ok(http.headers.get(name));
});

await check("kv.set, get, keys, del", async () => {
  assert.equal(await consul.kv.set("one/two", "three"), true);
  assert.equal((await consul.kv.get("one/two")).Value, "three");
  assert.deepEqual(await consul.kv.keys("one"), ["one/two"]);
  await consul.kv.del({ key: "one", recurse: true });
});
await check("kv.get of none is nothing", async () => assert.equal(await consul.kv.get("no/such/key"), undefined));
await check("session.create, get, renew, destroy", async () => {
  const { ID } = await consul.session.create({ ttl: "30s" });
  assert.equal((await consul.session.get(ID)).ID, ID);
  await consul.session.renew(ID);
  await consul.session.destroy(ID);
});
await check("session.list and node of none are empty", async () => {
  assert.deepEqual(await consul.session.list(), []);
  assert.deepEqual(await consul.session.node(node), []);
});
await check("event.fire and list", async () => {
  await consul.event.fire("deploy", "53");
  await soon(async () => assert.equal((await consul.event.list("deploy"))[0].Payload, "53"));
});
await check("acl.bootstrap says that ACLs are off", async () => {
  await assert.rejects(consul.acl.bootstrap(), /ACL support disabled/);
});

await check("query.create, get, list, update, execute, destroy", async () => {
  const { ID } = await consul.query.create({
    name: "find-web",
    service: { service: "web", onlypassing: true, tags: ["v1"] },
  });
  const [first] = [await consul.query.get(ID)];
  assert.deepEqual([first.Name, first.Service.Service, first.Service.OnlyPassing], ["find-web", "web", true]);
  assert.equal((await consul.query.list()).length, 1);
  const found = await consul.query.execute("find-web");
  assert.deepEqual([found.Service, found.Nodes.length, found.Datacenter], ["web", 2, process.env.DATACENTER]);
  await consul.query.update({
    query: ID,
    name: "find-web",
    service: { service: "web", tags: ["i1"] },
    dns: { ttl: "10s" },
  });
  const after = await consul.query.execute({ query: ID });
  assert.deepEqual([after.Nodes.length, after.DNS.TTL], [1, "10s"]);
  await consul.query.destroy(ID);
  await assert.rejects(consul.query.get(ID), /Query not found/);
});
await check("query.execute of none fails", async () => {
  await assert.rejects(consul.query.execute("nothing-like-it"), /Query not found/);
});
await check("transaction.create with catalog operations", async () => {
  const Node = { Node: "by-txn", Address: "192.0.2.7" };
  const Service = { ID: "t-1", Service: "t", Port: 1 };
  const { Results, Errors } = await consul.transaction.create([
    { Node: { Verb: "set", Node } },
    { Service: { Verb: "set", Node: "by-txn", Service } },
    { Check: { Verb: "set", Check: { Node: "by-txn", CheckID: "c", Name: "c", ServiceID: "t-1", Status: "passing" } } },
  ]);
  assert.equal(Errors, null);
  assert.equal(Results.length, 3);
  assert.equal((await consul.health.service({ service: "t", passing: true })).length, 1);
  await consul.catalog.deregister("by-txn");
});
await check("transaction.create with a key", async () => {
  const Value = Buffer.from("v").toString("base64");
  const { Results } = await consul.transaction.create([{ KV: { Verb: "set", Key: "txn", Value } }]);
  assert.equal(Results[0].KV.Key, "txn");
});

await check("watch tells of each change, and asks once for each", async () => {
  let answers = 0;
  const watch = consul.watch({ method: consul.health.service, options: { service: "watched", wait: "10s" } });
  const seen = [];
  watch.on("change", (data) => {
    answers++;
    seen.push(data.length);
  });
  watch.on("error", (error) => seen.push(error.message));
  try {
    await soon(() => assert.equal(seen.at(-1), 0));
    for (const count of [1, 2]) {
      await consul.agent.service.register({ name: "watched", id: `watched-${count}` });
      await soon(() => assert.equal(seen.at(-1), count));
    }
    await consul.agent.service.deregister("watched-1");
    await soon(() => assert.equal(seen.at(-1), 1));
    assert.ok(answers < 20, `${answers} answers`);
  } finally {
    watch.end();
    await consul.agent.service.deregister("watched-2");
  }
});
await check("watch of a key that is not there waits", async () => {
  let asked = 0;
  const watch = consul.watch({
    method: (options) => {
      asked++;
      return consul.kv.get(options);
    },
    options: { key: "not/there", wait: "1s" },
  });
  const errors = [];
  watch.on("error", (error) => errors.push(error.message));
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  watch.end();
  assert.deepEqual(errors, []);
  assert.ok(asked >= 2 && asked <= 8, `asked ${asked} times in 3 s`);
});
await check("imported services are read as Consul's", async () => {
  const answer = await fetch(`http://${host}:${port}/v1/health/service/api?peer=${process.env.PEER}&passing`);
  const instances = await answer.json();
  assert.equal(instances.length, 2);
  assert.ok(instances.every(({ Service }) => Service.PeerName === process.env.PEER));
});
await consul.agent.service.deregister("shop-1");
