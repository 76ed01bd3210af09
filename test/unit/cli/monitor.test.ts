import assert from "node:assert/strict";
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import { type RunningAgent, startAgent } from "../../support/command-line.js";
import { eventually } from "../../support/hosts.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];

/** An agent that is stopped whatever becomes of the test. */
async function withAgent(
  use: (agent: RunningAgent, hangUp: () => void, stop: () => void) => Promise<void>,
): Promise<string> {
  const stopping = new AbortController();
  let hangUp = (): void => {};
  const world = {
    onHangUp: (action: () => void): void => {
      hangUp = action;
    },
  };
  const agent = await startAgent(["-dev", ...ports], stopping.signal, world);
  try {
    await use(
      agent,
      () => hangUp(),
      () => stopping.abort(),
    );
  } finally {
    stopping.abort();
  }
  const { exit, stderr } = await agent.result;
  assert.equal(exit, 0);
  return stderr;
}

/** The log from now on: the answer begins before there is a line to send. */
async function listen(
  agent: RunningAgent,
  query: string,
): Promise<{ readonly response: IncomingMessage; readonly text: () => string }> {
  const request = get(`http://${agent.http}/v1/agent/monitor${query}`);
  const [response]: IncomingMessage[] = await once(request, "response");
  assert.ok(response !== undefined);
  let text = "";
  response.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  return { response, text: () => text };
}

describe("/v1/agent/monitor", () => {
  it("sends the log as it is written, in either form, until the agent stops", async () => {
    await withAgent(async (agent, hangUp, stop) => {
      const plain = await listen(agent, "");
      const json = await listen(agent, "?logjson&loglevel=INFO");
      hangUp();
      assert.deepEqual(
        [plain.response.statusCode, plain.response.headers["content-type"]],
        [200, "text/plain; charset=utf-8"],
      );
      await eventually(() => /^\S+Z \[INFO\] reloaded .*\n/.test(plain.text()), "the line comes");
      await eventually(() => json.text().includes("\n"), "the line comes as JSON");
      assert.equal(JSON.parse(json.text().split("\n")[0] ?? "").message, "reloaded");
      const ends = [once(plain.response, "end"), once(json.response, "end")];
      stop();
      await Promise.all(ends);
      assert.match(plain.text(), /\[INFO\] stopping\n$/);
    });
  });

  it("sends only lines of a level and more urgent ones, and refuses a level that there is not, in Consul's words", async () => {
    await withAgent(async (agent, hangUp, stop) => {
      const debug = await listen(agent, "?loglevel=trace");
      const errors = get(`http://${agent.http}/v1/agent/monitor?loglevel=err`);
      let heard = "";
      errors.on("response", (response: IncomingMessage) => {
        response.on("data", (data: Buffer) => {
          heard += data.toString();
        });
      });
      await once(errors, "response");
      const refused = await fetch(`http://${agent.http}/v1/agent/monitor?loglevel=foo`);
      assert.deepEqual([refused.status, await refused.text()], [400, "Unknown log level: foo"]);
      hangUp();
      await eventually(() => debug.text().split("reloaded").length > 1, "the line comes");
      stop();
      await once(errors, "close");
      assert.equal(heard, "");
    });
  });
});
