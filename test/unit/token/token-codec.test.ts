import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { type PeeringToken, TokenCodec } from "../../../src/token/token-codec.js";
import { readGolden } from "../../golden/read.js";

interface WrittenToken {
  readonly origin: string;
  readonly text: string;
  readonly decoded: {
    readonly CA: readonly string[] | null;
    readonly ManualServerAddresses?: readonly string[] | null;
    readonly ServerAddresses: readonly string[];
    readonly ServerName: string;
    readonly PeerID: string;
    readonly EstablishmentSecret: string;
    readonly Remote?: { readonly Partition: string; readonly Datacenter: string };
  };
}

interface JudgedToken {
  readonly origin: string;
  readonly text: string;
  /** Absent: accepted, the acceptor was asked. */
  readonly error?: string;
}

function lines(path: string): string[] {
  return readGolden(path).trimEnd().split("\n");
}

const written = lines("tokens/written.jsonl").map((line): WrittenToken => JSON.parse(line));
// 1.13 asks for a server name without a CA too; ours is the rule of later versions.
const judged = lines("tokens/judged.jsonl")
  .map((line): JudgedToken => JSON.parse(line))
  .filter(({ origin }) => origin !== "1.13.8 peering-establish: no server name");

function of(version: string): WrittenToken {
  const token = written.find(({ origin }) => origin.startsWith(version));
  assert.ok(token !== undefined, version);
  return token;
}

const real: PeeringToken = TokenCodec.decode(of("1.21.4").text);
const textOf = (json: string): string => Buffer.from(json).toString("base64");
const secret = "e9680bb5-5f8a-c409-acad-46b57cab6a43";

/** Fails unless `action` throws `invalid-token` with exactly this text. */
function refuses(action: () => unknown, message: string): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof PeeringError);
    assert.equal(error.code, "invalid-token");
    assert.equal(error.message, message);
    return true;
  });
}

const take = (text: string): PeeringToken => {
  const token = TokenCodec.decode(text);
  TokenCodec.validate(token);
  return token;
};

describe("TokenCodec and running Consul servers", () => {
  for (const { origin, text, decoded } of written) {
    it(`${origin}: reads the server's tokens`, () => {
      assert.deepEqual(take(text), {
        ca: decoded.CA ?? [],
        manualServerAddresses: decoded.ManualServerAddresses ?? [],
        serverAddresses: decoded.ServerAddresses,
        serverName: decoded.ServerName,
        peerId: decoded.PeerID,
        establishmentSecret: decoded.EstablishmentSecret,
        remote: { partition: decoded.Remote?.Partition ?? "", datacenter: decoded.Remote?.Datacenter ?? "" },
      });
    });
  }

  for (const { origin, text } of written.filter(({ origin }) => /^1\.(18|21|22)/.test(origin))) {
    it(`${origin}: writes it byte for byte`, () => {
      assert.equal(TokenCodec.encode(TokenCodec.decode(text)), text);
    });
  }

  for (const { origin, text, error } of judged) {
    it(`${origin}: ${error ?? "accepts it"}`, () => {
      if (error === undefined) take(text);
      else refuses(() => take(text), error);
    });
  }
});

