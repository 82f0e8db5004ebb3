import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Follows a ride with long polls, as a phone does. Prints its messages, marks them as read, and sends each line of its input.
 *
 *   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… STATE=… java Chat.java
 *
 * The directory STATE has the cursor and the unsent messages of this user, because the system may end an app at any moment.
 * Exits with 0 when the ride is closed or the user was removed, and with 1 when the server rejects the token or the ride.
 */
public final class Chat {
    static final String API = System.getenv().getOrDefault("SERVER", "http://127.0.0.1:8080") + "/api/v1";
    static final String RIDE = System.getenv("RIDE");
    static final Path STATE = Path.of(System.getenv("STATE"), RIDE);
    static final Path OUTBOX = STATE.resolve("outbox");
    /** Seconds that a poll waits for an event. It must be shorter than the idle timeout of the networks in between. */
    static final int WAIT = 25;

    static final PrintStream OUT = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
    static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

    public static void main(String[] args) throws Exception {
        Files.createDirectories(OUTBOX);
        daemon(Chat::storeInput);
        daemon(Chat::send);
        String cursor = Files.exists(STATE.resolve("cursor")) ? Files.readString(STATE.resolve("cursor")) : "0";
        String unmarked = null;
        for (int failures = 0; ; ) {
            Optional<HttpResponse<String>> response = Optional.empty();
            try {
                String query = "?types=message:*&wait=" + WAIT + "&after=" + cursor;
                response = request("GET", "/messages/rides/" + RIDE + "/poll" + query, null, WAIT + 10);
                int status = response.map(HttpResponse::statusCode).orElse(503);
                if (status == 200) {
                    Map<?, ?> page = (Map<?, ?>) Json.parse(response.get().body());
                    if (page.get("gap") != null) System.err.println("no longer kept: " + page.get("gap"));
                    for (Object event : (List<?>) page.get("events")) {
                        unmarked = handle((Map<?, ?>) event, unmarked);
                    }
                    // An app with a database stores the cursor together with the handled events.
                    cursor = (String) page.get("cursor");
                    store(STATE.resolve("cursor"), cursor);
                    // One request marks all of them as read. If it fails, the next iteration repeats it.
                    if (unmarked != null && request("POST", "/messages/" + unmarked + "/read", "", 10).isPresent()) unmarked = null;
                    if (page.get("closed") == Boolean.TRUE) end(0, "the end");
                    failures = 0;
                    continue;
                }
                if (status == 401) end(1, "sign in again");
                if (!isTransient(status)) end(1, "not a ride of yours");
            } catch (ClassCastException | IllegalArgumentException | IndexOutOfBoundsException e) {
                System.err.println("invalid response: " + e.getMessage());
            }
            pause(failures++, response);
        }
    }

    /** Prints an event, and returns the message to mark as read. */
    static String handle(Map<?, ?> event, String unmarked) {
        if (!event.get("type").equals("message:new")) return unmarked;
        Map<?, ?> message = (Map<?, ?>) event.get("data");
        OUT.println(message.get("seq") + " " + message.get("senderId") + ": " + message.get("content"));
        return (String) message.get("id");
    }

