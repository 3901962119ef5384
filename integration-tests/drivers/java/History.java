import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The workload of histories in the Java client: java History CONFIG; harness/histories.py says what is in it. */
public final class History {
    private final JsonNode config;
    private final Recorder recorder;
    private final List<TopicPartition> partitions;
    private final int process;
    private volatile boolean stopping;

    private History(JsonNode config) throws IOException {
        this.config = config;
        recorder = new Recorder(Path.of(config.get("file").asText()), config.get("run").asLong());
        process = config.get("process").asInt();
        String topic = config.get("topic").asText();
        partitions = IntStream.range(0, config.get("partitions").asInt()).mapToObj(p -> new TopicPartition(topic, p)).toList();
    }

    public static void main(String[] args) throws Exception {
        History history = new History(Recorder.JSON.readTree(args[0]));
        if (history.config.get("final").asBoolean()) {
            history.readAll();
        } else {
            history.load();
        }
        history.recorder.close();
        Runtime.getRuntime().halt(0);
    }

    private void load() throws Exception {
        Works.untilTold(() -> stopping = true, () -> produce(process, true), () -> produce(process + 1, false),
                () -> read(process + 2), () -> new Member(process + 3).run(), () -> ask(process + 4));
    }

    // Producers.

    private void produce(int process, boolean idempotent) throws Exception {
        Map<String, Object> settings = settings();
        settings.put("acks", "all");
        settings.put("enable.idempotence", idempotent);
        settings.put("linger.ms", 2);
        settings.put("compression.type", config.get("codec").asText());
        settings.put("delivery.timeout.ms", config.get("delivery_ms").asInt());
        settings.put("request.timeout.ms", config.get("request_timeout_ms").asInt());
        settings.put("batch.size", 4096);
        int open = config.get("open").asInt();
        Semaphore room = new Semaphore(open);
        Random chance = new Random(process);
        double perSecond = config.get("records_per_s").asDouble();
        long counter = 0;
        long due = System.nanoTime();
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            while (!stopping) {
                int burst = 1 + chance.nextInt(10);
                for (int i = 0; i < burst; i++) {
                    room.acquire();
                    send(producer, process, counter++, idempotent, chance, room);
                }
                due = Math.max(due, System.nanoTime() - 1_000_000_000L) + (long) (burst * 1e9 / perSecond);
                TimeUnit.NANOSECONDS.sleep(due - System.nanoTime());
            }
            // What is under way is answered or given up.
            room.tryAcquire(open, config.get("delivery_ms").asLong(), TimeUnit.MILLISECONDS);
            producer.close(Duration.ofSeconds(1));
        }
    }

    private void send(KafkaProducer<byte[], byte[]> producer, int process, long counter, boolean idempotent, Random chance,
            Semaphore room) {
        TopicPartition to = partitions.get(chance.nextInt(partitions.size()));
        int padding = chance.nextInt(200) == 0 ? 5000 : chance.nextInt(100);
        ProducerRecord<byte[], byte[]> record = recorder.record(process, counter, to, System.currentTimeMillis(), padding);
        ObjectNode asked = Recorder.of(to).put("once", idempotent).put("acked", true);
        asked.putArray("values").add(Recorder.text(record.value()));
        Recorder.Operation operation = recorder.begin(process, "send", asked);
        producer.send(record, (metadata, failure) -> {
            if (failure == null) {
                operation.ok(Recorder.fields().put("offset", metadata.hasOffset() ? metadata.offset() : null));
            } else if (failure instanceof RecordTooLargeException || failure instanceof AuthorizationException) {
                operation.fail(failure);
            } else {
                operation.info(failure);
            }
            room.release();
        });
    }

    // Readers.

    private KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> more) {
        Map<String, Object> settings = settings();
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("fetch.max.wait.ms", "100");
        settings.put("max.poll.records", "200");
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** A consumer and where it is; each jump begins a new row of polls that follow each other. */
    private class Reader {
        final KafkaConsumer<byte[], byte[]> consumer;
        final Map<TopicPartition, Long> next = new HashMap<>();
        private final Map<TopicPartition, Integer> row = new HashMap<>();
        final int process;
        private int rows;

        Reader(int process, Map<String, Object> more) {
            this.process = process;
            consumer = consumer(more);
        }

        void at(TopicPartition partition, long offset) {
            next.put(partition, offset);
            row.put(partition, rows++);
        }

        void seek(TopicPartition partition, long offset) {
            consumer.seek(partition, offset);
            at(partition, offset);
        }

        int poll() {
            long start = Recorder.micros();
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
            for (TopicPartition partition : records.partitions()) {
                List<ConsumerRecord<byte[], byte[]>> found = records.records(partition);
                record(start, partition, found, found.get(found.size() - 1).offset() + 1);
            }
            return records.count();
        }

        private void record(long start, TopicPartition partition, List<ConsumerRecord<byte[], byte[]>> found, long end) {
            ObjectNode asked = Recorder.of(partition).put("position_of", row.get(partition)).put("from", next.get(partition));
            // The client does not tell what a fetch said of the log's ends; ListOffsets does.
            ObjectNode answered = Recorder.fields().put("next", end).set("records", Recorder.seen(found));
            recorder.begun(process, start, "poll", asked).ok(answered);
            next.put(partition, end);
        }
    }

    private void read(int process) {
        Reader reader = new Reader(process, Map.of());
        Random chance = new Random(process);
        reader.consumer.assign(partitions);
        partitions.forEach(p -> reader.seek(p, 0));
        for (int polls = 0; !stopping; polls++) {
            reader.poll();
            if (polls % 50 == 49) { // back to what may not be cached any more
                TopicPartition partition = partitions.get(chance.nextInt(partitions.size()));
                reader.seek(partition, Math.max(0, reader.next.get(partition) - chance.nextInt(1000)));
            }
        }
        reader.consumer.close();
    }

    /** A fresh client reads everything, up to the end that it is told before it begins. */
    private void readAll() throws Exception {
        Reader reader = new Reader(process, Map.of());
        reader.consumer.assign(partitions);
        partitions.forEach(p -> reader.seek(p, 0));
        try (Admin admin = Admin.create(settings())) {
            for (TopicPartition partition : partitions) {
                long patience = TimeUnit.SECONDS.toNanos(30);
                long deadline = System.nanoTime() + patience;
                Long end = null;
                while (end == null && System.nanoTime() < deadline) {
                    end = offset(admin, process + 1, partition, -1);
                }
                offset(admin, process + 1, partition, -2);
                while (reader.next.get(partition) < end) {
                    if (reader.poll() > 0) {
                        deadline = System.nanoTime() + patience;
                    } else if (System.nanoTime() > deadline) {
                        throw new IllegalStateException(partition + " ends at " + end + ", read up to " + reader.next);
                    }
                }
            }
        }
        reader.consumer.close();
    }

    private final class Member extends Reader implements ConsumerRebalanceListener {
        private final String group = config.get("group").asText();

        Member(int process) {
            super(process, Map.of("group.id", config.get("group").asText(), "auto.offset.reset", "earliest",
                    "session.timeout.ms", config.get("session_ms").asText(), "heartbeat.interval.ms", "500",
                    "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor"));
        }

        void run() {
            consumer.subscribe(List.of(partitions.get(0).topic()), this);
            while (!stopping) {
                if (poll() > 0) {
                    commit();
                    recorder.committed(process, group, consumer, consumer.assignment());
                }
            }
            ObjectNode left = member();
            consumer.close();
            recorder.begin(process, "left", left).ok();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> gained) {
            gained.forEach(p -> at(p, consumer.position(p)));
            assigned(gained);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> lost) {
            assigned(List.of());
        }

        private ObjectNode member() {
            return Recorder.fields().put("group", group).put("member", consumer.groupMetadata().memberId());
        }

        private void assigned(Collection<TopicPartition> owned) {
            ObjectNode answered = Recorder.fields().put("generation", consumer.groupMetadata().generationId());
            ArrayNode logs = answered.putArray("logs");
            owned.forEach(p -> logs.addArray().add(p.topic()).add(p.partition()));
            recorder.begin(process, "assigned", member()).ok(answered);
        }

        private void commit() {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            consumer.assignment().forEach(p -> offsets.put(p, new OffsetAndMetadata(next.get(p))));
            ObjectNode asked = member().put("generation", consumer.groupMetadata().generationId());
            asked.set("offsets", Recorder.commits(offsets));
            Recorder.Operation operation = recorder.begin(process, "commit", asked);
            try {
                consumer.commitSync(offsets, Duration.ofSeconds(10));
                operation.ok();
            } catch (KafkaException failure) { // an attempt before the last may have been done
                operation.info(failure);
            }
        }
    }

    // Questions.

    private void ask(int process) throws Exception {
        Random chance = new Random(process);
        try (Admin admin = Admin.create(settings())) {
            while (!stopping) {
                TopicPartition partition = partitions.get(chance.nextInt(partitions.size()));
                long[] choice = {-1, -1, -2, -3, System.currentTimeMillis() - chance.nextInt(30_000)};
                offset(admin, process, partition, choice[chance.nextInt(choice.length)]);
                Thread.sleep(100);
            }
        }
    }

    private Long offset(Admin admin, int process, TopicPartition partition, long timestamp) throws Exception {
        OffsetSpec spec = timestamp == -1 ? OffsetSpec.latest() : timestamp == -2 ? OffsetSpec.earliest()
                : timestamp == -3 ? OffsetSpec.maxTimestamp() : OffsetSpec.forTimestamp(timestamp);
        Recorder.Operation operation = recorder.begin(process, "list_offsets", Recorder.of(partition).put("timestamp", timestamp));
        try {
            ListOffsetsResultInfo found = admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get();
            operation.ok(Recorder.fields().put("offset", found.offset()).put("found_timestamp", found.timestamp()));
            return found.offset();
        } catch (ExecutionException failure) {
            operation.info(failure.getCause());
            return null;
        }
    }

    private Map<String, Object> settings() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", config.get("bootstrap").asText());
        settings.put("reconnect.backoff.ms", "20");
        settings.put("reconnect.backoff.max.ms", "200");
        settings.put("retry.backoff.ms", "20");
        settings.put("retry.backoff.max.ms", "100");
        settings.put("metadata.max.age.ms", config.get("metadata_age_ms").asText());
        return settings;
    }
}
