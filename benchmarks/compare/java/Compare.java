import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/**
 * Kafka Streams doing THE WORK (benchmarks/compare/work.py): a source and one processor, one stream thread.
 *
 * <p>Tuned: Jackson's data binding with one ObjectReader (its Blackbird module was tried and changed nothing); the groups
 * in HashMaps, as the Python contestants hold them in dicts, and not in state stores with changelogs, which would only
 * add to the cost; one Mac, initialised once; 4 MB fetches, 10,000 records a poll and as many buffered a partition; a heap
 * of 1 GB, everything else of the JVM as it comes (G1). The inserts are RowBinary over the JDK's HTTP client, both stores
 * at the same time; the stream thread waits for them, as Kafka Streams asks of a processor, so that a commit never passes
 * an insert.
 */
public final class Compare {
    static final long HOUR_MS = 3_600_000;
    static final int BATCH = 40_000;
    static final byte[] KEY = "the key of one tenant and purpose".getBytes(StandardCharsets.UTF_8);

    /** What a contestant is told. */
    public static final class Task {
        public String broker, topic, group, preferences, rows_url, counts_url, password;
        public int events;
        public boolean inserts;
    }

    /** One record, typed. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Event {
        public String event_id, kind, tenant, mailing, recipient, url, link, user_agent, ip;
        public long occurred_at;

        void check() {
            if (event_id == null || tenant == null || mailing == null || recipient == null || occurred_at == 0) {
                throw new IllegalArgumentException("a required field is missing");
            }
            if (!"open".equals(kind) && !"click".equals(kind)) {
                throw new IllegalArgumentException("kind is open or click");
            }
        }
    }

    record Cell(String mailing, String kind, String link, long hour) {}

    /** The whole work, called by the one stream thread only. */
    static final class Work {
        final Task task;
        final ObjectReader reader;
        final Map<String, byte[]> known = new HashMap<>();
        final Map<String, Set<String>> people = new HashMap<>();
        final Map<Cell, Long> totals = new HashMap<>();
        final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        final Mac mac;
        Map<Cell, long[]> cells = new HashMap<>();
        ByteArrayOutputStream rowBytes = new ByteArrayOutputStream(1 << 22);
        int count, flushed;
        long rows, sum;
        final long[] nanos = new long[3], cpu = new long[3];

