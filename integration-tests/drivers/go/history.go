package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What harness/histories.py passes; it says there too what is in the workload.
type workload struct {
	Bootstrap        string  `json:"bootstrap"`
	File             string  `json:"file"`
	Run              uint64  `json:"run"`
	Topic            string  `json:"topic"`
	Partitions       int32   `json:"partitions"`
	Process          int32   `json:"process"`
	Group            string  `json:"group"`
	SessionMs        int64   `json:"session_ms"`
	RequestTimeoutMs int64   `json:"request_timeout_ms"`
	MetadataAgeMs    int64   `json:"metadata_age_ms"`
	DeliveryMs       int64   `json:"delivery_ms"`
	RecordsPerS      float64 `json:"records_per_s"`
	Open             int     `json:"open"`
	Codec            string  `json:"codec"`
	Final            bool    `json:"final"`
	*recorder        `json:"-"`
}

func history(text string) error {
	var w workload
	err := json.Unmarshal([]byte(text), &w)
	if err != nil {
		return err
	}
	if w.recorder, err = newRecorder(w.File); err != nil {
		return err
	}
	if w.Final {
		err = w.readAll()
	} else {
		err = w.load()
	}
	return errors.Join(err, w.close())
}

func (w *workload) load() error {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadBytes('\n')
		stop()
	}()
	works := []func() error{
		func() error { return w.produce(ctx, w.Process, true) },
		func() error { return w.produce(ctx, w.Process+1, false) },
		func() error { return w.read(ctx, w.Process+2) },
		func() error { return w.member(ctx, w.Process+3) },
		func() error { return w.ask(ctx, w.Process+4) },
	}
	var all sync.WaitGroup
	for _, work := range works {
		all.Go(func() {
			if err := work(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		})
	}
	all.Wait()
	return nil
}

func (w *workload) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(w.Bootstrap, ",")...), kgo.FetchMaxWait(100 * time.Millisecond),
		// Else it does not look where a leader went more often than every 5 s.
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(time.Duration(w.MetadataAgeMs) * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond })}, more...)...)
}

// Producers.

func (w *workload) produce(ctx context.Context, process int32, idempotent bool) error {
	options := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2 * time.Millisecond),
		kgo.ProducerBatchCompression(codecs[w.Codec]), kgo.ProduceRequestTimeout(time.Duration(w.RequestTimeoutMs) * time.Millisecond), kgo.RecordDeliveryTimeout(time.Duration(w.DeliveryMs) * time.Millisecond),
		kgo.RequestTimeoutOverhead(500 * time.Millisecond), kgo.ProducerBatchMaxBytes(30_000)}
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(5))
	}
	client, err := w.client(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	chance := rand.New(rand.NewSource(int64(process)))
	room := make(chan struct{}, w.Open)
	due := time.Now()
	counter := uint64(0)
	for ctx.Err() == nil {
		burst := 1 + chance.Intn(10)
		for range burst {
			room <- struct{}{}
			w.send(client, process, counter, idempotent, chance, room)
			counter++
		}
		if late := time.Now().Add(-time.Second); due.Before(late) {
			due = late
		}
		due = due.Add(time.Duration(float64(burst) / w.RecordsPerS * float64(time.Second)))
		time.Sleep(time.Until(due))
	}
	patience, cancel := context.WithTimeout(context.Background(), time.Duration(w.DeliveryMs)*time.Millisecond)
	defer cancel()
	_ = client.Flush(patience)
	return nil
}

func (w *workload) send(client *kgo.Client, process int32, counter uint64, idempotent bool, chance *rand.Rand, room chan struct{}) {
	to := chance.Int31n(w.Partitions)
	padding := chance.Intn(100)
	if chance.Intn(200) == 0 {
		padding = 5000
	}
	now := time.Now().UnixMilli()
	value := encoded(w.Run, process, counter, w.Topic, to, now, padding)
	record := &kgo.Record{Topic: w.Topic, Partition: to, Timestamp: time.UnixMilli(now), Key: fmt.Appendf(nil, "%d-%d", process, counter%7),
		Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "counter", Value: fmt.Append(nil, counter)}}}
	operation := w.begin(process, "send", fields{"topic": w.Topic, "partition": to, "once": idempotent, "acked": true, "values": []string{value}})
	client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
		switch {
		case err == nil:
			operation.ok(fields{"offset": r.Offset})
		case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.TopicAuthorizationFailed):
			operation.fail(err)
		default:
			operation.info(err)
		}
		<-room
	})
}

// Readers.

// Where a consumer is; each jump begins a new row of polls that follow each other.
type place struct {
	next int64
	row  int
}

