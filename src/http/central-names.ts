/**
 * Which `service-defaults` the answers of reads depend on. Found once for all that wait for the same, whenever an entry was
 * written: many may wait, and one answer may be about thousands of proxies.
 */
export class CentralNames {
  readonly #known = new Map<string, ReadonlySet<string>>();
  #revision = "";

  /**
   * Lower-cased names.
   * @param revision - another one whenever entries or instances are others.
   * @param what - is read.
   */
  of(revision: string, what: string, find: () => ReadonlySet<string>): ReadonlySet<string> {
    if (revision !== this.#revision) this.#known.clear();
    this.#revision = revision;
    const names = this.#known.get(what) ?? find();
    this.#known.set(what, names);
    return names;
  }
}
