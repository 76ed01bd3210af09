import com.google.common.net.HostAndPort;
import com.orbitz.consul.Consul;
import com.orbitz.consul.NotRegisteredException;
import com.orbitz.consul.cache.KVCache;
import com.orbitz.consul.cache.ServiceHealthCache;
import com.orbitz.consul.config.CacheConfig;
import com.orbitz.consul.config.ClientConfig;
import com.orbitz.consul.model.agent.ImmutableRegistration;
import com.orbitz.consul.model.agent.Registration;
import com.orbitz.consul.option.ImmutableQueryOptions;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** com.orbitz.consul:consul-client, with its caches, which wait for changes. */
final class Orbitz {
  private Orbitz() {}

  static void run(String host, int port) {
    CacheConfig cache = CacheConfig.builder().withWatchDuration(Duration.ofSeconds(2)).withMinDelayBetweenRequests(Duration.ZERO).build();
    Consul consul = Consul.builder()
        .withHostAndPort(HostAndPort.fromParts(host, port))
        .withClientConfiguration(new ClientConfig(cache))
        .build();
    Checks.check("orbitz ping and status", () -> {
      consul.agentClient().ping();
      Checks.holds(consul.statusClient().getLeader().startsWith("127.0.0.1:"), "a leader");
      Checks.equal(consul.statusClient().getPeers().size(), 1);
    });
    Checks.check("orbitz agent", () -> {
      Checks.equal(consul.agentClient().getAgent().getConfig().getDatacenter(), System.getenv("DATACENTER"));
      Checks.equal(consul.agentClient().getMembers().size(), 1);
    });
    Checks.check("orbitz registration with a TTL, passed, in maintenance, deregistered", () -> {
      consul.agentClient().register(8080, 30L, "orbitz", "o-1", List.of("a"), Map.of("k", "v"));
      Checks.holds(consul.agentClient().isRegistered("o-1"), "it is registered");
      Checks.equal(consul.healthClient().getHealthyServiceInstances("orbitz").getResponse().size(), 0);
      consul.agentClient().pass("o-1");
      Checks.soon(() -> Checks.equal(consul.healthClient().getHealthyServiceInstances("orbitz").getResponse().size(), 1));
      consul.agentClient().toggleMaintenanceMode("o-1", true);
      Checks.soon(() -> Checks.equal(consul.healthClient().getHealthyServiceInstances("orbitz").getResponse().size(), 0));
      consul.agentClient().toggleMaintenanceMode("o-1", false);
      consul.agentClient().deregister("o-1");
      Checks.soon(() -> Checks.equal(consul.healthClient().getAllServiceInstances("orbitz").getResponse().size(), 0));
    });
    Checks.check("orbitz report of what is not registered", () -> {
      try {
        consul.agentClient().pass("nothing");
      } catch (NotRegisteredException error) {
        return;
      }
      throw new AssertionError("it is not refused");
    });
    Checks.check("orbitz registration with an HTTP check", () -> {
      Registration registration = ImmutableRegistration.builder()
          .name("orbitz-http").id("o-2").port(1)
          .check(Registration.RegCheck.http("http://127.0.0.1:1/", 10))
          .build();
      consul.agentClient().register(registration);
      Checks.equal(consul.agentClient().getChecks().get("service:o-2").getServiceId(), Optional.of("o-2"));
      consul.agentClient().deregister("o-2");
    });
    Checks.check("orbitz catalog", () -> {
      Checks.holds(consul.catalogClient().getServices().getResponse().containsKey("web"), "web");
      Checks.equal(consul.catalogClient().getService("web").getResponse().size(), 2);
      Checks.equal(consul.catalogClient().getDatacenters(), List.of(System.getenv("DATACENTER")));
      Checks.equal(consul.catalogClient().getNode("node-0").getResponse().getServices().size(), 1);
    });
    Checks.check("orbitz health cache tells of changes, and asks seldom", () -> {
      AtomicInteger told = new AtomicInteger();
      AtomicInteger size = new AtomicInteger(-1);
      ServiceHealthCache services = ServiceHealthCache.newCache(consul.healthClient(), "cached");
      services.addListener(found -> {
        told.incrementAndGet();
        size.set(found.size());
      });
      services.start();
      Checks.holds(services.awaitInitialized(10, TimeUnit.SECONDS), "it is initialized");
      consul.agentClient().register(ImmutableRegistration.builder().name("cached").id("c-1").port(1).build());
      Checks.soon(() -> Checks.equal(size.get(), 1));
      consul.agentClient().deregister("c-1");
      Checks.soon(() -> Checks.equal(size.get(), 0));
      services.stop();
      Checks.holds(told.get() <= 6, told.get() + " times");
    });
    Checks.check("orbitz cache of keys that are not there", () -> {
      AtomicInteger told = new AtomicInteger();
      KVCache keys = KVCache.newCache(consul.keyValueClient(), "no/such", 1);
      keys.addListener(found -> told.incrementAndGet());
      keys.start();
      Checks.holds(keys.awaitInitialized(10, TimeUnit.SECONDS), "it is initialized");
      Thread.sleep(3_000);
      keys.stop();
      Checks.holds(told.get() <= 2, told.get() + " times");
    });
    Checks.check("orbitz waits for changes", () -> {
      var first = consul.healthClient().getAllServiceInstances("web");
      long before = System.nanoTime();
      consul.healthClient().getAllServiceInstances(
          "web", ImmutableQueryOptions.builder().index(first.getIndex()).wait("1s").build());
      Checks.holds(System.nanoTime() - before > 900_000_000L, "it waits");
    });
    Checks.check("orbitz key that is set", () -> {
      Checks.holds(consul.keyValueClient().putValue("orbitz", "v"), "it is set");
      Checks.equal(consul.keyValueClient().getValueAsString("orbitz"), Optional.of("v"));
    });
    consul.destroy();
  }
}
