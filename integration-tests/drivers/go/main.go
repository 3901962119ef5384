// franz-go behind one JSON object per line on standard input and output; bytes are Base64 (Go's own encoding of []byte),
// null stays null. With the argument `member`: a member of a consumer group, also in sarama. With `history`: the workload of
// histories. With `transactions`: transactional producers, with `sarama-transactions` those of sarama, with `transaction-load`:
// many under load.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type record struct {
	Partition     *int32  `json:"partition"`
	Offset        int64   `json:"offset"`
	Timestamp     *int64  `json:"timestamp"`
	TimestampType string  `json:"timestamp_type"`
	Key           []byte  `json:"key"`
	Value         []byte  `json:"value"`
	Headers       [][]any `json:"headers"`
}

type request struct {
	Op         string            `json:"op"`
	Topic      string            `json:"topic"`
	Partition  int32             `json:"partition"`
	Partitions int32             `json:"partitions"`
	Offset     int64             `json:"offset"`
	Count      int               `json:"count"`
	TimeoutMs  int64             `json:"timeout_ms"`
	Codec      string            `json:"codec"`
	Acks       *int              `json:"acks"`
	Idempotent bool              `json:"idempotent"`
	Epoch      int32             `json:"epoch"`
	Current    int32             `json:"current_epoch"`
	Configs    map[string]string `json:"configs"`
	Records    []record          `json:"records"`
}

var (
	bootstrap string
	producers = map[string]*kgo.Client{}
	client    *kgo.Client
	codecs    = map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
)

func plain() (*kgo.Client, error) {
	var err error
	if client == nil {
		client, err = kgo.NewClient(kgo.SeedBrokers(bootstrap))
	}
	return client, err
}

func producer(r *request) (*kgo.Client, error) {
	acks := -1
	if r.Acks != nil {
		acks = *r.Acks
	}
	name := fmt.Sprint(r.Codec, acks, r.Idempotent)
	if p := producers[name]; p != nil {
		return p, nil
	}
	options := []kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.ProducerBatchCompression(codecs[r.Codec]), kgo.ProducerLinger(5 * time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AllowAutoTopicCreation()}
	switch acks {
	case 0:
		options = append(options, kgo.RequiredAcks(kgo.NoAck()))
	case 1:
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()))
	}
	if !r.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	p, err := kgo.NewClient(options...)
	producers[name] = p
	return p, err
}

func produce(ctx context.Context, r *request) (any, error) {
	p, err := producer(r)
	if err != nil {
		return nil, err
	}
	var batch []*kgo.Record
	for _, in := range r.Records {
		out := &kgo.Record{Topic: r.Topic, Key: in.Key, Value: in.Value}
		if in.Partition != nil {
			out.Partition = *in.Partition
		}
		if in.Timestamp != nil {
			out.Timestamp = time.UnixMilli(*in.Timestamp)
		}
		for _, h := range in.Headers {
			header := kgo.RecordHeader{Key: h[0].(string)}
			if h[1] != nil {
				quoted, _ := json.Marshal(h[1])
				if err := json.Unmarshal(quoted, &header.Value); err != nil {
					return nil, err
				}
			}
			out.Headers = append(out.Headers, header)
		}
		batch = append(batch, out)
	}
	results := p.ProduceSync(ctx, batch...)
	if err := results.FirstErr(); err != nil {
		return nil, err
	}
	placed := [][2]int64{}
	for _, out := range batch {
		placed = append(placed, [2]int64{int64(out.Partition), out.Offset})
	}
	return placed, nil
}

func fetch(ctx context.Context, r *request) (any, error) {
	from := map[string]map[int32]kgo.Offset{r.Topic: {r.Partition: kgo.NewOffset().At(r.Offset)}}
	c, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumePartitions(from), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.TimeoutMs)*time.Millisecond)
	defer cancel()
	found := []record{}
	for len(found) < r.Count && ctx.Err() == nil {
		for _, in := range c.PollFetches(ctx).Records() {
			if len(found) == r.Count {
				break
			}
			at := in.Timestamp.UnixMilli()
			out := record{Partition: &in.Partition, Offset: in.Offset, Timestamp: &at, Key: in.Key, Value: in.Value, Headers: [][]any{}}
			out.TimestampType = map[int8]string{0: "CreateTime", 1: "LogAppendTime"}[in.Attrs.TimestampType()]
			for _, h := range in.Headers {
				out.Headers = append(out.Headers, []any{h.Key, h.Value})
			}
			found = append(found, out)
		}
	}
	return found, nil
}

// Answers [error code, epoch, end offset].
func epochEnd(ctx context.Context, r *request) (any, error) {
	c, err := plain()
	if err != nil {
		return nil, err
	}
	q := kmsg.NewOffsetForLeaderEpochRequest()
	q.ReplicaID = -1
	t := kmsg.NewOffsetForLeaderEpochRequestTopic()
	t.Topic = r.Topic
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = r.Partition, r.Current, r.Epoch
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
	a, err := q.RequestWith(ctx, c)
	if err != nil {
		return nil, err
	}
	end := a.Topics[0].Partitions[0]
	return []int64{int64(end.ErrorCode), int64(end.LeaderEpoch), end.EndOffset}, nil
}

func admin(ctx context.Context, r *request) (any, error) {
	c, err := plain()
	if err != nil {
		return nil, err
	}
	a := kadm.NewClient(c)
	switch r.Op {
	case "create":
		configs := map[string]*string{}
		for k, v := range r.Configs {
			configs[k] = kadm.StringPtr(v)
		}
		made, err := a.CreateTopic(ctx, r.Partitions, 1, configs, r.Topic)
		return made.ID.String(), err
	case "delete":
		_, err := a.DeleteTopic(ctx, r.Topic)
		return nil, err
	case "list":
		found, err := a.ListTopics(ctx)
		return found.Names(), err
	case "offsets":
		first, err := a.ListStartOffsets(ctx, r.Topic)
		if err != nil {
			return nil, err
		}
		last, err := a.ListEndOffsets(ctx, r.Topic)
		start, _ := first.Lookup(r.Topic, r.Partition)
		end, _ := last.Lookup(r.Topic, r.Partition)
		return []int64{start.Offset, end.Offset}, err
	}
	return nil, fmt.Errorf("no operation %s", r.Op)
}

func run(line []byte) (any, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	switch r.Op {
	case "produce":
		return produce(ctx, &r)
	case "fetch":
		return fetch(ctx, &r)
	case "epoch_end":
		return epochEnd(ctx, &r)
	}
	return admin(ctx, &r)
}

func main() {
	roles := map[string]func(string) error{"member": member, "history": history,
		"transactions": transactions, "sarama-transactions": saramaTransactions, "transaction-load": transactionLoadOf}
	if role := roles[os.Args[1]]; role != nil {
		if err := role(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	bootstrap = os.Args[1]
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		reply := map[string]any{}
		if result, err := run(line); err != nil {
			reply["error"] = err.Error()
		} else {
			reply["result"] = result
		}
		if err := out.Encode(reply); err != nil {
			return
		}
	}
}
