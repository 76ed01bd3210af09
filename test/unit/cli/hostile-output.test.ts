// The output of commands comes from servers, and to these from peers. Nothing of it may work a terminal, fake a line, or read
// backwards. Each command is run with names that are harmless and with names that are not: both print the same lines.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type CommandGroup, loaded } from "../../../src/cli/command.js";
import { lineLogger } from "../../../src/cli/log.js";
import { table, visible } from "../../../src/cli/output.js";
import { commands } from "../../../src/cli/run.js";
import { type FakeServer, fakeServer, runPeerage } from "../../support/command-line.js";

const HARMLESS = "quite harmless";
/** Clears the screen, sets its title, rings, goes back, breaks lines in every way there is, and turns text round. */
const HOSTILE =
  "a\u001b[2J\u001b]0;title\u0007\b\r\nName: fake\n\tb\u0000\u007f\u0085\u009b31m\u00ad\u061c\u200b\u200f\u2028\u2029" +
  "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u{e0001}z";
/** From and to: control characters but for the line break, and what turns text round, hides it, or breaks a line. */
const UNSEEN: readonly (readonly [number, number])[] = [
  [0x00, 0x09],
  [0x0b, 0x1f],
  [0x7f, 0x9f],
  [0xad, 0xad],
  [0x61c, 0x61c],
  [0x200b, 0x200f],
  [0x2028, 0x202e],
  [0x2060, 0x206f],
  [0xd800, 0xdfff],
  [0xfeff, 0xfeff],
  [0xe0000, 0xe007f],
];

function unseenIn(output: string): readonly string[] {
  // A tab in front of a line moves that line alone.
  const codes = [...output.replace(/^\t/gm, "")].map((character) => character.codePointAt(0) ?? 0);
  return codes
    .filter((code) => UNSEEN.some(([from, to]) => code >= from && code <= to))
    .map((code) => code.toString(16));
}

