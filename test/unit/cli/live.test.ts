// The command lines that were recorded with Consul 1.21.4, run in their order against two live hosts: same output, same
// exit code. CL1 to CL4 are among them, and CL7 is all of it: what Consul's program printed is what ours prints.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { runPeerage } from "../../support/command-line.js";
import { eventually, HttpPair } from "../../support/http-pair.js";
import {
  asOurs,
  type RecordedCommandLine,
  recordedCommandLines,
  withoutOurs,
  withoutVarying,
} from "../../support/recorded-command-lines.js";

const SERVICES = ["allcrit", "api", "ext-db", "many", "multi", "native", "nocheck", "plain", "six", "web"];

/** The intended differences, and why. */
interface Deviation {
  readonly why: string;
  readonly stdout: (recorded: string) => string;
}

const GOODBYE = "the other side deleted it, which has been heard by now (D-9); recorded was a moment before";

const deviations: Readonly<Record<string, Deviation>> = {
  "1.21.4/delete.txt #8": {
    why: GOODBYE,
    // The widest state decides how wide the column is.
    stdout: (recorded) =>
      recorded
        .replace(/^(\S+ +)(State|PENDING|ACTIVE) +/gm, (_, name, state) => `${name}${state.padEnd(12)}`)
        .replace(/^(cli-e +)ACTIVE {6}/m, "$1TERMINATED  "),
  },
  "1.21.4/delete.txt #9": {
    why: GOODBYE,
    stdout: (recorded) => recorded.replace("State:        ACTIVE", "State:        TERMINATED"),
  },
};

/** An event, or a state to wait for, before a command line was recorded. */
const ready: Readonly<Record<string, (pair: HttpPair) => boolean>> = {
  "1.21.4/list.txt #1": ({ a, b }) =>
    [a.host.peerings.read("cli-e"), b.host.peerings.read("cli-x")].every(
      (peering) =>
        peering?.state === "active" &&
        peering.peerCaPems.length > 0 &&
        peering.remote.datacenter !== "" &&
        peering.status.stream.lastReceive !== undefined &&
        peering.status.stream.lastSend !== undefined,
    ),
  "1.21.4/delete.txt #8": ({ a }) =>
    a.host.peerings.read("cli-1") === undefined && a.host.peerings.read("cli-e")?.state === "terminated",
  "1.21.4/delete.txt #11": ({ b }) => b.host.peerings.read("cli-x") === undefined,
};

