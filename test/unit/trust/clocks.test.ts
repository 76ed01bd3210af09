import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { type TestClock, testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { fixedAuthority } from "../../../src/testing/fixed-authority.js";
import type { CertificateAuthority } from "../../../src/trust/authority.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { activeRootFault } from "../../../src/trust/root-validity.js";
import { ServerCertificate } from "../../../src/trust/server-certificate.js";
import { eventually } from "../../support/hosts.js";
import { LogRecorder } from "../../support/log-recorder.js";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
/** How often the clock is looked at. */
const LOOK = 5 * MINUTE;
const HOUR = 60 * MINUTE;
const YEAR = 365 * 24 * HOUR;
const trustDomain = "11111111-2222-3333-4444-555555555555.consul";

interface Served extends AsyncDisposable {
  readonly clock: TestClock;
  readonly certificate: ServerCertificate;
  readonly incidents: Incidents;
  readonly log: LogRecorder;
  /** How often a certificate was issued. */
  issued(): number;
  /** Whether the one that is served is valid by the clock as it stands. */
  valid(): boolean;
}

function served(clock = testClock(), options: { readonly authority?: CertificateAuthority } = {}): Served {
  const authority = options.authority ?? fixedAuthority({ trustDomain, clock });
  const log = new LogRecorder();
  const incidents = new Incidents({ clock, logger: log });
  let issued = 0;
  const counting = {
    trustDomain,
    roots: () => authority.roots(),
    onRootsChanged: (listener: () => void) => authority.onRootsChanged(listener),
    issueServer: (datacenter: string) => {
      issued++;
      return authority.issueServer(datacenter);
    },
  };
  const certificate = new ServerCertificate({ authority: counting, datacenter: "dc1", clock, incidents });
  return {
    clock,
    certificate,
    incidents,
    log,
    issued: () => issued,
    valid: () => {
      const { notBefore = 0, notAfter = 0 } = certificate.status ?? {};
      return notBefore <= clock.wall() && clock.wall() < notAfter;
    },
    [Symbol.asyncDispose]: () => certificate[Symbol.asyncDispose](),
  };
}

describe("a server certificate, when the clock is set", () => {
  for (const [name, aheadMs] of [
    ["ahead by 720 hours", 720 * HOUR],
    ["ahead by a year", YEAR],
    ["ahead by two minutes", 2 * MINUTE],
    ["behind by an hour", -HOUR],
    ["behind by a year", -YEAR],
  ] as const) {
    it(`that was ${name} at the start is issued again within five minutes of being set right, and that is said`, async () => {
      const clock = testClock();
      clock.jump(aheadMs);
      await using at = served(clock);
      await clock.advance(10 * MINUTE);
      assert.deepEqual([at.issued(), at.valid(), at.incidents.counts().size], [1, true, 0]);
      clock.jump(-aheadMs);
      await clock.advance(LOOK);
      assert.deepEqual([at.issued(), at.valid()], [2, true]);
      assert.equal(at.certificate.status?.renewalError, undefined);
      assert.equal(at.incidents.counts().get("clock-set"), 1);
      const line = at.log.lines.find(({ fields }) => fields["incident"] === "clock-set");
      assert.match(line?.message ?? "", /the clock was set or the machine slept/);
      assert.equal(line?.fields["bySeconds"], -aheadMs / SECOND);
      await clock.advance(HOUR);
      assert.equal(at.issued(), 2, "once");
    });

    it(`that was ${name} for 12 minutes leaves a certificate that is valid now`, async () => {
      await using at = served();
      await at.clock.advance(HOUR);
      at.clock.jump(aheadMs);
      await at.clock.advance(12 * MINUTE);
      assert.ok(at.valid());
      at.clock.jump(-aheadMs);
      await at.clock.advance(LOOK);
      assert.ok(at.valid());
      assert.deepEqual([at.issued(), at.incidents.counts().get("clock-set")], [3, 2]);
    });

    it(`that was ${name} is noticed by the next handshake, too`, async () => {
      const clock = testClock();
      clock.jump(aheadMs);
      await using at = served(clock);
      await clock.advance(SECOND);
      clock.jump(-aheadMs);
      at.certificate.current();
      at.certificate.current();
      await clock.advance(1);
      assert.deepEqual([at.issued(), at.valid(), at.incidents.counts().get("clock-set")], [2, true, 1]);
    });
  }

  it("is not issued again for steps that its margin covers, nor for time that passes or sleep", async () => {
    await using at = served();
    await at.certificate.ready();
    for (const step of [20 * SECOND, -20 * SECOND, -29 * SECOND, 29 * SECOND]) {
      at.clock.jump(step);
      at.certificate.current();
      await at.clock.advance(5 * MINUTE);
    }
    await at.clock.suspend(12 * HOUR);
    await at.clock.advance(LOOK);
    assert.deepEqual([at.issued(), at.valid(), at.incidents.counts().size], [1, true, 0]);
    // Small steps add up.
    for (let step = 0; step < 5; step++) at.clock.jump(-20 * SECOND);
    await at.clock.advance(LOOK);
    assert.deepEqual([at.issued(), at.valid()], [2, true]);
  });

  it("is issued again when the machine slept past its end", async () => {
    await using at = served();
    await at.clock.suspend(100 * HOUR);
    await at.clock.advance(LOOK);
    assert.deepEqual([at.issued(), at.valid()], [2, true]);
  });

  it("an authority whose own clock is ahead is asked with a growing wait, not at each handshake", async () => {
    const clock = testClock();
    const ahead = { ...clock, wall: () => clock.wall() + HOUR };
    await using at = served(clock, { authority: fixedAuthority({ trustDomain, clock: ahead }) });
    for (let second = 0; second < 60; second++) {
      await clock.advance(SECOND);
      at.certificate.current();
    }
    assert.ok(at.issued() <= 7, `${at.issued()} times in a minute`);
    assert.equal(at.certificate.status?.renewalError, "it was not valid yet when it was issued");
  });

  it("looks at the clock every five minutes while it waits", async () => {
    const clock = testClock();
    let timers = 0;
    const counting: TestClock = {
      ...clock,
      after: (delayMs, action) => {
        timers++;
        return clock.after(delayMs, action);
      },
    };
    await using _ = served(counting);
    await clock.advance(HOUR);
    assert.ok(timers >= 12 && timers <= 13, `${timers} timers in an hour`);
  });
});

describe("a root that was made while the clock was wrong", () => {
  for (const [name, aheadMs, reason] of [
    ["ahead by a year", YEAR, /^it is not valid before 2027-01-01T00:00:00\.000Z$/],
    ["ahead by an hour", HOUR, /^it is not valid before 2026-01-01T01:00:00\.000Z$/],
    ["behind by eleven years", -11 * YEAR, /^it has expired on 2025-01-0/],
  ] as const) {
    it(`${name} is reported when the clock is right, at the start and later, with the remedy`, async () => {
      const storage = memoryStorage();
      const clock = testClock();
      clock.jump(aheadMs);
      {
        await using authority = await builtInAuthority({ storage, clock });
        await using at = served(clock, { authority });
        await eventually(() => at.certificate.status !== undefined, "there is a certificate");
        assert.equal(at.incidents.counts().get("root-not-valid"), undefined);
        clock.jump(-aheadMs);
        await clock.advance(LOOK);
        await eventually(() => at.incidents.counts().get("root-not-valid") === 1, "it is told");
      }
      await using authority = await builtInAuthority({ storage, clock });
      await using at = served(clock, { authority });
      await at.certificate.attempted();
      await eventually(() => at.incidents.counts().get("root-not-valid") === 1, "it is told");
      const line = at.log.lines.find(({ fields }) => fields["incident"] === "root-not-valid");
      assert.match(String(line?.fields["reason"]), reason);
      assert.match(String(line?.fields["remedy"]), /Set the clock.*rotate.*-rotate-root.*new tokens/);
      await clock.advance(10 * MINUTE);
      assert.equal(at.incidents.counts().get("root-not-valid"), 1, "once, while it stays so");

      const root = await authority.rotate();
      assert.equal(activeRootFault(authority, clock.wall()), undefined);
      const { validFrom } = new X509Certificate(root.certificatePem);
      assert.equal(Date.parse(validFrom), Math.floor(clock.wall() / SECOND) * SECOND);
      await clock.advance(LOOK);
      await eventually(
        () => at.certificate.status?.rootId === root.id && at.valid(),
        "the certificate is of the new root",
      );
      assert.equal(at.certificate.status?.renewalError, undefined);
    });
  }

  it("counts as valid a minute before it is: clocks differ by as much", async () => {
    const clock = testClock();
    await using authority = await builtInAuthority({ storage: memoryStorage(), clock });
    assert.equal(activeRootFault(authority, clock.wall() - MINUTE), undefined);
    assert.notEqual(activeRootFault(authority, clock.wall() - MINUTE - SECOND), undefined);
  });
});

it("old roots are not dropped in an hour in which the clock was set", async () => {
  const clock = testClock();
  await using authority = await builtInAuthority({ storage: memoryStorage(), clock });
  await authority.rotate();
  await clock.advance(30 * MINUTE);
  clock.jump(YEAR);
  await clock.advance(40 * MINUTE);
  clock.jump(-YEAR);
  await clock.advance(HOUR);
  assert.equal(authority.roots().length, 2);
  await clock.advance(150 * HOUR);
  await eventually(() => authority.roots().length === 1, "it is dropped when it is old");
});