describe("TokenCodec.encode", () => {
  it("writes exactly the 7 keys in order, Locality null without locality (TOK1)", () => {
    const json = Buffer.from(TokenCodec.encode({ ...real, remote: { partition: "", datacenter: "dc1" } }), "base64");
    const parsed: unknown = JSON.parse(json.toString());
    assert.ok(typeof parsed === "object" && parsed !== null && "Remote" in parsed);
    assert.deepEqual(Object.keys(parsed), [
      "CA",
      "ManualServerAddresses",
      "ServerAddresses",
      "ServerName",
      "PeerID",
      "EstablishmentSecret",
      "Remote",
    ]);
    assert.equal(JSON.stringify(parsed.Remote), '{"Partition":"","Datacenter":"dc1","Locality":null}');
  });

  it("keeps manual addresses beside the server's own (TOK2)", () => {
    const text = TokenCodec.encode({ ...real, manualServerAddresses: ["32.1.2.3:8502"] });
    const token = take(text);
    assert.deepEqual(token.manualServerAddresses, ["32.1.2.3:8502"]);
    assert.deepEqual(token.serverAddresses, real.serverAddresses);
  });

  it("leaves an empty region or zone out, and writes null for no list", () => {
    const json = (token: PeeringToken): string => Buffer.from(TokenCodec.encode(token), "base64").toString();
    const remote = { partition: "", datacenter: "", locality: { region: "r", zone: "" } };
    assert.ok(json({ ...real, remote }).endsWith('"Locality":{"Region":"r"}}}'));
    const zone = { partition: "", datacenter: "", locality: { region: "", zone: "z" } };
    assert.ok(json({ ...real, remote: zone }).endsWith('"Locality":{"Zone":"z"}}}'));
    assert.ok(json({ ...real, ca: [] }).startsWith('{"CA":null,"ManualServerAddresses":null,"ServerAddresses":["'));
  });

  it("is what decode reads, whatever the content", () => {
    const text = fc.string({ unit: "grapheme" });
    const plain = { noNullPrototype: true };
    const remote = fc.record(
      { partition: text, datacenter: text, locality: fc.record({ region: text, zone: text }, plain) },
      { ...plain, requiredKeys: ["partition", "datacenter"] },
    );
    const token = fc.record(
      {
        ca: fc.array(text),
        manualServerAddresses: fc.array(text),
        serverAddresses: fc.array(text),
        serverName: text,
        peerId: text,
        establishmentSecret: text,
        remote,
      },
      plain,
    );
    fc.assert(fc.property(token, (token) => assert.deepEqual(TokenCodec.decode(TokenCodec.encode(token)), token)));
  });
});

