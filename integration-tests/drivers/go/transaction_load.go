package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Producers that make one transaction after the other. With an id prefix that is empty they make none: the same load without.
type transactionLoad struct {
	Bootstrap  string  `json:"bootstrap"`
	Topic      string  `json:"topic"`
	Partitions int32   `json:"partitions"`
	IDs        string  `json:"ids"`
	Producers  int     `json:"producers"`
	Seconds    float64 `json:"seconds"`
	// How long a transaction is filled, and how many records it has at most.
	TransactionMs int `json:"transaction_ms"`
	Records       int `json:"records"`
	RecordBytes   int `json:"record_bytes"`
}

type transactionsMade struct {
	transactions, records int
	commits               []float64 // in ms
	err                   error
}

func transactionLoadOf(text string) error {
	var config transactionLoad
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	clients := make([]*kgo.Client, config.Producers)
	for n := range clients {
		client, err := config.client(n)
		if err != nil {
			return err
		}
		defer client.Close()
		clients[n] = client
	}
	begun := time.Now()
	made := make(chan transactionsMade)
	for n, client := range clients {
		go func() { made <- config.run(n, client, begun) }()
	}
	total := transactionsMade{}
	for range clients {
		one := <-made
		if one.err != nil {
			return one.err
		}
		total.transactions += one.transactions
		total.records += one.records
		total.commits = append(total.commits, one.commits...)
	}
	slices.Sort(total.commits)
	at := func(share float64) float64 { return total.commits[int(share*float64(len(total.commits)-1))] }
	said := map[string]any{"transactions": total.transactions, "records": total.records, "seconds": time.Since(begun).Seconds()}
	if len(total.commits) > 0 {
		said["commit_p50_ms"], said["commit_p99_ms"] = at(0.5), at(0.99)
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

func (config *transactionLoad) client(n int) (*kgo.Client, error) {
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(config.Bootstrap, ",")...), kgo.DefaultProduceTopic(config.Topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond), kgo.MaxBufferedRecords(20_000),
		kgo.ProducerBatchCompression(kgo.NoCompression())}
	if config.IDs != "" {
		options = append(options, kgo.TransactionalID(fmt.Sprintf("%s-%d", config.IDs, n)))
	}
	client, err := kgo.NewClient(options...)
	if err == nil {
		_, _, err = client.ProducerID(context.Background())
	}
	return client, err
}

func (config *transactionLoad) run(n int, client *kgo.Client, begun time.Time) (made transactionsMade) {
	ctx := context.Background()
	value := make([]byte, config.RecordBytes)
	refused := make(chan error, 1)
	for time.Since(begun).Seconds() < config.Seconds {
		if config.IDs != "" {
			if made.err = client.BeginTransaction(); made.err != nil {
				return made
			}
		}
		until := time.Now().Add(time.Duration(config.TransactionMs) * time.Millisecond)
		for sent := 0; sent < config.Records && (config.TransactionMs == 0 || time.Now().Before(until)); sent++ {
			partition := int32(n+made.records) % config.Partitions
			client.Produce(ctx, &kgo.Record{Value: value, Partition: partition}, func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case refused <- err:
					default:
					}
				}
			})
			made.records++
		}
		ending := time.Now()
		made.err = client.Flush(ctx)
		if config.IDs != "" && made.err == nil {
			made.err = client.EndTransaction(ctx, kgo.TryCommit)
		}
		select {
		case made.err = <-refused:
		default:
		}
		if made.err != nil {
			return made
		}
		made.commits = append(made.commits, float64(time.Since(ending).Microseconds())/1000)
		made.transactions++
	}
	return made
}