type reader struct {
	*workload
	client  *kgo.Client
	process int32
	lock    sync.Mutex // a group's call backs come from other goroutines
	places  map[int32]place
	rows    int
}

func (w *workload) reader(process int32, more ...kgo.Opt) (*reader, error) {
	var err error
	r := &reader{workload: w, process: process, places: map[int32]place{}}
	r.client, err = w.client(append(more, kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	return r, err
}

func (r *reader) at(partition int32, offset int64) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.places[partition] = place{offset, r.rows}
	r.rows++
}

func (r *reader) where(partition int32) place {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.places[partition]
}

func (w *workload) fromStart(process int32) (*reader, error) {
	r, err := w.reader(process)
	if err != nil {
		return nil, err
	}
	for p := range w.Partitions {
		r.seek(p, 0)
	}
	return r, nil
}

func (r *reader) seek(partition int32, offset int64) {
	r.client.RemoveConsumePartitions(map[string][]int32{r.Topic: {partition}})
	r.at(partition, offset)
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.Topic: {partition: kgo.NewOffset().At(offset)}})
}

// The number of records; an error where the broker says that an offset is none.
func (r *reader) poll(ctx context.Context) (int, error) {
	start := micros()
	wait, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	fetches := r.client.PollRecords(wait, 200)
	var wrong error
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if errors.Is(p.Err, kerr.OffsetOutOfRange) {
			wrong = fmt.Errorf("partition %d at %d: %w", p.Partition, r.where(p.Partition).next, p.Err)
		}
		if len(p.Records) == 0 {
			return
		}
		at := r.where(p.Partition)
		next := p.Records[len(p.Records)-1].Offset + 1
		// A fetch may have been answered long before the poll, so what it said of the log's ends was true at no known time.
		r.begun(r.process, start, "poll", fields{"topic": r.Topic, "partition": p.Partition, "position_of": at.row, "from": at.next}).
			ok(fields{"next": next, "records": seen(p.Records)})
		r.lock.Lock()
		r.places[p.Partition] = place{next, at.row}
		r.lock.Unlock()
	})
	return fetches.NumRecords(), wrong
}

func (w *workload) read(ctx context.Context, process int32) error {
	r, err := w.fromStart(process)
	if err != nil {
		return err
	}
	defer r.client.Close()
	chance := rand.New(rand.NewSource(int64(process)))
	for polls := 0; ctx.Err() == nil; polls++ {
		if _, err := r.poll(ctx); err != nil {
			return err
		}
		if polls%50 == 49 { // back to what may not be cached any more
			partition := chance.Int31n(w.Partitions)
			r.seek(partition, max(0, r.where(partition).next-chance.Int63n(1000)))
		}
	}
	return nil
}

// A fresh client reads everything, up to the end that it is told before it begins.
func (w *workload) readAll() error {
	patience := 30 * time.Second
	ctx := context.Background()
	r, err := w.fromStart(w.Process)
	if err != nil {
		return err
	}
	defer r.client.Close()
	for p := range w.Partitions {
		end, err := w.offset(ctx, r.client, w.Process+1, p, -1)
		if err != nil {
			return err
		}
		if _, err := w.offset(ctx, r.client, w.Process+1, p, -2); err != nil {
			return err
		}
		deadline := time.Now().Add(patience)
		for r.where(p).next < end {
			found, err := r.poll(ctx)
			if err != nil {
				return err
			}
			if found > 0 {
				deadline = time.Now().Add(patience)
			} else if time.Now().After(deadline) {
				return fmt.Errorf("partition %d ends at %d, read up to %d", p, end, r.where(p).next)
			}
		}
	}
	return nil
}

func (w *workload) member(ctx context.Context, process int32) error {
	asking, err := w.client()
	if err != nil {
		return err
	}
	defer asking.Close()
	var r *reader
	owned := []int32{}
	gained := func(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
		owned = append(owned, partitions[w.Topic]...)
		offsets, err := w.committed(ctx, asking, process, owned)
		for err != nil && ctx.Err() == nil {
			offsets, err = w.committed(ctx, asking, process, owned)
		}
		for _, p := range partitions[w.Topic] {
			r.at(p, max(0, offsets[p]))
		}
		w.assigned(client, process, owned)
	}
	lost := func(_ context.Context, client *kgo.Client, _ map[string][]int32) {
		owned = []int32{}
		w.assigned(client, process, owned)
	}
	// The group's call backs wait for this.
	ready := make(chan struct{})
	r, err = w.reader(process, kgo.ConsumerGroup(w.Group), kgo.ConsumeTopics(w.Topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.Balancers(kgo.RangeBalancer()),
		kgo.SessionTimeout(time.Duration(w.SessionMs)*time.Millisecond), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(func(ctx context.Context, c *kgo.Client, p map[string][]int32) { <-ready; gained(ctx, c, p) }),
		kgo.OnPartitionsRevoked(lost), kgo.OnPartitionsLost(lost))
	close(ready)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		found, err := r.poll(ctx)
		if err != nil {
			return err
		}
		if found > 0 {
			w.commit(r, owned)
			_, _ = w.committed(ctx, asking, process, owned)
		}
		r.client.AllowRebalance()
	}
	name, _ := r.client.GroupMetadata()
	r.client.CloseAllowingRebalance()
	w.begin(process, "left", fields{"group": w.Group, "member": name}).ok(fields{})
	return nil
}

