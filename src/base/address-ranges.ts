import { BlockList, isIP } from "node:net";

/** Ranges of IP addresses, such as `10.0.0.0/8` and `fe80::/10`; one without a length is a single address. */
export class AddressRanges {
  readonly #list = new BlockList();

  /**
   * @param needsLength - whether a range without a length is refused, as Consul does where it asks for networks.
   * @throws {TypeError} for an invalid range.
   */
  constructor(ranges: readonly string[], { needsLength = false }: { readonly needsLength?: boolean } = {}) {
    for (const range of ranges) {
      const [, address = "", digits] = /^([\da-f.:]+)(?:\/(\d{1,3}))?$/i.exec(range) ?? [];
      const family = isIP(address);
      const most = family === 4 ? 32 : 128;
      const length = digits === undefined ? most : Number(digits);
      if (family === 0 || length > most || (needsLength && digits === undefined)) {
        const what = needsLength ? "an address and a prefix length" : "a range of addresses";
        throw new TypeError(`${JSON.stringify(range)} is not ${what}, such as 10.0.0.0/8`);
      }
      this.#list.addSubnet(address, length, family === 4 ? "ipv4" : "ipv6");
    }
  }

  /**
   * Whether the IP address lies in one of them. An IPv4 address that is written as one of IPv6 (`::ffff:10.0.0.1`) is that IPv4
   * address. A zone does not count.
   */
  includes(address: string): boolean {
    const plain = address.replace(/%.*$/s, "");
    if (isIP(plain) === 4) return this.#list.check(plain, "ipv4");
    // Node takes a mapped address for the IPv4 address by itself.
    return isIP(plain) === 6 && this.#list.check(plain, "ipv6");
  }

  /** Whether the IP address lies in one of them, or packets to it are brought to an IPv4 address that does. */
  leadsInto(address: string): boolean {
    if (this.includes(address)) return true;
    const embedded = embeddedIpv4(address.replace(/%.*$/s, ""));
    return embedded !== undefined && this.includes(embedded);
  }
}

/** The IPv4 address to which one of IPv6 leads: mapped, compatible, translated (RFC 2765, RFC 6052) or by 6to4. */
function embeddedIpv4(address: string): string | undefined {
  if (isIP(address) !== 6) return undefined;
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