    /** Stores each line of the input with one id for all attempts to send it, so they create one message. */
    static void storeInput() throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        long last = 0;
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            last = Math.max(last + 1, System.currentTimeMillis());
            synchronized (OUTBOX) {
                store(OUTBOX.resolve(last + " " + UUID.randomUUID()), line);
                OUTBOX.notifyAll();
            }
        }
    }

    /** Sends the stored messages one after the other, each until there is a response. */
    static void send() throws IOException, InterruptedException {
        while (true) {
            Path draft = nextDraft();
            String id = draft.getFileName().toString().split(" ")[1];
            String body = "{\"rideId\":" + Json.quote(RIDE) + ",\"clientMessageId\":" + Json.quote(id)
                    + ",\"content\":" + Json.quote(Files.readString(draft)) + "}";
            for (int failures = 0; ; failures++) {
                Optional<HttpResponse<String>> response = request("POST", "/messages", body, 10);
                if (response.isPresent() && !isTransient(response.get().statusCode())) {
                    if (response.get().statusCode() >= 300) System.err.println("not accepted: " + response.get().body());
                    break;
                }
                pause(failures, response);
            }
            Files.delete(draft);
        }
    }

    static Path nextDraft() throws IOException, InterruptedException {
        synchronized (OUTBOX) {
            while (true) {
                try (var drafts = Files.list(OUTBOX)) {
                    Optional<Path> first = drafts.filter(path -> !path.toString().endsWith(".new")).sorted().findFirst();
                    if (first.isPresent()) return first.get();
                }
                OUTBOX.wait();
            }
        }
    }

    /** Returns the response, or nothing; the request may have been committed without one. */
    static Optional<HttpResponse<String>> request(String method, String path, String body, int seconds) throws InterruptedException {
        // Your login's token, read for each request, so that an expired one is replaced. A 401 is therefore final.
        String token = System.getenv("TOKEN");
        HttpRequest request = HttpRequest.newBuilder(URI.create(API + path)).timeout(Duration.ofSeconds(seconds))
                .header("Authorization", "Bearer " + token)
                .method(method, body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body)).build();
        try {
            return Optional.of(HTTP.send(request, BodyHandlers.ofString()));
        } catch (IOException e) {
            return Optional.empty();
        }
    }

    static boolean isTransient(int status) {
        return status >= 500 || status == 408 || status == 425 || status == 429;
    }

    /** Waits for the delay that the server requests, with exponential backoff and jitter. */
    static void pause(int failures, Optional<HttpResponse<String>> response) throws InterruptedException {
        String requested = response.flatMap(it -> it.headers().firstValue("retry-after")).orElse("0");
        int retry = requested.matches("\\d{1,5}") ? Integer.parseInt(requested) : 0;
        double seconds = Math.max(retry, Math.min(30, 0.5 * Math.pow(2, failures)));
        Thread.sleep((long) (1000 * seconds * ThreadLocalRandom.current().nextDouble(1, 1.5)));
    }

    /** Replaces a file atomically, so that no reader sees a partial file. */
    static void store(Path file, String text) throws IOException {
        Path written = file.resolveSibling(file.getFileName() + ".new");
        Files.writeString(written, text);
        Files.move(written, file, StandardCopyOption.ATOMIC_MOVE);
    }

    static void end(int code, String reason) {
        System.err.println(reason);
        System.exit(code);
    }

    interface Job {
        void run() throws Exception;
    }

    static void daemon(Job job) {
        Thread thread = new Thread(() -> {
            try {
                job.run();
            } catch (Exception e) {
                e.printStackTrace();
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    /** A minimal JSON parser, so that this file has no dependency. An app uses its own library. */
    static final class Json {
        private final String text;
        private int at;

        private Json(String text) {
            this.text = text;
        }

        static Object parse(String text) {
            return new Json(text).value();
        }

        static String quote(String text) {
            StringBuilder quoted = new StringBuilder("\"");
            for (char c : text.toCharArray()) {
                if (c == '"' || c == '\\') quoted.append('\\').append(c);
                else if (c < ' ') quoted.append(String.format("\\u%04x", (int) c));
                else quoted.append(c);
            }
            return quoted.append('"').toString();
        }

        private Object value() {
            switch (peek()) {
                case '{':
                    Map<String, Object> object = new LinkedHashMap<>();
                    for (at++; peek() != '}'; ) {
                        if (peek() == ',') at++;
                        peek();
                        String name = string();
                        if (peek() != ':') throw new IllegalArgumentException("no colon at " + at);
                        at++;
                        object.put(name, value());
                    }
                    at++;
                    return object;
                case '[':
                    List<Object> list = new ArrayList<>();
                    for (at++; peek() != ']'; list.add(value())) if (peek() == ',') at++;
                    at++;
                    return list;
                case '"':
                    return string();
                default:
                    int from = at;
                    while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) at++;
                    String word = text.substring(from, at);
                    return switch (word) {
                        case "null" -> null;
                        case "true" -> true;
                        case "false" -> false;
                        default -> new BigDecimal(word);
                    };
            }
        }

        private char peek() {
            while (Character.isWhitespace(text.charAt(at))) at++;
            return text.charAt(at);
        }

        private String string() {
            StringBuilder string = new StringBuilder();
            for (at++; text.charAt(at) != '"'; at++) {
                char c = text.charAt(at);
                if (c == '\\') {
                    c = text.charAt(++at);
                    int escaped = "bfnrt".indexOf(c);
                    if (escaped >= 0) {
                        c = "\b\f\n\r\t".charAt(escaped);
                    } else if (c == 'u') {
                        c = (char) Integer.parseInt(text.substring(at + 1, at + 5), 16);
                        at += 4;
                    }
                }
                string.append(c);
            }
            at++;
            return string.toString();
        }
    }
}
