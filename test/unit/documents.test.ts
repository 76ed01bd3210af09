import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { defaultLimits } from "../../src/host/options.js";
import { dialBackoffMs, STABLE_STREAM_MS } from "../../src/replication/backoff.js";
import { defaultSessionLimits, defaultSessionTimings } from "../../src/replication/session.js";
import { writtenFiles } from "../support/citations.js";

const DOCUMENTS: readonly string[] = [
  ...readdirSync(".").filter((name) => name.endsWith(".md")),
  ...readdirSync("docs").flatMap((name) => (name.endsWith(".md") ? [`docs/${name}`] : [])),
  "test/CASES.md",
];

/** The anchors of a page, as GitHub makes them of its headings. */
function anchorsOf(page: string): ReadonlySet<string> {
  const headings = readFileSync(page, "utf8").matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map(([, text = ""]) =>
      text
        .toLowerCase()
        .replace(/[^\w\- ]/g, "")
        .replaceAll(" ", "-"),
    ),
  );
}
const manifest: { readonly scripts: Readonly<Record<string, string>> } = JSON.parse(
  readFileSync("package.json", "utf8"),
);

describe("documents", () => {
  for (const document of DOCUMENTS) {
    const text = readFileSync(document, "utf8");

    it(`${document} links to pages and headings that exist`, () => {
      const links = [...text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)];
      const missing = links.filter(([, path = "", anchor]) => {
        const page = path === "" ? document : join(dirname(document), path);
        return !existsSync(page) || (anchor !== undefined && !anchorsOf(page).has(anchor));
      });
      assert.deepEqual(
        missing.map(([link]) => link),
        [],
      );
    });

    it(`${document} names files that exist`, () => {
      // Paths in the code, with or without the `src/` in front of them.
      const mentions = [
        ...text.matchAll(/`([\w.-]+(?:\/[\w.-]+)*\/?[\w-]*\.(?:ts|mjs|md|json)|[\w-]+\/(?:[\w-]+\/)*)`/g),
      ];
      const paths = mentions.map(([, path]) => path ?? "");
      const missing = paths.filter((path) => !existsSync(path) && !existsSync(`src/${path}`));
      assert.deepEqual(missing, []);
    });

    it(`${document} names commands that exist`, () => {
      const commands = [...text.matchAll(/npm run ([\w:-]+)/g)].map(([, name]) => name ?? "");
      assert.deepEqual(
        commands.filter((name) => manifest.scripts[name] === undefined),
        [],
      );
    });
  }

  it("docs/protocol.md quotes names and texts that the code has", () => {
    const files = writtenFiles().filter((file) => /^(?:src|proto)\/.*\.(?:ts|proto)$/.test(file));
    const code = files.map((file) => readFileSync(file, "utf8")).join("\n");
    const quotes = [...readFileSync("docs/protocol.md", "utf8").matchAll(/`([^`\n]+)`/g)];
    // A text may go on behind the part that is quoted.
    const texts = quotes.map(([, text = ""]) => text.replace(/…$/, "").trim()).filter((text) => !/[<>/]/.test(text));
    assert.ok(texts.length > 60);
    assert.deepEqual(
      texts.filter((text) => !code.includes(text)),
      [],
    );
  });

  it("docs/protocol.md gives the times and sizes that the code has", () => {
    const page = readFileSync("docs/protocol.md", "utf8").replace(/\s+/g, " ");
    const { heartbeatIntervalMs, heartbeatTimeoutMs, sendStallMs, drainMs } = defaultSessionTimings;
    const { answerBytes, applies, applyBytes } = defaultSessionLimits;
    const { maxSendToDialerBytes, maxSendToAcceptorBytes, unstoredResources, unstoredBytes } = defaultLimits;
    const inMiB = (bytes: number): string => `${bytes / 1024 / 1024} MiB`;
    const facts = [
      `a \`Heartbeat\` every ${heartbeatIntervalMs / 1_000} s`,
      `Only heartbeats count: ${heartbeatTimeoutMs / 1_000} s without one`,
      `nothing is taken for ${sendStallMs / 1_000} s`,
      `Both close after ${drainMs / 1_000} s`,
      `a stream that stood for ${STABLE_STREAM_MS / 1_000} s`,
      `at most ${dialBackoffMs(1_000, undefined) / 1_000} s`,
      `${applies.toLocaleString("en")} resources or ${inMiB(applyBytes)} received`,
      `${inMiB(answerBytes)} of answers`,
      `While ${unstoredResources.toLocaleString("en")} resources or ${inMiB(unstoredBytes)} wait`,
      `An acceptor takes messages up to ${inMiB(maxSendToAcceptorBytes)}, a Consul dialer ${inMiB(maxSendToDialerBytes)}`,
    ];
    assert.deepEqual(
      facts.filter((fact) => !page.includes(fact)),
      [],
    );
  });

  it("ARCHITECTURE.md names every folder of src/, and every first part of a stored key", () => {
    const text = readFileSync("ARCHITECTURE.md", "utf8");
    const folders = readdirSync("src", { withFileTypes: true }).filter((entry) => entry.isDirectory());
    const keys = readFileSync("src/storage/keys.ts", "utf8").matchAll(/Key = \["([\w-]+)"\]/g);
    const missing = [...folders.map(({ name }) => `\`${name}/\``), ...[...keys].map(([, key]) => `\`${key}\``)];
    assert.deepEqual(
      missing.filter((name) => !text.includes(name)),
      [],
    );
  });
});
