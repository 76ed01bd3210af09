import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import {
  type CommandLineResult,
  fakeServer,
  type RunningAgent,
  runPeerage,
  startAgent,
} from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

// Outputs and texts are those of consul 1.21.4, run against itself with the same arguments.

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
const ID = "a94f5d03-69dd-823e-34d7-3cdcd40fbf64";

let directory: AsyncDisposable & { readonly path: string };
let agent: RunningAgent;
const stopping = new AbortController();
const file = (name: string): string => join(directory.path, name);
const run = (...args: readonly string[]): Promise<CommandLineResult> =>
  runPeerage(args, { environment: { CONSUL_HTTP_ADDR: agent.http } });
const output = (stdout: string): CommandLineResult => ({ exit: 0, stdout, stderr: "" });
const failure = (stderr: string): CommandLineResult => ({ exit: 1, stdout: "", stderr: `${stderr}\n` });

before(async () => {
  directory = await temporaryDirectory();
  await writeFile(file("agent.hcl"), `node_name = "n1"\nnode_id = "${ID}"\nlog_level = "warn"`);
  await writeFile(file("web.hcl"), 'service { name = "web" port = 80 check { id = "w" ttl = "10s" } }');
  await writeFile(
    file("more.json"),
    '{"services":[{"id":"a1","name":"a"},{"name":"b","port":3}],"check":{"name":"x","ttl":"3s"}}',
  );
  await writeFile(file("bad.hcl"), "foo = 1");
  agent = await startAgent(["-dev", "-config-file", file("agent.hcl"), ...ports], stopping.signal);
});
after(async () => {
  stopping.abort();
  await agent.result;
  await directory[Symbol.asyncDispose]();
});

