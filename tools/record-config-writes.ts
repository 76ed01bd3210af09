// Writes random small sets of configuration entries to a real Consul and to a host, in the same order, and tells where their
// answers differ. `node --import tsx tools/record-config-writes.ts http://127.0.0.1:8500 --sequences 200 --seed 1`.
// The server must hold no configuration entries, and be in datacenter dc1. With `--record` it writes those sequences to
// test/golden/config-writes that show something that no sequence before them has shown.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { createHost } from "../src/host/host.js";
import { memoryStorage } from "../src/storage/memory.js";
import { memoryNetwork } from "../src/transport/memory.js";
import { serve } from "../test/support/http-pair.js";
import { RECORDED_WRITES, type RecordedWrite } from "../test/support/recorded-writes.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sequences: { type: "string", default: "100" },
    writes: { type: "string", default: "14" },
    seed: { type: "string", default: "1" },
    record: { type: "boolean", default: false },
  },
});
const [consul] = positionals;
if (consul === undefined) throw new TypeError("usage: record-config-writes.ts <address of a Consul>");

type Fields = Record<string, unknown>;
type Write = Pick<RecordedWrite, "method" | "path" | "body">;

const KINDS = [
  "exported-services",
  "service-intentions",
  "ingress-gateway",
  "service-router",
  "service-splitter",
  "service-resolver",
  "service-defaults",
  "proxy-defaults",
];
const SERVICES = ["a", "b", "c", "d"];
const PROTOCOLS = ["tcp", "http", "http", "grpc", "HTTP", "http2", "", "sctp"];
const SUBSETS = ["v1", "v2"];
/** The first sequences are recorded whatever they show: also what is accepted can be wrong. */
const KEPT_ANYWAY = 60;
/** How often a refused write is sent to see all that Consul may say of it. */
const ASK_AGAIN = 60;

