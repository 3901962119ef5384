import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidPidMappingException;
import org.apache.kafka.common.errors.InvalidTxnStateException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Transactions in the Java client, for the checker: java TransactionHistory CONFIG; harness/transactional.py says what is in it. */
public final class TransactionHistory {
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private final JsonNode config;
    private final Recorder recorder;
    private final String bank;
    private final String input;
    private final String output;
    private final String group;
    private final int partitions;
    private final List<TopicPartition> all = new ArrayList<>();
    /** Each instance of a producer is a logical client of its own. */
    private final AtomicInteger numbers;
    private volatile boolean stopping;

    private TransactionHistory(JsonNode config) throws IOException {
        this.config = config;
        recorder = new Recorder(Path.of(text("file")), config.get("run").asLong());
        bank = text("bank");
        input = text("input");
        output = text("output");
        group = text("group");
        partitions = config.get("partitions").asInt();
        List.of(bank, input, output).forEach(topic -> of(topic).forEach(all::add));
        numbers = new AtomicInteger(config.get("process").asInt());
    }

    public static void main(String[] args) throws Exception {
        TransactionHistory history = new TransactionHistory(Recorder.JSON.readTree(args[0]));
        if (history.config.get("final").asBoolean()) {
            history.readAll();
        } else {
            history.load();
        }
        history.recorder.close();
        Runtime.getRuntime().halt(0);
    }

    private String text(String name) {
        return config.get(name).asText();
    }

    private List<TopicPartition> of(String topic) {
        return IntStream.range(0, partitions).mapToObj(p -> new TopicPartition(topic, p)).toList();
    }

    private interface WorkWith {
        void run(Instance instance) throws Exception;
    }

    private void load() throws Exception {
        Works.untilTold(() -> stopping = true, () -> instances(text("bank_id"), this::transfer),
                () -> instances(text("chain_id"), this::chain), () -> read(true), () -> read(false));
    }

    /** One instance after the other, each until it is of no more use. */
    private void instances(String id, WorkWith work) throws Exception {
        while (!stopping) {
            try (Instance instance = new Instance(id)) {
                work.run(instance);
            } catch (Closed closed) {
                Thread.sleep(200);
            }
        }
    }

    /** The instance is fenced, or does not know what became of its transaction. */
    private static final class Closed extends Exception {}

    /** One producer; each operation of a transaction is written down. */
    private final class Instance implements AutoCloseable {
        final int process = numbers.getAndIncrement();
        private final KafkaProducer<byte[], byte[]> producer;
        private long number;
        private long counter;
        private volatile boolean wrong;

        Instance(String id) throws Closed {
            Map<String, Object> settings = settings();
            settings.put("transactional.id", id);
            settings.put("transaction.timeout.ms", config.get("timeout_ms").asInt());
            settings.put("request.timeout.ms", config.get("request_timeout_ms").asInt());
            settings.put("delivery.timeout.ms", config.get("timeout_ms").asInt());
            settings.put("linger.ms", 2);
            settings.put("max.block.ms", 10_000);
            producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
            ObjectNode asked = Recorder.fields().put("transactional_id", id).put("timeout_ms", config.get("timeout_ms").asInt());
            settle("init_producer", asked, producer::initTransactions);
        }

        @Override
        public void close() {
            producer.close(Duration.ZERO);
        }

        void begin() {
            number++;
            wrong = false;
            producer.beginTransaction();
        }

        void send(TopicPartition to, String padding) {
            ProducerRecord<byte[], byte[]> record = recorder.record(process, counter++, to, System.currentTimeMillis(), padding);
            ObjectNode asked = Recorder.of(to).put("once", true).put("acked", true).put("transaction", number);
            asked.putArray("values").add(Recorder.text(record.value()));
            Recorder.Operation operation = recorder.begin(process, "send", asked);
            try {
                producer.send(record, (metadata, failure) -> {
                    if (failure == null) {
                        operation.ok(Recorder.fields().put("offset", metadata.hasOffset() ? metadata.offset() : null));
                    } else {
                        wrong = true;
                        operation.info(failure);
                    }
                });
            } catch (KafkaException failure) { // the transaction is to be aborted already
                wrong = true;
                operation.info(failure);
            }
        }

        /** Whether they are part of the transaction. */
        boolean sendOffsets(KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, OffsetAndMetadata> offsets) throws Closed {
            ObjectNode asked = ofTransaction().put("group", group).put("member", "").put("generation", -1);
            asked.set("offsets", Recorder.commits(offsets));
            return !wrong && settle("send_offsets", asked, () -> producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata()));
        }

        /** Commits it, if all is well and that is wanted; says whether it is committed. */
        boolean end(boolean wanted) throws Closed {
            producer.flush();
            boolean commit = wanted && !wrong;
            boolean done = settle("end_transaction", ofTransaction().put("commit", commit),
                    commit ? producer::commitTransaction : producer::abortTransaction);
            if (commit && !done) {
                settle("end_transaction", ofTransaction().put("commit", false), producer::abortTransaction);
            }
            return commit && done;
        }

        private ObjectNode ofTransaction() {
            return Recorder.fields().put("transaction", number);
        }

