package main

// Transactional producers, by the names that their requests give them: transactions|sarama-transactions BOOTSTRAP. Records are
// texts.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

type transactionRequest struct {
	Op        string          `json:"op"`
	Producer  string          `json:"producer"`
	ID        string          `json:"id"`
	TimeoutMs int64           `json:"timeout_ms"`
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Values    []string        `json:"values"`
	Group     string          `json:"group"`
	Offsets   map[int32]int64 `json:"offsets"`
}

type transactional interface {
	begin() error
	send(ctx context.Context, topic string, partition int32, values []string) ([]int64, error)
	offsets(group, topic string, offsets map[int32]int64) error
	end(ctx context.Context, commit bool) error
}

type franzTransactional struct{ client *kgo.Client }

func newFranzTransactional(ctx context.Context, r *transactionRequest) (transactional, error) {
	made, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.TransactionalID(r.ID),
		kgo.TransactionTimeout(time.Duration(r.TimeoutMs)*time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	// The client asks for its id when it is needed first; a test wants it now, since it fences the one before.
	_, _, err = made.ProducerID(ctx)
	return franzTransactional{made}, err
}

func (p franzTransactional) begin() error { return p.client.BeginTransaction() }

func (p franzTransactional) send(ctx context.Context, topic string, partition int32, values []string) ([]int64, error) {
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)})
	}
	results := p.client.ProduceSync(ctx, records...)
	offsets := []int64{}
	for _, result := range results {
		offsets = append(offsets, result.Record.Offset)
	}
	return offsets, results.FirstErr()
}

func (p franzTransactional) offsets(string, string, map[int32]int64) error {
	return errors.New("franz-go commits the offsets of a member's session only")
}

func (p franzTransactional) end(ctx context.Context, commit bool) error {
	return p.client.EndTransaction(ctx, kgo.TransactionEndTry(commit))
}

type saramaTransactional struct{ producer sarama.SyncProducer }

func newSaramaTransactional(_ context.Context, r *transactionRequest) (transactional, error) {
	settings := sarama.NewConfig()
	settings.Version = sarama.MaxVersion
	settings.Net.MaxOpenRequests = 1 // its idempotent producer asks for it
	settings.Producer.Idempotent = true
	settings.Producer.RequiredAcks = sarama.WaitForAll
	settings.Producer.Return.Successes = true
	settings.Producer.Partitioner = sarama.NewManualPartitioner
	settings.Producer.Transaction.ID = r.ID
	settings.Producer.Transaction.Timeout = time.Duration(r.TimeoutMs) * time.Millisecond
	made, err := sarama.NewSyncProducer([]string{bootstrap}, settings)
	return saramaTransactional{made}, err
}

func (p saramaTransactional) begin() error { return p.producer.BeginTxn() }

func (p saramaTransactional) send(_ context.Context, topic string, partition int32, values []string) ([]int64, error) {
	var messages []*sarama.ProducerMessage
	for _, value := range values {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Partition: partition, Value: sarama.StringEncoder(value)})
	}
	err := p.producer.SendMessages(messages)
	if many := (sarama.ProducerErrors)(nil); errors.As(err, &many) {
		err = many[0] // they only say how many they are
	}
	offsets := []int64{}
	for _, message := range messages {
		offsets = append(offsets, message.Offset)
	}
	return offsets, err
}

func (p saramaTransactional) offsets(group, topic string, offsets map[int32]int64) error {
	positions := []*sarama.PartitionOffsetMetadata{}
	for partition, offset := range offsets {
		positions = append(positions, &sarama.PartitionOffsetMetadata{Partition: partition, Offset: offset})
	}
	return p.producer.AddOffsetsToTxn(map[string][]*sarama.PartitionOffsetMetadata{topic: positions}, group)
}

func (p saramaTransactional) end(_ context.Context, commit bool) error {
	if commit {
		return p.producer.CommitTxn()
	}
	return p.producer.AbortTxn()
}

type maker func(context.Context, *transactionRequest) (transactional, error)

func transact(ctx context.Context, create maker, producers map[string]transactional, r *transactionRequest) (any, error) {
	if r.Op == "init" {
		made, err := create(ctx, r)
		producers[r.Producer] = made
		return nil, err
	}
	p := producers[r.Producer]
	switch r.Op {
	case "begin":
		return nil, p.begin()
	case "send":
		return p.send(ctx, r.Topic, r.Partition, r.Values)
	case "offsets":
		return nil, p.offsets(r.Group, r.Topic, r.Offsets)
	case "commit":
		return nil, p.end(ctx, true)
	case "abort":
		return nil, p.end(ctx, false)
	}
	return nil, fmt.Errorf("no operation %s", r.Op)
}

func transactions(address string) error { return serveTransactions(address, newFranzTransactional) }

func saramaTransactions(address string) error {
	return serveTransactions(address, newSaramaTransactional)
}

func serveTransactions(address string, create maker) error {
	bootstrap = address
	producers := map[string]transactional{}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var r transactionRequest
		err := json.Unmarshal(in.Bytes(), &r)
		var result any
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
			result, err = transact(ctx, create, producers, &r)
			cancel()
		}
		if err != nil {
			out.Encode(map[string]any{"error": err.Error()})
		} else {
			out.Encode(map[string]any{"result": result})
		}
	}
	return nil
}
