import { errorText, PeeringError, type PeeringErrorCode, toldText } from "../base/errors.js";
import type { GoJsonError } from "../syntax/go-json.js";
import { StatusCode } from "../wire/status.js";

/** A refusal with its HTTP status; the text is the whole body. */
export class HttpRefusal extends Error {
  override readonly name = "HttpRefusal";
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, text: string, headers: Readonly<Record<string, string>> = {}) {
    super(text);
    this.status = status;
    this.headers = headers;
  }
}

export function badRequest(text: string): HttpRefusal {
  return new HttpRefusal(400, text);
}

/** The answer of Consul to a body that it cannot read. @param hint - more text, at its end. */
export function decodeFailed({ message }: GoJsonError, hint = ""): HttpRefusal {
  return badRequest(`Request decode failed: ${message}${hint}`);
}

/** The status of errors whose code decides it. Every other failure of an endpoint is a 500, as in Consul, also a validation. */
const STATUS: Partial<Record<PeeringErrorCode, number>> = {
  "permission-denied": 403,
  "resource-exhausted": 429,
  unavailable: 503,
  timeout: 503,
  closed: 503,
};

/** How a failure is answered: Consul 1.15 and later send the bare message. */
export function refusalOf(error: unknown): { readonly status: number; readonly text: string } {
  const text = toldText(errorText(error));
  if (error instanceof HttpRefusal) return { status: error.status, text };
  return { status: error instanceof PeeringError ? statusOf(error) : 500, text };
}

function statusOf(error: PeeringError): number {
  if (error.code === "permission-denied") return 403;
  switch (error.status) {
    case StatusCode.PermissionDenied:
      return 403;
    case StatusCode.ResourceExhausted:
      return 429;
    case StatusCode.Unavailable:
      return 503;
    case undefined:
      return STATUS[error.code] ?? 500;
    default:
      return 500;
  }
}
