/** TLS of a check that connects with it. */
export interface CheckTls {
  /** Sent as SNI and verified. Default `""`: the host of the target. */
  readonly serverName: string;
  /** Takes any certificate. */
  readonly skipVerify: boolean;
}

/** How a check finds out. The names are those of Consul's `Type` (1.21). */
export type CheckMethod =
  /** A program reports in time, or the check turns critical. */
  | { readonly type: "ttl"; readonly ttlMs: number }
  | {
      readonly type: "http";
      readonly url: string;
      readonly method: string;
      readonly headers: Readonly<Record<string, readonly string[]>>;
      readonly body: string;
      readonly followRedirects: boolean;
      readonly tls: CheckTls;
    }
  /** A ping over HTTP/2, with TLS unless `tls` is undefined. */
  | { readonly type: "h2ping"; readonly address: string; readonly tls: CheckTls | undefined }
  | { readonly type: "tcp"; readonly address: string; readonly tls: CheckTls | undefined }
  | { readonly type: "udp"; readonly address: string }
  /** gRPC's health service. The target is `host:port`, or `host:port/service`. */
  | { readonly type: "grpc"; readonly target: string; readonly tls: CheckTls | undefined }
  /** As healthy as another service, on this node (`node` is `""`) or another one. */
  | { readonly type: "alias"; readonly node: string; readonly service: string };

/** A method that opens a connection. */
export type ProbeMethod = Exclude<CheckMethod, { readonly type: "ttl" | "alias" }>;

/** A check that an agent runs. Times are milliseconds. */
export interface CheckDefinition {
  readonly method: CheckMethod;
  /** From the end of one probe to the begin of the next. At least 1 s; 0 for `ttl` and `alias`. */
  readonly intervalMs: number;
  /** Of one probe. 0: the default of 10 s. */
  readonly timeoutMs: number;
  /** Successes in a row before the check passes; 0 and 1 mean at once. */
  readonly successBeforePassing: number;
  /** Failures in a row before the check warns. 0: as many as make it critical. */
  readonly failuresBeforeWarning: number;
  /** Failures in a row before the check is critical; 0 and 1 mean at once. */
  readonly failuresBeforeCritical: number;
  /** The service is removed once the check has been critical for longer. 0: never. */
  readonly deregisterCriticalServiceAfterMs: number;
  /** Of an output, its last bytes are kept. 0: the agent's bound. */
  readonly outputMaxBytes: number;
}

export type CheckStatus = "passing" | "warning" | "critical";

/** The result of a probe. */
export interface CheckResult {
  readonly status: CheckStatus;
  readonly output: string;
}

export function isCheckStatus(status: string): status is CheckStatus {
  return status === "passing" || status === "warning" || status === "critical";
}
