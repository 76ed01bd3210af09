import { createHash, X509Certificate } from "node:crypto";
import { PeeringError } from "../base/errors.js";
import { splitHostPort } from "../base/host-port.js";
import {
  type GoJson,
  GoJsonError,
  type GoType,
  goList,
  goOptional,
  goString,
  goStruct,
  isGoObject,
  readGo,
  readWholeValue,
} from "../syntax/go-json.js";
import type { RemoteInfo } from "../wire/messages.js";
import { decodeBase64 } from "./base64.js";
import { firstPemBlock } from "./pem.js";

/** The content of a peering token. It includes the establishment secret. */
export interface PeeringToken {
  /** PEM certificates the dialer trusts for the acceptor's servers, and no others. Empty: plaintext (1.13). */
  readonly ca: readonly string[];
  /** Given by the acceptor's operator; when not empty they replace `serverAddresses` (since 1.14). */
  readonly manualServerAddresses: readonly string[];
  /** `host:port` of the acceptor's servers or mesh gateways. */
  readonly serverAddresses: readonly string[];
  /** TLS server name, which the acceptor's certificate must carry. */
  readonly serverName: string;
  /** Id of the peering at the acceptor. */
  readonly peerId: string;
  /** Good for one exchange. */
  readonly establishmentSecret: string;
  /** Facts about the acceptor; empty from 1.13. */
  readonly remote: RemoteInfo;
}

