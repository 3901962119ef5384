import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Exit;

/**
 * The Java client behind one JSON object per line on standard input and output; bytes are Base64, null stays null.
 * Producers, consumers and the admin client live as long as the process and are keyed by their configuration.
 */
public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final String bootstrap;
    private final Map<Map<String, String>, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    private final Map<Map<String, String>, KafkaConsumer<byte[], byte[]>> consumers = new HashMap<>();
    private Admin admin;

    private Driver(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver(args[0]);
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(driver.answer(line));
        }
        Runtime.getRuntime().halt(0); // open clients would otherwise wait for a broker that may be gone
    }

    private String answer(String line) throws Exception {
        ObjectNode reply = JSON.createObjectNode();
        try {
            JsonNode request = JSON.readTree(line);
            reply.set("result", JSON.valueToTree(run(request.get("op").asText(), request)));
        } catch (Exception failure) {
            Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
            reply.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
        }
        return JSON.writeValueAsString(reply);
    }

    private Object run(String op, JsonNode request) throws Exception {
        return switch (op) {
            case "produce" -> produce(request);
            case "fetch" -> fetch(request);
            case "create" -> create(request);
            case "grow" -> grow(request);
            case "delete" -> done(admin().deleteTopics(List.of(text(request, "topic"))).all());
            case "list" -> get(admin().listTopics().names());
            case "describe" -> describe(text(request, "topic"));
            case "cluster" -> cluster();
            case "configs" -> configs(request);
            case "alter" -> alter(request);
            case "offsets" -> offsets(request);
            case "delete_records" -> deleteRecords(request);
            case "tool" -> tool(request);
            default -> throw new IllegalArgumentException("no operation " + op);
        };
    }

    private Object produce(JsonNode request) throws Exception {
        String topic = text(request, "topic");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        KafkaProducer<byte[], byte[]> producer = producers.computeIfAbsent(settings(request), config ->
                new KafkaProducer<>(new HashMap<>(config), new ByteArraySerializer(), new ByteArraySerializer()));
        for (JsonNode record : request.get("records")) {
            List<Header> headers = new ArrayList<>();
            for (JsonNode header : record.get("headers")) {
                headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
            }
            Integer partition = record.get("partition").isNull() ? null : record.get("partition").asInt();
            Long timestamp = record.get("timestamp").isNull() ? null : record.get("timestamp").asLong();
            sent.add(producer.send(new ProducerRecord<>(
                    topic, partition, timestamp, bytes(record.get("key")), bytes(record.get("value")), headers)));
        }
        producer.flush();
        ArrayNode placed = JSON.createArrayNode();
        for (Future<RecordMetadata> future : sent) {
            RecordMetadata metadata = future.get(60, TimeUnit.SECONDS);
            placed.addArray().add(metadata.partition()).add(metadata.hasOffset() ? metadata.offset() : -1);
        }
        return placed;
    }

    private Object fetch(JsonNode request) {
        KafkaConsumer<byte[], byte[]> consumer = consumers.computeIfAbsent(settings(request), config ->
                new KafkaConsumer<>(new HashMap<>(config), new ByteArrayDeserializer(), new ByteArrayDeserializer()));
        TopicPartition partition = new TopicPartition(text(request, "topic"), request.get("partition").asInt());
        consumer.assign(List.of(partition));
        consumer.seek(partition, request.get("offset").asLong());
        int count = request.get("count").asInt();
        long deadline = System.nanoTime() + request.get("timeout_ms").asLong() * 1_000_000;
        ArrayNode records = JSON.createArrayNode();
        while (records.size() < count && System.nanoTime() < deadline) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                if (records.size() < count) {
                    records.add(json(record));
                }
            }
        }
        consumer.assign(List.of());
        return records;
    }

    private static ObjectNode json(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode node = JSON.createObjectNode();
        node.put("partition", record.partition()).put("offset", record.offset()).put("timestamp", record.timestamp());
        node.put("timestamp_type", record.timestampType().name);
        node.put("key", base64(record.key())).put("value", base64(record.value()));
        ArrayNode headers = node.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(base64(header.value()));
        }
        return node;
    }

    private Object create(JsonNode request) throws Exception {
        Optional<Integer> partitions = Optional.ofNullable(request.get("partitions")).map(JsonNode::asInt);
        Optional<Short> replicas = Optional.ofNullable(request.get("replicas")).map(n -> (short) n.asInt());
        NewTopic topic = new NewTopic(text(request, "topic"), partitions, replicas).configs(map(request.get("configs")));
        boolean validateOnly = request.path("validate_only").asBoolean();
        var result = admin().createTopics(List.of(topic), new CreateTopicsOptions().validateOnly(validateOnly));
        get(result.all());
        Map<String, Object> made = new TreeMap<>();
        made.put("partitions", get(result.numPartitions(topic.name())));
        made.put("replicas", get(result.replicationFactor(topic.name())));
        made.put("topic_id", get(result.topicId(topic.name())).toString());
        return made;
    }

    private Object grow(JsonNode request) throws Exception {
        NewPartitions total = NewPartitions.increaseTo(request.get("partitions").asInt());
        return done(admin().createPartitions(Map.of(text(request, "topic"), total)).all());
    }

    private Object describe(String topic) throws Exception {
        TopicDescription description = get(admin().describeTopics(List.of(topic)).allTopicNames()).get(topic);
        Map<String, Object> found = new TreeMap<>();
        found.put("topic_id", description.topicId().toString());
        found.put("internal", description.isInternal());
        found.put("partitions", description.partitions().stream().map(p -> Map.of(
                "partition", p.partition(), "leader", p.leader() == null ? -1 : p.leader().id(),
                "replicas", p.replicas().size(), "isr", p.isr().size())).toList());
        return found;
    }

    private Object cluster() throws Exception {
        var result = admin().describeCluster();
        return Map.of("id", get(result.clusterId()), "controller", get(result.controller()).id(),
                "nodes", get(result.nodes()).stream().map(n -> List.of(n.id(), n.host(), n.port())).toList());
    }

    private Object configs(JsonNode request) throws Exception {
        ConfigResource resource = resource(request);
        DescribeConfigsOptions options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        Map<String, Object> entries = new TreeMap<>();
        for (ConfigEntry entry : get(admin().describeConfigs(List.of(resource), options).all()).get(resource).entries()) {
            Map<String, Object> shown = new TreeMap<>();
            shown.put("value", entry.value());
            shown.put("source", entry.source().name());
            shown.put("type", entry.type().name());
            shown.put("read_only", entry.isReadOnly());
            shown.put("sensitive", entry.isSensitive());
            shown.put("documentation", entry.documentation());
            shown.put("synonyms", entry.synonyms().stream().map(s -> List.of(s.name(), s.source().name())).toList());
            entries.put(entry.name(), shown);
        }
        return entries;
    }

    private Object alter(JsonNode request) throws Exception {
        List<AlterConfigOp> changes = new ArrayList<>();
        for (JsonNode change : request.get("changes")) {
            AlterConfigOp.OpType type = AlterConfigOp.OpType.valueOf(change.get(0).asText());
            changes.add(new AlterConfigOp(new ConfigEntry(change.get(1).asText(), change.get(2).asText(null)), type));
        }
        Map<ConfigResource, Collection<AlterConfigOp>> all = Map.of(resource(request), changes);
        return done(admin().incrementalAlterConfigs(all).all());
    }

    private Object offsets(JsonNode request) throws Exception {
        OffsetSpec spec = switch (text(request, "at")) {
            case "earliest" -> OffsetSpec.earliest();
            case "latest" -> OffsetSpec.latest();
            case "max-timestamp" -> OffsetSpec.maxTimestamp();
            default -> OffsetSpec.forTimestamp(Long.parseLong(text(request, "at")));
        };
        TopicPartition partition = new TopicPartition(text(request, "topic"), request.get("partition").asInt());
        ListOffsetsResult.ListOffsetsResultInfo found =
                get(admin().listOffsets(Map.of(partition, spec)).partitionResult(partition));
        return List.of(found.offset(), found.timestamp(), found.leaderEpoch().orElse(-1));
    }

    private Object deleteRecords(JsonNode request) throws Exception {
        TopicPartition partition = new TopicPartition(text(request, "topic"), request.get("partition").asInt());
        RecordsToDelete before = RecordsToDelete.beforeOffset(request.get("before").asLong());
        return get(admin().deleteRecords(Map.of(partition, before)).lowWatermarks().get(partition)).lowWatermark();
    }

    /** Runs one of Kafka's tools in this process, which saves the start of a JVM; what it prints. */
    private Object tool(JsonNode request) throws Exception {
        String[] args = JSON.treeToValue(request.get("args"), String[].class);
        Method main = Class.forName(text(request, "class")).getMethod("main", String[].class);
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream out = System.out;
        PrintStream errors = System.err;
        Exit.setExitProcedure((code, message) -> {
            throw new ExitCalled();
        });
        try (PrintStream to = new PrintStream(printed, true, StandardCharsets.UTF_8)) {
            System.setOut(to);
            System.setErr(to);
            main.invoke(null, (Object) args);
        } catch (InvocationTargetException failure) {
            if (!(failure.getCause() instanceof ExitCalled)) {
                throw failure;
            }
        } finally {
            System.setOut(out);
            System.setErr(errors);
            Exit.resetExitProcedure();
        }
        return printed.toString(StandardCharsets.UTF_8);
    }

    private static final class ExitCalled extends RuntimeException {}

    private Admin admin() {
        if (admin == null) {
            Map<String, Object> config = new HashMap<>();
            config.put("bootstrap.servers", bootstrap);
            config.put("default.api.timeout.ms", "30000");
            admin = Admin.create(config);
        }
        return admin;
    }

    private Map<String, String> settings(JsonNode request) {
        Map<String, String> settings = map(request.get("config"));
        settings.put("bootstrap.servers", bootstrap);
        return settings;
    }

    private static ConfigResource resource(JsonNode request) {
        return new ConfigResource(ConfigResource.Type.valueOf(text(request, "type")), text(request, "name"));
    }

    private static <T> T get(org.apache.kafka.common.KafkaFuture<T> future) throws Exception {
        return future.get(40, TimeUnit.SECONDS);
    }

    private static Object done(org.apache.kafka.common.KafkaFuture<Void> future) throws Exception {
        get(future);
        return Set.of();
    }

    private static Map<String, String> map(JsonNode node) {
        Map<String, String> entries = new HashMap<>();
        if (node != null) {
            node.fields().forEachRemaining(e -> entries.put(e.getKey(), e.getValue().asText()));
        }
        return entries;
    }

    private static String text(JsonNode node, String field) {
        return node.get(field).asText();
    }

    private static byte[] bytes(JsonNode node) {
        return node == null || node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    private static String base64(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }
}
