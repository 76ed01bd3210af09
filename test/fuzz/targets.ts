import assert from "node:assert/strict";
import { decode } from "dns-packet";
import fc from "fast-check";
import { parseAclPolicies } from "../../src/access/policies.js";
import { PeeringError } from "../../src/base/errors.js";
import { parseConfigEntry } from "../../src/config/config-entry.js";
import { ConfigEntrySet } from "../../src/config/config-entry-set.js";
import { checkNeighbours, settledEntry } from "../../src/config/entry-rules.js";
import { checkEntryGuards } from "../../src/config/export-guards.js";
import { decodeQuery, encodeReply } from "../../src/dns/packet.js";
import { parseName } from "../../src/dns/question.js";
import { type DnsRecord, isEncodable } from "../../src/dns/records.js";
import { checkDefinition, isEmptyCheck, serviceCheckType } from "../../src/http/check-json.js";
import { configEntryFields, configEntryJson, decodeConfigEntry } from "../../src/http/config-json.js";
import { type Fields, struct } from "../../src/http/filter/fields.js";
import { compileFilter } from "../../src/http/filter/filter.js";
import { HttpRefusal } from "../../src/http/http-refusal.js";
import { writeJson } from "../../src/http/json.js";
import type { ServiceView } from "../../src/http/records.js";
import { serviceFields } from "../../src/http/records.js";
import { registerType } from "../../src/http/registration-json.js";
import { decodePayload } from "../../src/payload/imported-payload.js";
import { inspectPayload } from "../../src/payload/payload-inspection.js";
import type { StoredConfigEntry } from "../../src/stores/config-entries.js";
import { decodeGo, GoJsonError, plainJson, readWholeValue } from "../../src/syntax/go-json.js";
import { HclError, parseHcl } from "../../src/syntax/hcl.js";
import { HilError, parseHil } from "../../src/syntax/hil.js";
import { compileHil, type HilScope } from "../../src/syntax/hil-evaluation.js";
import { certificatesIn, firstPemBlock } from "../../src/token/pem.js";
import { TokenCodec } from "../../src/token/token-codec.js";
import { encodeFrames, FrameReader } from "../../src/transport/grpc-framing.js";
import { decodeMessage, encodeMessage } from "../../src/wire/codec.js";
import { readGolden } from "../golden/read.js";
import { base64Form, type JsonForm, plainForm } from "./json-mutator.js";

/** Something that reads what strangers send. */
export interface Target {
  /** Recorded inputs to begin with. */
  readonly corpus: () => readonly Buffer[];
  /** Inputs with the structure of the language. */
  readonly structured: fc.Arbitrary<string | Uint8Array>;
  /** The tokens of the language. */
  readonly words: readonly string[];
  /** Inputs are JSON in this form, and are changed by its values as well as by bytes. */
  readonly json?: JsonForm;
  /** Reads the input, and throws a refusal for a bad one. Anything else that is thrown is a finding. */
  readonly run: (input: Buffer) => void;
  readonly isRefusal: (error: unknown) => boolean;
}

function lines(path: string): readonly Readonly<Record<string | number, unknown>>[] {
  return readGolden(path)
    .split("\n")
    .filter((line) => line !== "")
    .map((line): Readonly<Record<string | number, unknown>> => JSON.parse(line));
}

/** At most so many of a recording, spread over it. */
function some<Item>(items: readonly Item[], most = 200): readonly Item[] {
  const step = Math.max(1, Math.floor(items.length / most));
  return items.filter((_, index) => index % step === 0);
}

const VERSIONS = ["1.13.8", "1.15.4", "1.21.4", "1.22.0-dev"] as const;

function frames(): readonly Buffer[] {
  return VERSIONS.flatMap((version) => some(lines(`frames/${version}.jsonl`), 60)).map(({ raw }) =>
    Buffer.from(String(raw), "base64"),
  );
}