/** Numbers that look random, the same for the same seed. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed * 2_654_435_761 + 1;
  }

  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor(((this.#state >>> 8) / 2 ** 24) * limit);
  }

  one<Value>(choices: readonly Value[]): Value {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new TypeError("nothing to choose from");
    return choice;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}

function maybe(dice: Dice, percent: number, name: string, make: () => unknown): Fields {
  return dice.chance(percent) ? { [name]: make() } : {};
}

function place(dice: Dice): Fields {
  return {
    ...maybe(dice, 75, "Service", () => dice.one(SERVICES)),
    ...maybe(dice, 25, "ServiceSubset", () => dice.one(SUBSETS)),
  };
}

function farPlace(dice: Dice): Fields {
  return {
    ...place(dice),
    ...maybe(dice, 12, "Datacenter", () => dice.one(["dc1", "dc2"])),
    ...maybe(dice, 12, "Peer", () => "p1"),
  };
}

function failover(dice: Dice): Fields {
  if (dice.chance(40)) return { Targets: Array.from({ length: 1 + dice.below(2) }, () => farPlace(dice)) };
  return { ...place(dice), ...maybe(dice, 20, "Datacenters", () => [dice.one(["dc1", "dc2"])]) };
}

function resolver(dice: Dice): Fields {
  return {
    ...maybe(dice, 50, "Subsets", () =>
      Object.fromEntries(SUBSETS.slice(0, 1 + dice.below(2)).map((name) => [name, { OnlyPassing: dice.chance(50) }])),
    ),
    ...maybe(dice, 20, "DefaultSubset", () => dice.one(SUBSETS)),
    ...maybe(dice, 40, "Redirect", () => farPlace(dice)),
    ...maybe(dice, 25, "Failover", () => ({ [dice.one(["*", "v1", "v2"])]: failover(dice) })),
    ...maybe(dice, 10, "ConnectTimeout", () => dice.one(["3s", "-1s"])),
  };
}

function splitter(dice: Dice): Fields {
  const weights = dice.one([[100], [50, 50], [33.33, 66.67], [99.99, 0.01], [20, 30, 50], [50, 49]]);
  return { Splits: weights.map((Weight) => ({ Weight, ...place(dice) })) };
}

function router(dice: Dice): Fields {
  const routes = Array.from({ length: dice.below(3) }, () => ({
    ...maybe(dice, 80, "Match", () => ({ HTTP: { PathPrefix: dice.one(["/x", "/y"]) } })),
    ...maybe(dice, 90, "Destination", () => place(dice)),
  }));
  return { Routes: routes };
}

function entry(dice: Dice): Fields {
  const kind = dice.one([...KINDS, ...KINDS.slice(3), ...KINDS.slice(3, 6)]);
  const named = (fields: Fields): Fields => ({ Kind: kind, Name: dice.one(SERVICES), ...fields });
  switch (kind) {
    case "exported-services":
      return {
        Kind: kind,
        Name: "default",
        Services: [{ Name: dice.one([...SERVICES, "*"]), Consumers: [{ Peer: "p1" }] }],
      };
    case "service-intentions":
      return named({
        Sources: [
          dice.chance(40)
            ? { Name: "x", Action: "allow" }
            : { Name: "x", Permissions: [{ Action: "allow", HTTP: { PathPrefix: "/" } }] },
        ],
      });
    case "ingress-gateway":
      return named({
        Listeners: [
          {
            Port: 80,
            Protocol: dice.one(["tcp", "http", "grpc"]),
            Services: [{ Name: dice.one(SERVICES), Hosts: dice.chance(10) ? ["x.example.com"] : null }],
          },
        ],
      });
    case "service-router":
      return named(router(dice));
    case "service-splitter":
      return named(splitter(dice));
    case "service-resolver":
      return named(resolver(dice));
    case "service-defaults":
      return named({ Protocol: dice.one(PROTOCOLS), ...maybe(dice, 8, "ExternalSNI", () => "sni.example.com") });
    default:
      return { Kind: kind, Name: "global", Config: { protocol: dice.one(PROTOCOLS) } };
  }
}

function write(dice: Dice, written: Fields[]): Write {
  if (written.length > 0 && dice.chance(18)) {
    const { Kind, Name } = dice.one(written);
    return { method: "DELETE", path: `/v1/config/${Kind}/${Name}` };
  }
  const body = entry(dice);
  written.push(body);
  return { method: "PUT", path: "/v1/config", body };
}

type Server = (write: Write) => Promise<{ readonly status: number; readonly text: string }>;

function serverAt(address: string): Server {
  return async ({ method, path, body }) => {
    const answer = await fetch(`${address}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: answer.status, text: (await answer.text()).trimEnd() };
  };
}

async function clear(address: string): Promise<void> {
  for (let left = Number.POSITIVE_INFINITY; left > 0; ) {
    left = 0;
    for (const kind of KINDS) {
      const entries: readonly { Name: string }[] = JSON.parse(
        await (await fetch(`${address}/v1/config/${kind}`)).text(),
      );
      left += entries.length;
      for (const { Name } of entries) await fetch(`${address}/v1/config/${kind}/${Name}`, { method: "DELETE" });
    }
  }
}

async function record(server: Server, asked: Write): Promise<RecordedWrite> {
  const { status, text } = await server(asked);
  const texts = new Set([text]);
  if (status !== 200) for (let again = 0; again < ASK_AGAIN; again++) texts.add((await server(asked)).text);
  return { ...asked, status, texts: [...texts].sort() };
}

/** The result of a write, without the names of its services. */
function shape({ method, path, body, status, texts }: RecordedWrite): string {
  const kind = method === "PUT" ? Object(body).Kind : path.split("/")[3];
  const plain = texts.map((text) => text.replace(/"[^"]*"|\[.*\]/g, "<>"));
  return `${method} ${kind} ${status} ${plain.join(" | ")}`;
}

await clear(consul);
const shown = new Set<string>();
const kept: (readonly RecordedWrite[])[] = [];
let count = 0;
let differences = 0;
for (let index = 0; index < Number(values.sequences); index++) {
  const dice = new Dice(Number(values.seed) + index);
  const network = memoryNetwork();
  const transport = network.transport({ listen: "127.0.0.1:8503" });
  const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport });
  await using ours = await serve(host);
  const written: Fields[] = [];
  const sequence: RecordedWrite[] = [];
  let news = false;
  for (let step = 0; step < Number(values.writes); step++) {
    const asked = write(dice, written);
    const real = await record(serverAt(consul), asked);
    const own = await serverAt(`http://127.0.0.1:${ours.port}`)(asked);
    sequence.push(real);
    count++;
    const differs = own.status !== real.status || !real.texts.includes(own.text);
    if (!shown.has(shape(real)) || differs) news = true;
    shown.add(shape(real));
    if (!differs) continue;
    differences++;
    console.log(`sequence ${index}, write ${step}: ${asked.method} ${asked.path} ${JSON.stringify(asked.body ?? "")}`);
    console.log(`  consul  ${real.status} ${JSON.stringify(real.texts)}`);
    console.log(`  peerage ${own.status} ${JSON.stringify(own.text)}`);
    for (const before of sequence.slice(0, -1)) {
      if (before.status === 200)
        console.log(`    after ${before.method} ${before.path} ${JSON.stringify(before.body ?? "")}`);
    }
    // From here on the two do not hold the same.
    if ((own.status === 200) !== (real.status === 200)) break;
  }
  if (news || index < KEPT_ANYWAY) kept.push(sequence);
  await clear(consul);
}
console.log(
  `${count} writes in ${values.sequences} sequences, ${shown.size} forms of answers, ${differences} differences`,
);
if (values.record) {
  const file = join("test/golden", RECORDED_WRITES);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, kept.map((sequence) => `${JSON.stringify(sequence)}\n`).join(""));
  console.log(`${kept.length} sequences written to ${file}`);
}
