// A session of `intention` commands as Consul's own program (1.21.4) went through it at a server of Consul, run again with ours
// at ours; recorded by tools/record-intention-cli.ts.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { runPeerage } from "../../support/command-line.js";
import { HttpPair } from "../../support/http-pair.js";
import { idIn, recordedSession, session } from "../../support/intention-command-lines.js";

const TIME = /[A-Z][a-z]+, \d\d-[A-Z][a-z]{2}-(?!01 )\d\d \d\d:\d\d:\d\d UTC/g;
const ID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;

/** Random ids, times, and the help of flags, which other tests compare. */
function withoutVarying(text: string): string {
  return text
    .replace(ID, "<id>")
    .replace(TIME, "<time>")
    .replace(/^Usage:\n[\s\S]*/m, "<flags>");
}

/** The program is called `peerage`; an error is one line, in which line breaks are escaped. */
function asOurs(text: string): string {
  return text.replaceAll("consul intention", "peerage intention").replace("occurred:\n\t* ", "occurred:\\n\\t* ");
}

describe("intention commands, as Consul's own program went through them", { timeout: 60_000 }, () => {
  let pair: HttpPair;
  let id = "";
  before(async () => {
    pair = await HttpPair.start(1);
  });
  after(() => pair[Symbol.asyncDispose]());

  it("all of them are recorded", () => {
    assert.deepEqual(
      recordedSession().map(({ args }) => args),
      session,
    );
  });

  for (const [index, { args, ...recorded }] of recordedSession().entries()) {
    it(`${index}: ${args.join(" ")}`, async () => {
      const result = await runPeerage(
        args.map((arg) => arg.replace("{id}", id)),
        { environment: { CONSUL_HTTP_ADDR: `127.0.0.1:${pair.a.port}` } },
      );
      id = idIn(result.stdout) ?? id;
      assert.deepEqual(
        { exit: result.exit, stdout: withoutVarying(result.stdout), stderr: withoutVarying(result.stderr) },
        {
          exit: recorded.exit,
          stdout: withoutVarying(recorded.stdout),
          stderr: withoutVarying(asOurs(recorded.stderr)),
        },
      );
    });
  }

  it("one is read from the standard input, which Consul's help promises, too", async () => {
    const environment = { CONSUL_HTTP_ADDR: `127.0.0.1:${pair.a.port}` };
    const stdin = '{"SourceName": "typed", "DestinationName": "typed-db", "Action": "deny"}';
    const { exit, stdout } = await runPeerage(["intention", "create", "-file", "-"], { environment, stdin });
    assert.deepEqual([exit, stdout], [0, "Created: typed => typed-db (deny)\n"]);
  });
});