/** An answer of a server in which every text is `text`. */
function answers(text: string): Readonly<Record<string, unknown>> {
  const map = { [text]: text };
  const proxy = {
    ID: text,
    Kind: "connect-proxy",
    Service: text,
    Proxy: { DestinationServiceID: text, DestinationServiceName: text, Config: { envoy_stats_tags: [text] } },
  };
  const peering = {
    ID: text,
    Name: text,
    Partition: text,
    DeletedAt: text,
    Meta: map,
    State: text,
    PeerID: text,
    PeerCAPems: [text],
    PeerServerName: text,
    PeerServerAddresses: [text, text],
    StreamStatus: {
      ImportedServices: [text],
      ExportedServices: [text, text],
      LastHeartbeat: text,
      LastReceive: text,
      LastSend: text,
    },
    CreateIndex: 1,
    ModifyIndex: 2,
    Remote: { Partition: text, Datacenter: text, Locality: { Region: text, Zone: text } },
  };
  const node = { ID: text, Node: text, Address: text, Datacenter: text, TaggedAddresses: map, Meta: map };
  const service = { ID: text, Service: text, Tags: [text, text], Address: text, Meta: map, Port: 1 };
  const flat = { ...node, NodeMeta: map, ServiceID: text, ServiceName: text, ServiceTags: [text], ServiceMeta: map };
  const entry = { Kind: text, Name: text, Meta: map, Services: [{ Name: text, Consumers: [{ Peer: text }] }] };
  const intention = {
    ...{ ID: text, Description: text, SourceNS: text, SourceName: text, DestinationNS: text, DestinationName: text },
    ...{ Action: text, Permissions: [{ Action: text }], Meta: map, Precedence: 9, CreatedAt: text },
  };
  return {
    "GET /v1/connect/intentions": [intention, { ...intention, Permissions: [] }],
    "GET /v1/connect/intentions/exact": intention,
    "GET /v1/connect/intentions/i": intention,
    "GET /v1/connect/intentions/match": { d: [intention, { ...intention, Permissions: [] }] },
    "GET /v1/connect/intentions/check": { Allowed: false },
    "POST /v1/connect/intentions": { ID: text },
    "DELETE /v1/connect/intentions/exact": true,
    "DELETE /v1/connect/intentions/i": true,
    "GET /v1/peerings": [peering],
    "GET /v1/peering/p": peering,
    "DELETE /v1/peering/p": "",
    "POST /v1/peering/token": { PeeringToken: text },
    "POST /v1/peering/establish": {},
    "GET /v1/exported-services": [{ Service: text, Consumers: { Peers: [text, text] } }],
    "GET /v1/catalog/datacenters": [text, text],
    "GET /v1/catalog/nodes": [node, node],
    "GET /v1/catalog/services": { [text]: [text, text] },
    "GET /v1/catalog/service/s": [flat],
    "GET /v1/catalog/node/n": { Node: node, Services: { [text]: service } },
    "GET /v1/agent/self": { Config: { NodeName: text }, Stats: { [text]: { [text]: text, more: text } } },
    "GET /v1/agent/services": { s: proxy },
    [`GET /v1/agent/service/${text}`]: proxy,
    [`GET /v1/catalog/node-services/${text}`]: { Node: { Datacenter: text }, Services: [proxy] },
    "GET /v1/agent/members": [
      { Name: text, Addr: text, Port: 1, Status: 1, Tags: { ...map, role: "consul", build: text } },
    ],
    "GET /v1/agent/checks": { _node_maintenance: { Notes: text }, [`_service_maintenance:${text}`]: { Notes: text } },
    "PUT /v1/agent/maintenance": "",
    [`PUT /v1/agent/service/maintenance/${text}`]: "",
    "PUT /v1/agent/service/register": "",
    [`PUT /v1/agent/service/deregister/${text}`]: "",
    "PUT /v1/agent/reload": "",
    "PUT /v1/agent/leave": "",
    "GET /v1/operator/raft/configuration": {
      Servers: [{ Node: text, ID: text, Address: text, ProtocolVersion: text, Voter: true, LastIndex: 1 }],
    },
    "GET /v1/internal/peerage/explain/connection": {
      Source: { Service: text, Peer: text },
      Destination: { Service: text, Peer: text },
      Steps: [{ Part: text, Result: text, Place: text, Text: text, Remedy: text }],
      Failed: { Part: text, Result: text, Place: text, Text: text, Remedy: text },
      Hints: [text],
    },
    "GET /v1/internal/peerage/explain/intentions": [{ Type: text, Service: text, Peer: text, Text: text }],
    "GET /v1/internal/peerage/proxies": [
      {
        ...{
          ID: text,
          Node: text,
          Service: text,
          Kind: text,
          EnvoyVersion: text,
          WaitsFor: [text],
          Missing: [text, text],
        },
        Refusals: [{ Type: text, Names: [text, text], Message: text }],
      },
    ],
    "GET /v1/peerage/peering-tokens": [{ ID: text, Name: text }],
    "PUT /v1/catalog/register": true,
    "PUT /v1/catalog/deregister": true,
    "GET /v1/config/k": [entry],
    "GET /v1/connect/ca/configuration": { Provider: text, Config: { [text]: text }, State: { [text]: text } },
    "PUT /v1/connect/ca/configuration": "",
    "GET /v1/config/k/n": entry,
    "GET /v1/config/exported-services/default": { ...entry, Kind: "exported-services" },
    "PUT /v1/config": true,
    "DELETE /v1/config/k/n": {},
  };
}

/** A peering token that says it. */
function token(text: string): string {
  const said = {
    CA: [],
    ManualServerAddresses: [text],
    ServerAddresses: [text],
    ServerName: text,
    PeerID: text,
    EstablishmentSecret: text,
    Remote: { Partition: text, Datacenter: text, Locality: { Region: text, Zone: text } },
  };
  return Buffer.from(JSON.stringify(said)).toString("base64");
}

