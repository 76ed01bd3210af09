import { PeeringError, type PeeringErrorCode } from "../base/errors.js";
import type { Status } from "../wire/status.js";
import { StatusCode } from "../wire/status.js";

const codeNames: readonly string[] = [
  "OK",
  "Canceled",
  "Unknown",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Internal",
  "Unavailable",
  "DataLoss",
  "Unauthenticated",
];

/** A receive error as Consul's status shows it: the text of a grpc-go status. */
export function rpcErrorText(error: PeeringError): string {
  const { status, message } = error;
  return status === undefined
    ? message
    : `rpc error: code = ${codeNames[status] ?? `Code(${status})`} desc = ${message}`;
}

/** The error that the status shows for an end that the host decided. */
export function errorOf(status: Status): PeeringError {
  return new PeeringError(errorCodeOf(status.code), status.message, { status: status.code });
}

function errorCodeOf(code: number): PeeringErrorCode {
  switch (code) {
    case StatusCode.InvalidArgument:
      return "invalid-argument";
    case StatusCode.NotFound:
      return "not-found";
    case StatusCode.PermissionDenied:
      return "permission-denied";
    case StatusCode.ResourceExhausted:
      return "resource-exhausted";
    case StatusCode.FailedPrecondition:
      return "not-leader";
    case StatusCode.Aborted:
      return "aborted";
    case StatusCode.Unavailable:
      return "unavailable";
    default:
      return "closed";
  }
}
