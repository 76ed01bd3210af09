// Consul's own command line against two agents of ours, and ours beside it: what it prints, ours prints. And the same with
// two servers of Consul. `CONSUL_BIN` names the programs, separated by `:`.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, it, type TestContext } from "node:test";
import { type CommandLineResult, runPeerage, startAgent } from "../test/support/command-line.js";
import { temporaryDirectory } from "../test/support/hosts.js";
import { asOurs, withoutOurs, withoutVarying } from "../test/support/recorded-command-lines.js";
import { type ConsulBinary, ConsulServer, consulBinary, isBefore } from "./consul.js";
import { Processes } from "./processes.js";
import { settles } from "./settles.js";

const paths = (process.env["CONSUL_BIN"] ?? "").split(":").filter((path) => path !== "");
const skip = paths.length === 0 ? "CONSUL_BIN names no Consul" : false;

const LEGACY = "1.13 has another API: its entries name consumers by `PeerName`, and its peerings have no stream status";

const SERVICE = `service {
  name = "web"
  port = 80
  tags = ["v1"]
  meta { owner = "team" }
  check { id = "alive" name = "alive" ttl = "1h" status = "passing" }
}`;
const EXPORTS = `Kind = "exported-services"
Name = "default"
Services = [{ Name = "web", Consumers = [{ Peer = "west" }] }]`;

/** Where the two clusters answer, `host:port`: `a` generates the token. */
interface Servers {
  readonly a: string;
  readonly b: string;
}

/** Runs Consul's program; its exit code and output. */
function runConsul({ path }: ConsulBinary, address: string, args: readonly string[]): Promise<CommandLineResult> {
  const env = { PATH: process.env["PATH"], CONSUL_HTTP_ADDR: address };
  return new Promise((resolve) => {
    execFile(path, args, { env }, (error, stdout, stderr) => {
      resolve({ exit: typeof error?.code === "number" ? error.code : error === null ? 0 : -1, stdout, stderr });
    });
  });
}

class Comparison {
  readonly #binary: ConsulBinary;

  constructor(binary: ConsulBinary) {
    this.#binary = binary;
  }

