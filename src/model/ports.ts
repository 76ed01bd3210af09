import type { ServicePort } from "./instance.js";

/** Texts of Consul 1.22. Undefined: the ports are as they should be, or there are none. */
export function portsProblem(ports: readonly ServicePort[]): string | undefined {
  const names = new Set<string>();
  let defaults = 0;
  for (const { name, port, default: isDefault } of ports) {
    if (name.trim() === "") return "Ports.Name cannot be empty";
    if (port <= 0) return "Ports.Port must be greater than zero";
    if (names.has(name)) return `Ports.Name ${JSON.stringify(name)} has to be unique`;
    names.add(name);
    if (isDefault) defaults++;
    if (defaults > 1) return "Only one port can be marked as default";
  }
  return ports.length > 0 && defaults === 0 ? "One of the Ports must be marked as Default" : undefined;
}

/** The port that stands for all of them; 0 when none does. */
export function defaultPort(ports: readonly ServicePort[]): number {
  return ports.find((port) => port.default)?.port ?? 0;
}
