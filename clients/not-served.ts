// Why checks of clients fail: parts of Consul that Peerage does not serve, as docs/not-served.md lists them.

export const KEY_VALUE = "The key-value store is not served.";
export const SESSIONS = "Sessions are not served.";
export const EVENTS = "Events are not served.";
export const GOSSIP = "There is no gossip, and so no members to join or to leave.";
export const COORDINATES = "Coordinates are not served.";
export const SCRIPTS = "Scripts are not run, neither in containers nor outside.";
export const OPERATOR = "Of the operator API little is served.";
export const SERVER_PORT = "There is no port of Consul's servers, 8300: an agent tells where peers reach it.";
export const UNKNOWN_CA_KEY = "A key of a provider's configuration that nobody knows is refused.";
export const AGENT_TOKENS = "Tokens of an agent are not changed over HTTP.";
