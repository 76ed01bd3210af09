import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { HttpPair } from "../../support/http-pair.js";

// The answers of Consul 1.21.4 to the same questions about the same instances.

describe("?tag=", { timeout: 60_000 }, () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start();
    const node = { node: "n1", address: "10.0.0.1" };
    await pair.b.host.catalog.registerAll([
      { ...node, service: { id: "both", name: "web", port: 1, tags: ["a", "B"] } },
      { ...node, service: { id: "none", name: "web", port: 2 } },
      { ...node, service: { id: "empty", name: "web", port: 3, tags: [""] } },
      {
        ...node,
        service: {
          kind: "connect-proxy",
          id: "proxy",
          name: "web-proxy",
          port: 4,
          tags: ["a"],
          proxy: { destinationServiceName: "web" },
        },
      },
    ]);
  });
  after(() => pair[Symbol.asyncDispose]());

  for (const path of ["/v1/health/service/web", "/v1/catalog/service/web"]) {
    it(`chooses the instances that carry each tag, an empty one like any other, in ${path}`, async () => {
      const ids = async (query: string): Promise<string> => {
        const { text } = await pair.b.ask("GET", `${path}${query}`);
        const found: readonly { readonly ServiceID?: string; readonly Service?: { readonly ID: string } }[] =
          JSON.parse(text);
        return found.map((each) => each.Service?.ID ?? each.ServiceID ?? "").join(" ");
      };
      assert.equal(await ids(""), "both empty none");
      assert.equal(await ids("?tag=A"), "both");
      assert.equal(await ids("?tag=a&tag=b"), "both");
      assert.equal(await ids("?tag=a&tag=c"), "");
      for (const query of ["?tag=", "?tag"]) assert.equal(await ids(query), "empty");
      for (const query of ["?tag=&tag=a", "?tag=a&tag="]) assert.equal(await ids(query), "");
    });
  }

  it("chooses none of those that speak for a service in the mesh", async () => {
    for (const path of ["/v1/health/connect/web", "/v1/catalog/connect/web"]) {
      for (const query of ["", "?tag=", "?tag=c"]) {
        const { text } = await pair.b.ask("GET", `${path}${query}`);
        assert.equal(JSON.parse(text).length, 1, `${path}${query}`);
      }
    }
  });
});