        Work(Task task) throws IOException, GeneralSecurityException {
            this.task = task;
            ObjectMapper mapper = JsonMapper.builder()
                    .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS)
                    .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES)
                    .build();
            reader = mapper.readerFor(Event.class);
            for (String line : Files.readAllLines(Path.of(task.preferences))) {
                int tab = line.indexOf('\t');
                String salt = line.substring(tab + 1);
                known.put(line.substring(0, tab), HexFormat.of().parseHex(salt));
            }
            mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(KEY, "HmacSHA256"));
        }

        void one(byte[] raw) throws IOException {
            if (count == 0) {
                mark(0);
            }
            Event event = reader.readValue(raw);
            event.check();
            String link = event.url == null ? "" : withoutQuery(event.url);
            Cell cell = new Cell(event.mailing, event.kind, link, event.occurred_at / HOUR_MS);
            cells.computeIfAbsent(cell, absent -> new long[1])[0]++;
            people.computeIfAbsent(event.mailing, absent -> new HashSet<>()).add(event.recipient);
            byte[] salt = known.get(event.recipient);
            if (salt != null && salt.length > 0) {
                mac.update(salt);
                byte[] name = Arrays.copyOf(mac.doFinal(event.recipient.getBytes(StandardCharsets.UTF_8)), 16);
                rows++;
                sum += ByteBuffer.wrap(name).order(ByteOrder.LITTLE_ENDIAN).getLong();
                if (task.inserts) {
                    text(rowBytes, event.mailing);
                    text(rowBytes, event.kind);
                    text(rowBytes, link);
                    number(rowBytes, event.occurred_at);
                    rowBytes.writeBytes(name);
                }
            }
            count++;
            if (count == task.events / 2) {
                mark(1);
            }
            if (task.inserts && count - flushed >= BATCH) {
                flush();
            }
            if (count == task.events) {
                if (count > flushed) {
                    flush();
                }
                mark(2);
                say();
                Runtime.getRuntime().halt(0);
            }
        }

        static String withoutQuery(String url) {
            for (int at = 0; at < url.length(); at++) {
                char found = url.charAt(at);
                if (found == '?' || found == '#') {
                    return url.substring(0, at);
                }
            }
            return url;
        }

        void mark(int which) {
            nanos[which] = System.nanoTime();
            cpu[which] = ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                    .getProcessCpuTime();
        }

        void flush() {
            if (task.inserts) {
                ByteArrayOutputStream counts = new ByteArrayOutputStream();
                cells.forEach((cell, events) -> {
                    text(counts, cell.mailing);
                    text(counts, cell.kind);
                    text(counts, cell.link);
                    number(counts, cell.hour);
                    number(counts, events[0]);
                });
                CompletableFuture<?> first = post(task.rows_url, "rows", rowBytes.toByteArray());
                CompletableFuture<?> second = post(task.counts_url, "counts", counts.toByteArray());
                first.join();
                second.join();
                rowBytes.reset();
            }
            cells.forEach((cell, events) -> totals.merge(cell, events[0], Long::sum));
            cells = new HashMap<>();
            flushed = count;
        }

        CompletableFuture<Void> post(String url, String table, byte[] body) {
            String query = URLEncoder.encode("INSERT INTO compare." + table + " FORMAT RowBinary", StandardCharsets.UTF_8);
            HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/?async_insert=0&query=" + query))
                    .header("X-ClickHouse-User", "compare")
                    .header("X-ClickHouse-Key", task.password)
                    .POST(HttpRequest.BodyPublishers.ofByteArray(body))
                    .build();
            return http.sendAsync(request, HttpResponse.BodyHandlers.ofString()).thenAccept(answer -> {
                if (answer.statusCode() != 200) {
                    throw new IllegalStateException("the store refused an insert: " + answer.statusCode());
                }
            });
        }

        static void text(ByteArrayOutputStream out, String value) {
            byte[] bytes = value.getBytes(StandardCharsets.UTF_8);
            int length = bytes.length;
            while (length >= 0x80) {
                out.write(length & 0x7f | 0x80);
                length >>>= 7;
            }
            out.write(length);
            out.writeBytes(bytes);
        }

        static void number(ByteArrayOutputStream out, long value) {
            for (int shift = 0; shift < 64; shift += 8) {
                out.write((int) (value >>> shift));
            }
        }

        void say() throws IOException {
            List<Object[]> lines = new ArrayList<>();
            totals.forEach((cell, events) ->
                    lines.add(new Object[] {cell.mailing, cell.kind, cell.link, cell.hour, events}));
            Map<String, Object[]> recipients = new TreeMap<>();
            for (Map.Entry<String, Set<String>> entry : people.entrySet()) {
                recipients.put(entry.getKey(), new Object[] {entry.getValue().size(), digest(entry.getValue())});
            }
            Map<String, Object> result = Map.of(
                    "events", count, "rows", rows, "sum", String.format("%016x", sum), "cells", lines,
                    "recipients", recipients);
            int second = count - task.events / 2;
            Map<String, Object> said = Map.of(
                    "result", result,
                    "seconds", (nanos[2] - nanos[0]) / 1e9, "cpu_seconds", (cpu[2] - cpu[0]) / 1e9,
                    "second_events", second, "second_seconds", (nanos[2] - nanos[1]) / 1e9,
                    "second_cpu_seconds", (cpu[2] - cpu[1]) / 1e9, "peak_kb", peak());
            System.out.println(new ObjectMapper().writeValueAsString(said));
            System.out.flush();
        }

        static String digest(Set<String> people) {
            try {
                String[] sorted = people.toArray(String[]::new);
                Arrays.sort(sorted);
                byte[] bytes = String.join("\n", sorted).getBytes(StandardCharsets.UTF_8);
                return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
            } catch (GeneralSecurityException impossible) {
                throw new IllegalStateException(impossible);
            }
        }

        static long peak() throws IOException {
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith("VmHWM:")) {
                    return Long.parseLong(line.replaceAll("\\D", ""));
                }
            }
            throw new IOException("no VmHWM: the comparison needs Linux");
        }
    }

    /** One for each partition; they share the work, for there is one stream thread. */
    record Tally(Work work) implements Processor<byte[], byte[], Void, Void> {
        @Override
        public void init(ProcessorContext<Void, Void> context) {}

        @Override
        public void process(Record<byte[], byte[]> record) {
            try {
                work.one(record.value());
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        Task task = new ObjectMapper().readValue(Files.readAllBytes(Path.of(arguments[0])), Task.class);
        Work work = new Work(task);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, task.group);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, task.broker);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("streams").toString());
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(task.topic, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray())).process(() -> new Tally(work));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        Thread.sleep(Duration.ofHours(1).toMillis());
    }
}
