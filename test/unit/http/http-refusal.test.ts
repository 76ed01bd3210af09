import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { HttpRefusal, refusalOf } from "../../../src/http/http-refusal.js";
import { StatusCode } from "../../../src/wire/status.js";

describe("the status of a refusal", () => {
  it("is decided by the code of the error, whatever its text says", () => {
    const texts = ["Permission denied: no", "ACL not found", "rpc error: Permission denied", "other"];
    for (const text of texts) {
      assert.deepEqual(refusalOf(new PeeringError("permission-denied", text)), { status: 403, text });
      assert.deepEqual(refusalOf(new PeeringError("unavailable", text)), { status: 503, text });
      assert.deepEqual(refusalOf(new PeeringError("invalid-argument", text)), { status: 500, text });
      assert.deepEqual(refusalOf(new Error(text)), { status: 500, text });
      assert.deepEqual(refusalOf(new HttpRefusal(404, text)), { status: 404, text });
    }
  });

  it("is that of a status of gRPC where the error has one, except where a right is missing", () => {
    const withStatus = (code: "permission-denied" | "invalid-argument", status: number): number =>
      refusalOf(new PeeringError(code, "text", { status })).status;
    assert.equal(withStatus("invalid-argument", StatusCode.ResourceExhausted), 429);
    assert.equal(withStatus("invalid-argument", StatusCode.Unavailable), 503);
    assert.equal(withStatus("invalid-argument", StatusCode.PermissionDenied), 403);
    assert.equal(withStatus("invalid-argument", StatusCode.InvalidArgument), 500);
    assert.equal(withStatus("permission-denied", StatusCode.Unknown), 403);
  });
});
