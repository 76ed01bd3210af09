import assert from "node:assert/strict";
import { it } from "node:test";
import { inspect } from "node:util";
import { machineryOf } from "../../../src/host/host.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { peer, peered, type Site, World } from "../../support/world.js";

/** An object as people see it who print it or send it on, with everything that can be reached from it. */
function shown(value: unknown): string {
  const json = JSON.stringify(value, (_, field: unknown) => {
    if (typeof field === "bigint") return String(field);
    if (field instanceof Map || field instanceof Set) return [...field];
    return field instanceof Error
      ? { ...field, message: field.message, stack: field.stack, cause: field.cause }
      : field;
  });
  return `${inspect(value, { depth: 30, showHidden: true, maxArrayLength: 1_000, maxStringLength: 100_000 })}\n${json}`;
}

/** Whether a text holds a secret as it is, in hex, or within something in base64, wherever that begins. */
function holds(text: string, secret: string): boolean {
  const forms = [secret, secret.replaceAll("-", ""), Buffer.from(secret).toString("hex")];
  for (let shift = 0; shift < 3; shift++) {
    forms.push(
      Buffer.from("x".repeat(shift) + secret)
        .toString("base64")
        .slice(4, 40),
    );
  }
  return forms.some((form) => text.includes(form));
}

it("no secret, token or stream secret occurs in a log, an error, a view, an event, or anything public that is printed", async () => {
  const world = new World();
  const secrets = new Set<string>();
  const output: string[] = [];
  const keep = (value: unknown): void => void output.push(shown(value));
  const learn = (token: string): string => {
    secrets.add(token);
    secrets.add(TokenCodec.decode(token).establishmentSecret);
    return token;
  };

  const { acceptor, dialer } = await peered(world);
  const third = await world.site("third", { secretBox: sealedSecretBox(new Uint8Array(32).fill(7)) });
  const stop = new AbortController();
  const watching = [acceptor, dialer, third].flatMap((site) => [
    (async () => {
      for await (const change of site.host.peerings.watch({ signal: stop.signal })) keep(change);
    })(),
  ]);
  const forget = [acceptor, dialer, third].flatMap((site) => [
    site.host.peerings.onTransition(keep),
    machineryOf(site.host).records.onChange(keep),
  ]);
  const failing = async (work: Promise<unknown>): Promise<void> => keep(await world.refusal(work));
  const token = async (site: Site, peerName: string): Promise<string> =>
    learn(await world.result(site.host.peerings.generateToken({ peerName })));

  // A full life: tokens used, superseded, used twice, mangled; streams cut, refused, rotated; deletion in both roles.
  await peer(world, acceptor, third);
  await world.settled(acceptor, "third", third, "acceptor");
  const superseded = await token(acceptor, "third");
  const used = await token(acceptor, "third");
  await world.result(third.host.peerings.establish({ peerName: "acceptor", token: used }));
  await failing(third.host.peerings.establish({ peerName: "acceptor", token: superseded }));
  await failing(dialer.host.peerings.establish({ peerName: "again", token: used }));
  await failing(acceptor.host.peerings.establish({ peerName: "myself", token: await token(acceptor, "x") }));
  for (const mangled of [`${used}!`, used.slice(5), used.slice(0, -5)]) {
    await failing(dialer.host.peerings.establish({ peerName: "again", token: mangled }));
  }
  const dead = learn(
    TokenCodec.encode({ ...TokenCodec.decode(await token(acceptor, "y")), serverAddresses: ["no:1"] }),
  );
  await failing(dialer.host.peerings.establish({ peerName: "dead", token: dead }));
  acceptor.authority.rotate();
  for (const connection of world.network.connections) world.network.cut(connection);
  await world.settled(acceptor, "third", third, "acceptor");
  const open = world.messages(third, "open").at(-1);
  assert.ok(open !== undefined);
  const raw = await world.raw(acceptor);
  await raw.say({ ...open, streamSecretId: `${open.streamSecretId.slice(0, -1)}x` });
  keep(await raw.ended());
  for (const site of [acceptor, dialer, third]) {
    site.fate = () => "fail";
    await failing(site.host.peerings.generateToken({ peerName: "z" }));
    site.fate = () => "succeed";
  }
  await acceptor.restart();
  await world.settled(acceptor, "third", third, "acceptor");
  await world.settled(acceptor, "dialer", dialer, "acceptor");
  for (const site of [acceptor, dialer, third]) {
    const { host } = site;
    keep(host);
    keep(host.peerings);
    keep(host.peerings.list());
    keep(host.peerings.metrics());
    keep(host.authority);
    keep(host.trustBundles.list());
    keep([host.catalog, host.exports, host.imports, host.configEntries]);
  }
  await world.result(acceptor.host.peerings.delete("third"));
  await world.result(dialer.host.peerings.delete("acceptor"));
  await world.until(() => third.state("acceptor") === "terminated", "one is told");
  await world.until(() => acceptor.state("dialer") === "terminated", "and the other");
  for (const site of [acceptor, dialer, third]) keep(site.host.peerings.list());
  stop.abort();
  for (const end of forget) end();
  await world.result(Promise.all(watching));
  for (const site of [acceptor, dialer, third]) keep(site.log.lines);

  for (const { message } of world.sent) if (message.type === "open") secrets.add(message.streamSecretId);
  assert.ok(secrets.size >= 12, "there were secrets to be found");
  assert.ok(output.length > 60 && output.join().length > 100_000, "and output to look for them in");
  const log = [acceptor, dialer, third].flatMap((site) => site.log.lines);
  assert.ok(log.length > 10, `${log.length} lines of log`);
  for (const secret of secrets) {
    assert.notEqual(secret, "");
    const found = output.find((text) => holds(text, secret));
    assert.equal(found?.slice(0, 2_000), undefined, "a secret was shown");
  }
});

it("an acceptor's disk holds no secret at all, a sealed dialer's none either, a plain one the one it needs", async () => {
  const world = new World();
  const { acceptor, dialer } = await peered(world);
  const sealed = await world.site("sealed", { secretBox: sealedSecretBox(new Uint8Array(32).fill(9)) });
  const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "sealed" }));
  await world.result(sealed.host.peerings.establish({ peerName: "acceptor", token }));
  await world.settled(acceptor, "sealed", sealed, "acceptor");
  const secretOf = (site: Site): string => world.messages(site, "open")[0]?.streamSecretId ?? "";
  const disk = async (site: Site): Promise<string> => {
    const { entries } = await world.result(site.disk.read([]));
    return entries.map(({ value }) => Buffer.from(value).toString("latin1")).join("\n");
  };
  assert.ok(holds(await disk(dialer), secretOf(dialer)), "the one that must be sent again; so we would find others");
  const establishment = TokenCodec.decode(token).establishmentSecret;
  for (const site of [acceptor, sealed]) {
    const text = await disk(site);
    for (const secret of [secretOf(dialer), secretOf(sealed), establishment]) assert.equal(holds(text, secret), false);
  }
});
