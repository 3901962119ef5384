import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactional producers, by the names that their requests give them, and readers with both isolations behind one JSON
 * object per line: java Transactions BOOTSTRAP. Records are texts.
 */
public final class Transactions {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final String bootstrap;
    private final Map<String, KafkaProducer<String, String>> producers = new HashMap<>();

    private Transactions(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        Transactions driver = new Transactions(args[0]);
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(driver.answer(line));
        }
        Runtime.getRuntime().halt(0); // open producers would otherwise wait for a broker that may be gone
    }

    private String answer(String line) throws Exception {
        ObjectNode reply = JSON.createObjectNode();
        try {
            JsonNode request = JSON.readTree(line);
            reply.set("result", JSON.valueToTree(run(text(request, "op"), request)));
        } catch (Exception failure) {
            Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
            reply.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
        }
        return JSON.writeValueAsString(reply);
    }

    private Object run(String op, JsonNode request) throws Exception {
        switch (op) {
            case "init" -> init(request);
            case "begin" -> producer(request).beginTransaction();
            case "commit" -> producer(request).commitTransaction();
            case "abort" -> producer(request).abortTransaction();
            case "offsets" -> offsets(request);
            case "send" -> {
                return send(request);
            }
            case "read" -> {
                return read(request);
            }
            case "committed" -> {
                return committed(request);
            }
            default -> throw new IllegalArgumentException("no operation " + op);
        }
        return List.of();
    }

    private void init(JsonNode request) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("transactional.id", text(request, "id"));
        config.put("transaction.timeout.ms", request.get("timeout_ms").asInt());
        config.put("max.block.ms", 30_000);
        var made = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        producers.put(text(request, "producer"), made);
        made.initTransactions();
    }

    private Object send(JsonNode request) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode value : request.get("values")) {
            // A text, or a key and a value, which may be none.
            String key = value.isArray() ? value.get(0).asText() : null;
            String content = value.isArray() ? value.get(1).asText(null) : value.asText();
            sent.add(producer(request).send(
                    new ProducerRecord<>(text(request, "topic"), request.get("partition").asInt(), key, content)));
        }
        producer(request).flush();
        ArrayNode placed = JSON.createArrayNode();
        for (Future<RecordMetadata> future : sent) {
            placed.add(future.get(60, TimeUnit.SECONDS).offset());
        }
        return placed;
    }

    private void offsets(JsonNode request) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        request.get("offsets").fields().forEachRemaining(e -> offsets.put(
                new TopicPartition(text(request, "topic"), Integer.parseInt(e.getKey())),
                new OffsetAndMetadata(e.getValue().asLong())));
        // The group's metadata of a consumer that is no member.
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", text(request, "group"));
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            producer(request).sendOffsetsToTransaction(offsets, consumer.groupMetadata());
        }
    }

    /** Everything from the beginning up to the end as this isolation has it, and that end. */
    private Object read(JsonNode request) {
        TopicPartition partition = new TopicPartition(text(request, "topic"), request.get("partition").asInt());
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("isolation.level", text(request, "isolation"));
        config.put("max.partition.fetch.bytes", request.get("bytes").asInt());
        ArrayNode records = JSON.createArrayNode();
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, request.get("from").asLong());
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.nanoTime() + 30_000_000_000L;
            while (consumer.position(partition) < end && System.nanoTime() < deadline) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    records.addArray().add(record.offset()).add(record.value());
                }
            }
            return Map.of("end", end, "position", consumer.position(partition), "records", records);
        }
    }

    private Object committed(JsonNode request) {
        TopicPartition partition = new TopicPartition(text(request, "topic"), request.get("partition").asInt());
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("group.id", text(request, "group"));
        config.put("isolation.level", "read_committed");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            long patience = request.get("timeout_ms").asLong();
            var found = consumer.committed(java.util.Set.of(partition), Duration.ofMillis(patience)).get(partition);
            return found == null ? -1 : found.offset();
        }
    }

    private KafkaProducer<String, String> producer(JsonNode request) {
        return producers.get(text(request, "producer"));
    }

    private static String text(JsonNode node, String field) {
        return node.get(field).asText();
    }
}
