import { type Client, goTestOutcome, type Outcome } from "./client.js";
import { buildGoModule, missingGo } from "./go.js";
import type { Installation } from "./installation.js";
import { AGENT_TOKENS, COORDINATES, GOSSIP, KEY_VALUE, SCRIPTS, UNKNOWN_CA_KEY } from "./not-served.js";
import type { Side } from "./side.js";

/** Tests that run at once, each with servers of its own. */
const PARALLEL = 4;
/** Tests of parts of Consul that Peerage does not serve at all, as docs/not-served.md lists them. */
const NOT_SERVED =
  /^TestAPI_(?:ACL|AuthMethod|Client(?:Acquire|CAS|Delete|Keys|List|Put|Txn|Watch)|Event|KV|Lock|Operator(?:Autopilot(?:CAS|Get|State)|Keyring|Raft(?:Leader|Remove)|Usage)|Semaphore|Session|Snapshot)/;

/** The client of Go programs, with its own test suite, which starts servers for each test. */
export const goApi: Client = {
  name: "go-api",
  packages: ["github.com/hashicorp/consul/api@v1.32.1"],
  missing: missingGo,
  async install(installation) {
    await installation.must("sh", ["certificates.sh"]);
    await buildGoModule(installation, "test", "-c", "-o", "api.test", "github.com/hashicorp/consul/api");
  },
  async run(installation, side) {
    const listed = await installation.must(installation.path("api.test"), ["-test.list", "."]);
    const tests = listed.split("\n").filter((name) => name.startsWith("Test") && !NOT_SERVED.test(name));
    const outcomes: Outcome[] = [];
    const worker = async (): Promise<void> => {
      for (let test = tests.shift(); test !== undefined; test = tests.shift()) {
        outcomes.push(...(await runTest(installation, side, test)));
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, worker));
    return outcomes;
  },
  differences: [
    { reason: KEY_VALUE, checks: ["TestAPI_Headers"] },
    {
      reason: GOSSIP,
      checks: [
        "TestAPI_AgentForceLeave",
        "TestAPI_AgentForceLeaveOptions",
        "TestAPI_AgentForceLeavePrune",
        "TestAPI_AgentJoin",
        "TestAPI_AgentLeave",
        "TestAPI_AgentMembersOpts",
      ],
    },
    { reason: COORDINATES, checks: ["TestAPI_CoordinateDatacenters", "TestAPI_CoordinateUpdate"] },
    { reason: SCRIPTS, checks: ["TestAPI_AgentChecks_Docker", "TestAPI_AgentScriptCheck"] },
    { reason: AGENT_TOKENS, checks: ["TestAPI_AgentUpdateToken"] },
    {
      reason: "Connect cannot be switched off.",
      checks: ["TestAPI_AgentConnectCARoots_empty", "TestAPI_ConnectCARoots_empty"],
    },
    {
      reason: UNKNOWN_CA_KEY,
      checks: ["TestAPI_ConnectCAConfig_get_set"],
    },
    {
      reason: "Go's profiles (`/debug/pprof`) are not served.",
      checks: ["TestAPI_DebugGoroutine", "TestAPI_DebugHeap", "TestAPI_DebugProfile", "TestAPI_DebugTrace"],
    },
    { reason: "Of Consul's own measurements none is told but those of peerings.", checks: ["TestAPI_AgentMetrics"] },
    {
      reason: "The test waits for a line of the log, and a registration writes none.",
      checks: ["TestAPI_AgentMonitor", "TestAPI_AgentMonitorJSON"],
    },
    {
      reason: "The hash of a registration is another one; it changes when the registration does.",
      checks: ["TestAPI_AgentService"],
    },
    { reason: "HTTP is not served on Unix sockets.", checks: ["TestAPI_UnixSocket"] },
    {
      reason: "Nothing is cached: `?cached` gives what is there now, and no hit.",
      checks: ["TestAPI_CatalogServiceCached"],
    },
    { reason: "Consul's second API is not served.", checks: ["TestAPI_RawV2ExportedServices"] },
  ],
  failAtConsul: [
    { reason: "It wants certificates that the module does not hold.", checks: ["TestAPI_SetupTLSConfig"] },
  ],
};

/**
 * Failures of a busy machine: testutil gives a server two seconds to start, and a server that refuses a certificate may have
 * closed the connection before the client reads why.
 */
const BUSY = /Failed to start server|write: broken pipe/;
const TRIES = 3;

/** In a process of its own: one that panics ends no other. Nothing for a test that is skipped. */
async function runTest(installation: Installation, side: Side, test: string): Promise<readonly Outcome[]> {
  const env = { PATH: `${side.path}:${process.env["PATH"] ?? ""}` };
  const args = ["-test.v", "-test.run", `^${test}$`, "-test.timeout", "1m"];
  const options = { env, cwd: installation.path("run") };
  let result = await installation.run(installation.path("api.test"), args, options);
  for (let tries = 1; tries < TRIES && BUSY.test(result.output); tries++) {
    result = await installation.run(installation.path("api.test"), args, options);
  }
  return goTestOutcome(result, test);
}