/** Payloads of services in the recorded frames. */
function payloads(): readonly Buffer[] {
  return frames().flatMap((frame) => {
    try {
      const message = decodeMessage(frame);
      const value = message.type === "response" ? message.resource?.value : undefined;
      return value === undefined ? [] : [Buffer.from(value)];
    } catch {
      return [];
    }
  });
}

/** The body of a recorded request, if it had one. */
function bodyOf(request: unknown): readonly Buffer[] {
  if (typeof request !== "object" || request === null || !("body" in request)) return [];
  return [Buffer.from(typeof request.body === "string" ? request.body : JSON.stringify(request.body))];
}

/** Config entries that were written to a Consul. */
function writtenEntries(): readonly Buffer[] {
  const sequences = lines("config-writes/1.21.4.jsonl").flatMap((requests) => Object.values(requests));
  return [...lines("config-entries/1.21.4.jsonl").flatMap(bodyOf), ...some(sequences.flatMap(bodyOf))];
}

function bodies(): readonly Buffer[] {
  const requests = lines("http/acl.jsonl").flatMap(({ request }) => bodyOf(request));
  const registration = {
    Node: "n",
    Address: "a",
    Service: { Service: "web", Port: 1, Meta: { a: "b" } },
    Check: { Name: "c" },
  };
  return [
    ...some(requests, 100),
    ...lines("registrations/1.21.4.jsonl").flatMap(bodyOf),
    Buffer.from(JSON.stringify(registration)),
    Buffer.from('{"a":[1,2.5e3,"\\u00e9\\ud83d\\ude00",null]}'),
  ];
}

function tokens(): readonly Buffer[] {
  return [...lines("tokens/written.jsonl"), ...some(lines("tokens/judged.jsonl"), 100)].map(({ text }) =>
    Buffer.from(String(text)),
  );
}

const hclTexts: readonly string[] = [
  'default_policy = "deny"\npolicy "reader" {\n  service_prefix "" { policy = "read" }\n  node_prefix "" { policy = "read" }\n}',
  'token "deploy" {\n  secret_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"\n  policies = ["reader"]\n  rules { peering = "write" }\n}',
  'Kind = "service-resolver"\nName = "web"\nFailover = { "*" = { Targets = [{ Peer = "a" }] } }',
  'a = <<EOT\ntext\nEOT\nb = 1.5e3 # comment\n/* c */ c = [1, "x", true]',
  '"k" { x = "\u0024{a.b}" }',
];
const filterTexts: readonly string[] = [
  'Service.Tags contains "a" and not (Service.Port == 80 or Service.Meta.k matches "^a.*b$")',
  '"x" in Tags',
  "Meta is not empty",
  'Service == "web" and Port != 1',
  "Name matches `(a|b)*c{2,5}[^x-z\\\\d]`",
  'any Ports as p { p.Name == "x" }',
  "Entry.UpstreamConfig.Overrides.Limits.MaxConnections == 3 or Entry.Expose.Paths is empty",
  'Entry.UpstreamConfig.Defaults.PassiveHealthCheck.MaxFailures != "4294967295" and Entry.Meta.k == v',
  "Entry.Destination.Addresses contains a or Entry.MaxInboundConnections == 11 or Entry.CreateIndex != 1",
];

const certificate = (): readonly Buffer[] =>
  tokens().flatMap((token) => {
    try {
      const { CA }: { readonly CA?: readonly string[] } = JSON.parse(
        Buffer.from(token.toString(), "base64").toString(),
      );
      return (CA ?? []).slice(0, 1).map((pem) => Buffer.from(pem));
    } catch {
      return [];
    }
  });

const json = fc.json({ maxDepth: 6 });
const isBadRequest = (error: unknown): boolean =>
  error instanceof GoJsonError || error instanceof HttpRefusal || error instanceof PeeringError;
const isPeeringError = (error: unknown): boolean => error instanceof PeeringError;

function query(name: string, type: number): Buffer {
  const labels = name.split(".").flatMap((label) => [label.length, ...Buffer.from(label)]);
  return Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, type, 0, 1]);
}

