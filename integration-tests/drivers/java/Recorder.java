import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownServerException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;

/** One client's part of a history: a line when an operation begins, one when it ends; history/src/json.rs describes them. */
final class Recorder {
    static final ObjectMapper JSON = new ObjectMapper();
    private final BufferedWriter out;
    private final long run;
    private long operations;

    Recorder(Path file, long run) throws IOException {
        this.out = Files.newBufferedWriter(file);
        this.run = run;
    }

    /** An operation under way. */
    final class Operation {
        private final int process;
        private final long number;

        private Operation(int process, long number) {
            this.process = process;
            this.number = number;
        }

        void ok(ObjectNode answered) {
            end(answered.put("end", "ok"));
        }

        void ok() {
            ok(fields());
        }

        /** It certainly did not happen. */
        void fail(Throwable why) {
            end(fields().put("end", "fail").put("error", text(why)));
        }

        /** It may have happened, or may happen later. */
        void info(Throwable why) {
            end(fields().put("end", "info").put("error", text(why)));
        }

        private void end(ObjectNode answered) {
            write("complete", process, number, micros(), answered);
        }
    }

    Operation begin(int process, String kind, ObjectNode asked) {
        return begun(process, micros(), kind, asked);
    }

    /** Likewise, of one that began at `start`. */
    synchronized Operation begun(int process, long start, String kind, ObjectNode asked) {
        Operation operation = new Operation(process, operations++);
        write("invoke", process, operation.number, start, asked.put("kind", kind));
        return operation;
    }

    private synchronized void write(String half, int process, long number, long at, ObjectNode fields) {
        ObjectNode line = fields();
        line.set(half, fields.put("process", process).put("op", number).put("time_us", at));
        try {
            out.write(line.toString());
            out.newLine();
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    synchronized void close() throws IOException {
        out.close();
    }

    /** CLOCK_MONOTONIC, as in the other clients: Linux has no other source for nanoTime. */
    static long micros() {
        return System.nanoTime() / 1000;
    }

    static ObjectNode fields() {
        return JSON.createObjectNode();
    }

    static ObjectNode of(TopicPartition partition) {
        return fields().put("topic", partition.topic()).put("partition", partition.partition());
    }

    static ArrayNode commits(Map<TopicPartition, OffsetAndMetadata> offsets) {
        ArrayNode commits = JSON.createArrayNode();
        offsets.forEach((partition, at) -> {
            commits.addArray().add(partition.topic()).add(partition.partition()).add(at == null ? null : (Long) at.offset());
        });
        return commits;
    }

    /** Where the group has committed in each of these, null where it has not; null altogether where nobody says. */
    Map<TopicPartition, OffsetAndMetadata> committed(int process, String group, KafkaConsumer<byte[], byte[]> consumer,
            Collection<TopicPartition> of) {
        Operation operation = begin(process, "committed", fields().put("group", group));
        Map<TopicPartition, OffsetAndMetadata> found = new HashMap<>();
        of.forEach(p -> found.put(p, null));
        try {
            found.putAll(consumer.committed(new HashSet<>(of), Duration.ofSeconds(10)));
            operation.ok(fields().set("offsets", commits(found)));
            return found;
        } catch (KafkaException failure) {
            operation.info(failure);
            return null;
        }
    }

    private static String text(Throwable why) {
        Errors error = Errors.forException(why);
        // What the client says by itself is nothing that a broker said.
        boolean own = error == Errors.UNKNOWN_SERVER_ERROR && !(why instanceof UnknownServerException);
        return (own ? why.getClass().getSimpleName() : error.name()) + ": " + why;
    }

    /** The values, keys and headers of the workload; history/src/payload.rs describes them. */
    ProducerRecord<byte[], byte[]> record(int process, long counter, TopicPartition to, long timestamp, int padding) {
        return record(process, counter, to, timestamp, "x".repeat(padding));
    }

    ProducerRecord<byte[], byte[]> record(int process, long counter, TopicPartition to, long timestamp, String padding) {
        String text = String.join("|", Long.toString(run), Integer.toString(process), Long.toString(counter), to.topic(),
                Integer.toString(to.partition()), Long.toString(timestamp), padding);
        CRC32 sum = new CRC32();
        sum.update(bytes(text));
        List<Header> headers = List.of(new RecordHeader("counter", bytes(Long.toString(counter))));
        return new ProducerRecord<>(to.topic(), to.partition(), timestamp, bytes(process + "-" + counter % 7),
                bytes(text + String.format("|%08x", sum.getValue())), headers);
    }

    static ArrayNode seen(List<ConsumerRecord<byte[], byte[]>> records) {
        ArrayNode seen = JSON.createArrayNode();
        for (ConsumerRecord<byte[], byte[]> record : records) {
            Header[] headers = record.headers().toArray();
            String header = headers.length == 1 && headers[0].key().equals("counter")
                    ? text(headers[0].value()) : record.headers().toString();
            seen.addArray().add(record.offset()).add(record.timestamp()).add(text(record.value())).add(text(record.key())).add(header);
        }
        return seen;
    }

    static String text(byte[] bytes) {
        return bytes == null ? "null" : new String(bytes, StandardCharsets.UTF_8);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