        /** Calls until it is known how it ends: false where the transaction has to be aborted. */
        private boolean settle(String kind, ObjectNode asked, Runnable call) throws Closed {
            Recorder.Operation operation = recorder.begin(process, kind, asked);
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (true) {
                try {
                    call.run();
                    operation.ok();
                    return true;
                } catch (TimeoutException late) { // the same call goes on with what it began
                    if (System.nanoTime() > deadline) {
                        operation.info(late);
                        close();
                        throw new Closed();
                    }
                } catch (KafkaException failure) {
                    operation.info(failure);
                    boolean fatal = failure instanceof ProducerFencedException || failure instanceof InvalidPidMappingException
                            || failure instanceof InvalidTxnStateException || kind.equals("init_producer");
                    if (fatal || kind.equals("end_transaction") && !asked.get("commit").asBoolean()) {
                        close();
                        throw new Closed();
                    }
                    return false;
                }
            }
        }
    }

    /** Moves money in a partition that is this process' own: each transaction's amounts add up to 0. */
    private void transfer(Instance instance) throws Exception {
        Random chance = new Random(instance.process);
        TopicPartition own = new TopicPartition(bank, config.get("own").asInt());
        long timeoutMs = config.get("timeout_ms").asLong();
        while (!stopping) {
            instance.begin();
            int sum = 0;
            for (int left = 1 + chance.nextInt(5); left > 0; left--) {
                int amount = chance.nextInt(100) - 50;
                sum += amount;
                instance.send(own, "amount=" + amount + ";");
                if (chance.nextInt(10) == 0) {
                    Thread.sleep(10); // in several batches
                }
            }
            instance.send(own, "amount=" + -sum + ";");
            for (int left = chance.nextInt(5); left > 0; left--) {
                instance.send(new TopicPartition(input, chance.nextInt(partitions)), "x".repeat(chance.nextInt(100)));
            }
            if (chance.nextInt(50) == 0) {
                Thread.sleep((long) (timeoutMs * (0.5 + chance.nextDouble())));
            }
            instance.end(chance.nextInt(5) > 0);
            Thread.sleep((long) (1000 * -Math.log(1 - chance.nextDouble()) / config.get("transactions_per_s").asDouble()));
        }
    }

    /** Takes what is in the input to the output; its partitions go with its transactional id. */
    private void chain(Instance instance) throws Exception {
        List<TopicPartition> own = of(input).stream()
                .filter(p -> p.partition() % config.get("shares").asInt() == config.get("share").asInt()).toList();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(true)) {
            consumer.assign(own);
            boolean knowsWhere = false;
            while (!stopping) {
                if (!knowsWhere) {
                    Map<TopicPartition, OffsetAndMetadata> found = recorder.committed(instance.process, group, consumer, own);
                    if (found == null) {
                        continue;
                    }
                    found.forEach((partition, at) -> consumer.seek(partition, at == null ? 0 : at.offset()));
                    knowsWhere = true;
                }
                ConsumerRecords<byte[], byte[]> taken = consumer.poll(Duration.ofMillis(100));
                if (taken.isEmpty()) {
                    continue;
                }
                instance.begin();
                for (ConsumerRecord<byte[], byte[]> record : taken) {
                    String[] fields = Recorder.text(record.value()).split("\\|");
                    instance.send(new TopicPartition(output, record.partition()), "of=" + fields[1] + "/" + fields[2] + ";");
                }
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                own.forEach(p -> offsets.put(p, new OffsetAndMetadata(consumer.position(p))));
                knowsWhere = instance.end(instance.sendOffsets(consumer, offsets));
            }
        }
    }

    private Map<String, Object> settings() {
        return new HashMap<>(Map.of("bootstrap.servers", text("bootstrap"), "reconnect.backoff.ms", 20,
                "reconnect.backoff.max.ms", 200, "retry.backoff.ms", 20, "retry.backoff.max.ms", 100));
    }

    private KafkaConsumer<byte[], byte[]> consumer(boolean committed) {
        Map<String, Object> settings = settings();
        settings.put("group.id", group);
        settings.put("isolation.level", committed ? "read_committed" : "read_uncommitted");
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("fetch.max.wait.ms", "100");
        settings.put("max.poll.records", "200");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Reads everything with one isolation. */
    private final class Reader {
        private final boolean committed;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final int process = numbers.getAndIncrement();
        private final Map<TopicPartition, Long> next = new HashMap<>();

        Reader(boolean committed) {
            this.committed = committed;
            consumer = consumer(committed);
            consumer.assign(all);
            all.forEach(p -> consumer.seek(p, 0));
            all.forEach(p -> next.put(p, 0L));
        }

        void poll() {
            long start = Recorder.micros();
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
            for (TopicPartition partition : all) {
                long end = consumer.position(partition);
                if (end > next.get(partition)) {
                    ObjectNode asked = Recorder.of(partition).put("position_of", 0).put("from", next.get(partition))
                            .put("read_committed", committed);
                    ObjectNode answered = Recorder.fields().put("next", end);
                    recorder.begun(process, start, "poll", asked).ok(answered.set("records", Recorder.seen(records.records(partition))));
                    next.put(partition, end);
                }
            }
        }

        /** From the beginning to the end of everything, as its isolation has it. */
        void readAll() {
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            Map<TopicPartition, Long> ends = consumer.endOffsets(all, PATIENCE);
            Set<TopicPartition> left = new HashSet<>(all);
            while (!left.isEmpty()) {
                poll();
                left.removeIf(p -> next.get(p) >= ends.get(p));
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(left + " not read to the ends " + ends);
                }
            }
            consumer.close();
        }
    }

    private void read(boolean committed) {
        Reader reader = new Reader(committed);
        while (!stopping) {
            reader.poll();
        }
        reader.consumer.close();
    }

    private void readAll() {
        new Reader(false).readAll();
        new Reader(true).readAll();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(true)) {
            while (recorder.committed(numbers.getAndIncrement(), group, consumer, of(input)) == null) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("nobody says what is committed");
                }
            }
        }
    }
}
