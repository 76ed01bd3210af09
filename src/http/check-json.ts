import type { CheckDefinition, CheckMethod, CheckTls } from "../checks/definition.js";
import { durationProblem, parseDuration } from "../syntax/go-duration.js";
import {
  GoJsonError,
  GoNumber,
  type GoType,
  goBool,
  goInt,
  goList,
  goMap,
  goString,
  goStruct,
  int64From,
} from "../syntax/go-json.js";
import { badRequest, HttpError } from "./http-error.js";

/** Milliseconds of a text like `10s`, or of a number of nanoseconds. Other values are passed over, as in Consul. */
const durationType: GoType<number> = {
  name: "time.Duration",
  form: "duration",
  zero: () => 0,
  read: (value) => {
    if (value instanceof GoNumber) return Number(int64From(Number(value.text))) / 1e6;
    if (typeof value !== "string") return 0;
    const milliseconds = parseDuration(value);
    if (milliseconds === undefined) throw new GoJsonError(durationProblem(value));
    return milliseconds;
  },
};

/** A duration may be there and zero, which is not the same as absent where another spelling is looked at, too. */
interface Durations {
  readonly Interval: number;
  readonly Timeout: number;
  readonly TTL: number;
  readonly DeregisterCriticalServiceAfter: number;
  readonly deregister_critical_service_after: number;
}

/** What every check in the body of a registration can say (Consul 1.21), with the second spellings that Consul takes. */
export interface CheckBody extends Durations {
  readonly Name: string;
  readonly Status: string;
  readonly Notes: string;
  readonly ServiceID: string;
  readonly service_id: string;
  readonly ScriptArgs: readonly string[];
  readonly Args: readonly string[];
  readonly script_args: readonly string[];
  readonly HTTP: string;
  readonly Header: Readonly<Record<string, readonly string[]>>;
  readonly Method: string;
  readonly Body: string;
  readonly DisableRedirects: boolean;
  readonly disable_redirects: boolean;
  readonly H2PING: string;
  readonly H2PingUseTLS: boolean;
  readonly h2ping_use_tls: boolean;
  readonly TCP: string;
  readonly TCPUseTLS: boolean;
  readonly tcp_use_tls: boolean;
  readonly UDP: string;
  readonly GRPC: string;
  readonly GRPCUseTLS: boolean;
  readonly grpc_use_tls: boolean;
  readonly AliasNode: string;
  readonly AliasService: string;
  readonly DockerContainerID: string;
  readonly docker_container_id: string;
  readonly Shell: string;
  readonly OSService: string;
  readonly TLSServerName: string;
  readonly tls_server_name: string;
  readonly TLSSkipVerify: boolean;
  readonly tls_skip_verify: boolean;
  readonly SuccessBeforePassing: number;
  readonly FailuresBeforeWarning: number;
  readonly FailuresBeforeCritical: number;
  readonly OutputMaxSize: number;
}

/** A check in the registration of a service. */
export interface ServiceCheckBody extends CheckBody {
  readonly CheckID: string;
  readonly ProxyHTTP: string;
  readonly ProxyGRPC: string;
}

/** A check that is registered by itself. */
export interface LoneCheckBody extends CheckBody {
  readonly ID: string;
  readonly Token: string;
}

/** True unless it is given: Consul's default of the flag beside it. */
const goBoolOrTrue: GoType<boolean> = { ...goBool, zero: () => true };

const shared: { readonly [Name in keyof CheckBody]: GoType<CheckBody[Name]> } = {
  Name: goString,
  Status: goString,
  Notes: goString,
  ServiceID: goString,
  service_id: goString,
  ScriptArgs: goList(goString),
  Args: goList(goString),
  script_args: goList(goString),
  HTTP: goString,
  Header: goMap(goList(goString)),
  Method: goString,
  Body: goString,
  DisableRedirects: goBool,
  disable_redirects: goBool,
  H2PING: goString,
  H2PingUseTLS: goBoolOrTrue,
  h2ping_use_tls: goBoolOrTrue,
  TCP: goString,
  TCPUseTLS: goBool,
  tcp_use_tls: goBool,
  UDP: goString,
  GRPC: goString,
  GRPCUseTLS: goBool,
  grpc_use_tls: goBool,
  AliasNode: goString,
  AliasService: goString,
  DockerContainerID: goString,
  docker_container_id: goString,
  Shell: goString,
  OSService: goString,
  TLSServerName: goString,
  tls_server_name: goString,
  TLSSkipVerify: goBool,
  tls_skip_verify: goBool,
  SuccessBeforePassing: goInt,
  FailuresBeforeWarning: goInt,
  FailuresBeforeCritical: goInt,
  OutputMaxSize: goInt,
  Interval: durationType,
  Timeout: durationType,
  TTL: durationType,
  DeregisterCriticalServiceAfter: durationType,
  deregister_critical_service_after: durationType,
};

