import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { register } from "../interop/services.js";
import { pause, settles } from "../interop/settles.js";
import { Checks } from "./checks.js";
import type { Client } from "./client.js";
import { CountingProxy } from "./counting-proxy.js";
import { installGoProgram, missingGo } from "./go.js";
import type { Installation } from "./installation.js";
import type { Side } from "./side.js";

/** For templates that wait for something: what would ask again at once has asked hundreds of times by then. */
const WATCHED_MS = 5_000;
const FEW = 12;
/** One that can be rendered is, long before. */
const ONCE_MS = 30_000;

/** consul-template's program, with a template for each of its functions that asks Consul. */
export const consulTemplate: Client = {
  name: "consul-template",
  packages: ["github.com/hashicorp/consul-template@v0.41.1"],
  missing: missingGo,
  install: (installation) => installGoProgram(installation, "github.com/hashicorp/consul-template@v0.41.1"),
  async run(installation, side) {
    const checks = new Checks();
    await prepare(side);
    await renderings(installation, side, checks);
    await waiting(installation, side, checks);
    return checks.outcomes;
  },
  differences: [],
};

async function prepare({ alpha }: Side): Promise<void> {
  const SidecarService = { Check: { TTL: "10m", Status: "passing" } };
  const Service = { Name: "mesh", Port: 80, Connect: { SidecarService } };
  await put(alpha.http, "/v1/agent/service/register", Service);
}

