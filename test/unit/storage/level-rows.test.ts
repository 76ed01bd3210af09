import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { crc32c } from "../../../src/storage/crc32c.js";
import { RowWriter, readRow, rowRevision } from "../../../src/storage/level-rows.js";

it("CRC-32C has the values of RFC 3720, however it is cut", () => {
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, index) => index))), 0x46dd794e);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, cut) => {
      const at = Math.min(cut, bytes.length);
      assert.equal(crc32c(bytes, at, bytes.length, crc32c(bytes, 0, at)), crc32c(bytes));
    }),
  );
});

const anyRow = fc.record({
  key: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  revision: fc.bigInt({ min: 0n, max: 2n ** 56n - 1n }),
  value: fc.uint8Array({ maxLength: 200 }),
});

it("a row is read as it was written, also after a longer one", () => {
  const writer = new RowWriter();
  fc.assert(
    fc.property(anyRow, ({ key, revision, value }) => {
      const row = Buffer.from(writer.row(key, revision, value));
      assert.deepEqual(readRow(key, row), { state: "sound", revision, value: new Uint8Array(value) });
      assert.equal(rowRevision(key, row), revision);
    }),
  );
});

it("a row with any bit changed, or cut, is not sound; of a damaged value the revision is still certain", () => {
  const writer = new RowWriter();
  fc.assert(
    fc.property(anyRow, fc.nat(), fc.nat(7), ({ key, revision, value }, place, bit) => {
      const row = Buffer.from(writer.row(key, revision, value));
      const at = place % row.length;
      row[at] = (row[at] ?? 0) ^ (1 << bit);
      const read = readRow(key, row);
      assert.equal(read.state, at < 12 ? "unknown" : "damaged");
      assert.equal(rowRevision(key, row), at < 12 ? undefined : revision);
      assert.notEqual(readRow(key, row.subarray(0, at)).state, "sound");
    }),
  );
});

it("a row is bound to its key", () => {
  const writer = new RowWriter();
  fc.assert(
    fc.property(anyRow, fc.nat(), fc.nat(7), ({ key, revision, value }, place, bit) => {
      const row = Buffer.from(writer.row(key, revision, value));
      const other = Buffer.from(key);
      const at = place % other.length;
      other[at] = (other[at] ?? 0) ^ (1 << bit);
      assert.deepEqual(readRow(other, row), { state: "unknown" });
    }),
  );
});
