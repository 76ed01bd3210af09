import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { connect } from "node:tls";
import { ConsulClient } from "../../../src/client/index.js";
import { type KeyPair, TestAuthority } from "../../support/certificates.js";
import {
  AGENT_READY,
  type CommandLineWorld,
  type RunningAgent,
  runPeerage,
  startAgent,
} from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";

const ports: readonly string[] = ["-dev", "-http=127.0.0.1:0", "--grpc-tls", "127.0.0.1:0", "-dns=127.0.0.1:0"];

let authority: TestAuthority;
let stranger: TestAuthority;
let server: KeyPair;
let client: KeyPair;
let directory: AsyncDisposable & { readonly path: string };
const file = (name: string): string => join(directory.path, name);

/** Files that a whole test file may use. */
before(async () => {
  [authority, stranger] = await Promise.all([TestAuthority.create(), TestAuthority.create("Stranger")]);
  server = await authority.issue("server", { names: ["localhost", "server.dc1.consul"] });
  client = await authority.issue("client");
  directory = await temporaryDirectory();
  const theirs = await stranger.issue("client");
  await mkdir(file("authorities"));
  const texts: Readonly<Record<string, string>> = {
    "ca.pem": authority.certificate,
    "authorities/one.pem": authority.certificate,
    "authorities/two.pem": stranger.certificate,
    "stranger.pem": stranger.certificate,
    "cert.pem": server.certificate,
    "key.pem": server.key,
    "client.pem": client.certificate,
    "client-key.pem": client.key,
    "theirs.pem": theirs.certificate,
    "theirs-key.pem": theirs.key,
    "rubbish.pem": "rubbish",
  };
  await Promise.all(Object.entries(texts).map(([name, text]) => writeFile(file(name), text)));
});
after(() => directory[Symbol.asyncDispose]());

const serving = (...more: readonly string[]): readonly string[] => [
  ...ports,
  ...["-https=127.0.0.1:0", "-cert", file("cert.pem"), "-key", file("key.pem"), ...more],
];