describe("commands about an agent", () => {
  it("register and deregister services by flags and files", async () => {
    assert.deepEqual(
      await run("services", "register", file("web.hcl"), file("more.json")),
      output("Registered service: web\nRegistered service: a\nRegistered service: b\n"),
    );
    const flags = ["-name=foo", "-id=f1", "-port=3", "-tag=a", "-tag=b", "-meta=k=v", "-address=1.2.3.4"];
    assert.deepEqual(
      await run("services", "register", ...flags, "-tagged-address=lan=1.2.3.4:5"),
      output("Registered service: foo\n"),
    );
    const services = JSON.parse(await (await fetch(`http://${agent.http}/v1/agent/services`)).text());
    const { ID: id, Service, Port, Tags, Meta, TaggedAddresses } = services["f1"];
    assert.deepEqual(
      [id, Service, Port, Tags, Meta, TaggedAddresses["lan"]],
      ["f1", "foo", 3, ["a", "b"], { k: "v" }, { Address: "1.2.3.4", Port: 5 }],
    );
    assert.deepEqual(await run("services", "deregister", "-id=f1"), output("Deregistered service: f1\n"));
    assert.deepEqual(
      await run("services", "deregister", file("more.json")),
      output("Deregistered service: a1\nDeregistered service: b\n"),
    );
    for (const [args, text] of [
      [["register"], "Service registration requires at least one argument or flags."],
      [["register", "-name=x", file("web.hcl")], "Service registration requires arguments or -id, not both."],
      [
        ["register", file("none.hcl")],
        `Error: config: Open failed on ${file("none.hcl")}. open ${file("none.hcl")}: no such file or directory`,
      ],
      [
        ["register", file("bad.hcl")],
        `Error: failed to parse ${file("bad.hcl")}: 1 error occurred: invalid config key foo`,
      ],
      [["deregister"], "Service deregistration requires at least one argument or -id."],
      [
        ["deregister", "-id=nope"],
        'Error deregistering service "": Unexpected response code: 404 (Unknown service ID "nope". Ensure that the service ID is passed, not the service name.)',
      ],
    ] as const) {
      assert.deepEqual(await run("services", ...args), failure(text));
    }
  });

  it("put nodes and services into maintenance, and take them out", async () => {
    await run("services", "register", file("web.hcl"));
    const steps: readonly (readonly [args: readonly string[], stdout: string])[] = [
      [[], ""],
      [["-service=web", "-enable", "-reason=r 1"], 'Service maintenance is now enabled for "web"\n'],
      [[], "Service:\n  ID:     web\n  Reason: r 1\n\n"],
      [["-enable", "-reason", "z"], "Node maintenance is now enabled\n"],
      [["-enable"], "Node maintenance is now enabled\n"],
      [[], "Node:\n  Name:   n1\n  Reason: z\n\nService:\n  ID:     web\n  Reason: r 1\n\n"],
      [["-disable"], "Node maintenance is now disabled\n"],
      [["-disable"], "Node maintenance is now disabled\n"],
      [["-service=web", "-disable"], 'Service maintenance is now disabled for "web"\n'],
      [[], ""],
    ];
    for (const [args, stdout] of steps) assert.deepEqual(await run("maint", ...args), output(stdout), args.join(" "));
    for (const [args, text] of [
      [["-enable", "-disable"], "Only one of -enable or -disable may be provided"],
      [["-service=foo"], "Service requires either -enable or -disable"],
      [["-reason=x"], "Reason may only be provided with -enable"],
      [
        ["-service=foo", "-enable"],
        'Error enabling service maintenance: Unexpected response code: 404 (Unknown service ID "foo". Ensure that the service ID is passed, not the service name.)',
      ],
    ] as const) {
      assert.deepEqual(await run("maint", ...args), failure(text));
    }
  });

  it("list members and servers, and tell of the agent", async () => {
    const { stdout: members } = await run("members");
    const [titles, row] = members.split("\n");
    assert.equal(titles?.split(/ +/).join(), "Node,Address,Status,Type,Build,Protocol,DC,Partition,Segment");
    const cells = row?.split(/ +/) ?? [];
    assert.deepEqual(cells.toSpliced(1, 1), ["n1", "alive", "server", "1.21.4", "2", "dc1", "default", "<all>"]);
    assert.match((await run("members", "-wan")).stdout, /^n1\.dc1 /m);
    assert.match((await run("members", "-detailed")).stdout, new RegExp(`,id=${ID},port=\\d+,`));
    assert.deepEqual(await run("members", "-status=failed"), { exit: 2, stdout: "", stderr: "" });
    const pattern = await run("members", "-status=[");
    assert.deepEqual([pattern.exit, pattern.stdout], [1, ""]);
    assert.match(pattern.stderr, /^Failed to compile status regexp: /);
    const peers = (await run("operator", "raft", "list-peers")).stdout.split("\n");
    assert.match(
      peers[0] ?? "",
      /^Node {2}ID {36}Address +State {3}Voter {2}RaftProtocol {2}Commit Index {2}Trails Leader By$/,
    );
    assert.match(peers[1] ?? "", new RegExp(`^n1 {4}${ID}  127\\.0\\.0\\.1:\\d+ +leader  true   3 +\\d+ +-$`));
    const { stdout: info } = await run("info");
    assert.match(
      info,
      /^agent:\n\tcheck_monitors = \d+\n\tcheck_ttls = \d+\n\tchecks = \d+\n\tservices = \d+\nbuild:\n/,
    );
    assert.match(info, /^\tleader_addr = 127\.0\.0\.1:\d+$/m);
    assert.deepEqual(Buffer.from((await run("keygen")).stdout, "base64").length, 32);
  });

  it("show the answers of a cluster of several hosts as Consul shows them", async () => {
    const member = (Name: string, role: string, more: object = {}): object => ({
      Name,
      Addr: role === "node" ? "::1" : "10.0.0.1",
      Port: 8301,
      Status: role === "node" ? 4 : 1,
      Tags: { role, build: "1.21.4:", dc: "dc1", vsn: "2", ...more },
    });
    await using server = await fakeServer(({ url }) =>
      url.pathname === "/v1/agent/members"
        ? { body: [member("c", "node"), member("b", "consul"), member("a", "consul"), member("x", "other")] }
        : {
            body: {
              Servers: [
                { Node: "a", ID: "1", Address: "h:1", Leader: true, Voter: true, ProtocolVersion: "3", LastIndex: 7 },
                { Node: "b", ID: "2", Address: "h:2", Leader: false, Voter: true, ProtocolVersion: "", LastIndex: 6 },
              ],
            },
          },
    );
    const ask = async (...args: readonly string[]): Promise<string> =>
      (await runPeerage(args, { environment: { CONSUL_HTTP_ADDR: server.address } })).stdout;
    assert.deepEqual(
      (await ask("members")).split("\n").map((line) => line.split(/ {2,}/).join("|")),
      [
        "Node|Address|Status|Type|Build|Protocol|DC|Partition|Segment",
        "a|10.0.0.1:8301|alive|server|1.21.4|2|dc1|default|<all>",
        "b|10.0.0.1:8301|alive|server|1.21.4|2|dc1|default|<all>",
        "c|[::1]:8301|failed|client|1.21.4|2|dc1|default|<default>",
        "x|10.0.0.1:8301|alive|unknown",
        "",
      ],
    );
    assert.deepEqual(server.requests[0]?.url.search, "?segment=_all");
    assert.deepEqual(
      (await ask("operator", "raft", "list-peers")).split("\n").map((line) => line.split(/ {2,}/).join("|")),
      [
        "Node|ID|Address|State|Voter|RaftProtocol|Commit Index|Trails Leader By",
        "a|1|h:1|leader|true|3|7|-",
        "b|2|h:2|follower|true|<=1|6|1 commit",
        "",
      ],
    );
  });

  it("have it read its files again, and tell what could not be used", async () => {
    assert.deepEqual(await run("reload"), output("Configuration reload triggered\n"));
    await writeFile(file("agent.hcl"), `node_name = "n1"\nnode_id = "${ID}"\nfoo = 1`);
    const { exit, stderr } = await run("reload");
    assert.equal(exit, 1);
    assert.match(
      stderr,
      /^Error reloading: Unexpected response code: 500 \(configuration: failed to parse .*: 1 error occurred: invalid config key foo\)\n$/,
    );
    await writeFile(file("agent.hcl"), `node_name = "n1"\nnode_id = "${ID}"\nservice { name = "late" }`);
    assert.deepEqual(await run("reload"), output("Configuration reload triggered\n"));
    assert.match(await (await fetch(`http://${agent.http}/v1/agent/services`)).text(), /"late"/);
  });

  it("say whether configuration is valid", async () => {
    await writeFile(file("valid.hcl"), 'data_dir = "/x" server = true encrypt = "s3cret"');
    const valid = { exit: 0, stdout: "Configuration is valid!\n", stderr: "Ignored: encrypt\n" };
    assert.deepEqual(await run("validate", file("valid.hcl")), valid);
    assert.deepEqual(await run("validate", "-quiet", file("valid.hcl")), { ...valid, stdout: "" });
    for (const [args, text] of [
      [[], "Must specify at least one config file or directory"],
      [[file("web.hcl")], "Config validation failed: data_dir cannot be empty"],
      [
        [file("bad.hcl")],
        `Config validation failed: failed to parse ${file("bad.hcl")}: 1 error occurred: invalid config key foo`,
      ],
      [["/nope"], "Config validation failed: config: Open failed on /nope. open /nope: no such file or directory"],
    ] as const) {
      assert.deepEqual(await run("validate", ...args), failure(text));
    }
  });

  it("end it", async () => {
    const own = new AbortController();
    const other = await startAgent(["-dev", ...ports], own.signal);
    try {
      const environment = { CONSUL_HTTP_ADDR: other.http };
      const unexpected = failure("Error found unexpected args: [x]");
      assert.deepEqual(await runPeerage(["leave", "x"], { environment }), unexpected);
      assert.deepEqual(await runPeerage(["leave"], { environment }), output("Graceful leave complete\n"));
      assert.equal((await other.result).exit, 0);
    } finally {
      own.abort();
    }
  });

  it("say why commands of Consul are not there", async () => {
    for (const name of ["kv", "acl", "snapshot", "join", "keyring", "lock", "event", "watch", "monitor", "tls"]) {
      const { exit, stdout, stderr } = await run(name, "get", "x");
      assert.deepEqual([exit, stdout], [1, ""]);
      assert.match(stderr, new RegExp(`^peerage ${name}: .{20,}\n$`));
    }
    assert.equal((await run("nonsense")).exit, 127);
  });
});