const dnsNames: readonly string[] = [
  "web.service.alpha.peer.consul",
  "_web._tcp.alpha.peer.consul",
  "n1.node.dc1.consul",
  "0a000001.addr.consul",
  "1.0.0.10.in-addr.arpa",
  "web.virtual.alpha.consul",
  "q.query.consul",
];
const nameSettings = {
  domains: ["consul"],
  datacenter: "dc1",
  bareLabelIsPeer: true,
  isPeering: (name: string): boolean => name === "alpha",
};

export const targets: Readonly<Record<string, Target>> = {
  /** An envelope that is written again says the same. */
  message: {
    corpus: frames,
    structured: fc.uint8Array({ maxLength: 400 }),
    words: [
      "type.googleapis.com/hashicorp.consul.internal.service.ExportedService",
      "\n",
      "\x12",
      "\x1a",
      "\x22\x80\x80\x01",
    ],
    run: (input) => {
      const message = decodeMessage(input);
      assert.deepEqual(decodeMessage(encodeMessage(message)), message);
    },
    isRefusal: isPeeringError,
  },
  /** Decoding can read every payload that inspection accepts, with as many instances. */
  payload: {
    corpus: payloads,
    structured: fc.uint8Array({ maxLength: 400 }),
    words: ["web", "\n\x02\n\x00", "\x12\x03web", "overall-check", "\xff\xff\xff\xff\x0f"],
    run: (input) => {
      const { instances } = inspectPayload(input, "web");
      const decoded = decodePayload(input, () => undefined);
      assert.equal(decoded.length, instances);
    },
    isRefusal: isPeeringError,
  },
  /** However a stream is cut, the same messages come out, and none is larger than allowed. */
  framing: {
    corpus: () => [
      Buffer.concat(encodeFrames(frames().slice(0, 3))),
      Buffer.from([0, 0, 0, 0, 0]),
      Buffer.from([1, 0, 0, 0, 1, 0]),
    ],
    structured: fc.uint8Array({ maxLength: 200 }),
    words: ["\0\0\0\0\0", "\0\0\0\x01\0", "\x01\0\0\0\x02", "\0\xff\xff\xff\xff"],
    run: (input) => {
      const whole = read([input]);
      const cut = input.length >>> 1;
      const halves = read([input.subarray(0, cut), input.subarray(cut)]);
      const single = read(Array.from(input, (byte) => Buffer.from([byte])));
      assert.deepEqual([halves, single], [whole, whole]);
    },
    isRefusal: () => false,
  },
  token: {
    corpus: tokens,
    structured: json.map((text) => Buffer.from(text).toString("base64")),
    json: base64Form,
    words: ["eyJDQSI6", "In0=", "bnVsbA==", "W10=", "-", "\n"],
    run: (input) => {
      const text = input.toString("utf8");
      const token = TokenCodec.decode(text);
      // A description is made of every token that can be decoded, whatever is wrong with it.
      assert.ok(Array.isArray(TokenCodec.inspect(text, 0).problems));
      TokenCodec.validate(token);
    },
    isRefusal: isPeeringError,
  },
  /** Go's parser and JavaScript's read alike every text that both accept. */
  json: {
    corpus: bodies,
    structured: json,
    json: plainForm,
    words: ['{"', '":', "[[", "null", "1e400", "-0", "\\u0000", "\\ud800", '"Node"', '"__proto__"', "\u2028"],
    run: (input) => {
      const value = readWholeValue(input);
      const text = input.toString("utf8");
      // Text that is no UTF-8 is taken as in Go; JSON.parse sees what became of it.
      if (Buffer.from(text).equals(input)) {
        const plain = JSON.stringify(plainJson(value));
        if (!/[eE.]|\d{16}|\\u|__proto__/.test(text)) assert.equal(typeof plain, "string");
      }
      decodeGo(input, registerType);
    },
    isRefusal: (error) => error instanceof GoJsonError,
  },
  hcl: {
    corpus: () => hclTexts.map((text) => Buffer.from(text)),
    structured: fc
      .array(
        fc.constantFrom("a", "=", "{", "}", "[", "]", '"x"', "1", ",", "\n", "<<E\n", "E\n", "true", "//", "${", "}"),
      )
      .map((parts) => parts.join(" ")),
    words: ["<<EOT\n", "\nEOT\n", "${", "/*", "*/", "#", '"\\u00', "0x", "1e9", "{{", "[[", "= ", "policy", "token"],
    run: (input) => {
      const text = input.toString("utf8");
      const parsed = parseHcl(text);
      // Values that were read are plain data.
      assert.equal(typeof JSON.stringify(parsed), "string");
    },
    isRefusal: (error) => error instanceof HclError,
  },
  /** A compiled template gives the same text each time. */
  hil: {
    corpus: () => some(lines("hil.jsonl")).map(({ 0: text }) => Buffer.from(String(text))),
    structured: fc
      .array(
        fc.constantFrom("${", "}", '"', "name", "match(", ")", "1", "1.5", "true", "+", "==", "?", ":", "-", "!", "$$"),
      )
      .map((parts) => parts.join("")),
    words: [
      "${",
      "}",
      "$$",
      '\\"',
      "\\n",
      "match(",
      "name",
      "[",
      "]",
      "&&",
      "||",
      "<=",
      "%",
      " ? ",
      " : ",
      "0x",
      "1_0",
    ],
    run: (input) => {
      const program = compileHil(parseHil(input.toString("utf8")), hilScope);
      assert.equal(program(hilScope), program(hilScope));
    },
    isRefusal: (error) => error instanceof HilError,
  },
  policies: {
    corpus: () => hclTexts.slice(0, 2).map((text) => Buffer.from(text)),
    structured: json,
    words: ["policy", "token", "anonymous", "rules", "secret", "default_policy", '"deny"', "service_prefix", "{", "}"],
    run: (input) => {
      assert.ok(parseAclPolicies(input.toString("utf8")));
    },
    isRefusal: isPeeringError,
  },
  filter: {
    corpus: () => filterTexts.map((text) => Buffer.from(text)),
    structured: fc
      .array(
        fc.constantFrom(
          "Service",
          "Tags",
          "Meta",
          "Port",
          "Entry.UpstreamConfig.Overrides",
          "Entry.UpstreamConfig.Overrides.Limits.MaxConnections",
          "Entry.UpstreamConfig.Defaults.PassiveHealthCheck.MaxFailures",
          "Entry.TransparentProxy.DialedDirectly",
          "==",
          "!=",
          "in",
          "not",
          "and",
          "or",
          "(",
          ")",
          '"a"',
          "80",
          "matches",
          "is",
          "empty",
          "contains",
          "`a*`",
        ),
      )
      .map((parts) => parts.join(" ")),
    words: [" and ", " or ", "not ", "(", ")", "matches", "((a*)*)*", "{1,1000}", "[^", "\\p{L}", "Meta.", '"', "`"],
    run: (input) => {
      const filter = compileFilter(input.toString("utf8"), filterFields);
      filter.holds(serviceView);
    },
    isRefusal: isPeeringError,
  },
  dns: {
    corpus: () => dnsNames.flatMap((name) => [1, 28, 33, 255].map((type) => query(name, type))),
    structured: fc.uint8Array({ maxLength: 100 }),
    words: ["\x07service", "\x04peer", "\x06consul\0", "\xc0\x0c", "\0\0\x29\x10\0\0\0\0\0\0\0", "\x3f", "\x40"],
    run: (input) => {
      const decoded = decodeQuery(input);
      if (decoded.type !== "query") return;
      assert.ok(Buffer.byteLength(decoded.query.name) <= 4 * input.length);
      parseName(decoded.query.name, "A", nameSettings);
    },
    isRefusal: () => false,
  },
  /** Another implementation reads the same answer. */
  "dns-answer": {
    corpus: () => dnsNames.flatMap((name) => [1, 33, 255].map((type) => query(name, type))),
    structured: fc.uint8Array({ maxLength: 100 }),
    words: ["\x07service", "\x04peer", "\x06consul\0", "\x01a\x01a\x01a\0", "\x3f", "\xc0\x0c"],
    run: (input) => {
      const decoded = decodeQuery(input);
      if (decoded.type !== "query") return;
      const { name } = decoded.query;
      const targets = [name, `a.${name}`, name.replace(/^[^.]*\./, "")].filter(isEncodable);
      const answers = targets.flatMap((target): DnsRecord[] => [
        { type: "SRV", name: target, ttl: 1, data: { priority: 1, weight: 2, port: 3, target } },
        { type: "PTR", name: target, ttl: 0, data: target },
        { type: "TXT", name: target, ttl: 2, data: [input.toString("latin1", 0, 100).replace(/[^ -~]/g, "?")] },
      ]);
      const reply = {
        code: "NOERROR",
        authoritative: true,
        truncated: false,
        authorities: [],
        additionals: [],
      } as const;
      const written = decode(encodeReply(decoded.query, { ...reply, answers }));
      const lower = (text: string): string => (text === "." ? "" : text).toLowerCase();
      // Other labels have no one spelling as a text.
      if (!/^[\w.-]*$/.test(name)) return assert.equal(written.answers?.length, answers.length);
      assert.deepEqual(
        written.answers?.map((record) => lower(record.name)),
        answers.map((record) => lower(record.name)),
      );
    },
    isRefusal: () => false,
  },
  checks: {
    corpus: () =>
      [
        { HTTP: "http://127.0.0.1:80/", Method: "PUT", Header: { a: ["b"] }, Interval: "10s", Timeout: "1s" },
        { TCP: "127.0.0.1:1", Interval: "1m", SuccessBeforePassing: 2, FailuresBeforeWarning: 1 },
        { TTL: "30s", Status: "passing", Notes: "n" },
        { GRPC: "127.0.0.1:1/web", GRPCUseTLS: true, Interval: "5s", TLSServerName: "a" },
        { AliasService: "web", AliasNode: "n" },
        { UDP: "127.0.0.1:1", Interval: "1s", OutputMaxSize: 10, DeregisterCriticalServiceAfter: "90m" },
      ].map((check) => Buffer.from(JSON.stringify(check))),
    structured: json,
    json: plainForm,
    words: ['"Interval":', '"10s"', '"TTL":', '"HTTP":', '"TCP":', '"AliasService":', "-1", "1e9", '"1h1m"', "null"],
    run: (input) => {
      const body = decodeGo(input, serviceCheckType);
      if (!isEmptyCheck(body)) assert.ok(checkDefinition(body).method.type !== undefined);
    },
    isRefusal: isBadRequest,
  },
  /** Every config entry that is accepted can be shown, and its JSON is accepted again as the same entry. */
  config: {
    corpus: () => [
      ...writtenEntries(),
      ...[
        { Kind: "service-resolver", Name: "web", Redirect: { Service: "b", Datacenter: "dc2" }, ConnectTimeout: "5s" },
        { Kind: "service-resolver", Name: "web", Failover: { "*": { Targets: [{ Peer: "a" }] } } },
        { Kind: "service-intentions", Name: "*", Sources: [{ Name: "a", Peer: "b", Action: "allow" }] },
        { Kind: "exported-services", Name: "default", Services: [{ Name: "*", Consumers: [{ Peer: "a" }] }] },
        { Kind: "proxy-defaults", Name: "global", Config: { a: [1, { b: "c" }] }, MeshGateway: { Mode: "local" } },
        { Kind: "service-splitter", Name: "web", Splits: [{ Weight: 50 }, { Weight: 50, Service: "b" }] },
        { Kind: "mesh", TransparentProxy: { MeshDestinationsOnly: true } },
      ].map((entry) => Buffer.from(JSON.stringify(entry))),
    ],
    structured: json,
    json: plainForm,
    words: ['"Kind":', '"service-defaults"', '"Name":', '"Protocol":', '"Meta":', "[", "{", '"1s"', "1e400", "null"],
    run: (input) => {
      const shown = shownEntry(input);
      let again = "";
      try {
        again = shownEntry(Buffer.from(shown));
      } catch (error) {
        throw new Error(`what is shown is not taken: ${shown}`, { cause: error });
      }
      assert.deepEqual(comparable(again), comparable(shown));
    },
    isRefusal: isBadRequest,
  },
  pem: {
    corpus: () => [...certificate(), Buffer.from("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")],
    structured: fc.base64String().map((body) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`),
    words: ["-----BEGIN ", "CERTIFICATE", "-----", "-----END ", "\n", "\r\n", ": ", "Proc-Type: 4,ENCRYPTED", "MII"],
    run: (input) => {
      const text = input.toString("latin1");
      const block = firstPemBlock(text);
      const certificates = certificatesIn(text);
      // A certificate is never found where there is no block.
      if (block === undefined) assert.equal(certificates.length, 0);
    },
    isRefusal: isPeeringError,
  },
};

const hilScope: HilScope = {
  variables: new Map([["name", "web-1"]]),
  functions: new Map([["match", (index) => String(index)]]),
};
/** A config entry as it is read, judged as the first one, stored, and shown. */
function shownEntry(input: Buffer): string {
  const entry = settledEntry(parseConfigEntry(decodeConfigEntry(readWholeValue(input)).entry));
  checkNeighbours(ConfigEntrySet.empty, entry);
  checkEntryGuards(ConfigEntrySet.empty, ConfigEntrySet.of([entry]), entry.kind, entry.name, "dc1");
  // A row that cannot be read back keeps a host from starting.
  const stored = JSON.stringify(entry);
  assert.deepEqual(JSON.parse(JSON.stringify(parseConfigEntry(JSON.parse(stored)))), JSON.parse(stored));
  return writeJson(configEntryJson({ entry, createIndex: 1n, modifyIndex: 2n }), false);
}

/** Without what is not taken as it is shown, by Consul either: bytes, which are a text, and a list of one, which loses its list. */
function comparable(shown: string): unknown {
  return JSON.parse(shown, (key, value: unknown) => {
    if (key === "InlineBytes") return "";
    return Array.isArray(value) && value.length === 1 ? value[0] : value;
  });
}

const MAX_MESSAGE_BYTES = 1_024;

/** The messages, and the code of the failure that ended it. */
function read(chunks: readonly Buffer[]): readonly string[] {
  const reader = new FrameReader(MAX_MESSAGE_BYTES);
  const messages: Uint8Array[] = [];
  let end = "";
  try {
    for (const chunk of chunks) reader.push(chunk, messages);
    end = reader.partial ? "partial" : "whole";
  } catch (error) {
    if (!(error instanceof PeeringError)) throw error;
    end = error.code;
  }
  for (const message of messages) assert.ok(message.length <= MAX_MESSAGE_BYTES);
  return [...messages.map((message) => Buffer.from(message).toString("hex")), end];
}

/** A config entry whose upstreams have all fields, some or none. */
const filteredEntry: StoredConfigEntry = {
  entry: {
    ...{ kind: "service-defaults", name: "web", protocol: "http", meta: { k: "v" } },
    extra: {
      TransparentProxy: { DialedDirectly: true },
      UpstreamConfig: {
        Overrides: [{ Name: "db", Limits: { MaxConnections: 3 } }, { Name: "x" }],
        Defaults: { PassiveHealthCheck: { MaxFailures: 5 } },
      },
      MaxInboundConnections: 11,
    },
  },
  createIndex: 1n,
  modifyIndex: 1n,
};
const filterFields: Fields<ServiceView> = {
  ...serviceFields,
  Entry: struct(() => filteredEntry, configEntryFields("service-defaults")),
};

const serviceView: ServiceView = {
  peer: "",
  service: {
    kind: "",
    id: "web-1",
    name: "web",
    tags: ["a", "b"],
    address: "10.0.0.1",
    port: 80,
    socketPath: "",
    taggedAddresses: {},
    meta: { k: "value" },
    weights: { passing: 1, warning: 1 },
    enableTagOverride: false,
    createIndex: 1n,
    modifyIndex: 1n,
  },
};
