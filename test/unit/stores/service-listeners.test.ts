import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { ServiceListeners } from "../../../src/stores/service-listeners.js";

describe("listeners of single services", () => {
  const started = () => {
    const services = new Set(["web", "db"]);
    const listeners = new ServiceListeners(new Incidents(), (key) => services.has(key));
    const heard: string[] = [];
    const changed = (...keys: readonly string[]): readonly string[] => {
      heard.length = 0;
      listeners.emit(new Map(keys.map((key) => [key, key])));
      return [...heard];
    };
    const listen = (key: string, name = key): (() => void) => listeners.on(key, () => heard.push(name));
    return { services, changed, listen };
  };

  it("hear of changes of their own service alone, until they are removed", () => {
    const { changed, listen } = started();
    const remove = listen("web", "first");
    listen("web", "second");
    listen("db");
    assert.deepEqual(changed("web"), ["first", "second"]);
    assert.deepEqual(changed("db", "api"), ["db"]);
    remove();
    remove();
    assert.deepEqual(changed("web", "db"), ["second", "db"]);
  });

  it("hear of every change while there is no such service, from its end until it begins again", () => {
    const { services, changed, listen } = started();
    listen("api");
    listen("web");
    assert.deepEqual(changed("db"), ["api"]);
    services.add("api");
    assert.deepEqual(changed("api"), ["api"]);
    assert.deepEqual(changed("db"), []);
    services.delete("web");
    assert.deepEqual(changed("web"), ["web"]);
    assert.deepEqual(changed("db"), ["web"]);
  });

  it("of a service that nobody listened to meanwhile are looked at as it is then", () => {
    const { services, changed, listen } = started();
    const remove = listen("api");
    remove();
    services.add("api");
    listen("api", "again");
    assert.deepEqual(changed("db"), []);
    assert.deepEqual(changed("api"), ["again"]);
  });
});
