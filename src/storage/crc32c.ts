// Eight tables, so that eight bytes are taken at a time: a value is checked at every read.
const TABLE: Int32Array = makeTable();

function makeTable(): Int32Array {
  const table = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    table[byte] = crc;
  }
  for (let index = 256; index < table.length; index++) {
    const before = table[index - 256] ?? 0;
    table[index] = entry(table, before & 255) ^ (before >>> 8);
  }
  return table;
}

function entry(table: Int32Array, index: number): number {
  return table[index] ?? 0;
}

/**
 * The CRC-32C (Castagnoli) of `bytes` from `start` to `end`: what LevelDB's files use, and our own rows.
 * @param seed - the CRC of the bytes before them.
 */
export function crc32c(bytes: Uint8Array, start = 0, end: number = bytes.length, seed = 0): number {
  let crc = ~seed;
  let at = start;
  for (; at + 8 <= end; at += 8) {
    crc ^= (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);
    crc =
      entry(TABLE, 1792 + (crc & 255)) ^
      entry(TABLE, 1536 + ((crc >>> 8) & 255)) ^
      entry(TABLE, 1280 + ((crc >>> 16) & 255)) ^
      entry(TABLE, 1024 + (crc >>> 24)) ^
      entry(TABLE, 768 + (bytes[at + 4] ?? 0)) ^
      entry(TABLE, 512 + (bytes[at + 5] ?? 0)) ^
      entry(TABLE, 256 + (bytes[at + 6] ?? 0)) ^
      entry(TABLE, bytes[at + 7] ?? 0);
  }
  for (; at < end; at++) crc = entry(TABLE, (crc ^ (bytes[at] ?? 0)) & 255) ^ (crc >>> 8);
  return ~crc >>> 0;
}
