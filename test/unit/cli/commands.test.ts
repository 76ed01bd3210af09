// Cases that are not in the recordings; texts that Consul has are those of 1.21.4.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { TokenCodec } from "../../../src/token/token-codec.js";
import {
  type CommandLineResult,
  type CommandLineWorld,
  type FakeAnswer,
  type FakeRequest,
  type FakeServer,
  fakeServer,
  runPeerage,
} from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

async function against(
  args: readonly string[],
  answer: (request: FakeRequest) => FakeAnswer,
  world: CommandLineWorld = {},
): Promise<CommandLineResult & { readonly requests: FakeServer["requests"] }> {
  await using server = await fakeServer(answer);
  const result = await runPeerage(args, {
    ...world,
    environment: { CONSUL_HTTP_ADDR: server.address, ...world.environment },
  });
  return { ...result, requests: server.requests };
}

const ok = (stdout: string): CommandLineResult => ({ exit: 0, stdout, stderr: "" });
const failed = (stderr: string): CommandLineResult => ({ exit: 1, stdout: "", stderr });
const noted = (stderr: string): CommandLineResult => ({ exit: 0, stdout: "", stderr });
const outcome = ({ exit, stdout, stderr }: CommandLineResult): CommandLineResult => ({ exit, stdout, stderr });

describe("peerage", () => {
  it("prints its commands, and fails with 127, for none or an unknown one", async () => {
    for (const args of [[], ["nope"]]) {
      const { exit, stdout, stderr } = await runPeerage(args);
      assert.deepEqual([exit, stdout], [127, ""]);
      assert.match(stderr, /^Usage: peerage \[--version\].*\n\nAvailable commands are:\n {4}agent /);
    }
  });

  it("prints help on the standard output, with code 0", async () => {
    for (const args of [["-h"], ["peering", "--help"], ["peering", "list", "-help"], ["agent", "-h"]]) {
      const { exit, stdout, stderr } = await runPeerage(args);
      assert.deepEqual([exit, stderr], [0, ""]);
      assert.match(stdout, /^Usage: peerage /);
    }
  });

  it("prints its version", async () => {
    assert.deepEqual(await runPeerage(["--version"]), ok("Peerage v0.0.0\n"));
  });
});

describe("the server that is asked", () => {
  const list = ["peering", "list"];

  it("is told the token: file before flag before environment's file before environment", async () => {
    await using directory = await temporaryDirectory();
    const [file, variableFile] = [join(directory.path, "a"), join(directory.path, "b")];
    await writeFile(file, "from-file\n");
    await writeFile(variableFile, "from-variable-file\n");
    const tokenOf = async (
      flags: readonly string[],
      environment: Readonly<Record<string, string>>,
    ): Promise<unknown> => {
      const { requests } = await against([...list, ...flags], () => ({ body: [] }), { environment });
      return requests[0]?.headers["x-consul-token"];
    };
    const all = { CONSUL_HTTP_TOKEN: "from-variable", CONSUL_HTTP_TOKEN_FILE: variableFile };
    assert.equal(await tokenOf(["-token=from-flag", `-token-file=${file}`], all), "from-file");
    assert.equal(await tokenOf(["-token=from-flag"], all), "from-flag");
    assert.equal(await tokenOf([], all), "from-variable-file");
    assert.equal(await tokenOf([], { CONSUL_HTTP_TOKEN: "from-variable" }), "from-variable");
    assert.equal(await tokenOf([], {}), undefined);
  });

  it("is the flag's before the variable's, may have a prefix, and hears of the partition", async () => {
    await using server = await fakeServer(() => ({ body: [] }));
    const flags = [`-http-addr=http://${server.address}/consul/`, "-partition=p"];
    const result = await runPeerage([...list, ...flags], {
      environment: { CONSUL_HTTP_ADDR: "127.0.0.1:1", CONSUL_HTTP_AUTH: "me:secret" },
    });
    assert.deepEqual(result, ok("There are no peering connections.\n"));
    const [request] = server.requests;
    assert.equal(request?.url.pathname, "/consul/v1/peerings");
    assert.equal(request?.url.searchParams.get("partition"), "p");
    assert.equal(request?.headers.authorization, `Basic ${Buffer.from("me:secret").toString("base64")}`);
  });

  it("must be an address, with certificates that can be read", async () => {
    for (const [flag, reason] of [
      ["-http-addr=ftp://x", "Unknown protocol scheme: ftp"],
      ["-http-addr=http://", "http:// is not an address"],
      ["-ca-file=/nowhere.pem", "ENOENT: no such file or directory, open '/nowhere.pem'"],
    ] as const) {
      assert.deepEqual(await runPeerage([...list, flag]), failed(`Error connecting to Consul agent: ${reason}\n`));
    }
  });

  it("may answer nonsense", async () => {
    const { exit, stderr } = await against(list, () => ({ body: "<html>" }));
    assert.deepEqual([exit, stderr], [1, "Error listing peerings: the answer of /v1/peerings is not JSON\n"]);
  });
});