describe("peerage agent -https", () => {
  let open: RunningAgent;
  let closed: RunningAgent;
  const stopping = new AbortController();
  before(async () => {
    open = await startAgent(serving(), stopping.signal);
    const verifying = serving("-ca", file("ca.pem"), "-verify-incoming", "-http=off");
    closed = await startAgent(verifying, stopping.signal);
  });
  after(async () => {
    stopping.abort();
    await Promise.all([open.result, closed.result]);
  });

  const list = async (args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<string> => {
    const { exit, stdout, stderr } = await runPeerage(["catalog", "nodes", ...args], { environment });
    return exit === 0 ? stdout : stderr;
  };
  const LISTED = /^Node +ID +Address +DC\n/;

  it("is asked by commands with Consul's flags and variables", async () => {
    const at = `https://${open.https}`;
    const ok: readonly (readonly [readonly string[], Readonly<Record<string, string>>])[] = [
      [["-http-addr", at, "-ca-file", file("ca.pem")], {}],
      [["-http-addr", at, "-ca-path", file("authorities")], {}],
      [[], { CONSUL_HTTP_ADDR: at, CONSUL_CACERT: file("ca.pem") }],
      [[], { CONSUL_HTTP_ADDR: open.https, CONSUL_HTTP_SSL: "true", CONSUL_CAPATH: file("authorities") }],
      [[], { CONSUL_HTTP_ADDR: at, CONSUL_HTTP_SSL_VERIFY: "false" }],
      [["-http-addr", at, "-ca-file", file("ca.pem"), "-tls-server-name", "server.dc1.consul"], {}],
      [["-http-addr", at, "-ca-file", file("ca.pem"), "-tls-server-name", "127.0.0.1"], {}],
      [[], { CONSUL_HTTP_ADDR: at, CONSUL_CACERT: file("ca.pem"), CONSUL_TLS_SERVER_NAME: "localhost" }],
      // The plaintext port of the agent stays.
      [["-http-addr", open.http], {}],
      [
        ["-ca-file", file("ca.pem"), "-client-cert", file("client.pem"), "-client-key", file("client-key.pem")],
        { CONSUL_HTTP_ADDR: `https://${closed.https}` },
      ],
      [
        [],
        {
          CONSUL_HTTP_ADDR: `https://${closed.https}`,
          CONSUL_CACERT: file("ca.pem"),
          CONSUL_CLIENT_CERT: file("client.pem"),
          CONSUL_CLIENT_KEY: file("client-key.pem"),
        },
      ],
    ];
    for (const [args, environment] of ok) {
      assert.match(await list(args, environment), LISTED, JSON.stringify([args, environment]));
    }
  });

  it("keeps out, and is not believed by, those that do not fit, in Go's words", async () => {
    const at = ["-http-addr", `https://${open.https}`];
    const verified = ["-http-addr", `https://${closed.https}`, "-ca-file", file("ca.pem")];
    const refused: readonly (readonly [readonly string[], RegExp])[] = [
      [at, /: tls: failed to verify certificate: x509: certificate signed by unknown authority\n$/],
      [[...at, "-ca-file", file("stranger.pem")], /x509: certificate signed by unknown authority\n$/],
      [[...at, "-ca-file", file("ca.pem"), "-tls-server-name", "other.consul"], /x509: .*other\.consul/],
      [[...at, "-ca-file", file("ca.pem"), "-tls-server-name", "127.0.0.2"], /x509: .*127\.0\.0\.2/],
      [["-http-addr", `https://${open.http}`], /: http: server gave HTTP response to HTTPS client\n$/],
      [verified, /: remote error: tls: certificate required\n$/],
      [
        [...verified, "-client-cert", file("theirs.pem"), "-client-key", file("theirs-key.pem")],
        // Node closes such a connection without an alert.
        /: (?:EOF|remote error: tls: unknown certificate authority)\n$/,
      ],
      [[...at, "-client-cert", file("client.pem")], /both client cert and client key must be provided\n$/],
      [[...at, "-ca-file", file("missing.pem")], /ENOENT/],
    ];
    for (const [args, expected] of refused) assert.match(await list(args), expected, args.join(" "));
  });

  it("is reached by the client of this package, and by curl over HTTP/2", async (context) => {
    const tls = { ca: [authority.certificate], certificate: client.certificate, key: client.key };
    using consul = new ConsulClient({ address: `https://${closed.https}`, tls });
    assert.equal((await consul.catalog.nodes()).value.length, 1);
    const args = ["-sS", "--http2", "-w", " %{http_version}", "--cacert", file("ca.pem"), "--cert", file("client.pem")];
    const curl = [...args, "--key", file("client-key.pem"), `https://${closed.https}/v1/catalog/datacenters`];
    const printed = await new Promise<string | undefined>((resolve, reject) => {
      execFile("curl", curl, (error, stdout) => {
        if (error === null) resolve(stdout);
        else if (error.code === "ENOENT") resolve(undefined);
        else reject(error);
      });
    });
    if (printed === undefined) return context.skip("curl is not installed");
    assert.match(printed, /^\["dc1"\] (?:2|1\.1)$/);
  });

  it("serves no plaintext where HTTP is off", () => {
    assert.deepEqual([closed.http, open.http === ""], ["", false]);
  });

  const wrong: readonly (readonly [string, () => readonly string[], RegExp])[] = [
    ["no certificate", () => [...ports, "-https=127.0.0.1:0"], /^Must specify -cert and -key with -https\n$/],
    ["no key", () => [...ports, "-https=127.0.0.1:0", "-cert=x"], /^Must specify -cert and -key with -https\n$/],
    ["certificates that nobody is shown", () => [...ports, "-cert=x"], /^Must specify -https with -cert, -key, /],
    ["no authority to verify with", () => serving("-verify-incoming"), /^Must specify -ca with -verify-incoming\n$/],
    ["a missing file", () => serving("-key=/nowhere.pem"), /^Error reading the key \/nowhere\.pem: ENOENT/],
    [
      "a key of another certificate",
      () => serving("-key", file("client-key.pem")),
      /^Error starting the agent: TLS: the key is not that of the certificate\n$/m,
    ],
    [
      "invalid authorities",
      () => serving("-ca", file("rubbish.pem")),
      /TLS: there is no certificate among those of authorities\n$/,
    ],
    ["a bad address", () => serving("-https=8501"), /^Invalid https: "8501" is not host:port\n$/],
  ];
  for (const [what, args, expected] of wrong) {
    it(`refuses ${what} with exit code 1`, async () => {
      const { exit, stderr } = await runPeerage(["agent", ...args()], { signal: AbortSignal.abort() });
      assert.equal(exit, 1);
      assert.match(stderr, expected);
      assert.ok(!stderr.includes("PRIVATE KEY"));
    });
  }
});

/** The name in the certificate that a server shows. */
async function shownBy(address: string): Promise<string | undefined> {
  const { hostname, port } = new URL(`https://${address}`);
  const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false });
  await once(socket, "secureConnect");
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return CN;
}

