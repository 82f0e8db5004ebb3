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
 * Follows a ride by long polls, as a phone does, prints what is said, marks it as read, and sends each line of its input.
 *
 *   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… STATE=… java Chat.java
 *
 * What has been read and what is still to be sent is kept in STATE, a directory for this user: an app may be ended at any moment.
 * Ends with 0 when there is nothing more to come, and with 1 when the server refuses the token or the ride.
 */
public final class Chat {
    static final String API = System.getenv().getOrDefault("SERVER", "http://127.0.0.1:8080") + "/api/v1";
    static final String RIDE = System.getenv("RIDE");
    static final Path STATE = Path.of(System.getenv("STATE"), RIDE);
    static final Path OUTBOX = STATE.resolve("outbox");
    /** Seconds that a poll waits for an event: less than what the networks on the way cut a silent connection after. */
    static final int WAIT = 25;

    static final PrintStream OUT = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
    static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

    public static void main(String[] args) throws Exception {
        Files.createDirectories(OUTBOX);
        daemon(Chat::keepInput);
        daemon(Chat::send);
        String cursor = Files.exists(STATE.resolve("cursor")) ? Files.readString(STATE.resolve("cursor")) : "0";
        String unmarked = null;
        for (int failures = 0; ; ) {
            Optional<HttpResponse<String>> answer = Optional.empty();
            try {
                String query = "?types=message:*&wait=" + WAIT + "&after=" + cursor;
                answer = ask("GET", "/messages/rides/" + RIDE + "/poll" + query, null, WAIT + 10);
                int status = answer.map(HttpResponse::statusCode).orElse(503);
                if (status == 200) {
                    Map<?, ?> found = (Map<?, ?>) Json.parse(answer.get().body());
                    if (found.get("gap") != null) System.err.println("no longer kept: " + found.get("gap"));
                    for (Object event : (List<?>) found.get("events")) {
                        unmarked = take((Map<?, ?>) event, unmarked);
                    }
                    // Together with what was taken, in an app that has a database.
                    cursor = (String) found.get("cursor");
                    keep(STATE.resolve("cursor"), cursor);
                    // One mark for all that came; where it does not get through, the next turn tries again.
                    if (unmarked != null && ask("POST", "/messages/" + unmarked + "/read", "", 10).isPresent()) unmarked = null;
                    if (found.get("closed") == Boolean.TRUE) end(0, "the end");
                    failures = 0;
                    continue;
                }
                if (status == 401) end(1, "sign in again");
                if (!isTransient(status)) end(1, "not a ride of yours");
            } catch (ClassCastException | IllegalArgumentException | IndexOutOfBoundsException e) {
                System.err.println("not an answer of the server: " + e.getMessage());
            }
            pause(failures++, answer);
        }
    }

    /** Shows an event, and tells what is to be marked now. */
    static String take(Map<?, ?> event, String unmarked) {
        if (!event.get("type").equals("message:new")) return unmarked;
        Map<?, ?> message = (Map<?, ?>) event.get("data");
        OUT.println(message.get("seq") + " " + message.get("senderId") + ": " + message.get("content"));
        return (String) message.get("id");
    }

    /** Keeps what is typed, with an id made once: whichever of the tries to send it were committed, they are one message. */
    static void keepInput() throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        long last = 0;
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            last = Math.max(last + 1, System.currentTimeMillis());
            synchronized (OUTBOX) {
                keep(OUTBOX.resolve(last + " " + UUID.randomUUID()), line);
                OUTBOX.notifyAll();
            }
        }
    }

    /** Sends what is kept, one after the other, each until it is answered. */
    static void send() throws IOException, InterruptedException {
        while (true) {
            Path draft = nextDraft();
            String id = draft.getFileName().toString().split(" ")[1];
            String body = "{\"rideId\":" + Json.quote(RIDE) + ",\"clientMessageId\":" + Json.quote(id)
                    + ",\"content\":" + Json.quote(Files.readString(draft)) + "}";
            for (int failures = 0; ; failures++) {
                Optional<HttpResponse<String>> answer = ask("POST", "/messages", body, 10);
                if (answer.isPresent() && !isTransient(answer.get().statusCode())) {
                    if (answer.get().statusCode() >= 300) System.err.println("not accepted: " + answer.get().body());
                    break;
                }
                pause(failures, answer);
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

    /** An answer, or none; the request may have been committed all the same. */
    static Optional<HttpResponse<String>> ask(String method, String path, String body, int seconds) throws InterruptedException {
        // Your login's token. Asked for each time, so that one which has ended is replaced; a 401 is final then.
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

    /** As long as the server asks for, longer the more often it was in vain, and not when all others come back. */
    static void pause(int failures, Optional<HttpResponse<String>> answer) throws InterruptedException {
        String asked = answer.flatMap(it -> it.headers().firstValue("retry-after")).orElse("0");
        int retry = asked.matches("\\d{1,5}") ? Integer.parseInt(asked) : 0;
        double seconds = Math.max(retry, Math.min(30, 0.5 * Math.pow(2, failures)));
        Thread.sleep((long) (1000 * seconds * ThreadLocalRandom.current().nextDouble(1, 1.5)));
    }

    /** Replaces a file whole, so that it is never found half written. */
    static void keep(Path file, String text) throws IOException {
        Path written = file.resolveSibling(file.getFileName() + ".new");
        Files.writeString(written, text);
        Files.move(written, file, StandardCopyOption.ATOMIC_MOVE);
    }

    static void end(int code, String why) {
        System.err.println(why);
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

    /** As much of JSON as is needed here, to depend on nothing. An app takes the library that it has. */
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
