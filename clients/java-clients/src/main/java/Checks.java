import java.util.Objects;

/** Prints a line for each check. */
final class Checks {
  interface Run {
    void run() throws Exception;
  }

  private Checks() {}

  static void check(String name, Run run) {
    try {
      run.run();
      System.out.println("ok " + name);
    } catch (Exception | AssertionError error) {
      System.out.println("not ok " + name + ": " + String.valueOf(error).replaceAll("\\s+", " "));
    }
  }

  static void equal(Object found, Object expected) {
    if (!Objects.equals(found, expected)) throw new AssertionError("found " + found + ", not " + expected);
  }

  static void holds(boolean condition, String what) {
    if (!condition) throw new AssertionError(what);
  }

  /** Looks again until {@code run} no longer throws. */
  static void soon(Run run) throws Exception {
    long end = System.nanoTime() + 15_000_000_000L;
    while (true) {
      try {
        run.run();
        return;
      } catch (Exception | AssertionError error) {
        if (System.nanoTime() > end) throw error;
        Thread.sleep(50);
      }
    }
  }
}
