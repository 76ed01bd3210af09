// A transparent proxy takes over what its program connects to. That takes a rule of the system, so this runs in a network of its own:
//   unshare -n sh -c 'ip link set lo up; ip route add local 240.0.0.0/4 dev lo; NFT_BIN=nft npm run test:one -- test/integration/envoy-transparent.test.ts'
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { application, ask, type Speech } from "../support/applications.js";
import { freePorts, RunningEnvoy, withoutEnvoy } from "../support/envoy.js";
import { addGateway, addService, EnvoyCluster } from "../support/envoy-clusters.js";
import { eventually, temporaryDirectory } from "../support/hosts.js";
import { intend } from "../support/mesh.js";

const nft = process.env["NFT_BIN"] ?? "";
const skip = withoutEnvoy || (nft === "" && "NFT_BIN names no nft to redirect connections with");

/** Has all connections to virtual addresses come to `port`. */
async function redirectTo(port: number): Promise<void> {
  await promisify(execFile)(nft, [
    "add table ip peerage;",
    "add chain ip peerage out { type nat hook output priority -100; };",
    `add rule ip peerage out ip daddr 240.0.0.0/4 tcp dport 1-65535 redirect to :${port};`,
  ]);
}

describe("a transparent proxy", { skip }, () => {
  it("leads connections to virtual addresses to services of a peer and of its own cluster, and no others anywhere", async () => {
    await using directory = await temporaryDirectory();
    await using one = await EnvoyCluster.open("dc1");
    await using two = await EnvoyCluster.open("dc2");
    await using web = await application("web of one", "tcp");
    await using api = await application("api of one", "http");
    await using db = await application("db of two", "tcp");
    const [gateway = 0, webPort = 0, apiPort = 0, dbPort = 0, client = 0, outbound = 0, ...admin] = await freePorts(11);
    await one.host.configEntries.set({ kind: "service-defaults", name: "api", protocol: "http" });
    await two.host.configEntries.set({ kind: "mesh", extra: { TransparentProxy: { MeshDestinationsOnly: true } } });
    await addService(one, "web", { app: web.port, proxy: webPort });
    await addService(one, "api", { app: api.port, proxy: apiPort });
    await addGateway(one, gateway);
    await addService(two, "db", { app: db.port, proxy: dbPort });
    const extra = { TransparentProxy: { OutboundListenerPort: outbound } };
    await addService(two, "client", { app: 1, proxy: client }, [], { mode: "transparent", extra });
    const consumers = [{ peer: "two" }];
    await one.host.exports.set({ services: ["web", "api"].map((name) => ({ name, consumers })) });
    for (const name of ["web", "api"]) await intend(one.host, name, [{ name: "client", peer: "two", action: "allow" }]);
    await intend(two.host, "db", [{ name: "client", action: "allow" }]);
    const token = await one.host.peerings.generateToken({ peerName: "two" });
    await two.host.peerings.establish({ peerName: "one", token });
    await redirectTo(outbound);

    const start = (id: string, { xds }: EnvoyCluster, at: number): Promise<RunningEnvoy> =>
      RunningEnvoy.start({ id, xds: xds.address, adminPort: admin[at] ?? 0, directory: directory.path });
    await using _web = await start("web-sidecar-proxy", one, 0);
    await using _api = await start("api-sidecar-proxy", one, 1);
    await using _gateway = await start("gateway", one, 2);
    await using _db = await start("db-sidecar-proxy", two, 3);
    await using proxy = await start("client-sidecar-proxy", two, 4);
    for (const [service, peer, speech, path, expected] of [
      ["web", "one", "tcp", "hello", "web of one hello"],
      ["api", "one", "http", "/x", "200 api of one /x"],
      ["db", "", "tcp", "hello", "db of two hello"],
    ] as const satisfies readonly (readonly [string, string, Speech, string, string])[]) {
      const answer = async (): Promise<string> => {
        const address = two.host.catalog.virtualIp(service, peer);
        return address === undefined ? "" : ask(80, speech, path, address);
      };
      await eventually(
        async () => (await answer().catch(String)) === expected,
        `${service} of ${peer || "two"} answers at its virtual address`,
      );
    }
    assert.equal(await ask(80, "tcp", "hello", "240.9.9.9").catch(() => ""), "");
    assert.ok((await proxy.statistic(`listener.127.0.0.1_${outbound}.no_filter_chain_match`)) > 0);
  });
});