export const serviceCheckType: GoType<ServiceCheckBody> = goStruct<ServiceCheckBody>("structs.CheckType", {
  ...shared,
  CheckID: goString,
  ProxyHTTP: goString,
  ProxyGRPC: goString,
});

export const loneCheckType: GoType<LoneCheckBody> = goStruct<LoneCheckBody>("structs.CheckDefinition", {
  ...shared,
  ID: goString,
  Token: goString,
});

const LEAST_INTERVAL_MS = 1_000;

/** Whether a check says nothing at all: Consul passes over such a `Check`, though not one in `Checks`. */
export function isEmptyCheck(body: ServiceCheckBody): boolean {
  const nothing = serviceCheckType.zero();
  return JSON.stringify(body) === JSON.stringify(nothing);
}

/**
 * What a check is to do.
 * @throws {HttpError} 400 with Consul's text: it says too little, or what does not go together. 500: what no agent of ours
 *   runs, with Consul's text where a Consul by default refuses it, too.
 */
export function checkDefinition(body: CheckBody): CheckDefinition {
  const invalid = (problem: string): HttpError => badRequest(`Invalid check: ${problem}`);
  const scripted = [body.ScriptArgs, body.Args, body.script_args].some((args) => args.length > 0);
  const alias = body.AliasNode !== "" || body.AliasService !== "";
  const probed = [body.HTTP, body.TCP, body.UDP, body.GRPC, body.H2PING, body.OSService].some((text) => text !== "");
  const timed = scripted || probed;
  if (body.Interval > 0 && body.TTL > 0) throw invalid("Interval and TTL cannot both be specified");
  if (timed && body.Interval <= 0) {
    throw invalid("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks");
  }
  if (timed && alias) throw invalid("Interval cannot be set for Alias checks");
  if (alias && body.TTL > 0) throw invalid("TTL must be not be set for Alias checks");
  if (!timed && !alias && body.TTL <= 0) throw invalid("TTL must be > 0 for TTL checks");
  if (body.OutputMaxSize < 0) throw invalid("MaxOutputMaxSize must be positive");
  if (body.FailuresBeforeWarning > body.FailuresBeforeCritical) {
    throw invalid("FailuresBeforeWarning can't be higher than FailuresBeforeCritical");
  }
  if (scripted || body.DockerContainerID !== "" || body.docker_container_id !== "") {
    throw new HttpError(
      500,
      "Scripts are disabled on this agent from remote calls: it runs no scripts, neither itself nor in containers",
    );
  }
  const method = methodOf(body);
  return {
    method,
    intervalMs: timed ? Math.max(body.Interval, LEAST_INTERVAL_MS) : 0,
    timeoutMs: Math.max(body.Timeout, 0),
    successBeforePassing: body.SuccessBeforePassing,
    failuresBeforeWarning: body.FailuresBeforeWarning,
    failuresBeforeCritical: body.FailuresBeforeCritical,
    deregisterCriticalServiceAfterMs: body.DeregisterCriticalServiceAfter || body.deregister_critical_service_after,
    outputMaxBytes: body.OutputMaxSize,
  };
}

/** Of several methods the first counts, in Consul's order. */
function methodOf(body: CheckBody): CheckMethod {
  const tls: CheckTls = {
    serverName: body.TLSServerName || body.tls_server_name,
    skipVerify: body.TLSSkipVerify || body.tls_skip_verify,
  };
  if (body.TTL > 0) return { type: "ttl", ttlMs: body.TTL };
  if (body.HTTP !== "") {
    return {
      type: "http",
      url: body.HTTP,
      method: body.Method || "GET",
      headers: body.Header,
      body: body.Body,
      followRedirects: !body.DisableRedirects && !body.disable_redirects,
      tls,
    };
  }
  if (body.TCP !== "") {
    return { type: "tcp", address: body.TCP, tls: body.TCPUseTLS || body.tcp_use_tls ? tls : undefined };
  }
  if (body.UDP !== "") return { type: "udp", address: body.UDP };
  if (body.GRPC !== "") {
    return { type: "grpc", target: body.GRPC, tls: body.GRPCUseTLS || body.grpc_use_tls ? tls : undefined };
  }
  if (body.H2PING !== "") {
    return { type: "h2ping", address: body.H2PING, tls: body.H2PingUseTLS && body.h2ping_use_tls ? tls : undefined };
  }
  if (body.OSService !== "") {
    throw new HttpError(500, "OSService checks are not run here: this agent asks no service manager");
  }
  return { type: "alias", node: body.AliasNode, service: body.AliasService };
}