/** A certificate of a token. */
export interface TokenCertificate {
  readonly subject: string;
  /** SHA-256 of the DER, lower-case hex. */
  readonly fingerprint: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** The parts of a token that may be shown: everything but the secret. */
export interface TokenDescription {
  readonly peerId: string;
  readonly serverName: string;
  readonly serverAddresses: readonly string[];
  readonly manualServerAddresses: readonly string[];
  /** Those a dialer will use. */
  readonly dialAddresses: readonly string[];
  readonly remote: RemoteInfo;
  /** The readable certificates of `CA`, in order. */
  readonly certificates: readonly TokenCertificate[];
  /** No CA: the dialer will speak plaintext HTTP/2. */
  readonly plaintext: boolean;
  /** Versions of Consul that write these keys. */
  readonly writtenBy: "1.13" | "1.14 to 1.15" | "1.16 or later";
  /** Every rule the token breaks, in the order they are checked; empty when {@link TokenCodec.validate} accepts it. */
  readonly problems: readonly string[];
  /** Allowed contents that will hinder a dialer, one sentence each. */
  readonly warnings: readonly string[];
}

/** Reads and writes peering tokens as Consul 1.13 to 1.22 do. No error of it quotes the token. */
export interface TokenCodec {
  /** The token as text: base64 of JSON with all seven keys, as Consul 1.16 and later write them. */
  encode(token: PeeringToken): string;
  /**
   * The content of a token of any version, unchecked: keys match without regard to case, the last of equal ones wins,
   * unknown ones are ignored, missing ones and `null` are empty.
   *
   * @throws {PeeringError} `invalid-token` with Consul's text: no base64, no JSON, or a value of the wrong type.
   */
  decode(text: string): PeeringToken;
  /**
   * Applies Consul's rules to a decoded token; the first broken one is reported. Establishment secret, `remote` and
   * the validity dates of certificates are not checked.
   *
   * @throws {PeeringError} `invalid-token` with Consul's text.
   */
  validate(token: PeeringToken): void;
  /**
   * Describes a token without its secret, for people who want to know what a token is for.
   *
   * @param nowMs - milliseconds since the epoch; when given, certificates that are not valid then are warned of.
   * @throws {PeeringError} `invalid-token` as `decode`.
   */
  inspect(text: string, nowMs?: number): TokenDescription;
}

/** The codec, ready to use; it keeps no state. */
export const TokenCodec: TokenCodec = { encode, decode, validate, inspect };

function encode(token: PeeringToken): string {
  const { partition, datacenter, locality } = token.remote;
  const list = (values: readonly string[]): readonly string[] | null => (values.length === 0 ? null : values);
  // The order and the empty forms are Consul's.
  const json = {
    CA: list(token.ca),
    ManualServerAddresses: list(token.manualServerAddresses),
    ServerAddresses: list(token.serverAddresses),
    ServerName: token.serverName,
    PeerID: token.peerId,
    EstablishmentSecret: token.establishmentSecret,
    Remote: {
      Partition: partition,
      Datacenter: datacenter,
      Locality:
        locality === undefined
          ? null
          : {
              ...(locality.region !== "" && { Region: locality.region }),
              ...(locality.zone !== "" && { Zone: locality.zone }),
            },
    },
  };
  return Buffer.from(JSON.stringify(json)).toString("base64");
}

function decode(text: string): PeeringToken {
  return readToken(jsonOf(text));
}

function validate(token: PeeringToken): void {
  for (const problem of problemsOf(token)) throw new PeeringError("invalid-token", problem);
}

function inspect(text: string, nowMs?: number): TokenDescription {
  const json = jsonOf(text);
  const token = readToken(json);
  const { peerId, serverName, serverAddresses, manualServerAddresses, remote } = token;
  const certificates = token.ca.flatMap(describeCertificate);
  const warnings: string[] = [];
  if (token.establishmentSecret === "")
    warnings.push("The token holds no establishment secret, so no acceptor takes it.");
  if (token.ca.length === 0) warnings.push("The token names no CA: the connection will not be encrypted.");
  if (serverAddresses.length === 0) warnings.push("Consul 1.13 cannot use a token without server addresses.");
  for (const { subject, notBefore, notAfter } of certificates) {
    if (nowMs !== undefined && notBefore > nowMs) {
      warnings.push(`The certificate of ${subject} is not valid before ${new Date(notBefore).toISOString()}.`);
    }
    if (nowMs !== undefined && notAfter < nowMs) {
      warnings.push(`The certificate of ${subject} expired on ${new Date(notAfter).toISOString()}.`);
    }
  }
  return {
    peerId,
    serverName,
    serverAddresses,
    manualServerAddresses,
    dialAddresses: manualServerAddresses.length > 0 ? manualServerAddresses : serverAddresses,
    remote,
    certificates,
    plaintext: token.ca.length === 0,
    writtenBy: versionOf(json),
    problems: [...problemsOf(token)],
    warnings,
  };
}

function* problemsOf(token: PeeringToken): Generator<string> {
  for (const pem of token.ca) {
    const block = firstPemBlock(pem);
    if (block === undefined) yield "peering token invalid CA: no PEM-encoded data found";
    else if (block.type !== "CERTIFICATE") {
      yield "peering token invalid CA: first PEM-block should be CERTIFICATE type";
    } else if (parseCertificate(block.content) === undefined) {
      yield "peering token invalid CA: x509: malformed certificate";
    }
  }
  if (token.serverAddresses.length === 0 && token.manualServerAddresses.length === 0) {
    yield "peering token server addresses value is empty";
  }
  for (const address of [...token.manualServerAddresses, ...token.serverAddresses]) {
    if (splitHostPort(address) === undefined) yield `${address} is not a valid peering server address`;
  }
  if (token.ca.length > 0 && token.serverName === "") yield "peering token server name value is empty";
  if (token.peerId === "") yield "peering token peer ID value is empty";
}

function describeCertificate(pem: string): TokenCertificate[] {
  const block = firstPemBlock(pem);
  const certificate = block?.type === "CERTIFICATE" ? parseCertificate(block.content) : undefined;
  if (certificate === undefined) return [];
  return [
    {
      // One line, as `openssl x509 -subject` and people write it.
      subject: certificate.subject.replaceAll("\n", ", "),
      fingerprint: createHash("sha256").update(certificate.raw).digest("hex"),
      notBefore: Date.parse(certificate.validFrom),
      notAfter: Date.parse(certificate.validTo),
    },
  ];
}

function parseCertificate(der: Buffer): X509Certificate | undefined {
  try {
    return new X509Certificate(der);
  } catch {
    return undefined;
  }
}

function versionOf(json: GoJson): TokenDescription["writtenBy"] {
  const remote = member(json, "remote");
  if (member(remote ?? null, "locality") !== undefined) return "1.16 or later";
  const modern = remote !== undefined || member(json, "manualserveraddresses") !== undefined;
  return modern ? "1.14 to 1.15" : "1.13";
}

/** The last of that key, whatever its case. */
function member(json: GoJson, key: string): GoJson | undefined {
  if (!isGoObject(json)) return undefined;
  return json.members.findLast((each) => each.key.toLowerCase() === key)?.value;
}

// Consul decodes into Go structs; their names are part of its error texts. Keys it does not know it takes.

interface TokenBody {
  readonly CA: readonly string[];
  readonly ManualServerAddresses: readonly string[];
  readonly ServerAddresses: readonly string[];
  readonly ServerName: string;
  readonly PeerID: string;
  readonly EstablishmentSecret: string;
  readonly Remote: RemoteBody;
}

interface RemoteBody {
  readonly Partition: string;
  readonly Datacenter: string;
  readonly Locality: { readonly Region: string; readonly Zone: string } | undefined;
}

const lenient = { strict: false };
const tokenType: GoType<TokenBody> = goStruct<TokenBody>(
  "structs.PeeringToken",
  {
    CA: goList(goString),
    ManualServerAddresses: goList(goString),
    ServerAddresses: goList(goString),
    ServerName: goString,
    PeerID: goString,
    EstablishmentSecret: goString,
    Remote: goStruct<RemoteBody>(
      "structs.PeeringTokenRemote",
      {
        Partition: goString,
        Datacenter: goString,
        Locality: goOptional(goStruct("structs.Locality", { Region: goString, Zone: goString }, lenient)),
      },
      lenient,
    ),
  },
  lenient,
);

/** @throws {PeeringError} `invalid-token` with the text of Go's parser. */
function parsed<Value>(read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    if (error instanceof GoJsonError) throw new PeeringError("invalid-token", error.message);
    throw error;
  }
}

function jsonOf(text: string): GoJson {
  const bytes = decodeBase64(text);
  return parsed(() => readWholeValue(bytes));
}

function readToken(json: GoJson): PeeringToken {
  const { Remote: remote, ...body } = parsed(() => readGo(json, tokenType));
  const { Locality: locality } = remote;
  return {
    ca: body.CA,
    manualServerAddresses: body.ManualServerAddresses,
    serverAddresses: body.ServerAddresses,
    serverName: body.ServerName,
    peerId: body.PeerID,
    establishmentSecret: body.EstablishmentSecret,
    remote: {
      partition: remote.Partition,
      datacenter: remote.Datacenter,
      ...(locality !== undefined && { locality: { region: locality.Region, zone: locality.Zone } }),
    },
  };
}
