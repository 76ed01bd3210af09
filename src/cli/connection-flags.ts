import { join } from "node:path";
import { errorCode, errorText } from "../base/errors.js";
import { type ClientTlsOptions, ConsulClient, type RequestOptions } from "../client/index.js";
import { CommandError, type CommandLineIo } from "./command.js";
import type { Flag, ParsedFlags } from "./flags.js";

const TOKEN_USAGE =
  "ACL token to use in the request. This can also be specified via the CONSUL_HTTP_TOKEN environment variable. " +
  "If unspecified, the query will default to the token of the Consul agent at the HTTP address.";
const ADDRESS_USAGE =
  "The address and port of the Consul HTTP agent. The value can be an IP address or DNS address, but it must also " +
  "include the port. This can also be specified via the CONSUL_HTTP_ADDR environment variable. The default value is " +
  "http://127.0.0.1:8500. The scheme can also be set to HTTPS by setting the environment variable CONSUL_HTTP_SSL=true.";

function shared(name: string, usage: string, placeholder = "value"): Flag {
  return { name, kind: "text", placeholder, usage, section: "http" };
}

/** Which server, and as whom: flags of every command that asks one, with Consul's words. */
export const clientFlags: readonly Flag[] = [
  shared(
    "ca-file",
    "Path to a CA file to use for TLS when communicating with Consul. This can also be specified via the CONSUL_CACERT environment variable.",
  ),
  shared(
    "ca-path",
    "Path to a directory of CA certificates to use for TLS when communicating with Consul. This can also be specified via the CONSUL_CAPATH environment variable.",
  ),
  shared(
    "client-cert",
    "Path to a client cert file to use for TLS when 'verify_incoming' is enabled. This can also be specified via the CONSUL_CLIENT_CERT environment variable.",
  ),
  shared(
    "client-key",
    "Path to a client key file to use for TLS when 'verify_incoming' is enabled. This can also be specified via the CONSUL_CLIENT_KEY environment variable.",
  ),
  shared("http-addr", ADDRESS_USAGE, "address"),
  shared(
    "tls-server-name",
    "The server name to use as the SNI host when connecting via TLS. This can also be specified via the CONSUL_TLS_SERVER_NAME environment variable.",
  ),
  shared("token", TOKEN_USAGE),
  shared(
    "token-file",
    "File containing the ACL token to use in the request instead of one specified via the -token argument or CONSUL_HTTP_TOKEN environment variable. This can also be specified via the CONSUL_HTTP_TOKEN_FILE environment variable.",
  ),
];

export const partitionFlag: Flag = {
  name: "partition",
  kind: "text",
  placeholder: "default",
  usage:
    "Specifies the admin partition to query. If not provided, the admin partition will be inferred from the request's ACL token, or will default to the default admin partition. Admin Partitions are a Consul Enterprise feature.",
};

/** For commands about one datacenter's data. */
export const serverFlags: readonly Flag[] = [
  ...clientFlags,
  shared(
    "datacenter",
    "Name of the datacenter to query. If unspecified, this will default to the datacenter of the queried agent.",
  ),
  {
    name: "stale",
    kind: "boolean",
    usage:
      "Permit any Consul server (non-leader) to respond to this request. This allows for lower latency and higher throughput, but can result in stale data. This option has no effect on non-read operations. The default value is false.",
    section: "http",
  },
  {
    name: "namespace",
    kind: "text",
    placeholder: "default",
    usage:
      "Specifies the namespace to query. If not provided, the namespace will be inferred from the request's ACL token, or will default to the default namespace. Namespaces are a Consul Enterprise feature.",
  },
  partitionFlag,
];

function variable(io: CommandLineIo, name: string): string {
  return io.environment[name] ?? "";
}

/** Options of reads from {@link serverFlags}. */
export function readOptions(flags: ParsedFlags): RequestOptions & { readonly stale?: boolean } {
  return flags.boolean("stale") ? { stale: true } : {};
}