describe("peerage agent on SIGHUP", () => {
  const policies = (secret: string): string =>
    `token "operator" {\n  secret = "${secret}"\n  rules {\n    operator = "read"\n  }\n}\n`;

  /** Writes the files that the agent of a test reads. */
  const files = async (level: string, { certificate, key }: KeyPair, acl: string, more = {}): Promise<void> => {
    await writeFile(file("agent-cert.pem"), certificate);
    await writeFile(file("agent-key.pem"), key);
    await writeFile(file("policies.hcl"), acl);
    const config = {
      dev: true,
      http: "127.0.0.1:0",
      grpc_tls: "127.0.0.1:0",
      dns: "127.0.0.1:0",
      https: "127.0.0.1:0",
    };
    const own = { cert: file("agent-cert.pem"), key: file("agent-key.pem"), acl_policies: file("policies.hcl") };
    await writeFile(file("agent.json"), JSON.stringify({ ...config, ...own, log_level: level, ...more }));
  };
  const may = async (address: string, token: string): Promise<boolean> => {
    using consul = new ConsulClient({ address, token });
    return await consul.peerings.list().then(
      () => true,
      () => false,
    );
  };

  it("goes on, and reads certificates, policies and log level again", async () => {
    await files("info", server, policies("first"));
    const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
    const args = [...entry, "agent", "-config", file("agent.json")];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    try {
      let log = "";
      child.stderr.on("data", (chunk) => (log += String(chunk)));
      const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
      const [, , , http = "", , , https = ""] = AGENT_READY.exec(String(line)) ?? [];
      assert.deepEqual(
        [await shownBy(https), await may(http, "first"), await may(http, "second")],
        ["server", true, false],
      );

      await files("debug", await authority.issue("renewed"), policies("second"), { datacenter: "dc9" });
      child.kill("SIGHUP");
      await eventually(() => log.includes('"message":"reloaded"'), "it has read its files again");
      assert.deepEqual(
        [await shownBy(https), await may(http, "first"), await may(http, "second")],
        ["renewed", false, true],
      );
      const lines = log
        .trimEnd()
        .split("\n")
        .map((each) => JSON.parse(each));
      const told = lines.find(({ message }) => message === "reloaded");
      assert.deepEqual([told.what, told.logLevel], ["configuration, ACL policies, certificates", "debug"]);
      const later = lines.find(({ level }) => level === "warn");
      assert.deepEqual(
        [later.message, later.options],
        ["changed options take effect when the agent starts again", "datacenter"],
      );
      assert.ok(!log.includes("first") && !log.includes("second"), "no secret is logged");

      child.kill("SIGTERM");
      assert.deepEqual(await once(child, "exit"), [0, null]);
    } finally {
      child.kill("SIGKILL");
    }
  });

  /** An agent in this process, and its hang-up. */
  const started = async (world: CommandLineWorld = {}) => {
    let hangUp = (): void => assert.fail("it does not listen for hang-ups");
    const log: string[] = [];
    const stopping = new AbortController();
    const agent = await startAgent(["-config", file("agent.json")], stopping.signal, {
      ...world,
      onHangUp: (action) => {
        hangUp = action;
      },
      onLog: (text) => log.push(text),
    });
    return {
      agent,
      log,
      /** Resolves when it has been read, with the lines that were logged. */
      reload: async (): Promise<readonly string[]> => {
        const before = log.length;
        hangUp();
        const isOver = (): boolean => log.slice(before).some((line) => line.includes('"message":"reloaded"'));
        await eventually(isOver, "it has read its files again");
        // The warnings about options come with it.
        await new Promise((resolve) => setImmediate(resolve));
        return log.slice(before);
      },
      async [Symbol.asyncDispose]() {
        stopping.abort();
        assert.equal((await agent.result).exit, 0);
      },
    };
  };

  it("keeps its former files where new ones cannot be used, says why, and takes the others", async () => {
    await files("info", server, policies("first"));
    await using one = await started();
    const { http, https } = one.agent;

    // A key that does not fit, as when a renewal is half written.
    await files("info", { ...(await authority.issue("renewed")), key: server.key }, policies("second"));
    const certificates = (await one.reload()).join("");
    assert.match(certificates, /"level":"error","message":"not reloaded: the former configuration stays"/);
    assert.match(certificates, /"what":"certificates","error":"TLS: the key is not that of the certificate"/);
    assert.deepEqual(
      [await shownBy(https), await may(http, "first"), await may(http, "second")],
      ["server", false, true],
    );

    await files("info", await authority.issue("renewed"), 'token "a" {');
    assert.match(
      (await one.reload()).join(""),
      /"what":"ACL policies","error":"Error reading the ACL policies .*: At /,
    );
    assert.deepEqual([await shownBy(https), await may(http, "second")], ["renewed", true]);

    await files("info", await authority.issue("again"), policies("third"));
    await writeFile(file("agent.json"), "{");
    assert.match(
      (await one.reload()).join(""),
      /"what":"configuration","error":"Error reading the configuration file /,
    );
    assert.deepEqual([await shownBy(https), await may(http, "third")], ["again", true]);
  });

  it("tells a token that is gone nothing, also in reads that wait", async () => {
    await files("info", server, policies("first"));
    await using one = await started();
    using consul = new ConsulClient({ address: one.agent.http, token: "first" });
    const { index } = await consul.peerings.list();
    assert.ok(index !== undefined);
    const waiting = assert.rejects(consul.peerings.list({ index }), /403 \(ACL not found\)/);
    // The server has the waiting request once it has answered a later one.
    await consul.peerings.list();
    const writer = policies("first")
      .replace('operator = "read"', 'operator = "write"')
      .replace("first", "writer")
      .replace('operator"', 'writer"');
    await files("info", server, writer);
    await one.reload();
    using other = new ConsulClient({ address: one.agent.http, token: "writer" });
    await other.peerings.generateToken({ peerName: "west" });
    await waiting;
  });

  it("does not begin or cease to judge by policies, or to serve HTTPS: that takes a new start", async () => {
    await files("info", server, policies("first"));
    await using one = await started();
    const { acl_policies, https, cert, key, ...rest } = JSON.parse(await readFile(file("agent.json"), "utf8"));
    await writeFile(file("agent.json"), JSON.stringify(rest));
    const log = (await one.reload()).join("");
    assert.match(log, /"options":"https, acl-policies"/);
    assert.deepEqual([await may(one.agent.http, "first"), await may(one.agent.http, "")], [true, false]);
    assert.equal(await shownBy(one.agent.https), "server");
    assert.ok(acl_policies && https && cert && key);
  });
});
