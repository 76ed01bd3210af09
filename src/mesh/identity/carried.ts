/** The header in which a mesh gateway says whose request it carries (Envoy). */
export const CARRIED_HEADER = "x-forwarded-client-cert";

const FIELD = `(?:By=[^;,"]*|Hash=[^;,"]*|(?:Cert|Chain|Subject)="[^;,"\\\\]*")`;

/**
 * A pattern, for JavaScript and for RE2, of the header with an identity at the end of its first element. The other fields of the element are
 * matched exactly, where Consul (1.21) takes anything without a comma for them (D-67): a peer chooses the subject of its
 * certificates, which may hold the text of another identity, and a certificate of two identities makes two fields of them.
 * @param identity - a pattern of the identity.
 */
export function carriedPattern(identity: string): string {
  return `^(?:${FIELD};)+URI=${identity}(?:,.*)?$`;
}

/** Any identity. */
export const ANY_IDENTITY = '[^;,"]+';
