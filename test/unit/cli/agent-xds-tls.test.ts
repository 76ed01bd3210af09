import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Code } from "@connectrpc/connect";
import { TestAuthority } from "../../support/certificates.js";
import { type RunningAgent, runPeerage, startAgent } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";
import { XdsClient } from "../../support/xds-client.js";

const ports: readonly string[] = ["-dev", "-node=n1", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];

async function registerSidecar({ http }: RunningAgent): Promise<void> {
  const proxy = { DestinationServiceName: "web", DestinationServiceID: "web", LocalServicePort: 80 };
  const body = { Kind: "connect-proxy", Name: "web-sidecar-proxy", Port: 21_000, Proxy: proxy };
  const answer = await fetch(`http://${http}/v1/agent/service/register`, { method: "PUT", body: JSON.stringify(body) });
  assert.equal(answer.status, 200);
}

async function told({ xdsTls }: RunningAgent, tls: { readonly ca: string; readonly servername: string }) {
  await using client = new XdsClient(xdsTls, { id: "web-sidecar-proxy", tls });
  client.send("cluster");
  return await client.acknowledged("cluster");
}

describe("peerage agent -xds-tls", () => {
  let built: RunningAgent;
  let given: RunningAgent;
  let authority: TestAuthority;
  let directory: AsyncDisposable & { readonly path: string };
  const stopping = new AbortController();
  before(async () => {
    directory = await temporaryDirectory();
    authority = await TestAuthority.create();
    const { certificate, key } = await authority.issue("server", { names: ["localhost"] });
    const [cert, keyFile] = [join(directory.path, "cert.pem"), join(directory.path, "key.pem")];
    await Promise.all([writeFile(cert, certificate), writeFile(keyFile, key)]);
    built = await startAgent([...ports, "-xds-tls=127.0.0.1:0"], stopping.signal);
    given = await startAgent([...ports, "-xds-tls=127.0.0.1:0", "-cert", cert, "-key", keyFile], stopping.signal);
    await Promise.all([registerSidecar(built), registerSidecar(given)]);
  });
  after(async () => {
    stopping.abort();
    await Promise.all([built.result, given.result]);
    await directory[Symbol.asyncDispose]();
  });

  it("shows Envoys a certificate of the agent's own authority, for its servers", async () => {
    const roots = await fetch(`http://${built.http}/v1/connect/ca/roots`);
    const { TrustDomain, Roots } = (await roots.json()) as {
      readonly TrustDomain: string;
      readonly Roots: readonly { readonly RootCert: string }[];
    };
    const ca = Roots.map(({ RootCert }) => RootCert).join("");
    assert.deepEqual(await told(built, { ca, servername: `server.dc1.peering.${TrustDomain}` }), ["local_app"]);
    await assert.rejects(told(built, { ca, servername: "localhost" }), { code: Code.Internal });
  });

  it("shows the certificate of files", async () => {
    const tls = { ca: authority.certificate, servername: "localhost" };
    assert.deepEqual(await told(given, tls), ["local_app"]);
  });

  it("tells its port where Consul's agents do, and the proxies that are connected there", async () => {
    const self = (await (await fetch(`http://${built.http}/v1/agent/self`)).json()) as {
      readonly xDS: { readonly Ports: { readonly Plaintext: number; readonly TLS: number } };
    };
    assert.deepEqual(self.xDS.Ports, { Plaintext: -1, TLS: Number(built.xdsTls.split(":").at(-1)) });
    const answer = await fetch(`http://${built.http}/v1/internal/peerage/proxies`);
    assert.equal(answer.status, 200);
  });

  it("refuses a certificate without its key", async () => {
    const { exit, stderr } = await runPeerage(["agent", "-dev", "-xds-tls=127.0.0.1:0", "-cert", "nowhere.pem"]);
    assert.notEqual(exit, 0);
    assert.match(stderr, /-cert, -key/);
  });
});
