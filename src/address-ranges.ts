import { BlockList, isIP } from "node:net";

/** Ranges of IP addresses, such as `10.0.0.0/8` and `fe80::/10`; one without a length is a single address. */
export class AddressRanges {
  readonly #list = new BlockList();

  /** @throws {TypeError} for what is no range. */
  constructor(ranges: readonly string[]) {
    for (const range of ranges) {
      const [, address = "", digits] = /^([\da-f.:]+)(?:\/(\d{1,3}))?$/i.exec(range) ?? [];
      const family = isIP(address);
      const most = family === 4 ? 32 : 128;
      const length = digits === undefined ? most : Number(digits);
      if (family === 0 || length > most) {
        throw new TypeError(`${JSON.stringify(range)} is no range of addresses, such as 10.0.0.0/8`);
      }
      this.#list.addSubnet(address, length, family === 4 ? "ipv4" : "ipv6");
    }
  }

  /** Whether the IP address lies in one of them, as it is or by the IPv4 address that it stands for. A zone does not count. */
  includes(address: string): boolean {
    const plain = address.replace(/%.*$/s, "");
    if (isIP(plain) === 4) return this.#list.check(plain, "ipv4");
    if (isIP(plain) !== 6) return false;
    const embedded = embeddedIpv4(plain);
    return this.#list.check(plain, "ipv6") || (embedded !== undefined && this.#list.check(embedded, "ipv4"));
  }
}

/** The IPv4 address to which one of IPv6 leads: mapped, compatible, translated (RFC 2765, RFC 6052) or by 6to4. */
function embeddedIpv4(address: string): string | undefined {
  const groups = groupsOf(address);
  const prefix = groups.slice(0, 6).map((group) => group.toString(16));
  const [high = 0, low = 0] = prefix[0] === "2002" ? groups.slice(1, 3) : groups.slice(6);
  const embeds =
    prefix[0] === "2002" ||
    ["0:0:0:0:0:ffff", "0:0:0:0:ffff:0", "64:ff9b:0:0:0:0"].includes(prefix.join(":")) ||
    (prefix.join(":") === "0:0:0:0:0:0" && high !== 0);
  return embeds ? [high >> 8, high & 255, low >> 8, low & 255].join(".") : undefined;
}

/** The eight groups of an IPv6 address, however it is written. */
function groupsOf(address: string): readonly number[] {
  const [before = "", after] = new URL(`http://[${address}]/`).hostname.slice(1, -1).split("::");
  const numbers = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  const [left, right] = [numbers(before), numbers(after ?? "")];
  return [...left, ...Array.from({ length: 8 - left.length - right.length }, () => 0), ...right];
}
