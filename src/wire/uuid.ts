/**
 * Whether `text` is a UUID in its usual spelling: 36 characters, hex 8-4-4-4-12, in either case. Version and variant
 * bits are not looked at, for Consul's ids set none (1.13 to 1.22).
 */
export function isUuid(text: string): boolean {
  return text.length === 36 && /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
}
