import {
  type CertificateValidationContextSchema,
  type CommonTlsContextSchema,
  DownstreamTlsContextSchema,
  SanType,
  type SecretSchema,
  SPIFFECertValidatorConfigSchema,
  TlsProtocol,
  type TransportSocketSchema,
  UpstreamTlsContextSchema,
} from "../../wire/envoy.js";
import type { MessageFields } from "../../wire/schema.js";
import type { TrustedDomain } from "../snapshot/bundles.js";
import type { TlsTerms } from "../snapshot/settings.js";
import type { ProxyLeaf } from "../snapshot/view.js";
import { adsSource, named, packed } from "./values.js";

/** Whether keys and roots are written into clusters and listeners, as Consul does, or sent by themselves. */
export type TlsPlacement = "inline" | "sds";

/** A certificate and its name among secrets. */
export interface NamedLeaf {
  readonly name: string;
  readonly leaf: ProxyLeaf;
}

type Validation = MessageFields<typeof CertificateValidationContextSchema>;
type Common = MessageFields<typeof CommonTlsContextSchema>;
type Secret = MessageFields<typeof SecretSchema>;

const VERSIONS: Readonly<Record<string, TlsProtocol>> = {
  TLS_AUTO: TlsProtocol.TLS_AUTO,
  TLSv1_0: TlsProtocol.TLSv1_0,
  TLSv1_1: TlsProtocol.TLSv1_1,
  TLSv1_2: TlsProtocol.TLSv1_2,
  TLSv1_3: TlsProtocol.TLSv1_3,
};

/** Makes the TLS of clusters and listeners, and with placement `sds` the secrets that these name. */
export class TlsContexts {
  readonly #placement: TlsPlacement;
  readonly #fetchTimeoutMs: number | undefined;
  readonly #secrets = new Map<string, Secret>();

  constructor(placement: TlsPlacement, fetchTimeoutMs: number | undefined) {
    this.#placement = placement;
    this.#fetchTimeoutMs = fetchTimeoutMs;
  }

  /** All that was named so far. */
  get secrets(): readonly Secret[] {
    return [...this.#secrets.values()];
  }

  /**
   * Of a connection to a service, which must show one of the identities.
   * @param roots - by which its certificate is judged, and their name among secrets.
   * @throws {TypeError} without a name or an identity: any service of that cluster would be taken for the one that is meant.
   */
  upstream(options: {
    readonly leaf: NamedLeaf;
    readonly roots: { readonly name: string; readonly pem: string };
    readonly sni: string;
    readonly spiffeIds: readonly string[];
    readonly terms: TlsTerms;
  }): MessageFields<typeof TransportSocketSchema> {
    const { leaf, roots, sni, spiffeIds, terms } = options;
    if (sni === "" || spiffeIds.length === 0) throw new TypeError("a connection needs a name and an identity to check");
    const names: Validation = {
      matchTypedSubjectAltNames: spiffeIds.map((id) => ({
        sanType: SanType.URI,
        matcher: { matchPattern: { case: "exact", value: id } },
      })),
    };
    const trusted: Validation = { trustedCa: inline(roots.pem) };
    return named("tls", UpstreamTlsContextSchema, {
      commonTlsContext: {
        ...this.#own(leaf, terms),
        validationContextType:
          this.#placement === "inline"
            ? { case: "validationContext", value: { ...trusted, ...names } }
            : {
                case: "combinedValidationContext",
                value: {
                  // The secret alone would let in every identity of the trust domain.
                  defaultValidationContext: names,
                  validationContextSdsSecretConfig: this.#refer(roots.name, {
                    type: { case: "validationContext", value: trusted },
                  }),
                },
              },
      },
      sni,
    });
  }

  /**
   * Of a listener, whose callers must show a certificate of one of the domains.
   * @param scope - names the callers among secrets.
   */
  downstream(options: {
    readonly leaf: NamedLeaf;
    /** Ours first in importance; at least ours. */
    readonly domains: readonly TrustedDomain[];
    readonly scope: string;
    readonly protocol: string;
    readonly terms: TlsTerms;
  }): MessageFields<typeof TransportSocketSchema> {
    const { leaf, domains, scope, protocol, terms } = options;
    const validation = validationOf(domains);
    return named("tls", DownstreamTlsContextSchema, {
      commonTlsContext: {
        ...this.#own(leaf, terms),
        alpnProtocols: alpnOf(protocol),
        validationContextType:
          this.#placement === "inline"
            ? { case: "validationContext", value: validation }
            : {
                case: "validationContextSdsSecretConfig",
                value: this.#refer(`union/${scope}`, { type: { case: "validationContext", value: validation } }),
              },
      },
      requireClientCertificate: true,
    });
  }

  #own({ name, leaf }: NamedLeaf, terms: TlsTerms): Common {
    const certificate = {
      certificateChain: inline(leaf.certificateChainPem),
      privateKey: inline(leaf.privateKeyPem),
    };
    const tlsParams = {
      tlsMinimumProtocolVersion: VERSIONS[terms.minVersion] ?? TlsProtocol.TLS_AUTO,
      tlsMaximumProtocolVersion: VERSIONS[terms.maxVersion] ?? TlsProtocol.TLS_AUTO,
      cipherSuites: [...terms.cipherSuites],
    };
    if (this.#placement === "inline") return { tlsParams, tlsCertificates: [certificate] };
    return {
      tlsParams,
      tlsCertificateSdsSecretConfigs: [this.#refer(name, { type: { case: "tlsCertificate", value: certificate } })],
    };
  }

  #refer(name: string, secret: Pick<Secret, "type">) {
    this.#secrets.set(name, { ...secret, name });
    return { name, sdsConfig: adsSource(this.#fetchTimeoutMs) };
  }
}

/** With callers of our own alone, our roots; else the roots of each trust domain, of which Envoy takes those that the caller names. */
function validationOf(domains: readonly TrustedDomain[]): Validation {
  const [only] = domains;
  if (only === undefined) throw new TypeError("a listener needs roots to judge its callers by");
  if (domains.length === 1) return { trustedCa: inline(only.rootPems) };
  return {
    customValidatorConfig: {
      name: "envoy.tls.cert_validator.spiffe",
      typedConfig: packed(SPIFFECertValidatorConfigSchema, {
        trustDomains: domains.map(({ trustDomain, rootPems }) => ({
          name: trustDomain,
          trustBundle: inline(rootPems),
        })),
      }),
    },
  };
}

function alpnOf(protocol: string): string[] {
  if (protocol === "http") return ["http/1.1"];
  return protocol === "http2" || protocol === "grpc" ? ["h2", "http/1.1"] : [];
}

function inline(value: string): { readonly specifier: { readonly case: "inlineString"; readonly value: string } } {
  return { specifier: { case: "inlineString", value } };
}
