import assert from "node:assert/strict";
import { it } from "node:test";
import { inspect } from "node:util";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { openLevel } from "../../src/storage/level.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import type { CertificateAuthority } from "../../src/trust/authority.js";
import { builtInAuthority } from "../../src/trust/built-in-authority.js";
import { acceleratedClock, eventually, temporaryDirectory } from "../support/hosts.js";
import { LogRecorder } from "../support/log-recorder.js";

it("no private key occurs in logs, errors, views or anything public that is printed, with real certificates", async () => {
  await using directory = await temporaryDirectory();
  const keys = new Set<string>();
  const output: string[] = [];
  const log = new LogRecorder();
  const keep = (value: unknown): void => {
    output.push(inspect(value, { depth: 30, showHidden: true, maxStringLength: 100_000 }));
    output.push(
      JSON.stringify(value, (_, field: unknown) => (typeof field === "bigint" ? String(field) : field)) ?? "",
    );
  };
  /** The lines of a PEM body: any of them in an output is a key shown. */
  const learn = (pem: string): void => {
    for (const line of pem.split(/\\n|\n/)) if (/^[A-Za-z0-9+/=]{40,}$/.test(line)) keys.add(line);
  };
  const open = async (name: string): Promise<PeeringHost> => {
    const storage = await openLevel(`${directory.path}/${name}`);
    const own = await builtInAuthority({ storage, logger: log });
    await own.rotate();
    const authority: CertificateAuthority = {
      trustDomain: own.trustDomain,
      roots: () => own.roots(),
      onRootsChanged: (listener) => own.onRootsChanged(listener),
      [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
      issueServer: async (datacenter) => {
        const certificate = await own.issueServer(datacenter);
        learn(certificate.privateKeyPem);
        return certificate;
      },
      signingProblem: () => own.signingProblem(),
      issueLeaf: (identity) => own.issueLeaf(identity),
      signRequest: (requestPem, identity) => own.signRequest(requestPem, identity),
    };
    const { entries } = await storage.read(["ca"]);
    for (const { value } of entries) {
      const text = Buffer.from(value).toString("utf8");
      for (const [encoded] of text.matchAll(/[A-Za-z0-9+/]{100,}=*/g))
        learn(Buffer.from(encoded, "base64").toString("latin1"));
      for (const [pem] of text.matchAll(/-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END/gs)) learn(pem);
    }
    keep(own);
    return createHost({
      datacenter: name,
      storage,
      authority,
      transport: grpcTransport({ listen: "127.0.0.1:0", logger: log }),
      clock: acceleratedClock(),
      logger: log,
    });
  };
  await using acceptor = await open("acceptor");
  await using dialer = await open("dialer");
  const token = await acceptor.peerings.generateToken({ peerName: "dialer" });
  await dialer.peerings.establish({ peerName: "acceptor", token });
  await eventually(() => dialer.peerings.read("acceptor")?.state === "active", "they are connected");
  await dialer.peerings.establish({ peerName: "again", token }).catch(keep);
  for (const host of [acceptor, dialer]) keep([host, host.authority, host.peerings.list(), host.trustBundles.list()]);
  keep(log.lines);

  // Two lines at least of each root's key and each server's.
  assert.ok(keys.size >= 8, `${keys.size} lines of keys were found`);
  const text = output.join("\n");
  assert.ok(text.includes("BEGIN CERTIFICATE"));
  for (const line of keys) assert.ok(!text.includes(line), "a private key was shown");
});