/** A client for the server that flags and environment name; flags come first. @throws {CommandError} */
export async function connect(flags: ParsedFlags, io: CommandLineIo): Promise<ConsulClient> {
  const setting = (flag: string, name: string): string => flags.text(flag) || variable(io, name);
  try {
    const tls = await tlsOptions(setting, io);
    const token = await tokenOf(flags, io);
    const basicAuth = variable(io, "CONSUL_HTTP_AUTH");
    const datacenter = flags.text("datacenter");
    const namespace = setting("namespace", "CONSUL_NAMESPACE");
    const partition = setting("partition", "CONSUL_PARTITION");
    return new ConsulClient({
      address: addressOf(setting("http-addr", "CONSUL_HTTP_ADDR"), io),
      tls,
      ...(token !== "" && { token }),
      ...(basicAuth !== "" && { basicAuth }),
      ...(datacenter !== "" && { datacenter }),
      ...(namespace !== "" && { namespace }),
      ...(partition !== "" && { partition }),
    });
  } catch (error) {
    throw new CommandError(`Error connecting to Consul agent: ${errorText(error)}`, { cause: error });
  }
}

function addressOf(given: string, io: CommandLineIo): string {
  const address = given === "" ? "127.0.0.1:8500" : given;
  if (address.startsWith("unix://") || address.startsWith("https://")) return address;
  const secure = booleanOf(variable(io, "CONSUL_HTTP_SSL"), "CONSUL_HTTP_SSL") ?? false;
  return secure ? `https://${address.replace(/^http:\/\//, "")}` : address;
}

function booleanOf(value: string, name: string): boolean | undefined {
  if (value === "") return undefined;
  if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
  throw new TypeError(`could not parse ${name}: ${JSON.stringify(value)} is no boolean`);
}

/** The token that flags, a file or the environment give; `""`: none. @throws {CommandError} */
export async function tokenOf(flags: ParsedFlags, io: CommandLineIo): Promise<string> {
  const file = flags.text("token-file");
  if (file !== "") return (await io.readFile(file)).trim();
  if (flags.text("token") !== "") return flags.text("token");
  const environmentFile = variable(io, "CONSUL_HTTP_TOKEN_FILE");
  if (environmentFile !== "") return (await io.readFile(environmentFile)).trim();
  return variable(io, "CONSUL_HTTP_TOKEN");
}

async function tlsOptions(
  setting: (flag: string, variable: string) => string,
  io: CommandLineIo,
): Promise<ClientTlsOptions> {
  const caFile = setting("ca-file", "CONSUL_CACERT");
  const caPath = setting("ca-path", "CONSUL_CAPATH");
  const certificate = setting("client-cert", "CONSUL_CLIENT_CERT");
  const key = setting("client-key", "CONSUL_CLIENT_KEY");
  const serverName = setting("tls-server-name", "CONSUL_TLS_SERVER_NAME");
  const files = caFile !== "" ? [caFile] : caPath !== "" ? await filesIn(caPath, io) : [];
  return {
    ...(files.length > 0 && { ca: await Promise.all(files.map((file) => io.readFile(file))) }),
    ...(certificate !== "" && { certificate: await io.readFile(certificate) }),
    ...(key !== "" && { key: await io.readFile(key) }),
    ...(serverName !== "" && { serverName }),
    verify: booleanOf(variable(io, "CONSUL_HTTP_SSL_VERIFY"), "CONSUL_HTTP_SSL_VERIFY") ?? true,
  };
}

/** Files of a folder and those below, in the order of their names. */
export async function filesIn(folder: string, io: CommandLineIo): Promise<readonly string[]> {
  const names = [...(await io.readDirectory(folder))].sort();
  const files = await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name);
      try {
        return await filesIn(path, io);
      } catch (error) {
        if (errorCode(error) === "ENOTDIR") return [path];
        throw error;
      }
    }),
  );
  return files.flat();
}