describe("TokenCodec.decode", () => {
  it("refuses text that is not base64, with the offset of the fault (TOK3)", () => {
    const illegal = (text: string, offset: number): void =>
      refuses(() => TokenCodec.decode(text), `failed to decode token: illegal base64 data at input byte ${offset}`);
    illegal("+++/+++", 4);
    illegal("abc", 0);
    illegal("ab-_", 2);
    illegal("e3 0=", 2);
    illegal("=", 0);
    illegal("e=", 1);
    illegal("e30==", 4);
    illegal("e30=e30=", 4);
    illegal("eyA", 0);
    illegal("ey==ey==", 4);
    illegal("ey=", 3);
    illegal("ey=a", 2);
    illegal("é", 0);
  });

  it("drops line breaks anywhere (TOK3)", () => {
    const wrapped = of("1.21.4").text.replace(/.{76}/g, "$&\r\n");
    assert.deepEqual(TokenCodec.decode(`\n${wrapped}\n`), real);
  });

  it("Cg== is unexpected end of JSON input, e30K lacks addresses (TOK3)", () => {
    refuses(() => take("Cg=="), "unexpected end of JSON input");
    refuses(() => take(""), "unexpected end of JSON input");
    refuses(() => take("e30K"), "peering token server addresses value is empty");
    refuses(() => take(textOf("null")), "peering token server addresses value is empty");
  });

  const syntax: readonly [json: string, error: string][] = [
    ["{", "unexpected end of JSON input"],
    ['{"CA":["', "unexpected end of JSON input"],
    ['{"a":1', "unexpected end of JSON input"],
    ["-", "unexpected end of JSON input"],
    ["nope", "invalid character 'o' in literal null (expecting 'u')"],
    ["{} x", "invalid character 'x' after top-level value"],
    ["{a}", "invalid character 'a' looking for beginning of object key string"],
    ['{"a":1,}', "invalid character '}' looking for beginning of object key string"],
    ['{"a" 1}', "invalid character '1' after object key"],
    ['{"a":1 "b"}', "invalid character '\"' after object key:value pair"],
    ['{"a":01}', "invalid character '1' after object key:value pair"],
    ["[1 2]", "invalid character '2' after array element"],
    ["[1,]", "invalid character ']' looking for beginning of value"],
    ["'a'", "invalid character '\\'' looking for beginning of value"],
    ['"a\nb"', "invalid character '\\n' in string literal"],
    ['"\u0001"', "invalid character '\\x01' in string literal"],
    ['"\\x"', "invalid character 'x' in string escape code"],
    ['"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"],
    ["-a", "invalid character 'a' in numeric literal"],
    ["1.x", "invalid character 'x' after decimal point in numeric literal"],
    ["1ex", "invalid character 'x' in exponent of numeric literal"],
    ["\ufeff{}", "invalid character 'ï' looking for beginning of value"],
    ["[".repeat(1000), "invalid character '[' exceeded max depth"],
  ];
  for (const [json, error] of syntax) {
    it(`refuses ${JSON.stringify(json.slice(0, 20))}: ${error}`, () => {
      refuses(() => TokenCodec.decode(textOf(json)), error);
    });
  }

  const types: readonly [json: string, error: string][] = [
    ['"x"', "string into Go value of type structs.PeeringToken"],
    ["12.5e-3", "number into Go value of type structs.PeeringToken"],
    ['{"CA":"x"}', "string into Go struct field PeeringToken.CA of type []string"],
    ['{"CA":[true]}', "bool into Go struct field PeeringToken.CA of type string"],
    ['{"ServerAddresses":{}}', "object into Go struct field PeeringToken.ServerAddresses of type []string"],
    ['{"ManualServerAddresses":1}', "number into Go struct field PeeringToken.ManualServerAddresses of type []string"],
    ['{"ServerName":[]}', "array into Go struct field PeeringToken.ServerName of type string"],
    ['{"PeerID":1}', "number into Go struct field PeeringToken.PeerID of type string"],
    ['{"EstablishmentSecret":false}', "bool into Go struct field PeeringToken.EstablishmentSecret of type string"],
    ['{"Remote":{"Datacenter":1}}', "number into Go struct field PeeringToken.Remote.Datacenter of type string"],
  ];
  for (const [json, error] of types) {
    it(`refuses ${json}`, () => refuses(() => TokenCodec.decode(textOf(json)), `json: cannot unmarshal ${error}`));
  }
  it("refuses a Remote that is no object", () => {
    for (const value of ['"x"', '{"Locality":"x"}']) {
      assert.throws(
        () => TokenCodec.decode(textOf(`{"Remote":${value}}`)),
        /^PeeringError: json: cannot unmarshal string /,
      );
    }
  });

  it("takes unknown keys at any depth, lower-case keys, null arrays (TOK7)", () => {
    const json =
      '{"ca":null,"serveraddresses":["a:1"],"PEERID":"p","Other":[{"x":[1,-2.5e7,true]}],' +
      '"remote":{"datacenter":"d","X":null,"locality":{"region":"r","y":1}}}';
    assert.deepEqual(take(textOf(json)), {
      ca: [],
      manualServerAddresses: [],
      serverAddresses: ["a:1"],
      serverName: "",
      peerId: "p",
      establishmentSecret: "",
      remote: { partition: "", datacenter: "d", locality: { region: "r", zone: "" } },
    });
  });

  it("takes the last of equal keys, however they are spelled", () => {
    assert.equal(TokenCodec.decode(textOf('{"PeerID":"1","peerid":"2","PeerID":"3"}')).peerId, "3");
    assert.equal(TokenCodec.decode(textOf('{"peerid":"1","PeerID":"2","peerid":"3"}')).peerId, "3");
    const remote = '{"Remote":{"Datacenter":"1","Locality":{"Zone":"z"}},"Remote":{"Datacenter":"2","Locality":null}}';
    assert.deepEqual(TokenCodec.decode(textOf(remote)).remote, { partition: "", datacenter: "2" });
  });

  it("reads escapes and replaces invalid text", () => {
    const name = (json: string | Buffer): string =>
      TokenCodec.decode(
        Buffer.concat([Buffer.from('{"ServerName":"'), Buffer.from(json), Buffer.from('"}')]).toString("base64"),
      ).serverName;
    assert.equal(name('\\u00e9\\n\\"\\/\\ud83d\\ude00é😀'), 'é\n"/😀é😀');
    assert.equal(name("a\\ud800b"), "a\ufffdb");
    assert.equal(name(Buffer.from([0x61, 0xff, 0x62])), "a\ufffdb");
  });

  it("takes a token of 1.13: five keys, CA null, Remote empty (TOK8)", () => {
    const token = take(of("1.13").text);
    assert.deepEqual(token.ca, []);
    assert.deepEqual(token.manualServerAddresses, []);
    assert.deepEqual(token.remote, { partition: "", datacenter: "" });
  });

  it("throws PeeringError or gives a token, whatever the text, and never quotes it", () => {
    const mutated = fc.tuple(fc.nat(), fc.string({ maxLength: 3 })).map(([offset, insert]) => {
      const json = Buffer.from(of("1.21.4").text, "base64").toString();
      const at = offset % json.length;
      return textOf(json.slice(0, at) + insert + json.slice(at + 1));
    });
    fc.assert(
      fc.property(fc.oneof(mutated, fc.string(), fc.json().map(textOf)), (text) => {
        try {
          take(text);
        } catch (error) {
          assert.ok(error instanceof PeeringError);
          assert.equal(error.code, "invalid-token");
          assert.ok(!error.message.includes(real.establishmentSecret));
        }
      }),
    );
  });
});

describe("TokenCodec.validate", () => {
  const refused = (change: Partial<PeeringToken>, message: string): void =>
    refuses(() => TokenCodec.validate({ ...real, ...change }), message);
  const block = (type: string, content: string): string =>
    `-----BEGIN ${type}-----\n${content}\n-----END ${type}-----\n`;

  it("a CA must be PEM (TOK4)", () => {
    for (const pem of [
      "notavalidcert",
      "",
      block("CERTIFICATE", "not base64!"),
      "-----BEGIN CERTIFICATE-----\nAAAA\n",
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END OTHER-----\n",
      "-----BEGIN ".repeat(1000),
    ]) {
      refused({ ca: [...real.ca, pem] }, "peering token invalid CA: no PEM-encoded data found");
    }
  });

  it("its first block must be a certificate (TOK4)", () => {
    const key = block("EC PRIVATE KEY", "AAAA");
    refused({ ca: [key] }, "peering token invalid CA: first PEM-block should be CERTIFICATE type");
    refused({ ca: [key + real.ca[0]] }, "peering token invalid CA: first PEM-block should be CERTIFICATE type");
  });

  it("a broken certificate is x509: malformed certificate (TOK4)", () => {
    refused({ ca: [block("CERTIFICATE", "AAAA")] }, "peering token invalid CA: x509: malformed certificate");
  });

  it("takes text and malformed blocks before a certificate", () => {
    const [pem = ""] = real.ca;
    TokenCodec.validate({ ...real, ca: [`a note\n${pem}`, block("X", "!") + pem, pem.replaceAll("\n", "\r\n")] });
    TokenCodec.validate({ ...real, ca: [pem.replace("-----\n", "-----\nHeader: value\n\n"), pem.trimEnd()] });
  });

  it("finds no block in a megabyte of beginnings without taking long", () => {
    const begins = "-----BEGIN CERTIFICATE-----\n".repeat(40_000);
    refused({ ca: [`${begins}-----END X-----\n`] }, "peering token invalid CA: no PEM-encoded data found");
  });

  it("every address, manual ones first, needs host and port (TOK5)", () => {
    for (const address of ["1.2.3.4", "a:0", "a:99999", "a:http", "fd00::1:8503"]) {
      refused({ serverAddresses: ["a:1", address] }, `${address} is not a valid peering server address`);
      const manual = { manualServerAddresses: ["a:1", address], serverAddresses: ["also bad"] };
      refused(manual, `${address} is not a valid peering server address`);
    }
    for (const address of ["host:80", "[::1]:80", ":80"]) {
      TokenCodec.validate({ ...real, serverAddresses: [address], manualServerAddresses: [] });
      TokenCodec.validate({ ...real, serverAddresses: [], manualServerAddresses: [address] });
    }
  });

  it("no addresses at all are refused (TOK5)", () => {
    refused({ serverAddresses: [], manualServerAddresses: [] }, "peering token server addresses value is empty");
  });

  it("server name is needed with a CA, peer ID always, in this order (TOK6)", () => {
    refused({ serverName: "", peerId: "" }, "peering token server name value is empty");
    refused({ ca: [], serverName: "", peerId: "" }, "peering token peer ID value is empty");
    TokenCodec.validate({ ...real, peerId: "x" });
    TokenCodec.validate({ ...real, ca: [], serverName: "" });
  });

  it("reports the first of many faults", () => {
    const all = { ca: ["x"], serverAddresses: ["y"], serverName: "", peerId: "" };
    refused(all, "peering token invalid CA: no PEM-encoded data found");
  });

  it("does not look at secret and remote", () => {
    TokenCodec.validate({ ...real, establishmentSecret: "", remote: { partition: "p", datacenter: "" } });
  });
});

describe("TokenCodec.inspect", () => {
  it("describes a token without its secret", () => {
    const [pem = ""] = real.ca;
    const description = TokenCodec.inspect(TokenCodec.encode({ ...real, establishmentSecret: secret }));
    assert.ok(!JSON.stringify(description).includes(secret));
    assert.deepEqual(description.problems, []);
    assert.deepEqual(description.warnings, []);
    assert.equal(description.plaintext, false);
    assert.deepEqual(description.dialAddresses, real.serverAddresses);
    const [certificate] = description.certificates;
    const expected = new X509Certificate(pem);
    assert.equal(certificate?.fingerprint, expected.fingerprint256.replaceAll(":", "").toLowerCase());
    assert.equal(certificate?.notAfter, Date.parse(expected.validTo));
    assert.match(certificate?.subject ?? "", /^CN=\S+$/);
  });

  it("tells every root of the CA (TOK9)", () => {
    const other = TokenCodec.decode(of("1.15.4").text).ca;
    const description = TokenCodec.inspect(TokenCodec.encode({ ...real, ca: [...real.ca, ...other] }));
    assert.equal(new Set(description.certificates.map(({ fingerprint }) => fingerprint)).size, 2);
  });

  it("tells where is dialed: the addresses of the operator where there are some", () => {
    const manual = ["lb.example:443"];
    const described = TokenCodec.inspect(TokenCodec.encode({ ...real, manualServerAddresses: manual }));
    assert.deepEqual(described.dialAddresses, manual);
    assert.deepEqual(described.serverAddresses, real.serverAddresses);
  });

  it("names the versions that write such a token", () => {
    const band = (version: string): string => TokenCodec.inspect(of(version).text).writtenBy;
    assert.equal(band("1.13"), "1.13");
    assert.equal(band("1.15"), "1.14 to 1.15");
    assert.equal(band("1.18"), "1.16 or later");
    assert.equal(band("1.21"), "1.16 or later");
    assert.equal(band("1.22"), "1.16 or later");
    const written = (text: string): string => TokenCodec.inspect(textOf(text)).writtenBy;
    assert.equal(written('{"Remote":{}}'), "1.14 to 1.15");
    assert.equal(written('{"ManualServerAddresses":null}'), "1.14 to 1.15");
    assert.equal(written('{"ServerAddresses":null}'), "1.13");
  });

  it("collects every problem and warns of what hinders", () => {
    const { problems, certificates } = TokenCodec.inspect(textOf('{"CA":["x"],"ServerAddresses":["y"]}'));
    assert.deepEqual(problems, [
      "peering token invalid CA: no PEM-encoded data found",
      "y is not a valid peering server address",
      "peering token server name value is empty",
      "peering token peer ID value is empty",
    ]);
    assert.deepEqual(certificates, []);
    assert.equal(TokenCodec.inspect(textOf("{}")).warnings.length, 3);
    assert.equal(TokenCodec.inspect(textOf("{}")).plaintext, true);
  });

  it("warns of an expired certificate on the clock it is given", () => {
    const { text } = of("1.21.4");
    const { notBefore = 0, notAfter = 0 } = TokenCodec.inspect(text).certificates[0] ?? {};
    assert.deepEqual(TokenCodec.inspect(text, notBefore).warnings, []);
    assert.match(TokenCodec.inspect(text, notBefore - 1).warnings.join(), /is not valid before/);
    assert.deepEqual(TokenCodec.inspect(text, notAfter).warnings, []);
    assert.match(TokenCodec.inspect(text, notAfter + 1).warnings.join(), /expired/);
  });
});
