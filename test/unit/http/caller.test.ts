import assert from "node:assert/strict";
import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { describe, it } from "node:test";
import type { Authorizer, Identity, Right } from "../../../src/access/authorizer.js";
import { CallLimits } from "../../../src/http/call-limits.js";
import { Caller } from "../../../src/http/caller.js";

const READ: Right = { resource: "peering", access: "read" };

/** Knows one token until `known` is false, and counts how often it is asked for an identity. */
class Counting implements Authorizer {
  known = true;
  allowing = true;
  lookups = 0;

  readonly defaultPolicy = "deny";

  async resolve(): Promise<Identity | undefined> {
    this.lookups++;
    return this.known ? { accessorId: "one" } : undefined;
  }

  allowed(): boolean {
    return this.allowing;
  }
}

function callerOf(authorizer: Authorizer): Caller {
  const request = new IncomingMessage(new Socket());
  return new Caller(authorizer, "token", new CallLimits().allowance(request, new ServerResponse(request)));
}

describe("a caller", () => {
  it("is looked up once, until it is looked up again", async () => {
    const authorizer = new Counting();
    const caller = callerOf(authorizer);
    assert.equal(caller.identity, undefined);
    await caller.requireWrite();
    await caller.require(READ);
    assert.equal(authorizer.lookups, 1);
    assert.deepEqual(caller.identity, { accessorId: "one" });
    await caller.accessNow();
    await caller.access();
    assert.equal(authorizer.lookups, 2);
  });

  it("loses the rights that it required once one of them or the token is gone", async () => {
    const authorizer = new Counting();
    const caller = callerOf(authorizer);
    await caller.confirm();
    assert.equal(authorizer.lookups, 0, "nothing was required yet");
    await caller.require(READ);
    await caller.confirm();
    authorizer.allowing = false;
    await assert.rejects(caller.confirm(), { code: "permission-denied", message: /lacks permission 'peering:read'/ });
    authorizer.allowing = true;
    authorizer.known = false;
    await assert.rejects(caller.confirm(), { code: "permission-denied", message: "ACL not found" });
  });
});