func (w *workload) assigned(client *kgo.Client, process int32, owned []int32) {
	name, generation := client.GroupMetadata()
	logs := [][]any{}
	for _, p := range owned {
		logs = append(logs, []any{w.Topic, p})
	}
	w.begin(process, "assigned", fields{"group": w.Group, "member": name}).ok(fields{"generation": generation, "logs": logs})
}

func (w *workload) commit(r *reader, owned []int32) {
	name, generation := r.client.GroupMetadata()
	offsets := map[int32]int64{}
	places := map[int32]kgo.EpochOffset{}
	for _, p := range owned {
		offsets[p] = r.where(p).next
		places[p] = kgo.EpochOffset{Epoch: -1, Offset: offsets[p]}
	}
	operation := w.begin(r.process, "commit", fields{"group": w.Group, "member": name, "generation": generation, "offsets": w.commits(offsets)})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := commitTo(ctx, r.client, map[string]map[int32]kgo.EpochOffset{w.Topic: places})
	if err != nil { // an attempt before the last may have been done
		operation.info(err)
	} else {
		operation.ok(fields{})
	}
}

// The committed offset of each partition, -1 without one.
func (w *workload) committed(ctx context.Context, client *kgo.Client, process int32, of []int32) (map[int32]int64, error) {
	operation := w.begin(process, "committed", fields{"group": w.Group})
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := kadm.NewClient(client).FetchOffsets(ctx, w.Group)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		operation.info(err)
		return nil, err
	}
	offsets := map[int32]int64{}
	for _, p := range of {
		offsets[p] = -1
		if at, there := found.Lookup(w.Topic, p); there {
			offsets[p] = at.At
		}
	}
	operation.ok(fields{"offsets": w.commits(offsets)})
	return offsets, nil
}

func (w *workload) commits(offsets map[int32]int64) [][]any {
	commits := [][]any{}
	for p, at := range offsets {
		if at >= 0 {
			commits = append(commits, []any{w.Topic, p, at})
		} else {
			commits = append(commits, []any{w.Topic, p, nil})
		}
	}
	return commits
}

// Questions.

func (w *workload) ask(ctx context.Context, process int32) error {
	client, err := w.client()
	if err != nil {
		return err
	}
	defer client.Close()
	chance := rand.New(rand.NewSource(int64(process)))
	for ctx.Err() == nil {
		choice := []int64{-1, -1, -2, -3, time.Now().UnixMilli() - chance.Int63n(30_000)}
		patience, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, _ = w.offset(patience, client, process, chance.Int31n(w.Partitions), choice[chance.Intn(len(choice))])
		cancel()
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func (w *workload) offset(ctx context.Context, client *kgo.Client, process, partition int32, timestamp int64) (int64, error) {
	operation := w.begin(process, "list_offsets", fields{"topic": w.Topic, "partition": partition, "timestamp": timestamp})
	at := kmsg.NewListOffsetsRequestTopicPartition()
	at.Partition, at.Timestamp = partition, timestamp
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic, topic.Partitions = w.Topic, []kmsg.ListOffsetsRequestTopicPartition{at}
	request := kmsg.NewListOffsetsRequest()
	request.ReplicaID, request.Topics = -1, []kmsg.ListOffsetsRequestTopic{topic}
	answer, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		operation.info(err)
		return -1, err
	}
	found := answer.Topics[0].Partitions[0]
	operation.ok(fields{"offset": found.Offset, "found_timestamp": found.Timestamp})
	return found.Offset, nil
}

// Commits, and waits for what each partition is answered.
func commitTo(ctx context.Context, client *kgo.Client, offsets map[string]map[int32]kgo.EpochOffset) error {
	var answered error
	client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		if answered = err; err != nil {
			return
		}
		for _, topic := range answer.Topics {
			for _, p := range topic.Partitions {
				answered = errors.Join(answered, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return answered
}
