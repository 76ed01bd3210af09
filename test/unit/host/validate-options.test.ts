import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { createHost } from "../../../src/host/host.js";
import type { HostOptions } from "../../../src/host/options.js";
import { datacenterName } from "../../../src/host/validate-options.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { runPeerage } from "../../support/command-line.js";
import { LogRecorder } from "../../support/log-recorder.js";

async function start(options: Partial<HostOptions>, listen = "127.0.0.1:8503"): Promise<string> {
  const transport = memoryNetwork().transport({ listen });
  try {
    await using host = await createHost({ storage: memoryStorage(), transport, ...options });
    return `started ${host.datacenter} ${host.nodeName}`;
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    assert.equal(error.code, "invalid-argument");
    return error.message;
  }
}

function agent(...flags: readonly string[]): ReturnType<typeof runPeerage> {
  const ports = ["-dev", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
  return runPeerage(["agent", ...ports, ...flags], { signal: AbortSignal.abort() });
}

const basic = "datacenter can only contain lowercase alphanumeric, - or _ characters. received:";
const nodeName = "node_name can only contain letters, digits and the characters -, _ and dot between them. received:";

describe("names that cannot work are refused at the start", () => {
  for (const name of ["My DC", "a/b", "ü", "a.b", "a\n", " dc1", "*"]) {
    it(`datacenter ${JSON.stringify(name)}, by a host and by an agent`, async () => {
      const text = `${basic} ${JSON.stringify(name.toLowerCase())}`;
      assert.equal(await start({ datacenter: name }), text);
      const { exit, stderr } = await agent("-datacenter", name);
      const told = name === name.trim() ? text : `${JSON.stringify(name)} begins or ends with a space`;
      assert.deepEqual([exit, stderr.includes(`Invalid datacenter: ${told}`)], [1, true], stderr);
    });
  }

  it("a datacenter without a name, or with one that no certificate can hold", async () => {
    assert.equal(await start({ datacenter: "" }), "datacenter cannot be empty");
    assert.match(await start({ datacenter: "a".repeat(64) }), /^datacenter cannot be longer than 63 characters/);
    assert.equal(await start({ datacenter: "a".repeat(63) }), `started ${"a".repeat(63)} peerage`);
  });

  it("capitals of a datacenter are taken as small letters, as by Consul, and odd names are warned of", async () => {
    assert.equal(datacenterName("DC1"), "dc1");
    const logger = new LogRecorder();
    assert.equal(await start({ datacenter: "my_dc", nodeName: "n_1", logger }), "started my_dc n_1");
    assert.deepEqual(
      logger.lines.map(({ message }) => message.replace(/ will not be .*/, "")),
      ['Datacenter : "my_dc"', 'Node name "n_1"'],
    );
  });

  for (const name of ["a b", "a/b", "ü", "a..b", ".a", "a.", "a\u0000", "a\u001b[31m"]) {
    it(`node ${JSON.stringify(name)}`, async () => {
      assert.equal(await start({ nodeName: name }), `${nodeName} ${JSON.stringify(name)}`);
      const { exit, stderr } = await agent("-node", name);
      assert.deepEqual([exit, stderr.includes("Invalid node: ")], [1, true], stderr);
    });
  }

  it("but not the names that machines have", async () => {
    for (const name of ["n1", "Web-01", "host.example.com", "ip-10-0-0-1.ec2.internal"]) {
      assert.equal(await start({ nodeName: name }), `started dc1 ${name}`);
    }
  });
});

describe("addresses that lead nowhere are not advertised", () => {
  const refusals: readonly (readonly [string, string])[] = [
    ["10.0.0.1", "it is not host:port"],
    ["10.0.0.1:0", "it is not host:port"],
    ["10.0.0.1:70000", "it is not host:port"],
    ["0.0.0.0:8503", "it stands for every address of this machine, and leads nowhere"],
    ["[::]:8503", "it stands for every address of this machine, and leads nowhere"],
    [":8503", "its host is no name and no address"],
    ["my host:8503", "its host is no name and no address"],
    ["http://a:8503", "it is not host:port"],
    ["a/b:8503", "its host is no name and no address"],
  ];
  for (const [address, why] of refusals) {
    it(address, async () => {
      const text = `cannot advertise ${JSON.stringify(address)}: ${why}`;
      assert.equal(await start({ advertise: ["ok.example.com:8503", address] }), text);
      const { exit, stderr } = await agent("-advertise", address);
      assert.deepEqual([exit, stderr.includes(`Invalid advertise: ${text}`)], [1, true], stderr);
    });
  }

  it("empty ones are dropped, and where none is left it is where the host listens", async () => {
    for (const advertise of [[""], ["", " "], ["a.example.com:8503", ""]]) {
      const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
      await using host = await createHost({ storage: memoryStorage(), transport, advertise });
      const token = await host.peerings.generateToken({ peerName: "p" });
      const { ServerAddresses } = JSON.parse(Buffer.from(token, "base64").toString());
      assert.deepEqual(ServerAddresses, [
        advertise[0] === "a.example.com:8503" ? "a.example.com:8503" : "127.0.0.1:8503",
      ]);
    }
  });

  it("a host that listens on every address must say where it is", async () => {
    const text = "a host that listens on 0.0.0.0:8503 does not know where peers reach it";
    assert.equal(await start({}, "0.0.0.0:8503"), text);
    assert.equal(await start({ advertise: ["a.example.com:8503"] }, "0.0.0.0:8503"), "started dc1 peerage");
  });
});

describe("numbers that bound nothing are refused", () => {
  for (const value of [-1, Number.NaN]) {
    it(`limits, timings and checks of ${value}`, async () => {
      const limits = { transitHops: value };
      assert.equal(await start({ limits }), `limits.transitHops must be a number that is not negative, not ${value}`);
      assert.match(await start({ timings: { heartbeatIntervalMs: value } }), /^timings\.heartbeatIntervalMs must be/);
      assert.match(await start({ checks: { concurrentProbes: value } }), /^checks\.concurrentProbes must be/);
    });
  }
});

describe("rules of transit for peers that can never be are refused", () => {
  const refusals: readonly (readonly [readonly [string, string, readonly string[]], RegExp])[] = [
    [["a_b", "c", ["*"]], /transit from "a_b" to "c": a_b is not a valid peer name/],
    [["a", "", ["*"]], /transit from "a" to "": {2}is not a valid peer name/],
  ];
  for (const [[from, to, services], text] of refusals) {
    it(`${from}:${to}:${services.join()}`, async () => {
      assert.match(await start({ transit: [{ from, to, services }] }), text);
    });
  }
});