async function put(address: string, path: string, body: object): Promise<void> {
  const answer = await fetch(`http://${address}${path}`, { method: "PUT", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
}

async function render(installation: Installation, address: string, template: string): Promise<string> {
  const [source, target] = [installation.path("once.tpl"), installation.path("once.out")];
  await rm(target, { force: true });
  await writeFile(source, template);
  const args = ["-consul-addr", address, "-template", `${source}:${target}`, "-once", "-log-level", "warn"];
  const { output, code } = await installation.run(installation.path("consul-template"), args, { limitMs: ONCE_MS });
  if (code !== 0) throw new Error(`exit code ${code}: ${output.slice(-500)}`);
  return readFile(target, "utf8");
}

async function renderings(installation: Installation, { alpha, beta }: Side, checks: Checks): Promise<void> {
  const renders = (name: string, template: string, expected: string | RegExp): Promise<void> =>
    checks.check(name, async () => {
      const found = await render(installation, alpha.http, template);
      if (typeof expected === "string") assert.equal(found, expected);
      else assert.match(found, expected);
    });
  const addresses = "{{.Node}} {{.Address}}:{{.Port}}\n";
  await renders(
    "service",
    `{{range service "web"}}${addresses}{{end}}`,
    "node-0 10.0.0.1:8000\nnode-1 10.1.0.1:8001\n",
  );
  await renders("service by tag", `{{range service "i1.web"}}${addresses}{{end}}`, "node-1 10.1.0.1:8001\n");
  await renders("service by filter", `{{range service "web|any"}}{{.ServiceMeta.version}}{{end}}`, "01");
  await renders("service that is not there", '{{range service "none"}}x{{else}}nothing{{end}}', "nothing");
  await renders(
    "service of a peer",
    `{{range service "api?peer=${beta.name}"}}${addresses}{{end}}`,
    "node-0 10.0.0.1:8000\nnode-1 10.1.0.1:8001\n",
  );
  await renders("services", "{{range services}}{{.Name}} {{end}}", /\bmesh mesh-sidecar-proxy web $/);
  await renders("nodes", "{{range nodes}}{{.Node}} {{end}}", /\bnode-0 node-1 /);
  await renders("node", "{{with node}}{{.Node.Datacenter}}{{end}}", "dc1");
  await renders("node by name", '{{with node "node-0"}}{{range .Services}}{{.Service}}{{end}}{{end}}', "web");
  await renders("datacenters", '{{datacenters | join ","}}', "dc1");
  await renders("connect", '{{range connect "mesh"}}{{.Name}} {{.Port}}{{end}}', /^mesh-sidecar-proxy 21\d{3}$/);
  await renders("caRoots", "{{range caRoots}}{{.RootCertPEM}}{{end}}", /^-----BEGIN CERTIFICATE-----\n/);
  await renders(
    "caLeaf",
    '{{with caLeaf "mesh"}}{{.CertPEM}}{{.PrivateKeyPEM}}{{.ServiceURI}}{{end}}',
    /^-----BEGIN CERTIFICATE-----\n[\s\S]*-----BEGIN (?:EC )?PRIVATE KEY-----\n[\s\S]*spiffe:\/\/[^/]+\/ns\/default\/dc\/dc1\/svc\/mesh$/,
  );
  await renders("peerings", "{{range peerings}}{{.Name}}{{end}}", "beta");
  await renders(
    "keyOrDefault beside a service",
    '{{keyOrDefault "app/color" "blue"}}{{range service "web"}} {{.Node}}{{end}}',
    "blue node-0 node-1",
  );
  await renders("keyExists", '{{if keyExists "app/color"}}yes{{else}}no{{end}}', "no");
  await renders("ls of nothing", '{{range ls "app"}}x{{else}}nothing{{end}}', "nothing");
  await renders("tree of nothing", '{{range tree "app"}}x{{else}}nothing{{end}}', "nothing");
}

async function waiting(installation: Installation, side: Side, checks: Checks): Promise<void> {
  await using proxy = await CountingProxy.before(side.alpha.http);
  const [source, target] = [installation.path("watch.tpl"), installation.path("watch.out")];
  const [beside, never] = [installation.path("beside.tpl"), installation.path("beside.out")];
  await Promise.all([rm(target, { force: true }), rm(never, { force: true })]);
  await writeFile(
    source,
    `{{range service "web"}}{{.Node}} {{end}}{{range service "api?peer=${side.beta.name}"}}{{.ID}} {{end}}`,
  );
  await writeFile(beside, '{{range service "web"}}{{.Node}}{{end}}{{key "app/color"}}{{range caRoots}}{{.ID}}{{end}}');
  const child = installation.start(installation.path("consul-template"), [
    ...["-consul-addr", proxy.address, "-log-level", "warn"],
    ...["-template", `${source}:${target}`, "-template", `${beside}:${never}`],
  ]);
  const renders = (expected: string): Promise<void> =>
    settles(async () => assert.equal(await readFile(target, "utf8"), expected), `it renders ${expected}`);
  try {
    await checks.check("watching renders the registered instances", () => renders("node-0 node-1 api-0 api-1 "));
    await checks.check("watching renders a service that is new", async () => {
      await register(side.alpha, "web", 3);
      await renders("node-0 node-1 node-2 api-0 api-1 ");
    });
    await checks.check("watching renders an instance that a peer has added", async () => {
      await register(side.beta, "api", 3);
      await renders("node-0 node-1 node-2 api-0 api-1 api-2 ");
    });
    await checks.check("watching renders an instance that is no longer healthy", async () => {
      await register(side.alpha, "web", 3, { status: "critical" });
      await renders("api-0 api-1 api-2 ");
    });
    const before = proxy.count("/v1/");
    await pause(WATCHED_MS);
    const asked = proxy.count("/v1/") - before;
    await checks.check("it asks seldom while nothing changes", () =>
      assert.ok(asked <= FEW, `${asked} requests in 5 s`),
    );
    await checks.check("a key that is not there is asked for, and waited for", () => {
      const keys = proxy.count("/v1/kv/app/color");
      assert.ok(keys >= 1 && keys <= FEW, `${keys} requests`);
    });
    await checks.check("a template that lacks its key is not rendered", async () => {
      await assert.rejects(readFile(never, "utf8"), { code: "ENOENT" });
    });
  } finally {
    await child.end("SIGKILL");
  }
}
