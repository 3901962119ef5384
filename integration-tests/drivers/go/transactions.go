package main

// Transactional producers, by the names that their requests give them: transactions BOOTSTRAP. Records are texts.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type transactionRequest struct {
	Op        string   `json:"op"`
	Producer  string   `json:"producer"`
	ID        string   `json:"id"`
	TimeoutMs int64    `json:"timeout_ms"`
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Values    []string `json:"values"`
}

func transact(ctx context.Context, producers map[string]*kgo.Client, r *transactionRequest) (any, error) {
	if r.Op == "init" {
		made, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.TransactionalID(r.ID),
			kgo.TransactionTimeout(time.Duration(r.TimeoutMs)*time.Millisecond),
			kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			return nil, err
		}
		producers[r.Producer] = made
		// The client asks for its id when it is needed first; a test wants it now, since it fences the one before.
		_, _, err = made.ProducerID(ctx)
		return nil, err
	}
	p := producers[r.Producer]
	switch r.Op {
	case "begin":
		return nil, p.BeginTransaction()
	case "send":
		var records []*kgo.Record
		for _, value := range r.Values {
			records = append(records, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Value: []byte(value)})
		}
		results := p.ProduceSync(ctx, records...)
		offsets := []int64{}
		for _, result := range results {
			offsets = append(offsets, result.Record.Offset)
		}
		return offsets, results.FirstErr()
	case "commit":
		return nil, p.EndTransaction(ctx, kgo.TryCommit)
	case "abort":
		return nil, p.EndTransaction(ctx, kgo.TryAbort)
	}
	return nil, fmt.Errorf("no operation %s", r.Op)
}

func transactions(address string) error {
	bootstrap = address
	producers := map[string]*kgo.Client{}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var r transactionRequest
		err := json.Unmarshal(in.Bytes(), &r)
		var result any
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
			result, err = transact(ctx, producers, &r)
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
