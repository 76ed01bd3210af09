// The command line against what Consul's own printed, with servers that answer what Consul's servers answered.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import {
  type FakeAnswer,
  type FakeRequest,
  type FakeServer,
  fakeServer,
  runPeerage,
} from "../../support/command-line.js";
import {
  asOurs,
  type RecordedCommandLine,
  recordedCommandLines,
  withoutOurs,
  withoutVarying,
} from "../../support/recorded-command-lines.js";

interface NamedPeering {
  readonly Name: string;
}

const recorded = recordedCommandLines("1.21.4");
const newer = recordedCommandLines("1.22.0-dev");

const NOWHERE = "127.0.0.101:1";

describe("recorded command lines of 1.21.4", () => {
  /** The peerings of both servers, as the recorded `list -format json` shows them. */
  const peerings = new Map<string, NamedPeering[]>();
  for (const { args, server, stdout } of recorded) {
    if (args.join(" ") === "peering list -format json") peerings.set(server, JSON.parse(stdout));
  }
  const exported = recorded.find(
    ({ args, server }) => args.includes("json") && args[0] === "services" && server === "a",
  );
  let current: RecordedCommandLine | undefined;
  const servers = new Map<string, FakeServer>();

  /** Refusals and tokens come from what is being replayed, all else from the state. */
  const answer =
    (server: string) =>
    ({ method, url }: FakeRequest): FakeAnswer => {
      const known = peerings.get(server) ?? [];
      const name = decodeURIComponent(url.pathname.split("/")[3] ?? "");
      const [, status, text] = /Unexpected response code: (\d+) \((.*)\)\n$/s.exec(current?.stderr ?? "") ?? [];
      if (status !== undefined) return { status: Number(status), body: text };
      switch (`${method} ${url.pathname}`) {
        case "GET /v1/peerings":
          return { body: known };
        case "GET /v1/exported-services":
          return { body: server === "a" ? exported?.stdout : [] };
        case "POST /v1/peering/token":
          return { body: { PeeringToken: /token:\w+/.exec(current?.stdout ?? "")?.[0] } };
        case "POST /v1/peering/establish":
          return { body: {} };
        case `GET /v1/peering/${name}`: {
          const found = known.find((each) => each.Name === name);
          return found === undefined ? { status: 404, body: `Peering not found for "${name}"` } : { body: found };
        }
        case `DELETE /v1/peering/${name}`:
          peerings.set(
            server,
            known.filter((each) => each.Name !== name),
          );
          return { body: "" };
        default:
          return { status: 404, body: "" };
      }
    };

  before(async () => {
    for (const name of ["a", "b"]) servers.set(name, await fakeServer(answer(name)));
  });
  after(async () => {
    for (const server of servers.values()) await server[Symbol.asyncDispose]();
  });

  it("are many", () => {
    assert.equal(recorded.length, 68);
    assert.equal(peerings.size, 2);
  });

  for (const each of recorded) {
    it(`${each.origin}: ${each.args.join(" ")}`, async () => {
      current = each;
      // A port nobody listens on, at an address that every machine has.
      const address = servers.get(each.server)?.address ?? "127.0.0.1:1";
      const result = await runPeerage(each.args, { environment: { CONSUL_HTTP_ADDR: address } });
      assert.deepEqual(
        { ...result, stdout: result.stdout, stderr: withoutOurs(result.stderr).replaceAll(address, NOWHERE) },
        { exit: each.exit, stdout: each.stdout, stderr: asOurs(each.stderr) },
      );
    });
  }
});

describe("recorded command lines of 1.22", () => {
  it("differ from those of 1.21.4 in two labels of `read` alone", () => {
    assert.ok(newer.length > 0);
    for (const each of newer) {
      const base = recorded.find(({ origin }) => origin === each.origin.replace("1.22.0-dev", "1.21.4"));
      const stdout = each.stdout.replaceAll("Peer Servers ", "Peer Server ");
      assert.equal(withoutVarying(stdout), withoutVarying(base?.stdout ?? ""));
    }
  });
});
