// Every flag of the agent with values that cannot be meant or cannot work: each is refused at the start, with the name of the flag
// or what is wrong, and nothing is served.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { agentFlags } from "../../../src/cli/agent-options.js";
import { runPeerage } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

/** Of every flag that takes a text. */
const NO_TEXT: readonly string[] = ["", " ", "\t", " x", "x ", "x\n", "x\ny", "x\u0000y", "\u001b[2J"];
const NO_NUMBER: readonly string[] = [
  "-1",
  "abc",
  "1.5",
  "1e3",
  "0x10",
  "+5",
  "1,000",
  "10s",
  "٣",
  "99999999999999999999",
];
const NO_PLACE: readonly string[] = [
  ...["8500", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-2", "127.0.0.1:http", "[::1", "::1:80"],
  ...["http://127.0.0.1:1", "127.0.0.1:1/x", "127.0.0.1:1:2", "999.0.0.1:1", "a b:1", "198.51.100.255:1"],
];
const NO_RANGE: readonly string[] = [
  ...[
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0/8",
    "10.0.0.0/8/8",
    "::/129",
    "all",
    "10.0.0.0-10.0.0.9",
    "*",
    "1.2.3.4/",
    "/8",
  ],
];
const NO_FILE: readonly string[] = [
  ...["/nowhere", "/dev/null/x", "/proc", ".", "..", "/nowhere/", "file:///etc/hosts", "~nobody/x", "$HOME/x", "-"],
];
const NO_BOOLEAN: readonly string[] = ["", " ", "yes", "no", "on", "off", "2", "-1", "tRUE", "null"];
/** Flags whose values of another kind than these are refused, too. */
const numbers: readonly string[] = agentFlags
  .filter(({ placeholder = "" }) => ["number", "count", "bytes", "milliseconds"].includes(placeholder))
  .map(({ name }) => name);

const wrong: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries(numbers.map((name) => [name, NO_NUMBER])),
  ...Object.fromEntries(agentFlags.filter(({ kind }) => kind === "boolean").map(({ name }) => [name, NO_BOOLEAN])),
  "acl-policies": [...NO_FILE, "package.json"],
  advertise: [
    ...NO_PLACE.filter((place) => !/^(?:::1:80|a b:1|198.*|999.*)$/.test(place)),
    "0.0.0.0:1",
    "[::]:1",
    "h:0",
  ],
  "allow-write-http-from": [...NO_RANGE, "10.0.0.1", "::1", "none"],
  "allowed-host": ["a b", "x:80", "http://x", "x/y", "[::1", "é", "a,b", "x?", "@", "#"],
  "allowed-origin": [
    "x",
    "x:80",
    "http://",
    "http://x/y",
    "http://x?y",
    "//x",
    "http:x y",
    "é",
    "http://x#y",
    "https//x",
  ],
  bind: ["abc", "localhost", "127.0.0.1:8503", "127.0.0", "127.0.0.256", "[::1", "::1]", "*", "10.0.0.0/8", "http://x"],
  ca: NO_FILE,
  cert: NO_FILE,
  "check-addresses": NO_RANGE,
  config: [...NO_FILE, "tsconfig.json", "README.md"],
  "config-dir": [...NO_FILE.filter((path) => !/^(?:\.|\.\.|\/proc)$/.test(path)), "/nowhere/x", "a,b", "*.json"],
  "config-file": [...NO_FILE.filter((path) => !/^(?:\.|\.\.|\/proc)$/.test(path)), "README.md", "package.json"],
  "config-format": ["yaml", "toml", "JSON", "HCL", "json5", "hcl2", "text", "ini", "1", "json,hcl"],
  "data-dir": ["/dev/null/x", "/proc/x/y", "/dev/null", "package.json", "README.md/x"],
  datacenter: ["a b", "a.b", "é", "a/b", "a:b", "*", "a,b", "x".repeat(64), "a@b", "a%b"],
  "encrypt-key-file": [...NO_FILE, "package.json"],
  "forbidden-addresses": [...NO_RANGE, "None"],
  grpc: NO_PLACE,
  "grpc-tls": NO_PLACE,
  http: NO_PLACE,
  https: NO_PLACE,
  dns: NO_PLACE,
  key: NO_FILE,
  "log-level": ["loud", "0", "1", "warning", "fatal", "panic", "off", "all", "-1", "info,debug"],
  node: ["a b", "a/b", "..", ".a", "a.", "a..b", "é", "a:b", "*", "x".repeat(254)],
  "xds-tls": NO_PLACE,
  transit: ["a", "a:b", "a:b:", ":b:c", "a::c", "a b:c:d", "*:b:c", "a:*:c", "a/x:b:c", "é:b:c"],
};

/** Further flags, so that nothing but the flag is wrong. */
function others(name: string): readonly string[] {
  const places = ["http", "grpc-tls", "dns"].filter((other) => other !== name).map((other) => `-${other}=127.0.0.1:0`);
  const served = ["cert", "key", "ca"].includes(name)
    ? ["-https=127.0.0.1:0", ...["cert", "key"].filter((other) => other !== name).map((other) => `-${other}=LICENSE`)]
    : name === "https"
      ? ["-cert=LICENSE", "-key=LICENSE"]
      : [];
  const grpc = name === "bind" ? places.filter((place) => !place.startsWith("-grpc-tls")) : places;
  return [...(name === "data-dir" || name === "dev" ? [] : ["-dev"]), ...grpc, ...served];
}

describe("peerage agent refuses at the start", () => {
  let directory: AsyncDisposable & { readonly path: string };
  before(async () => {
    directory = await temporaryDirectory();
  });
  after(() => directory[Symbol.asyncDispose]());

  it("wrong values of every flag", () => {
    assert.deepEqual(Object.keys(wrong).sort(), agentFlags.map(({ name }) => name).sort());
  });

  for (const { name, kind } of agentFlags) {
    const values = [...(kind === "boolean" ? [] : NO_TEXT), ...(wrong[name] ?? [])];
    it(`${values.length} wrong values of -${name}`, async () => {
      for (const value of values) {
        const args = ["agent", ...others(name), `-${name}=${value}`];
        const { exit, stdout, stderr } = await runPeerage(args, { signal: AbortSignal.abort() });
        assert.deepEqual([exit, stdout], [1, ""], `${JSON.stringify(value)}: ${stdout}${stderr}`);
        const [line = ""] = stderr.split("\n");
        // A mistake of ours would come with a stack.
        assert.doesNotMatch(stderr, /^\s+at /m, JSON.stringify(value));
        assert.ok(line.length > 15, JSON.stringify(value));
      }
    });
  }

  it("values that are empty in a file, as those of flags, and takes variables that are empty for none", async () => {
    const path = join(directory.path, "config.json");
    await writeFile(path, '{"dev":true,"acl_policies":""}');
    const inFile = await runPeerage(["agent", "-config", path, ...others("x")], { signal: AbortSignal.abort() });
    assert.deepEqual([inFile.exit, inFile.stderr], [1, "Invalid acl-policies: it cannot be empty\n"]);
    const environment = { PEERAGE_ACL_POLICIES: "" };
    const { exit } = await runPeerage(["agent", ...others("x")], { signal: AbortSignal.abort(), environment });
    assert.equal(exit, 0);
    const spaced = { PEERAGE_LOG_LEVEL: "info\n" };
    const result = await runPeerage(["agent", ...others("x")], { signal: AbortSignal.abort(), environment: spaced });
    assert.deepEqual([result.exit, result.stderr], [1, 'Invalid log-level: "info\\n" begins or ends with a space\n']);
  });
});
