// Which modules the import of an entry of the built package loads, as a loader hook of a process of its own sees them.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, it } from "node:test";
import { promisify } from "node:util";

/** Folders and files of dist/ that a host consists of. */
const HOST_PARTS: readonly string[] = [
  "base",
  "checks",
  "config",
  "exports",
  "host",
  "index.js",
  "model",
  "payload",
  "peering",
  "pieces.js",
  "replication",
  "storage",
  "stores",
  "syntax",
  "token",
  "transport",
  "trust",
  "wire",
];
/** Of the folders with implementations, the files that a host needs whichever it is given. */
const CONTRACTS =
  /^(storage\/(damaged-entries|key-encoding|keys|limits|replica|stored-table)|transport\/(address|connection-limits|handshakes))\.js$/;
/** Loaded when they are needed first, or by programs that import them. */
const LATER =
  /^(http|rpc|dns|client|cli|testing|page|mesh|api)\/|^wire\/(index|gen\/)|^trust\/x509|^checks\/probe|^protocol\.js$/;
/** Of the packages that the host stands on, the one that it cannot do without from the start. */
const PACKAGES: readonly string[] = ["immer"];

/** Reports each module to the process once it is loaded. */
const HOOKS = `
  let port;
  export function initialize(data) { port = data.port; }
  export async function load(url, context, next) {
    port.postMessage(url);
    return next(url, context);
  }`;
const SCRIPT = `
  import { register } from "node:module";
  import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";
  const { port1, port2 } = new MessageChannel();
  register("data:text/javascript," + encodeURIComponent(${JSON.stringify(HOOKS)}), { data: { port: port2 }, transferList: [port2] });
  const names = Object.keys(await import(process.argv[1]));
  const urls = [];
  for (let next; (next = receiveMessageOnPort(port1)) !== undefined; ) urls.push(next.message);
  process.stdout.write(JSON.stringify({ names, urls }));`;

interface Loaded {
  /** The exports of the entry besides types. */
  readonly names: readonly string[];
  /** Paths in dist/. */
  readonly modules: readonly string[];
  readonly packages: readonly string[];
}

async function loadedBy(entry: string): Promise<Loaded> {
  const script = ["--input-type=module", "--eval", SCRIPT, entry];
  const { NODE_OPTIONS: _, ...env } = process.env;
  const { stdout } = await promisify(execFile)(process.execPath, script, { env });
  const { names, urls }: { readonly names: readonly string[]; readonly urls: readonly string[] } = JSON.parse(stdout);
  const files = urls.filter((url) => url.startsWith("file:"));
  const packages = files.flatMap((url) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1] ?? []);
  const modules = files.filter((url) => !url.includes("/node_modules/")).map((url) => url.replace(/^.*\/dist\//, ""));
  return { names, modules: modules.sort(), packages: [...new Set(packages)].sort() };
}

const partOf = (module: string): string => module.split("/")[0] ?? module;

describe("importing the package", () => {
  it("loads the parts of a host alone", async () => {
    const { modules, packages } = await loadedBy("peerage");
    assert.ok(modules.includes("index.js") && modules.includes("host/host.js"), "the hook sees what is loaded");
    assert.deepEqual(
      modules.filter((module) => LATER.test(module)),
      [],
    );
    assert.deepEqual([...new Set(modules.map(partOf))].sort(), [...HOST_PARTS].sort());
    assert.deepEqual(
      modules.filter((module) => /^(storage|transport)\//.test(module) && !CONTRACTS.test(module)),
      [],
    );
    assert.deepEqual(packages, PACKAGES);
  });

  it("sees the API and the engines where a program imports them", async () => {
    const http = await loadedBy("peerage/http");
    assert.ok(http.modules.some((module) => LATER.test(module)));
    const level = await loadedBy("peerage/storage/level");
    assert.ok(level.modules.includes("storage/level.js") && level.packages.includes("classic-level"));
    const mesh = await loadedBy("peerage/mesh");
    assert.ok(mesh.modules.includes("mesh/connect/dial.js") && mesh.modules.includes("mesh/ads/server.js"));
    assert.deepEqual(
      mesh.modules.filter((module) => /^(mesh\/xds|wire\/gen\/envoy)\/|^wire\/envoy/.test(module)),
      [],
      "the messages of Envoy are loaded when a proxy comes",
    );
    assert.deepEqual([...mesh.names].sort(), [
      "defaultXdsLimits",
      "explainConnection",
      "intentionWarnings",
      "meshAgent",
      "meshDial",
      "meshHttp2",
      "meshListener",
      "reportIntentionWarnings",
      "xdsServer",
    ]);
  });

  it("loads no command before it is known which one is run", async () => {
    const { modules } = await loadedBy(new URL("../../../dist/cli/run.js", import.meta.url).href);
    assert.ok(modules.includes("cli/run.js"));
    assert.deepEqual([...new Set(modules.map(partOf))].sort(), ["base", "cli"]);
    assert.deepEqual(
      modules.filter((module) => /^cli\/.*-commands?\.js$|client/.test(module)),
      [],
    );
  });

  it("gives the host, its ports and the four pieces; the rest of the machinery is in peerage/protocol", async () => {
    const root = await loadedBy("peerage");
    assert.deepEqual([...root.names].sort(), [
      "ConnectionLimits",
      "Incidents",
      "InvariantError",
      "PeeringError",
      "PeeringHost",
      "PeeringStateMachine",
      "ReplicationSession",
      "TRANSIT_PATH_KEY",
      "TokenCodec",
      "TransactionError",
      "TrustBundleStore",
      "alwaysLeader",
      "builtInAuthority",
      "createHost",
      "plainSecretBox",
      "providedAuthority",
      "sealedSecretBox",
      "silentLogger",
      "systemClock",
      "systemRandom",
    ]);
    const protocol = await loadedBy("peerage/protocol");
    for (const name of ["PeeringStateMachine", "ReplicationSession", "TokenCodec", "TrustBundleStore", "TRANSITIONS"]) {
      assert.ok(protocol.names.includes(name), name);
    }
  });
});
