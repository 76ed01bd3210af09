import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import {
  isGrpcContentType,
  percentDecode,
  percentEncode,
  statusFromHeaders,
  statusFromHttp,
  statusFromReset,
  statusTrailers,
  thrownStatus,
} from "../../../src/transport/grpc-status.js";

test("grpc-message: any text survives, and only printable ASCII is sent", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (text) => {
      const encoded = percentEncode(text);
      assert.match(encoded, /^[\x20-\x7e]*$/);
      assert.equal(percentDecode(encoded), text);
    }),
  );
  assert.equal(percentEncode("100 %\né"), "100 %25%0A%C3%A9");
});

test("grpc-message: an invalid escape stays, invalid UTF-8 becomes U+FFFD, nothing throws", () => {
  assert.equal(percentDecode("50% of %zz %4"), "50% of %zz %4");
  assert.equal(percentDecode("%ff"), "\ufffd");
  fc.assert(fc.property(fc.string(), (text) => typeof percentDecode(text) === "string"));
});

test("grpc-message: a long one is cut before an escape, so that the trailers can be sent", () => {
  const encoded = percentEncode("é".repeat(5000));
  assert.ok(encoded.length <= 8192);
  assert.match(percentDecode(encoded), /^é+$/);
});

test("a status survives its trailers, with the leader's address", () => {
  fc.assert(
    fc.property(
      fc.nat(20),
      fc.string({ unit: "grapheme", maxLength: 50 }),
      fc.option(fc.string({ minLength: 1, maxLength: 30 }), { nil: undefined }),
      (code, message, leaderAddress) => {
        const status = { code, message, ...(leaderAddress === undefined ? {} : { leaderAddress }) };
        const headers: Record<string, string> = {};
        for (const [name, value] of Object.entries(statusTrailers(status))) headers[name] = String(value);
        assert.deepEqual(statusFromHeaders(headers), status);
      },
    ),
  );
});

test("trailers of others: missing, malformed and odd ones", () => {
  assert.equal(statusFromHeaders({ "content-type": "application/grpc" }), undefined);
  assert.deepEqual(statusFromHeaders({ "grpc-status": "0" }), { code: 0, message: "" });
  assert.equal(statusFromHeaders({ "grpc-status": "-1" })?.code, 2);
  assert.equal(statusFromHeaders({ "grpc-status": "OK" })?.code, 2);
  assert.deepEqual(statusFromHeaders({ "grpc-status": "9", "grpc-status-details-bin": "!!!" }), {
    code: 9,
    message: "",
  });
});

test("an HTTP answer that is no gRPC answer, by the table of gRPC", () => {
  assert.equal(statusFromHttp(200, "application/grpc"), undefined);
  const expected = { 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 500: 2, 302: 2 };
  for (const [http, code] of Object.entries(expected)) {
    assert.equal(statusFromHttp(Number(http), "application/grpc")?.code, code);
  }
  assert.deepEqual(statusFromHttp(503, "text/html"), {
    code: 14,
    message:
      'unexpected HTTP status code received from server: 503; transport: received unexpected content-type "text/html"',
  });
  assert.deepEqual(statusFromHttp(200, undefined), {
    code: 2,
    message: "malformed header: missing HTTP content-type",
  });
});

test("resets, as grpc-go maps them", () => {
  const expected = { 0: 13, 1: 13, 2: 13, 3: 8, 7: 14, 8: 1, 11: 8, 12: 7, 13: 13, 77: 13 };
  for (const [http2, code] of Object.entries(expected)) assert.equal(statusFromReset(Number(http2)).code, code);
  assert.equal(statusFromReset(8).message, "stream terminated by RST_STREAM with error code: CANCEL");
});

test("content types", () => {
  for (const type of ["application/grpc", "application/grpc+proto", "application/grpc;charset=x", "Application/GRPC"]) {
    assert.ok(isGrpcContentType(type), type);
  }
  for (const type of ["", "application/grpc-web", "application/json", "text/html"]) assert.ok(!isGrpcContentType(type));
});

test("what a handler throws", () => {
  assert.deepEqual(thrownStatus(new PeeringError("aborted", "x", { status: 10 })), { code: 10, message: "x" });
  assert.deepEqual(thrownStatus(new PeeringError("conflict", "x")), { code: 2, message: "x" });
  assert.deepEqual(thrownStatus(new TypeError("y")), { code: 2, message: "y" });
  assert.deepEqual(thrownStatus("z"), { code: 2, message: "z" });
});
