import type { CheckDefinition, CheckMethod, CheckTls } from "../checks/definition.js";
import type { JsonObject } from "../model/instance.js";
import { durationProblem, parseDuration } from "../syntax/go-duration.js";
import {
  type GoFields,
  type GoJson,
  GoJsonError,
  GoNumber,
  type GoType,
  goAny,
  goBool,
  goDecoded,
  goInt,
  goList,
  goMap,
  goString,
  goStruct,
  int64From,
} from "../syntax/go-json.js";
import { HttpRefusal } from "./http-refusal.js";

/** A duration as it was written: it is read when everything else was. */
const writtenDuration: GoType<GoJson> = { ...goAny, name: "time.Duration", form: "duration" };

/** Milliseconds of a text like `10s`, or of a number of nanoseconds. Other values are passed over, as in Consul. */
function millisecondsOf(value: GoJson): number {
  if (value instanceof GoNumber) return Number(int64From(Number(value.text))) / 1e6;
  if (typeof value !== "string") return 0;
  const milliseconds = parseDuration(value);
  if (milliseconds === undefined) throw new GoJsonError(durationProblem(value));
  return milliseconds;
}

interface WrittenDurations {
  readonly Interval: GoJson;
  readonly Timeout: GoJson;
  readonly TTL: GoJson;
  readonly DeregisterCriticalServiceAfter: GoJson;
  readonly deregister_critical_service_after: GoJson;
}

interface Durations {
  readonly Interval: number;
  readonly Timeout: number;
  readonly TTL: number;
  readonly DeregisterCriticalServiceAfter: number;
}

/** @throws {GoJsonError} one of them is none. */
function durationsOf(read: WrittenDurations): Durations {
  return {
    Interval: millisecondsOf(read.Interval),
    Timeout: millisecondsOf(read.Timeout),
    TTL: millisecondsOf(read.TTL),
    DeregisterCriticalServiceAfter: millisecondsOf(
      read.DeregisterCriticalServiceAfter ?? read.deregister_critical_service_after,
    ),
  };
}

