import { type Client, outcomesOf } from "./client.js";
import { AGENT_TOKENS, OPERATOR, SCRIPTS } from "./not-served.js";

const VERSION = "1.8.0";

/** Of parts of Consul that Peerage does not serve at all, as docs/not-served.md lists them. */
const NOT_SERVED = ["acl", "acl_templated_policy", "coordinates", "event", "kv", "session", "snapshot"];
/** The same in the files of other tests, by what is in their names: `consul_ctor` and `transaction` write keys. */
const NOT_SERVED_TESTS = ["acl", "consul_ctor", "kv", "session", "transaction"];

/** The client of Python programs, with its own test suite, which its source package holds. */
export const pyConsul: Client = {
  name: "py-consul",
  packages: [`py-consul==${VERSION}`, "pytest==9.2.0", "pytest-asyncio==1.5.0", "aiohttp==3.14.5", "packaging==26.4"],
  async install(installation) {
    await installation.must("python3", ["-m", "venv", "venv"]);
    const python = installation.path("venv/bin/python");
    await installation.must(python, ["-m", "pip", "install", "--quiet", ...this.packages]);
    await installation.must(python, [
      ...["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", `py-consul==${VERSION}`],
    ]);
    await installation.must("tar", [
      "xzf",
      `py_consul-${VERSION}.tar.gz`,
      "--strip-components=1",
      `py_consul-${VERSION}/tests`,
    ]);
  },
  async run(installation, side) {
    const env = { PATH: `${side.path}:${process.env["PATH"] ?? ""}`, ...side.environment };
    const ignored = NOT_SERVED.map((part) => `--ignore=tests/api/test_${part}.py`);
    const named = NOT_SERVED_TESTS.map((part) => `not test_${part}`).join(" and ");
    const pytest = ["-m", "pytest", "-s", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"];
    const args = [...pytest, ...ignored, "-k", named, "tests"];
    const { output, code } = await installation.run(installation.path("venv/bin/python"), args, { env });
    // 1: some tests failed.
    return outcomesOf({ output, code: code === 1 ? 0 : code });
  },
  differences: [
    { reason: SCRIPTS, checks: ["api/test_agent.py TestAgent test_agent_checks"] },
    { reason: AGENT_TOKENS, checks: ["api/test_agent.py TestAgent test_agent_token_set"] },
    {
      reason: OPERATOR,
      checks: [
        "api/test_operator.py TestOperator test_autopilot_configuration",
        "api/test_operator.py TestOperator test_usage",
      ],
    },
  ],
  failAtSomeConsuls: [
    {
      reason: "Some builds of Consul refuse names that DNS cannot hold.",
      checks: [
        "api/test_agent.py TestAgent test_service_dereg_issue_156",
        "api/test_agent.py TestAgent test_agent_service_tagged_addresses",
        "api/test_agent.py TestAgent test_agent_service_connect",
      ],
    },
  ],
};