/** Ways to run each command, whose text may be in its arguments, too. */
const runs: Readonly<Record<string, (text: string) => readonly (readonly string[])[]>> = {
  "catalog datacenters": () => [[]],
  "catalog deregister": (text) => [
    ["-node", text, "-service-id", text],
    ["-node", text, "-check-id", text],
    ["-node", text],
  ],
  "catalog nodes": () => [[], ["-detailed"], ["-service", "s"], ["-service", "s", "-detailed"]],
  "catalog register": (text) => [
    ["-node", text, "-address", text, "-service", text, "-tag", text],
    ["-node", text],
  ],
  "catalog services": () => [[], ["-tags"], ["-node", "n", "-tags"], ["-peer", "p"]],
  "config delete": () => [["-kind", "k", "-name", "n"]],
  "config list": () => [["-kind", "k"]],
  "config read": () => [["-kind", "k", "-name", "n"]],
  "config write": () => [["-"]],
  "connect ca get-config": () => [[]],
  // A file that says nothing of it.
  "connect envoy": (text) => {
    const shared = ["-bootstrap", "-grpc-addr", "127.0.0.1:1"];
    return [
      [...shared, "-sidecar-for", text],
      [...shared, "-proxy-id", text, "-node-name", text],
    ];
  },
  "connect ca set-config": () => [["-config-file", "package.json"]],
  info: () => [[]],
  "intention check": (text) => [[text, text]],
  "intention create": (text) => [[text.replaceAll("/", ""), "d"]],
  "intention delete": (text) => [["i"], [text, text]],
  "intention get": (text) => [["i"], [text, text]],
  "intention list": () => [[]],
  "intention match": () => [["d"]],
  keygen: () => [[]],
  leave: () => [[]],
  maint: (text) => [[], ["-enable", "-reason", text], ["-service", text, "-disable"]],
  members: () => [[], ["-detailed"]],
  "operator raft list-peers": () => [[]],
  "peering delete": () => [["-name", "p"]],
  "peering establish": (text) => [["-name", text, "-peering-token", text, "-meta", `${text}=${text}`]],
  "peering exported-services": () => [
    ["-name", "p"],
    ["-name", "p", "-format", "json"],
  ],
  "explain connection": (text) => [
    ["-source", text, text],
    ["-format", "json", "-source", text, "-peer", text, text],
  ],
  "explain intentions": () => [[], ["-format", "json"]],
  "peering generate": (text) => [["-name", text]],
  "peering generate-token": (text) => [
    ["-name", text],
    ["-name", text, "-format", "json"],
  ],
  "peering list": () => [[], ["-format", "json"]],
  "peering read": () => [
    ["-name", "p"],
    ["-name", "p", "-format", "json"],
  ],
  "peering token list": () => [[], ["-format", "json"]],
  "peering token revoke": (text) => [["-name", text]],
  "peering token inspect": (text) => [[token(text)], ["-format", "json", token(text)], [text]],
  proxies: () => [[], ["-format", "json"]],
  reload: () => [[]],
  "services deregister": (text) => [["-id", text]],
  "services export": (text) => [["-name", text, "-consumer-peers", text]],
  "services exported-services": () => [[], ["-format", "json"]],
  "services register": (text) => [["-name", text, "-tag", text]],
  validate: (text) => [[text]],
  version: () => [[], ["-format", "json"]],
};

/** Commands that ask no server. */
const LOCAL: readonly string[] = ["keygen", "peering token inspect", "validate", "version"];

async function paths(group: CommandGroup, path: readonly string[] = []): Promise<readonly string[]> {
  const found: string[] = [];
  for (const [name, member] of Object.entries(group.commands)) {
    const command = await loaded(member);
    found.push(...("commands" in command ? await paths(command, [...path, name]) : [[...path, name].join(" ")]));
  }
  return found;
}