/** The members of every check in the body of a registration (Consul 1.21), with the second spellings that Consul takes. */
interface CheckFields {
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

export interface CheckBody extends CheckFields, Durations {}

interface ServiceCheckFields extends CheckFields {
  readonly CheckID: string;
  readonly ProxyHTTP: string;
  readonly ProxyGRPC: string;
}

/** A check in the registration of a service. */
export interface ServiceCheckBody extends ServiceCheckFields, Durations {}

interface LoneCheckFields extends CheckFields {
  readonly ID: string;
  readonly Token: string;
  readonly disable_redirects: boolean;
}

/** A check that is registered without a service definition. */
export interface LoneCheckBody extends LoneCheckFields, Durations {}

/** True unless it is given: Consul's default of the flag beside it. */
const goBoolOrTrue: GoType<boolean> = { ...goBool, zero: () => true };

const shared: GoFields<CheckFields & WrittenDurations> = {
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
  Interval: writtenDuration,
  Timeout: writtenDuration,
  TTL: writtenDuration,
  DeregisterCriticalServiceAfter: writtenDuration,
  deregister_critical_service_after: writtenDuration,
};

export const serviceCheckType: GoType<ServiceCheckBody> = goDecoded(
  goStruct<ServiceCheckFields & WrittenDurations>("structs.CheckType", {
    ...shared,
    CheckID: goString,
    ProxyHTTP: goString,
    ProxyGRPC: goString,
  }),
  (read): ServiceCheckBody => ({ ...read, ...durationsOf(read) }),
);

export const loneCheckType: GoType<LoneCheckBody> = goDecoded(
  goStruct<LoneCheckFields & WrittenDurations>("structs.CheckDefinition", {
    ...shared,
    ID: goString,
    Token: goString,
    disable_redirects: goBool,
  }),
  (read): LoneCheckBody => ({
    ...read,
    ...durationsOf(read),
    DisableRedirects: read.DisableRedirects || read.disable_redirects,
  }),
);

const LEAST_INTERVAL_MS = 1_000;

/** Whether a check says nothing at all: Consul passes over such a `Check`, though not one in `Checks`. */
export function isEmptyCheck(body: ServiceCheckBody): boolean {
  return Object.keys(keptCheck(body)).length === 0;
}

function scriptOf(body: CheckBody): readonly string[] {
  return [body.ScriptArgs, body.Args, body.script_args].find((args) => args.length > 0) ?? [];
}

/** The missing or conflicting fields of a check, in Consul's words. */
export function checkProblem(body: CheckBody): string | undefined {
  const alias = body.AliasNode !== "" || body.AliasService !== "";
  const timed = isTimed(body);
  if (body.Interval > 0 && body.TTL > 0) return "Interval and TTL cannot both be specified";
  if (timed && body.Interval <= 0) {
    return "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks";
  }
  if (timed && alias) return "Interval cannot be set for Alias checks";
  if (alias && body.TTL > 0) return "TTL must be not be set for Alias checks";
  if (!timed && !alias && body.TTL <= 0) return "TTL must be > 0 for TTL checks";
  if (body.OutputMaxSize < 0) return "MaxOutputMaxSize must be positive";
  return body.FailuresBeforeWarning > body.FailuresBeforeCritical
    ? "FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
    : undefined;
}

/** Whether it is run again and again. */
function isTimed(body: CheckBody): boolean {
  const probed = [body.HTTP, body.TCP, body.UDP, body.GRPC, body.H2PING, body.OSService];
  return scriptOf(body).length > 0 || probed.some((text) => text !== "");
}

/**
 * The probe of a check without a problem.
 * @throws {HttpRefusal} 500: no agent of ours runs such a check.
 */
export function checkDefinition(body: CheckBody): CheckDefinition {
  if (scriptOf(body).length > 0) {
    throw new HttpRefusal(
      500,
      "Scripts are disabled on this agent from remote calls: it runs no scripts, neither itself nor in containers",
    );
  }
  return {
    method: methodOf(body),
    intervalMs: isTimed(body) ? Math.max(body.Interval, LEAST_INTERVAL_MS) : 0,
    timeoutMs: Math.max(body.Timeout, 0),
    successBeforePassing: body.SuccessBeforePassing,
    failuresBeforeWarning: body.FailuresBeforeWarning,
    failuresBeforeCritical: body.FailuresBeforeCritical,
    deregisterCriticalServiceAfterMs: body.DeregisterCriticalServiceAfter,
    outputMaxBytes: body.OutputMaxSize,
  };
}

/** Consul's type of a check: that of its probe, unless it names a gRPC server besides. */
export function checkTypeOf(body: CheckBody, { method }: CheckDefinition): string {
  return body.GRPC === "" ? method.type : "grpc";
}

/** A check as the catalog keeps it in the definition of a sidecar. */
export function keptCheck(body: ServiceCheckBody): JsonObject {
  const nanoseconds = (milliseconds: number): number => Math.round(milliseconds * 1e6);
  return {
    ...nonZero({
      CheckID: body.CheckID,
      Name: body.Name,
      Status: body.Status,
      Notes: body.Notes,
      HTTP: body.HTTP,
      H2PING: body.H2PING,
      H2PingUseTLS: body.H2PING !== "" && body.H2PingUseTLS && body.h2ping_use_tls,
      Method: body.Method,
      Body: body.Body,
      DisableRedirects: body.DisableRedirects,
      TCP: body.TCP,
      TCPUseTLS: body.TCPUseTLS || body.tcp_use_tls,
      UDP: body.UDP,
      Interval: nanoseconds(body.Interval),
      AliasNode: body.AliasNode,
      AliasService: body.AliasService,
      DockerContainerID: body.DockerContainerID || body.docker_container_id,
      Shell: body.Shell,
      GRPC: body.GRPC,
      GRPCUseTLS: body.GRPCUseTLS || body.grpc_use_tls,
      OSService: body.OSService,
      TLSServerName: body.TLSServerName || body.tls_server_name,
      TLSSkipVerify: body.TLSSkipVerify || body.tls_skip_verify,
      Timeout: nanoseconds(body.Timeout),
      TTL: nanoseconds(body.TTL),
      SuccessBeforePassing: body.SuccessBeforePassing,
      FailuresBeforeWarning: body.FailuresBeforeWarning,
      FailuresBeforeCritical: body.FailuresBeforeCritical,
      ProxyHTTP: body.ProxyHTTP,
      ProxyGRPC: body.ProxyGRPC,
      DeregisterCriticalServiceAfter: nanoseconds(body.DeregisterCriticalServiceAfter),
      OutputMaxSize: body.OutputMaxSize,
    }),
    ...(scriptOf(body).length > 0 && { ScriptArgs: scriptOf(body) }),
    ...(Object.keys(body.Header).length > 0 && { Header: body.Header }),
  };
}

function nonZero(fields: Readonly<Record<string, string | number | boolean>>): JsonObject {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== "" && value !== 0 && value !== false),
  );
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
      followRedirects: !body.DisableRedirects,
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
  if (body.OSService !== "") {
    throw new HttpRefusal(500, "OSService checks are not run here: this agent asks no service manager");
  }
  if (body.H2PING !== "") {
    return { type: "h2ping", address: body.H2PING, tls: body.H2PingUseTLS && body.h2ping_use_tls ? tls : undefined };
  }
  return { type: "alias", node: body.AliasNode, service: body.AliasService };
}