describe("peerage peering", () => {
  for (const name of ["generate-token", "generate"]) {
    it(`${name} sends the values of its flags (CL1, D-49)`, async () => {
      const flags = ["-name=b", "-meta=a=b", "-meta", "c=d=e", "-server-external-addresses", "a:1,b:2", "-partition=p"];
      const result = await against(["peering", name, ...flags], () => ({ body: { PeeringToken: "TOKEN" } }));
      assert.deepEqual(outcome(result), ok("TOKEN\n"));
      assert.deepEqual(
        result.requests.map(({ method, url, body }) => [method, url.pathname, JSON.parse(body)]),
        [
          [
            "POST",
            "/v1/peering/token",
            { PeerName: "b", Partition: "p", Meta: { a: "b", c: "d=e" }, ServerExternalAddresses: ["a:1", "b:2"] },
          ],
        ],
      );
    });
  }

  it("list sorts by name, json too (CL3)", async () => {
    const body = ["foo", "bar"].map((Name) => ({ Name, State: "PENDING", Meta: { b: "2", a: "1" } }));
    const { stdout } = await against(["peering", "list"], () => ({ body }));
    assert.deepEqual(
      stdout.split("\n").map((line) => line.trimEnd()),
      [
        "Name  State    Imported Svcs  Exported Svcs  Meta",
        "bar   PENDING  0              0              a=1,b=2",
        "foo   PENDING  0              0              a=1,b=2",
        "",
      ],
    );
    const json = await against(["peering", "list", "-format=json"], () => ({ body }));
    assert.deepEqual(
      JSON.parse(json.stdout).map(({ Name }: { readonly Name: string }) => Name),
      ["bar", "foo"],
    );
    assert.deepEqual(outcome(await against(["peering", "list", "-format=json"], () => ({ body: [] }))), ok("[]\n"));
  });

  it("read shows fields that only some peerings have", async () => {
    const body = {
      ID: "i",
      Name: "n<1>",
      Partition: "p",
      DeletedAt: "2026-11-22T18:41:24.470560452Z",
      State: "DELETING",
      PeerServerAddresses: ["a:1", "b:2"],
      StreamStatus: { LastHeartbeat: "2026-11-22T18:41:24.500+01:00" },
    };
    const { stdout } = await against(["peering", "read", "-name=n"], () => ({ body }));
    assert.match(stdout, /\nPartition: {4}p\nDeletedAt: {4}2026-11-22T18:41:24Z\nState: {8}DELETING\n/);
    assert.match(stdout, /\nPeer Server Addresses:\n {4}a:1 {4}b:2\nImported Services: 0\n/);
    assert.match(stdout, /\nLast Heartbeat: {4}2026-11-22 18:41:24\.5 \+0100 \+0100\nLast Send: {9}<nil>\n/);
    const json = await against(["peering", "read", "-name=n", "-format=json"], () => ({ body }));
    assert.match(json.stdout, /^\{"ID":"i","Name":"n\\u003c1\\u003e","Partition":"p","DeletedAt":/);
  });

  it("shows the server's refusals (CL6)", async () => {
    const text = "Permission denied: anonymous token lacks permission 'peering:read'";
    const result = await against(["peering", "read", "-name=n"], () => ({ status: 403, body: text }));
    assert.deepEqual(outcome(result), failed(`Error reading peering: Unexpected response code: 403 (${text})\n`));
  });
});

describe("peerage peering token inspect", () => {
  const secret = "75d3c646-7d80-2d32-9f72-57852fd02ab4";
  const token = TokenCodec.encode({
    ca: [],
    manualServerAddresses: [],
    serverAddresses: ["127.0.0.65:8503"],
    serverName: "server.dc1.peering.x.consul",
    peerId: "3d1eb6bf",
    establishmentSecret: secret,
    remote: { partition: "", datacenter: "dc1" },
  });

  it("shows all but the secret, from an argument or the standard input", async () => {
    for (const [argument, stdin] of [
      [token, ""],
      ["-", `${token}\n`],
    ] as const) {
      for (const format of ["json", "pretty"]) {
        const result = await runPeerage(["peering", "token", "inspect", `-format=${format}`, argument], { stdin });
        assert.equal(result.exit, 0);
        for (const part of ["3d1eb6bf", "127.0.0.65:8503", "dc1"]) assert.ok(result.stdout.includes(part), part);
        assert.ok(!result.stdout.includes(secret) && !result.stdout.includes(token));
      }
    }
  });

  it("fails for a token that is invalid or cannot be used, and does not print it", async () => {
    const garbage = await runPeerage(["peering", "token", "inspect", "garbage"]);
    assert.deepEqual(
      garbage,
      failed("Error inspecting the peering token: failed to decode token: illegal base64 data at input byte 4\n"),
    );
    const empty = await runPeerage(["peering", "token", "inspect", Buffer.from("{}").toString("base64")]);
    assert.deepEqual([empty.exit, empty.stderr], [1, "No cluster can establish with this token.\n"]);
    assert.match(empty.stdout, /\nProblems:\n {4}peering token server addresses value is empty\n/);
    assert.equal((await runPeerage(["peering", "token", "inspect"])).exit, 1);
  });
});

describe("peerage config", () => {
  const entry = { Kind: "exported-services", Name: "default", Services: [{ Name: "web", Consumers: [{ Peer: "b" }] }] };
  const hcl = 'Kind = "exported-services"\nName = "default"\nServices { Name = "web" Consumers { Peer = "b" } }';

  it("write sends HCL or JSON, of a file or the standard input", async () => {
    await using directory = await temporaryDirectory();
    const file = join(directory.path, "entry");
    for (const [text, sent] of [
      [hcl, { ...entry, Services: { Name: "web", Consumers: { Peer: "b" } } }],
      [JSON.stringify(entry), entry],
    ] as const) {
      await writeFile(file, text);
      for (const path of [file, "-"]) {
        const result = await against(["config", "write", path], () => ({ body: true }), { stdin: text });
        assert.deepEqual(outcome(result), ok("Config entry written: exported-services/default\n"));
        assert.deepEqual(
          result.requests.map(({ method, url, body }) => [method, url.pathname, url.search, JSON.parse(body)]),
          [["PUT", "/v1/config", "", sent]],
        );
      }
    }
  });

  it("write with -cas tells when another was faster", async () => {
    const args = ["config", "write", "-cas", "-modify-index=7", "-"];
    const result = await against(args, () => ({ body: false }), { stdin: hcl });
    assert.deepEqual(outcome(result), failed("Config entry not updated: exported-services/default\n"));
    assert.equal(result.requests[0]?.url.search, "?cas=7");
  });

  const unsent: readonly (readonly [string, readonly string[], string, string])[] = [
    ["no file", ["write"], "", "Must provide exactly one positional argument to specify the config entry to write"],
    [
      "a missing file",
      ["write", "nofile"],
      "",
      "Failed to load data: Failed to read file: open nofile: no such file or directory",
    ],
    [
      "bad HCL",
      ["write", "-"],
      "Kind = ",
      "Failed to decode config entry input: Failed to decode config entry input: At 1:8: an assignment needs a value",
    ],
    [
      "no kind",
      ["write", "-"],
      'Name = "x"',
      "Failed to decode config entry input: Payload does not contain a kind/Kind key at the top level",
    ],
    [
      "a kind that is no text",
      ["write", "-"],
      "Kind = 1",
      "Failed to decode config entry input: Kind value in payload is not a string",
    ],
    ["no kind to read", ["read", "-name=x"], "", "Must specify the -kind parameter"],
    ["no name to read", ["read", "-kind=mesh"], "", "Must specify the -name parameter"],
    ["no kind to list", ["list"], "", "Must specify the -kind parameter"],
    ["no name to delete", ["delete", "-kind=mesh"], "", "Must specify the -name parameter"],
    [
      "-cas without an index",
      ["delete", "-kind=mesh", "-name=mesh", "-cas"],
      "",
      "Must specify a -modify-index greater than 0 with -cas",
    ],
  ];
  for (const [what, args, stdin, text] of unsent) {
    it(`${args[0]} refuses ${what} before it asks`, async () => {
      const result = await against(["config", ...args], () => ({ body: true }), { stdin });
      assert.deepEqual(outcome(result), failed(`${text}\n`));
      assert.equal(result.requests.length, 0);
    });
  }

  it("read prints the entry as the server gave it, without the hash that no number holds", async () => {
    const args = ["config", "read", "-kind=exported-services", "-name=default"];
    const body = '{"Kind":"exported-services","Name":"default","Hash":18003904009849147393,"ModifyIndex":18}';
    const result = await against(args, () => ({ body }));
    assert.deepEqual(
      outcome(result),
      ok('{\n    "Kind": "exported-services",\n    "Name": "default",\n    "ModifyIndex": 18\n}\n'),
    );
  });

  it("read, list and delete show the server's refusals", async () => {
    const missing = 'Config entry not found for "mesh" / "mesh"';
    assert.deepEqual(
      outcome(await against(["config", "read", "-kind=mesh", "-name=mesh"], () => ({ status: 404, body: missing }))),
      failed(`Error reading config entry mesh/mesh: Unexpected response code: 404 (${missing})\n`),
    );
    const unknown = "invalid config entry kind: nope";
    assert.deepEqual(
      outcome(await against(["config", "list", "-kind=nope"], () => ({ status: 500, body: unknown }))),
      failed(`Error listing config entries for kind "nope": Unexpected response code: 500 (${unknown})\n`),
    );
    assert.deepEqual(
      outcome(await against(["config", "delete", "-kind=nope", "-name=x"], () => ({ status: 400, body: unknown }))),
      failed(`Error deleting config entry nope/x: Unexpected response code: 400 (${unknown})\n`),
    );
  });

  it("list prints names, and nothing for none; delete prints the deleted name", async () => {
    const args = ["config", "list", "-kind=service-defaults"];
    const body = ["web", "api"].map((Name) => ({ Kind: "service-defaults", Name }));
    assert.deepEqual(outcome(await against(args, () => ({ body }))), ok("web\napi\n"));
    assert.deepEqual(outcome(await against(args, () => ({ body: [] }))), ok(""));
    const deleted = await against(["config", "delete", "-kind=mesh", "-name=mesh"], () => ({ body: {} }));
    assert.deepEqual(outcome(deleted), ok("Config entry deleted: mesh/mesh\n"));
  });
});

describe("peerage services export (CL5)", () => {
  const args = (peers: string): readonly string[] => ["services", "export", "-name=web", `-consumer-peers=${peers}`];

  it("adds consumers to the stored ones, and writes with cas", async () => {
    const stored = {
      Kind: "exported-services",
      Name: "default",
      Services: [{ Name: "web", Consumers: [{ Peer: "a" }] }],
      ModifyIndex: 5,
    };
    const result = await against(args("a,b"), ({ method }) => ({ body: method === "GET" ? stored : true }));
    assert.deepEqual(outcome(result), ok('Successfully exported service "web" to cluster peers "a,b"\n'));
    const [, put] = result.requests;
    assert.equal(put?.url.search, "?cas=5");
    assert.deepEqual(JSON.parse(put?.body ?? ""), {
      ...stored,
      Services: [{ Name: "web", Consumers: [{ Peer: "a" }, { Peer: "b" }] }],
    });
  });

  it("writes the first entry only if there is still none", async () => {
    const missing = { status: 404, body: 'Config entry not found for "exported-services" / "default"' };
    const result = await against(args("c"), ({ method }) => (method === "GET" ? missing : { body: false }));
    assert.deepEqual(outcome(result), failed("Config entry was changed during update. Please try again\n"));
    assert.equal(result.requests[1]?.url.search, "?cas=0");
  });
});

describe("peerage catalog", () => {
  it("register sends the values of its flags, or a file", async () => {
    const flags = [
      "-node=n1",
      "-address=10.0.0.1",
      "-service=web",
      "-id=web-1",
      "-port=80",
      "-tag=a",
      "-tag=b",
      "-meta=k=v",
    ];
    const result = await against(["catalog", "register", ...flags], () => ({ body: true }));
    assert.deepEqual(outcome(result), ok("Registered n1/web-1\n"));
    assert.deepEqual(
      result.requests.map(({ method, url, body }) => [method, url.pathname, JSON.parse(body)]),
      [
        [
          "PUT",
          "/v1/catalog/register",
          {
            Node: "n1",
            Address: "10.0.0.1",
            Service: { Service: "web", ID: "web-1", Port: 80, Tags: ["a", "b"], Meta: { k: "v" } },
          },
        ],
      ],
    );
    const stdin = 'Node = "n2"\nAddress = "10.0.0.2"';
    const file = await against(["catalog", "register", "-"], () => ({ body: true }), { stdin });
    assert.deepEqual(outcome(file), ok("Registered n2\n"));
    assert.deepEqual(JSON.parse(file.requests[0]?.body ?? ""), { Node: "n2", Address: "10.0.0.2" });
    assert.deepEqual(await runPeerage(["catalog", "register"]), failed("Missing the required -node flag\n"));
  });

  it("deregister sends node, service and check", async () => {
    const result = await against(["catalog", "deregister", "-node=n1", "-service-id=web-1"], () => ({ body: true }));
    assert.deepEqual(outcome(result), ok("Deregistered n1/web-1\n"));
    assert.deepEqual(JSON.parse(result.requests[0]?.body ?? ""), { Node: "n1", ServiceID: "web-1" });
  });

  it("services lists names, or a table with tags; those of a peer, too", async () => {
    const body = { web: ["v2", "v1"], api: [] };
    const result = await against(["catalog", "services", "-peer=east"], () => ({ body }));
    assert.deepEqual(outcome(result), ok("api\nweb\n"));
    assert.equal(result.requests[0]?.url.search, "?peer=east");
    assert.deepEqual(
      outcome(await against(["catalog", "services", "-tags"], () => ({ body }))),
      ok("api      \nweb      v1,v2\n"),
    );
    assert.deepEqual(
      outcome(await against(["catalog", "services"], () => ({ body: {} }))),
      noted("No services match the given query - try expanding your search.\n"),
    );
    const unknown = await against(["catalog", "services", "-node=nope"], () => ({ body: null }));
    assert.deepEqual(outcome(unknown), noted("No services match the given query - try expanding your search.\n"));
  });

  it("datacenters lists names", async () => {
    assert.deepEqual(
      outcome(await against(["catalog", "datacenters"], () => ({ body: ["dc1", "dc2"] }))),
      ok("dc1\ndc2\n"),
    );
  });

  it("nodes lists a table, short or detailed", async () => {
    const node = {
      ID: "e52ea8df-71c4-53d4-31d6-f70208cc2285",
      Node: "vm",
      Address: "127.0.0.1",
      Datacenter: "dc1",
      TaggedAddresses: { wan: "127.0.0.1", lan: "127.0.0.1" },
      Meta: { "consul-version": "1.21.4" },
    };
    assert.deepEqual(
      outcome(await against(["catalog", "nodes"], () => ({ body: [node] }))),
      ok("Node  ID        Address    DC\nvm    e52ea8df  127.0.0.1  dc1\n"),
    );
    const detailed = await against(["catalog", "nodes", "-detailed", "-node-meta=a=b"], () => ({ body: [node] }));
    assert.equal(
      detailed.stdout,
      "Node  ID                                    Address    DC   TaggedAddresses               Meta\n" +
        "vm    e52ea8df-71c4-53d4-31d6-f70208cc2285  127.0.0.1  dc1  lan=127.0.0.1, wan=127.0.0.1  consul-version=1.21.4\n",
    );
    assert.equal(detailed.requests[0]?.url.searchParams.get("node-meta"), "a:b");
    assert.deepEqual(
      outcome(await against(["catalog", "nodes", "-service=nope"], () => ({ body: [] }))),
      noted("No nodes match the given query - try expanding your search.\n"),
    );
  });
});