/** Nothing but line breaks, of which there are so many. */
function assertSeen(output: string, harmless: string, what: string): void {
  // Tabs that indent a line of JSON show as what they are.
  assert.deepEqual(unseenIn(output.replace(/^\t+(?=["}])/gm, "")), [], what);
  assert.equal(output.split("\n").length, harmless.split("\n").length, `${what}: ${JSON.stringify(output)}`);
}

describe("what commands print", () => {
  let text = HARMLESS;
  /** Undefined: the server answers; else it fails with this. */
  let failure: string | undefined;
  let server: FakeServer;
  before(async () => {
    server = await fakeServer(({ method, url }) => {
      if (failure !== undefined) return { status: 500, body: failure };
      const body = answers(text)[`${method} ${decodeURIComponent(url.pathname)}`];
      return body === undefined ? { status: 404, body: text } : { body };
    });
  });
  after(() => server[Symbol.asyncDispose]());

  async function run(name: string, args: readonly string[]): ReturnType<typeof runPeerage> {
    return runPeerage([...name.split(" "), ...args], {
      environment: { CONSUL_HTTP_ADDR: server.address },
      stdin: JSON.stringify({ Kind: text, Name: text }),
    });
  }

  it("is tried of every command but the agent, which runs", async () => {
    const found = await paths(commands);
    assert.deepEqual(found.filter((path) => path !== "agent").toSorted(), Object.keys(runs).sort());
  });

  for (const [name, argumentsOf] of Object.entries(runs)) {
    for (const index of argumentsOf(HARMLESS).keys()) {
      it(`has the same lines whatever is named: ${name} (${index + 1})`, async () => {
        text = HARMLESS;
        const args = argumentsOf(HARMLESS)[index] ?? [];
        const usual = await run(name, args);
        text = HOSTILE;
        const hostile = await run(name, argumentsOf(HOSTILE)[index] ?? []);
        assert.equal(hostile.exit, usual.exit, hostile.stderr);
        assertSeen(hostile.stdout, usual.stdout, "stdout");
        assertSeen(hostile.stderr, usual.stderr, "stderr");
        if (name !== "version" && (usual.stdout.startsWith("[") || usual.stdout.startsWith("{"))) {
          // JSON says what was said, and no less.
          assert.ok(JSON.stringify(JSON.parse(hostile.stdout)).includes(JSON.stringify(HOSTILE).slice(1, -1)));
        } else if (usual.stdout.includes(HARMLESS)) {
          assert.ok(
            hostile.stdout.includes(visible(HOSTILE)) ||
              hostile.stdout.includes(JSON.stringify(HOSTILE)) ||
              hostile.stdout.includes("a\\u001b"),
            hostile.stdout,
          );
        }
      });

      it(`tells a failure in one line, whatever the server says: ${name} (${index + 1})`, async () => {
        text = HARMLESS;
        failure = HOSTILE;
        try {
          const { exit, stderr, stdout } = await run(name, argumentsOf(HOSTILE)[index] ?? []);
          if (LOCAL.includes(name)) return;
          assert.deepEqual([exit, stdout], [name === "intention check" ? 2 : 1, ""]);
          assertSeen(stderr, "one line\n", "stderr");
          assert.ok(stderr.includes(visible(HOSTILE)));
        } finally {
          failure = undefined;
        }
      });
    }
  }

  it("is one line about the wrong flag or command, and then the list of them", async () => {
    for (const args of [["peering", "list", `-${HOSTILE}`], ["peering", HOSTILE], [HOSTILE]]) {
      const { stderr } = await runPeerage(args);
      assert.deepEqual(unseenIn(stderr.replaceAll("    \t", "")), []);
    }
  });

  it("is of an agent that cannot be called so one line", async () => {
    const ports = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
    const { exit, stderr, stdout } = await runPeerage(["agent", "-dev", "-node", HOSTILE, ...ports]);
    assert.deepEqual([exit, stdout], [1, ""]);
    assert.match(stderr, /^Invalid node: ".*" has control characters\n$/);
    assert.deepEqual(unseenIn(stderr), []);
  });
});

describe("log lines", () => {
  const lines = (form: "pretty" | "json"): readonly string[] => {
    const written: string[] = [];
    const logger = lineLogger({ level: () => "debug", form, wall: () => 0, write: (line) => written.push(line) });
    logger.warn(HOSTILE, { peer: HOSTILE, count: 1 });
    return written;
  };

  it("are one each, and show invisible characters", () => {
    const [line = "", ...others] = lines("pretty");
    assert.deepEqual(others, []);
    assertSeen(line, "one line\n", "pretty");
    assert.ok(line.includes(visible(HOSTILE)));
  });

  it("are JSON with the same text", () => {
    const [line = ""] = lines("json");
    assertSeen(line, "one line\n", "json");
    assert.deepEqual(JSON.parse(line), {
      peer: HOSTILE,
      count: 1,
      time: "1970-01-01T00:00:00.000Z",
      level: "warn",
      message: HOSTILE,
    });
  });
});

describe("escapes", () => {
  it("are Go's, leave all else as it is, and are not escaped again", () => {
    const seen = 'grün 名 🚀 a\\b "c" <d>';
    assert.equal(visible(seen), seen);
    assert.equal(visible("\t\r\n\u001b\u009b\u202e\u{e0001}\ud800"), "\\t\\r\\n\\x1b\\x9b\\u202e\\U000e0001\\ud800");
    assert.equal(visible(visible(HOSTILE)), visible(HOSTILE));
  });

  it("count for the width of a column", () => {
    assert.deepEqual(
      table([
        ["a\n", "x"],
        ["bcd", "y"],
      ]),
      ["a\\n  x", "bcd  y"],
    );
  });
});
