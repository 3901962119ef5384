package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What harness/group.py passes to a member of a consumer group; it says there too what a member prints.
type memberConfig struct {
	Client      string  `json:"client"`
	Name        string  `json:"name"`
	Bootstrap   string  `json:"bootstrap"`
	Topic       string  `json:"topic"`
	Group       string  `json:"group"`
	Protocol    string  `json:"protocol"`
	Assignor    string  `json:"assignor"`
	Instance    *string `json:"instance"`
	SessionMs   int64   `json:"session_ms"`
	HeartbeatMs int64   `json:"heartbeat_ms"`
}

var printing sync.Mutex

func emit(event string, fields map[string]any) {
	printing.Lock()
	defer printing.Unlock()
	if fields == nil {
		fields = map[string]any{}
	}
	fields["event"] = event
	_ = json.NewEncoder(os.Stdout).Encode(fields)
}

func sum(key, value []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(key), crc32.IEEETable, value)
}

func emitOwned(partitions []int32, generation int32) {
	slices.Sort(partitions)
	emit("owned", map[string]any{"partitions": append([]int32{}, partitions...), "generation": generation})
}

// Runs a member until a line or the end comes on standard input.
func member(text string) error {
	var config memberConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadBytes('\n')
		stop()
	}()
	run := franzMember
	if config.Client == "sarama" {
		run = saramaMember
	}
	if err := run(ctx, config); err != nil {
		return err
	}
	emit("closed", nil)
	return nil
}

func franzMember(ctx context.Context, config memberConfig) error {
	var lock sync.Mutex
	owned := []int32{}
	changed := func(gained bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
			lock.Lock()
			defer lock.Unlock()
			here := partitions[config.Topic]
			owned = slices.DeleteFunc(owned, func(p int32) bool { return slices.Contains(here, p) })
			if gained {
				owned = append(owned, here...)
			}
			_, generation := client.GroupMetadata()
			emitOwned(owned, generation)
		}
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(config.Bootstrap, ",")...), kgo.ClientID(config.Name), kgo.ConsumerGroup(config.Group),
		kgo.ConsumeTopics(config.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(100 * time.Millisecond), kgo.BlockRebalanceOnPoll(),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.OnPartitionsAssigned(changed(true)), kgo.OnPartitionsRevoked(changed(false)), kgo.OnPartitionsLost(changed(false)),
	}
	if config.Instance != nil {
		options = append(options, kgo.InstanceID(*config.Instance))
	}
	balancer := map[string]kgo.GroupBalancer{"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(), "uniform": kgo.StickyBalancer()}[config.Assignor]
	options = append(options, kgo.Balancers(balancer))
	if config.Protocol == "consumer" {
		options = append(options, kgo.ServerSideBalancer())
	} else {
		options = append(options, kgo.SessionTimeout(time.Duration(config.SessionMs)*time.Millisecond),
			kgo.HeartbeatInterval(time.Duration(config.HeartbeatMs)*time.Millisecond))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		found := client.PollRecords(wait, 100).Records()
		cancel()
		if len(found) > 0 {
			records := [][]any{}
			offsets := map[int32]int64{}
			for _, r := range found {
				records = append(records, []any{r.Partition, r.Offset, sum(r.Key, r.Value)})
				offsets[r.Partition] = r.Offset + 1
			}
			_, generation := client.GroupMetadata()
			emit("records", map[string]any{"records": records, "generation": generation})
			for {
				patience, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				err := client.CommitRecords(patience, found...)
				cancel()
				if err == nil {
					emit("committed", map[string]any{"offsets": offsets})
					break
				}
				emit("error", map[string]any{"text": "commit: " + err.Error()})
				if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
					break
				}
			}
		}
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance()
	return nil
}

type saramaHandler struct {
	topic string
}

func (h saramaHandler) Setup(session sarama.ConsumerGroupSession) error {
	emitOwned(session.Claims()[h.topic], session.GenerationID())
	return nil
}

func (h saramaHandler) Cleanup(sarama.ConsumerGroupSession) error {
	emitOwned(nil, -1)
	return nil
}

func (h saramaHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-session.Context().Done():
			return nil
		case r, open := <-claim.Messages():
			if !open {
				return nil
			}
			emit("records", map[string]any{"records": [][]any{{r.Partition, r.Offset, sum(r.Key, r.Value)}}, "generation": session.GenerationID()})
			session.MarkMessage(r, "")
			session.Commit() // says nothing of its success
		}
	}
}

func saramaMember(ctx context.Context, config memberConfig) error {
	settings := sarama.NewConfig()
	settings.Version = sarama.MaxVersion
	settings.ClientID = config.Name
	settings.Consumer.Return.Errors = true
	settings.Consumer.MaxWaitTime = 100 * time.Millisecond
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	settings.Consumer.Offsets.AutoCommit.Enable = false
	settings.Consumer.Group.Session.Timeout = time.Duration(config.SessionMs) * time.Millisecond
	settings.Consumer.Group.Heartbeat.Interval = time.Duration(config.HeartbeatMs) * time.Millisecond
	settings.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	settings.Consumer.Retry.Backoff = 100 * time.Millisecond
	strategy := map[string]sarama.BalanceStrategy{"range": sarama.NewBalanceStrategyRange(),
		"roundrobin": sarama.NewBalanceStrategyRoundRobin(), "sticky": sarama.NewBalanceStrategySticky()}[config.Assignor]
	settings.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	if config.Instance != nil {
		settings.Consumer.Group.InstanceId = *config.Instance
	}
	group, err := sarama.NewConsumerGroup(strings.Split(config.Bootstrap, ","), config.Group, settings)
	if err != nil {
		return err
	}
	go func() {
		for err := range group.Errors() {
			emit("error", map[string]any{"text": err.Error()})
		}
	}()
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{config.Topic}, saramaHandler{config.Topic}); err != nil {
			emit("error", map[string]any{"text": err.Error()})
			time.Sleep(100 * time.Millisecond)
		}
	}
	return group.Close()
}
