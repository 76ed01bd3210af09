import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { fixedAuthority } from "../../../src/testing/fixed-authority.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";

const trustDomain = "11111111-2222-3333-4444-555555555555.consul";

test("the pool holds distinct self-signed authorities", () => {
  const certificates = fixedRootPems.map((pem) => new X509Certificate(pem));
  assert.equal(new Set(certificates.map(({ fingerprint256 }) => fingerprint256)).size, fixedRootPems.length);
  for (const certificate of certificates) {
    assert.equal(certificate.ca, true);
    assert.equal(certificate.verify(certificate.publicKey), true);
  }
});

test("the same calls give the same roots, and no two clusters share one", () => {
  const seen = new Map<string, number>();
  for (let cluster = 0; cluster < 5; cluster++) {
    const authority = fixedAuthority({ trustDomain, cluster });
    const again = fixedAuthority({ trustDomain, cluster });
    for (let turn = 0; turn < 20; turn++) {
      assert.deepEqual(
        authority.roots().map(({ id }) => id),
        again.roots().map(({ id }) => id),
      );
      assert.equal(authority.roots().filter(({ active }) => active).length, 1);
      for (const { id } of authority.roots()) {
        assert.equal(seen.get(id) ?? cluster, cluster);
        seen.set(id, cluster);
      }
      authority.rotate();
      again.rotate();
    }
  }
});

test("rotation keeps the old root until it is pruned, and tells listeners both times", async () => {
  await using authority = fixedAuthority({ trustDomain });
  let calls = 0;
  const stop = authority.onRootsChanged(() => calls++);
  const [old] = authority.roots();
  const fresh = authority.rotate();
  assert.deepEqual(
    authority.roots().map(({ id, active }) => [id, active]),
    [
      [old?.id, false],
      [fresh.id, true],
    ],
  );
  assert.equal((await authority.issueServer("dc1")).rootId, fresh.id);
  assert.equal(authority.prune(), true);
  assert.deepEqual(authority.roots(), [fresh]);
  assert.equal(authority.prune(), false);
  assert.equal(calls, 2);
  stop();
  authority.rotate();
  assert.equal(calls, 2);
});
