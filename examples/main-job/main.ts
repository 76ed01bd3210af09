// Two clusters as two processes, peered end to end: the tour of what this library does, on real disks and real TLS.
//
//   npm start -- [--services FILE] [--keep]
//
// FILE holds a JSON array of catalog registrations (default: examples/services.json). --keep leaves both clusters running
// until Ctrl-C. Ends with exit code 0 when the second cluster holds everything the first exports; else names what is
// missing and ends with 1.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Registration, ServiceInstance } from "peerage";
import { ClusterProcess } from "./calls.js";

const DEADLINE_MS = 60_000;
const started = performance.now();
const directory = mkdtempSync(join(tmpdir(), "peerage-"));
let north: ClusterProcess | undefined;
let south: ClusterProcess | undefined;

interface Options {
  /** Undefined: the services that come with the examples. */
  readonly services: string | undefined;
  readonly keep: boolean;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: { services: { type: "string" }, keep: { type: "boolean", default: false } },
  });
  return { services: values.services, keep: values.keep };
}

function readServices(file: string): readonly Registration[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`${file}: ${textOf(error)}`);
  }
  if (!Array.isArray(parsed)) throw new Error(`${file}: a JSON array of registrations is expected`);
  // Each registration is checked, and refused with its reason, by the catalog itself.
  return parsed as readonly Registration[];
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function step(text: string): void {
  const seconds = ((performance.now() - started) / 1_000).toFixed(1).padStart(5);
  console.log(`${seconds} s  ${text}`);
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`gave up after ${DEADLINE_MS / 1_000} s: ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

/** A port that was free a moment ago. North keeps its own through a restart, as servers do. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  const address = server.address();
  await new Promise((closed) => server.close(closed));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}

/** The differences between the importer and the exporter, in words. */
async function differences(exporter: ClusterProcess, importer: ClusterProcess): Promise<readonly string[]> {
  const exported = await exporter.call("exported", { peerName: importer.name });
  const found: string[] = [];
  for (const [service, instances] of Object.entries(exported)) {
    const imported = await importer.call("instances", { peerName: exporter.name, service });
    const there = new Map(imported.map((instance) => [keyOf(instance), instance]));
    for (const instance of instances) {
      const copy = there.get(keyOf(instance));
      if (copy === undefined) found.push(`${service}: instance ${keyOf(instance)} is missing`);
      else if (!isSame(instance, copy)) found.push(`${service}: instance ${keyOf(instance)} differs`);
      there.delete(keyOf(instance));
    }
    for (const key of there.keys()) found.push(`${service}: instance ${key} should not be there`);
  }
  for (const { name } of await importer.call("services", { peerName: exporter.name })) {
    // Services of a mesh come with a proxy beside them, which is none of the exporter's own services.
    if (exported[name] === undefined && !name.endsWith("-sidecar-proxy")) found.push(`${name} should not be there`);
  }
  return found;
}

const keyOf = (instance: ServiceInstance): string => `${instance.node.name}/${instance.service.id}`;

/** Whether the importer has what replication carries of an instance: of all its checks one status, the worst. */
function isSame(ours: ServiceInstance, theirs: ServiceInstance): boolean {
  const statuses = ours.checks.map(({ status }) => status);
  const sameHealth =
    theirs.checks.length === Math.min(1, statuses.length) &&
    theirs.checks.every(({ status }) => status === "maintenance" || statuses.includes(status));
  return sameHealth && factsOf(ours) === factsOf(theirs);
}

function factsOf({ node, service }: ServiceInstance): string {
  return JSON.stringify([
    node.address,
    sorted(node.meta),
    sorted(node.taggedAddresses),
    service.name,
    service.port,
    service.address,
    service.tags,
    sorted(service.meta),
    sorted(service.taggedAddresses),
    service.weights,
    service.enableTagOverride,
  ]);
}

const sorted = (map: Readonly<Record<string, unknown>>): readonly (readonly [string, unknown])[] =>
  Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));

/** Says what is missing in the end, and whether nothing is. */
async function summarize(exporter: ClusterProcess, importer: ClusterProcess): Promise<boolean> {
  const missing = await differences(exporter, importer);
  const { services, instances } = await importer.call("imported", { peerName: exporter.name });
  console.log("");
  for (const line of missing) console.log(`MISSING  ${line}`);
  console.log(`Summary: ${services} services, ${instances} instances replicated; ${missing.length} differences.`);
  return missing.length === 0;
}

async function run({ services: given, keep }: Options): Promise<boolean> {
  // npm runs this in the package's directory; the user's relative path is meant where the user stood.
  const ours = fileURLToPath(new URL("../../../examples/services.json", import.meta.url));
  const { INIT_CWD = "" } = process.env;
  const file = given === undefined ? ours : resolve(INIT_CWD, given);
  const registrations = readServices(file);
  const example = registrations.find((registration) => registration?.service !== undefined);
  if (example?.service === undefined) throw new Error(`${file}: no service in it`);

  const northPort = await freePort();
  const startNorth = (): Promise<ClusterProcess> =>
    ClusterProcess.start("north", join(directory, "north"), `127.0.0.1:${northPort}`, "dc1");
  const toSouth = { peerName: "south" };
  const toNorth = { peerName: "north" };

  north = await startNorth();
  south = await ClusterProcess.start("south", join(directory, "south"), "127.0.0.1:0", "dc2");
  step(`two clusters are up: north (process ${north.pid}) and south (process ${south.pid}), data in ${directory}`);

  await north.call("register", { registrations }).catch((error: unknown) => {
    throw new Error(`${file}: ${textOf(error)}`);
  });
  await north.call("export", { entry: { services: [{ name: "*", consumers: [{ peer: "south" }] }] } });
  const exported = Object.values(await north.call("exported", toSouth));
  const expected = exported.reduce((sum, instances) => sum + instances.length, 0);
  step(`north exports ${exported.length} services with ${expected} instances, from ${file}`);

  const token = await north.call("generateToken", toSouth);
  step(`north generated a peering token (${token.length} characters, works once)`);
  await south.call("establish", { ...toNorth, token });
  step("south traded the token's secret for a stream secret, and dials");

  const [a, b] = [north, south];
  await until("both sides ACTIVE", async () => {
    return (await a.call("state", toSouth)) === "active" && (await b.call("state", toNorth)) === "active";
  });
  step("the stream is up: both sides read ACTIVE");

  let seen = 0;
  await until("everything imported", async () => {
    const { services, instances } = await b.call("imported", toNorth);
    if (instances !== seen) step(`south has imported ${services} services, ${instances} of ${expected} instances`);
    seen = instances;
    return instances === expected && (await differences(a, b)).length === 0;
  });
  step("every instance at south equals the one at north");

  const before = performance.now();
  await a.call("register", { registrations: [tagged(example, "changed-while-connected")] });
  await until("the change", async () => (await differences(a, b)).length === 0);
  const lag = (performance.now() - before).toFixed(0);
  step(`north changed "${example.service.name}"; ${lag} ms after the call south was seen to have it`);

  const roots = await a.call("rotateCertificateAuthority");
  await until("the new root", async () => (await b.call("trustedRoots", toNorth)) === roots);
  step(`north rotated its CA; south trusts ${roots} roots of north, the old one and the new one`);

  await a.kill();
  await until("FAILING", async () => (await b.call("state", toNorth)) === "failing");
  const kept = await b.call("imported", toNorth);
  step(`north was killed; south reads FAILING and keeps serving ${kept.instances} instances`);

  const c = await startNorth();
  north = c;
  await c.call("register", { registrations: [tagged(example, "changed-after-the-restart")] });
  step("north is back with what was on its disk, and changed the service once more");
  await until("the recovery", async () => {
    return (await b.call("state", toNorth)) === "active" && (await differences(c, b)).length === 0;
  });
  step("south redialed by itself, over a certificate of the new root, is ACTIVE and has the change");

  const complete = await summarize(c, b);
  if (keep) {
    const interrupted = new Promise((resolve) => process.once("SIGINT", resolve));
    for (const cluster of [c, b]) console.log(`${cluster.name} listens on ${await cluster.call("address")}`);
    console.log("Both clusters keep running. Ctrl-C stops them.");
    await interrupted;
  }
  await b.stop();
  await c.stop();
  return complete;
}

const tagged = (registration: Registration, tag: string): Registration => ({
  ...registration,
  ...(registration.service === undefined ? {} : { service: { ...registration.service, tags: [tag] } }),
});

async function main(): Promise<number> {
  try {
    const options = readOptions();
    const interrupted = new Promise<never>((_, reject) => {
      process.once("SIGTERM", () => reject(new Error("terminated")));
      if (!options.keep) process.once("SIGINT", () => reject(new Error("interrupted")));
    });
    return (await Promise.race([run(options), interrupted])) ? 0 : 1;
  } catch (error) {
    console.error(`FAILED   ${textOf(error)}`);
    if (north !== undefined && south !== undefined) {
      const missing = await differences(north, south).catch(() => []);
      for (const line of missing) console.error(`MISSING  ${line}`);
    }
    return 1;
  } finally {
    // Those that were stopped in order are gone already.
    await Promise.allSettled([north?.kill(), south?.kill()]);
    rmSync(directory, { recursive: true, force: true });
  }
}

process.exit(await main());
