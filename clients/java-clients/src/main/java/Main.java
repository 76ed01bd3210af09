public final class Main {
  private Main() {}

  public static void main(String[] args) {
    String[] address = System.getenv("CONSUL_HTTP_ADDR").split(":");
    Ecwid.run(address[0], Integer.parseInt(address[1]));
    Orbitz.run(address[0], Integer.parseInt(address[1]));
    System.exit(0);
  }
}
