package app;

import java.util.List;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.context.event.ApplicationReadyEvent;
import org.springframework.cloud.client.ServiceInstance;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.context.event.EventListener;

/** An application that registers itself, becomes healthy by its check, and discovers others. Prints a line for each check. */
@SpringBootApplication
public class App {
  private final DiscoveryClient discovery;

  App(DiscoveryClient discovery) {
    this.discovery = discovery;
  }

  public static void main(String[] args) {
    String[] address = System.getenv("CONSUL_HTTP_ADDR").split(":");
    SpringApplication application = new SpringApplication(App.class);
    application.setDefaultProperties(Map.of(
        "server.port", "0",
        "server.address", "127.0.0.1",
        "spring.main.banner-mode", "off",
        "spring.application.name", "spring-app",
        "spring.cloud.consul.host", address[0],
        "spring.cloud.consul.port", address[1],
        "spring.cloud.consul.discovery.ip-address", "127.0.0.1",
        "spring.cloud.consul.discovery.prefer-ip-address", "true",
        "spring.cloud.consul.discovery.health-check-interval", "1s",
        "spring.cloud.consul.discovery.query-passing", "true"));
    application.run(args);
  }

  interface Run {
    void run() throws Exception;
  }

  private static void soon(String name, Run run) {
    long end = System.nanoTime() + 30_000_000_000L;
    while (true) {
      try {
        run.run();
        System.out.println("ok " + name);
        return;
      } catch (Exception | AssertionError error) {
        if (System.nanoTime() > end) {
          System.out.println("not ok " + name + ": " + String.valueOf(error).replaceAll("\\s+", " "));
          return;
        }
      }
      try {
        Thread.sleep(100);
      } catch (InterruptedException error) {
        throw new IllegalStateException(error);
      }
    }
  }

  private static void holds(boolean condition, Object found) {
    if (!condition) throw new AssertionError(String.valueOf(found));
  }

  @EventListener(ApplicationReadyEvent.class)
  public void ready() {
    new Thread(() -> {
      soon("it discovers services", () -> {
        List<String> services = discovery.getServices();
        holds(services.contains("web") && services.contains("spring-app"), services);
      });
      soon("it discovers instances", () -> {
        List<ServiceInstance> instances = discovery.getInstances("web");
        holds(instances.size() == 2, instances);
        ServiceInstance first = instances.stream().filter(one -> one.getPort() == 8000).findFirst().orElseThrow();
        holds(first.getHost().equals("10.0.0.1"), first.getHost());
        holds("0".equals(first.getMetadata().get("version")), first.getMetadata());
      });
      soon("it becomes healthy by its check", () -> {
        List<ServiceInstance> instances = discovery.getInstances("spring-app");
        holds(instances.size() == 1, instances);
        holds(instances.get(0).getHost().equals("127.0.0.1"), instances);
      });
      soon("a service that is not there has no instances", () -> {
        List<ServiceInstance> instances = discovery.getInstances("none");
        holds(instances.isEmpty(), instances);
      });
      System.exit(0);
    }).start();
  }
}
