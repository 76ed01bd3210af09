import { type Client, outcomesOf } from "./client.js";

const VERSION = "1.8.0";

/** Of parts of Consul that Peerage does not serve at all, as docs/not-served.md lists them. */
const NOT_SERVED = ["acl", "acl_templated_policy", "coordinates", "event", "kv", "session", "snapshot"];

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
    const args = ["-m", "pytest", "-s", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", ...ignored, "tests"];
    const { output, code } = await installation.run(installation.path("venv/bin/python"), args, { env });
    // 1: some tests failed.
    return outcomesOf({ output, code: code === 1 ? 0 : code });
  },
  differences: [],
};
