import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A member of a consumer group: java Member CONFIG; harness/group.py says what it prints. */
public final class Member implements ConsumerRebalanceListener {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private final TreeSet<Integer> owned = new TreeSet<>();
    private final JsonNode config;
    private volatile boolean stopping;
    private KafkaConsumer<byte[], byte[]> consumer;

    private Member(JsonNode config) {
        this.config = config;
    }

    public static void main(String[] args) throws Exception {
        Member member = new Member(JSON.readTree(args[0]));
        Thread commands = new Thread(member::listen);
        commands.setDaemon(true);
        commands.start();
        member.run();
        emit(event("closed"));
    }

    private void listen() {
        try {
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine();
        } catch (java.io.IOException ended) {
            // The process that reads us is gone.
        }
        stopping = true;
    }

    private void run() {
        consumer = new KafkaConsumer<>(settings(), new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(config.get("topic").asText()), this);
        boolean late = false;
        while (!stopping) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
            if (!records.isEmpty()) {
                show(records);
            }
            if (!records.isEmpty() || late) {
                late = !commit();
            }
        }
        consumer.close();
    }

    private Map<String, Object> settings() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", config.get("bootstrap").asText());
        settings.put("group.id", config.get("group").asText());
        settings.put("client.id", config.get("name").asText());
        settings.put("group.protocol", config.get("protocol").asText());
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("fetch.max.wait.ms", "100");
        settings.put("max.poll.records", "100");
        settings.put("reconnect.backoff.max.ms", "300");
        if (config.has("metadata_recovery")) {
            settings.put("metadata.recovery.strategy", config.get("metadata_recovery").asText());
        }
        String assignor = config.get("assignor").asText();
        if (config.get("protocol").asText().equals("classic")) {
            Map<String, String> classes = Map.of("range", "RangeAssignor", "roundrobin", "RoundRobinAssignor",
                    "sticky", "StickyAssignor", "cooperative-sticky", "CooperativeStickyAssignor");
            settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + classes.get(assignor));
            settings.put("session.timeout.ms", config.get("session_ms").asText());
            settings.put("heartbeat.interval.ms", config.get("heartbeat_ms").asText());
        } else if (!assignor.isEmpty()) {
            settings.put("group.remote.assignor", assignor);
        }
        if (config.has("rack")) {
            settings.put("client.rack", config.get("rack").asText());
        }
        if (!config.get("instance").isNull()) {
            settings.put("group.instance.id", config.get("instance").asText());
        }
        return settings;
    }

    private void show(ConsumerRecords<byte[], byte[]> records) {
        ObjectNode event = event("records");
        ArrayNode list = event.putArray("records");
        for (ConsumerRecord<byte[], byte[]> record : records) {
            list.addArray().add(record.partition()).add(record.offset()).add(sum(record));
        }
        event.put("generation", consumer.groupMetadata().generationId());
        emit(event);
    }

    private static long sum(ConsumerRecord<byte[], byte[]> record) {
        CRC32 sum = new CRC32();
        if (record.key() != null) {
            sum.update(record.key());
        }
        sum.update(record.value());
        return sum.getValue();
    }

    private boolean commit() {
        ObjectNode event = event("committed");
        ObjectNode offsets = event.putObject("offsets");
        try {
            consumer.assignment().forEach(p -> offsets.put(String.valueOf(p.partition()), consumer.position(p)));
            consumer.commitSync();
        } catch (KafkaException failure) {
            emit(event("error").put("text", "commit: " + failure));
            return false;
        }
        emit(event);
        return true;
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        partitions.forEach(p -> owned.add(p.partition()));
        showOwned();
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        partitions.forEach(p -> owned.remove(p.partition()));
        showOwned();
    }

    private void showOwned() {
        ObjectNode event = event("owned");
        ArrayNode list = event.putArray("partitions");
        owned.forEach(list::add);
        event.put("generation", consumer.groupMetadata().generationId());
        emit(event);
    }

    private static ObjectNode event(String name) {
        return JSON.createObjectNode().put("event", name);
    }

    private static void emit(ObjectNode event) {
        synchronized (OUT) {
            OUT.println(event);
        }
    }
}