  /** Whether the program is of `version` or later. */
  since(version: string): boolean {
    return !isBefore(this.#binary.version, version);
  }

  /** Consul's program alone, for what must not be done twice, or what ours has no command for. */
  async consul(address: string, ...args: readonly string[]): Promise<string> {
    const { exit, stdout, stderr } = await runConsul(this.#binary, address, args);
    assert.deepEqual([exit, stderr], [0, ""], args.join(" "));
    return stdout;
  }

  /** Both programs, which must end alike; what both printed. */
  async both(address: string, ...args: readonly string[]): Promise<CommandLineResult> {
    const theirs = await runConsul(this.#binary, address, args);
    const ours = await runPeerage(args, { environment: { CONSUL_HTTP_ADDR: address } });
    assert.equal(ours.exit, theirs.exit, `${args.join(" ")}: ${theirs.stderr}${ours.stderr}`);
    assert.deepEqual(
      [withoutVarying(ours.stdout), withoutVarying(withoutOurs(ours.stderr))],
      [withoutVarying(asKnown(theirs.stdout)), withoutVarying(asOurs(asKnown(theirs.stderr)))],
      args.join(" "),
    );
    return ours;
  }
}

/** Two labels that 1.22 spells in another way, and the default address, of which it gives the name. */
function asKnown(text: string): string {
  return text.replaceAll("Peer Servers ", "Peer Server ").replaceAll("http://localhost:8500", "http://127.0.0.1:8500");
}

async function drive(context: TestContext, binary: ConsulBinary, { a, b }: Servers): Promise<void> {
  const run = new Comparison(binary);
  await using directory = await temporaryDirectory();
  const file = async (name: string, text: string): Promise<string> => {
    const path = join(directory.path, name);
    await writeFile(path, text);
    return path;
  };
  const service = await file("service.hcl", SERVICE);
  const exports = await file("exports.hcl", EXPORTS);

  await context.test("nothing is there yet", async () => {
    assert.equal((await run.both(a, "peering", "list")).stdout, "There are no peering connections.\n");
    assert.equal((await run.both(a, "peering", "list", "-format=json")).stdout, "[]\n");
    await run.both(a, "config", "list", "-kind", "exported-services");
    await run.both(a, "config", "read", "-kind", "exported-services", "-name", "default");
    assert.equal((await run.both(a, "catalog", "datacenters")).stdout, "dc1\n");
    if (run.since("1.18.0")) {
      assert.equal((await run.both(a, "services", "exported-services")).stdout, "No exported services found\n");
    }
  });

  await context.test("a service, a token, a peering (CL1, CL2)", async () => {
    assert.equal(await run.consul(a, "services", "register", service), "Registered service: web\n");
    await run.consul(a, "services", "register", "-name=db", "-port=5432", "-tag=main");
    assert.equal(await run.consul(a, "config", "write", exports), "Config entry written: exported-services/default\n");
    const token = (await run.consul(a, "peering", "generate-token", "-name=west", "-meta=env=prod")).trim();
    assert.equal(
      await run.consul(b, "peering", "establish", "-name=east", "-peering-token", token),
      "Successfully established peering connection with east\n",
    );
    const again = await run.both(b, "peering", "establish", "-name=east", "-peering-token", token);
    assert.match(
      again.stderr,
      /Unexpected response code: 403 \(.*a new peering token must be generated: invalid peering establishment secret\)/,
    );
    await settles(async () => {
      assert.match(await run.consul(b, "peering", "list"), /\neast {2}ACTIVE {2}1 /);
      assert.match(await run.consul(a, "peering", "list"), /\nwest {2}ACTIVE {2}0 {14}1 /);
    }, "both ends are ACTIVE, and know of the service");
  });

  await context.test("the commands that read (CL3, CL4, CL7)", async () => {
    for (const [address, name] of [
      [a, "west"],
      [b, "east"],
    ] as const) {
      await run.both(address, "peering", "list");
      await run.both(address, "peering", "list", "-format=json");
      await run.both(address, "peering", "read", "-name", name);
      await run.both(address, "peering", "read", "-name", name, "-format", "json");
    }
    if (run.since("1.18.0")) {
      assert.equal((await run.both(a, "peering", "exported-services", "-name=west")).stdout, "web\n");
      const json = await run.both(a, "peering", "exported-services", "-name=west", "-format=json");
      assert.equal(json.stdout, '[{"ID":"web"}]\n');
      await run.both(a, "services", "exported-services");
      await run.both(a, "services", "exported-services", "-format=json");
    }
    await run.both(a, "config", "list", "-kind=exported-services");
    const names = (await run.both(a, "catalog", "services")).stdout;
    assert.match(names, /^db\nweb\n$/m);
    await run.both(a, "catalog", "services", "-tags");
    for (const flags of [[], ["-detailed"], ["-service=web"], ["-near=_agent"]]) {
      await run.both(a, "catalog", "nodes", ...flags);
    }
    assert.match(await run.consul(a, "members"), /^Node .*\n.* alive +server +\d+\./);
  });

  await context.test("the refusals (CL2)", async () => {
    for (const line of [
      "peering read -name nope",
      "peering read",
      "peering read -name west -format=toml",
      "peering delete",
      "peering establish -name=x",
      "peering establish -name=x -peering-token=garbage",
      "peering generate-token -name=Bad_Name",
      "peering generate-token -name=x -meta novalue",
      "peering list -nope",
      "config list -kind nope",
      "config read -kind exported-services",
      "config write /nowhere.hcl",
    ]) {
      const { exit } = await run.both(a, ...line.split(" "));
      assert.equal(exit, 1, line);
    }
  });

  if (run.since("1.16.0")) {
    await context.test("services export adds a consumer, with either command line (CL5)", async () => {
      await run.consul(a, "services", "export", "-name=web", "-consumer-peers=far");
      const environment = { CONSUL_HTTP_ADDR: a };
      const ours = await runPeerage(["services", "export", "-name=web", "-consumer-peers=west,further"], {
        environment,
      });
      assert.deepEqual([ours.exit, ours.stderr], [0, ""]);
      const { stdout } = await run.both(a, "config", "read", "-kind=exported-services", "-name=default");
      assert.deepEqual(JSON.parse(stdout).Services, [
        { Name: "web", Consumers: [{ Peer: "west" }, { Peer: "far" }, { Peer: "further" }] },
      ]);
    });
  }

  await context.test("all of it goes again", async () => {
    assert.equal(
      await run.consul(b, "peering", "delete", "-name=east"),
      "Successfully submitted peering connection, east, for deletion\n",
    );
    await settles(async () => {
      assert.equal(await run.consul(b, "peering", "list"), "There are no peering connections.\n");
      assert.match(await run.consul(a, "peering", "list"), /\nwest {2}TERMINATED /);
    }, "one end is gone, and the other knows");
    await run.both(a, "peering", "list");
    await run.both(a, "peering", "read", "-name=west");
    await run.both(a, "peering", "delete", "-name=west");
    await run.both(a, "config", "delete", "-kind=exported-services", "-name=default");
    assert.equal(await run.consul(a, "services", "deregister", "-id=db"), "Deregistered service: db\n");
    assert.equal(await run.consul(a, "services", "deregister", service), "Deregistered service: web\n");
  });
}

describe("Consul's command line", { skip, timeout: 150_000 }, () => {
  const processes = new Processes();
  after(() => processes.killAll());

  for (const path of paths) {
    it(`each flag that the agent of ${path} lists is one of our agent`, async () => {
      const listed = (output: string): readonly string[] =>
        [...output.matchAll(/^ {2}-([\w-]+)/gm)].map(([, name = ""]) => name);
      const consul = await runConsul(await consulBinary(path), "", ["agent", "-help"]);
      const ours = listed((await runPeerage(["agent", "-help"])).stdout);
      const theirs = listed(consul.stdout + consul.stderr);
      assert.ok(theirs.length > 50, consul.stderr);
      assert.deepEqual(
        theirs.filter((name) => !ours.includes(name)),
        [],
      );
    });

    it(`${path} and ours at two agents of ours`, async (context) => {
      const binary = await consulBinary(path);
      if (binary.band === "legacy") return context.skip(LEGACY);
      const stopping = new AbortController();
      const options = ["-dev", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
      const [a, b] = await Promise.all(
        ["dc1", "dc2"].map((datacenter) => startAgent([...options, `-datacenter=${datacenter}`], stopping.signal)),
      );
      assert.ok(a !== undefined && b !== undefined);
      await drive(context, binary, { a: a.http, b: b.http });
      stopping.abort();
      await Promise.all([a.result, b.result]);
    });

    it(`${path} and ours at two servers of it`, async (context) => {
      const binary = await consulBinary(path);
      if (binary.band === "legacy") return context.skip(LEGACY);
      await using a = await ConsulServer.start(processes, binary, { datacenter: "dc1" });
      await using b = await ConsulServer.start(processes, binary, { datacenter: "dc2" });
      await Promise.all([a.ready(), b.ready()]);
      await drive(context, binary, { a: a.http, b: b.http });
    });
  }
});
