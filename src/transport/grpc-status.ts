import { constants, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import { PeeringError, type PeeringErrorCode } from "../base/errors.js";
import { type Status, StatusCode } from "../wire/status.js";
import { decodeStatusDetails, encodeStatusDetails } from "../wire/status-details.js";

/** Longest `grpc-message` sent, and looked at, encoded: nghttp2 cannot send a header block over 64 KiB. */
export const MAX_MESSAGE_CHARACTERS = 8192;

const codes: ReadonlyMap<number, PeeringErrorCode> = new Map<number, PeeringErrorCode>([
  [StatusCode.InvalidArgument, "invalid-argument"],
  [StatusCode.DeadlineExceeded, "timeout"],
  [StatusCode.NotFound, "not-found"],
  [StatusCode.PermissionDenied, "permission-denied"],
  [StatusCode.ResourceExhausted, "resource-exhausted"],
  [StatusCode.FailedPrecondition, "not-leader"],
  [StatusCode.Aborted, "aborted"],
  [StatusCode.Unavailable, "unavailable"],
]);

/** A status received from the other side as the error it is thrown as. Codes without one of ours: `stream-ended`. */
export function statusError(status: Status, cause?: unknown): PeeringError {
  return new PeeringError(codes.get(status.code) ?? "stream-ended", status.message, {
    status: status.code,
    ...(status.leaderAddress === undefined ? {} : { leaderAddress: status.leaderAddress }),
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The answer to a caller when a handler throws: the error's own status, else UNKNOWN with the bare text, as grpc-go. */
export function thrownStatus(error: unknown): Status {
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof PeeringError)) return { code: StatusCode.Unknown, message };
  const { status = StatusCode.Unknown, leaderAddress } = error;
  return { code: status, message, ...(leaderAddress === undefined ? {} : { leaderAddress }) };
}

/** The percent-encoding of `grpc-message`: UTF-8, everything but printable ASCII and `%` itself escaped. */
export function percentEncode(text: string): string {
  let encoded = "";
  for (const byte of new TextEncoder().encode(text)) {
    const next =
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    // An escape is never cut in half.
    if (encoded.length + next.length > MAX_MESSAGE_CHARACTERS) break;
    encoded += next;
  }
  return encoded;
}

/** The reverse of {@link percentEncode}; an invalid escape stays as it is, as the gRPC specification demands. */
export function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  const bytes: number[] = [];
  for (let index = 0; index < text.length; index += 1) {
    const digits = text[index] === "%" ? text.slice(index + 1, index + 3) : "";
    if (/^[0-9A-Fa-f]{2}$/.test(digits)) {
      bytes.push(Number.parseInt(digits, 16));
      index += 2;
    } else {
      bytes.push(text.charCodeAt(index) & 0xff);
    }
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

/** The trailers that end a call. */
export function statusTrailers(status: Status): OutgoingHttpHeaders {
  return {
    "grpc-status": String(status.code),
    ...(status.message === "" ? {} : { "grpc-message": percentEncode(status.message) }),
    // Details repeat code and text, so they are sent only where they add something.
    ...(status.leaderAddress === undefined ? {} : { "grpc-status-details-bin": encodeStatusDetails(status) }),
  };
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

/** The status in trailers, or in the headers of a trailers-only response; undefined where there is none. */
export function statusFromHeaders(headers: IncomingHttpHeaders): Status | undefined {
  const text = single(headers["grpc-status"]);
  if (text === undefined) return undefined;
  if (!/^[0-9]{1,9}$/.test(text)) {
    return { code: StatusCode.Unknown, message: `malformed grpc-status: ${JSON.stringify(text)}` };
  }
  const code = Number(text);
  const message = percentDecode((single(headers["grpc-message"]) ?? "").slice(0, MAX_MESSAGE_CHARACTERS));
  const details = single(headers["grpc-status-details-bin"]);
  const leaderAddress = details === undefined ? undefined : decodeStatusDetails(details)?.leaderAddress;
  return { code, message, ...(leaderAddress === undefined ? {} : { leaderAddress }) };
}

/** The status of an HTTP answer that is no gRPC answer, by the table of the gRPC specification. */
export function statusFromHttp(http: number, contentType: string | undefined): Status | undefined {
  const isGrpc = contentType !== undefined && isGrpcContentType(contentType);
  if (http === 200 && isGrpc) return undefined;
  const code =
    http === 400
      ? StatusCode.Internal
      : http === 401
        ? 16
        : http === 403
          ? StatusCode.PermissionDenied
          : http === 404
            ? StatusCode.Unimplemented
            : http === 429 || http === 502 || http === 503 || http === 504
              ? StatusCode.Unavailable
              : StatusCode.Unknown;
  const reasons = [
    ...(http === 200 ? [] : [`unexpected HTTP status code received from server: ${http}`]),
    ...(isGrpc
      ? []
      : contentType === undefined
        ? ["malformed header: missing HTTP content-type"]
        : [`transport: received unexpected content-type ${JSON.stringify(contentType)}`]),
  ];
  return { code, message: reasons.join("; ") };
}

/** `application/grpc`, alone or with a subtype or parameters. */
export function isGrpcContentType(contentType: string): boolean {
  return /^application\/grpc($|[+;])/.test(contentType.toLowerCase());
}

const names = new Map<number, string>([
  [constants.NGHTTP2_NO_ERROR, "NO_ERROR"],
  [constants.NGHTTP2_PROTOCOL_ERROR, "PROTOCOL_ERROR"],
  [constants.NGHTTP2_INTERNAL_ERROR, "INTERNAL_ERROR"],
  [constants.NGHTTP2_FLOW_CONTROL_ERROR, "FLOW_CONTROL_ERROR"],
  [constants.NGHTTP2_SETTINGS_TIMEOUT, "SETTINGS_TIMEOUT"],
  [constants.NGHTTP2_STREAM_CLOSED, "STREAM_CLOSED"],
  [constants.NGHTTP2_FRAME_SIZE_ERROR, "FRAME_SIZE_ERROR"],
  [constants.NGHTTP2_REFUSED_STREAM, "REFUSED_STREAM"],
  [constants.NGHTTP2_CANCEL, "CANCEL"],
  [constants.NGHTTP2_COMPRESSION_ERROR, "COMPRESSION_ERROR"],
  [constants.NGHTTP2_CONNECT_ERROR, "CONNECT_ERROR"],
  [constants.NGHTTP2_ENHANCE_YOUR_CALM, "ENHANCE_YOUR_CALM"],
  [constants.NGHTTP2_INADEQUATE_SECURITY, "INADEQUATE_SECURITY"],
  [constants.NGHTTP2_HTTP_1_1_REQUIRED, "HTTP_1_1_REQUIRED"],
]);

/** An HTTP/2 error code in words. */
export function http2ErrorName(code: number): string {
  return names.get(code) ?? `0x${code.toString(16)}`;
}

/** The status of a stream that was reset, as grpc-go maps it. */
export function statusFromReset(http2Code: number): Status {
  const code =
    http2Code === constants.NGHTTP2_REFUSED_STREAM
      ? StatusCode.Unavailable
      : http2Code === constants.NGHTTP2_CANCEL
        ? StatusCode.Canceled
        : http2Code === constants.NGHTTP2_ENHANCE_YOUR_CALM || http2Code === constants.NGHTTP2_FLOW_CONTROL_ERROR
          ? StatusCode.ResourceExhausted
          : http2Code === constants.NGHTTP2_INADEQUATE_SECURITY
            ? StatusCode.PermissionDenied
            : StatusCode.Internal;
  return { code, message: `stream terminated by RST_STREAM with error code: ${http2ErrorName(http2Code)}` };
}