describe("recorded command lines of 1.21.4 at two live hosts (CL1, CL2, CL3, CL4, CL7)", { timeout: 60_000 }, () => {
  let pair: HttpPair;
  const tokens = new Map<string, string>();

  before(async () => {
    pair = await HttpPair.start();
    const { a, b } = pair;
    await a.host.catalog.registerAll(
      SERVICES.map((name) => ({ node: "n1", address: "10.0.0.1", service: { name, port: 80 } })),
    );
    await a.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
    const token = await a.host.peerings.generateToken({ peerName: "cluster-b", meta: { side: "a" } });
    await b.host.peerings.establish({ peerName: "cluster-a", token, meta: { side: "b" } });
    await eventually(
      () =>
        a.host.peerings.read("cluster-b")?.status.stream.exportedServices.length === SERVICES.length &&
        b.host.peerings.read("cluster-a")?.status.stream.importedServices.length === SERVICES.length &&
        a.host.peerings.read("cluster-b")?.peerCaPems.length === 1,
      AbortSignal.timeout(20_000),
    );
  });
  after(() => pair[Symbol.asyncDispose]());

  /** A port nobody listens on, at an address that every machine has. */
  const NOWHERE = "127.0.0.1:1";

  function address(server: string): string {
    return server === "nowhere" ? NOWHERE : `127.0.0.1:${server === "a" ? pair.a.port : pair.b.port}`;
  }

  /** Tokens go on the command line as they came out of the program. */
  function withTokens(each: RecordedCommandLine): readonly string[] {
    return each.args.map((argument) => {
      const name = argument === "$TOKEN" ? "cli-e" : argument === "$OWN_TOKEN" ? "own" : undefined;
      if (name === undefined) return argument;
      const token = tokens.get(name);
      assert.ok(token !== undefined, `${name} has no token`);
      return token;
    });
  }

  for (const each of recordedCommandLines("1.21.4")) {
    const deviation = deviations[each.origin];
    const why = deviation === undefined ? "" : ` (${deviation.why})`;
    it(`${each.origin}: ${each.args.join(" ")}${why}`, async ({ signal }) => {
      const isReady = ready[each.origin];
      if (isReady !== undefined) await eventually(() => isReady(pair), signal);
      const result = await runPeerage(withTokens(each), { environment: { CONSUL_HTTP_ADDR: address(each.server) } });
      if (each.args[1] === "generate-token" && result.exit === 0) {
        const [token = ""] = /[\w+/]{400,}={0,2}/.exec(result.stdout) ?? [];
        tokens.set(each.args[each.args.indexOf("-name") + 1] ?? "", token);
        const { PeerID: id, EstablishmentSecret: secret } = JSON.parse(Buffer.from(token, "base64").toString());
        assert.match(`${id} ${secret}`, /^[0-9a-f-]{36} [0-9a-f-]{36}$/);
      }
      const expected = deviation?.stdout(each.stdout) ?? each.stdout;
      assert.deepEqual(
        {
          exit: result.exit,
          stdout: withoutVarying(result.stdout),
          stderr: withoutVarying(withoutOurs(result.stderr)),
        },
        { exit: each.exit, stdout: withoutVarying(expected), stderr: withoutVarying(asOurs(each.stderr)) },
      );
    });
  }
});

describe("peering token at a live host", { timeout: 60_000 }, () => {
  it("lists the peerings with an unused token, and revokes one", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const run = (...args: readonly string[]): ReturnType<typeof runPeerage> =>
      runPeerage(["peering", "token", ...args, "-http-addr", `127.0.0.1:${a.port}`]);
    assert.match((await run("list")).stdout, /no unused peering tokens/);
    for (const peerName of ["west", "east"]) await a.host.peerings.generateToken({ peerName });
    assert.equal((await run("list")).stdout, "east\nwest\n");
    assert.equal((await run("list", "-format", "json")).stdout, '["east","west"]\n');
    assert.match((await run("revoke", "-name", "east")).stdout, /Revoked/);
    const again = await run("revoke", "-name", "east");
    assert.equal(again.exit, 1);
    assert.match(again.stderr, /There is no unused peering token for east/);
    assert.match((await run("revoke")).stderr, /Missing the required -name flag/);
    assert.deepEqual(
      a.host.peerings.outstandingTokens().map(({ name }) => name),
      ["west"],
    );
  });
});

describe("services export at a live host (CL5)", { timeout: 60_000 }, () => {
  it("merges consumers of one service, and exported-services shows them", async () => {
    await using pair = await HttpPair.start();
    const run = (line: string): ReturnType<typeof runPeerage> =>
      runPeerage(line.split(" "), { environment: { CONSUL_HTTP_ADDR: `127.0.0.1:${pair.a.port}` } });
    await pair.a.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    for (const peerName of ["east", "west"]) await pair.a.host.peerings.generateToken({ peerName });
    assert.equal((await run("services exported-services")).stdout, "No exported services found\n");
    for (const peers of ["west", "east,west"]) {
      assert.deepEqual(await run(`services export -name=web -consumer-peers=${peers}`), {
        exit: 0,
        stdout: `Successfully exported service "web" to cluster peers "${peers}"\n`,
        stderr: "",
      });
    }
    const { stdout } = await run("config read -kind=exported-services -name=default");
    assert.deepEqual(JSON.parse(stdout).Services, [{ Name: "web", Consumers: [{ Peer: "west" }, { Peer: "east" }] }]);
    assert.equal((await run("services exported-services")).stdout, "Service  Consumer Peers\nweb      east, west\n");
  });
});
