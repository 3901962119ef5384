package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
)

type fields = map[string]any

// One client's part of a history: a line when an operation begins, one when it ends; history/src/json.rs describes them.
type recorder struct {
	lock       sync.Mutex
	file       *os.File
	out        *bufio.Writer
	operations int64
}

// An operation under way.
type operation struct {
	to      *recorder
	process int32
	number  int64
}

func newRecorder(path string) (*recorder, error) {
	file, err := os.Create(path)
	return &recorder{file: file, out: bufio.NewWriter(file)}, err
}

// CLOCK_MONOTONIC, as in the other clients.
func micros() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return now.Nano() / 1000
}

func (r *recorder) begin(process int32, kind string, asked fields) operation {
	return r.begun(process, micros(), kind, asked)
}

// Likewise, of one that began at `start`.
func (r *recorder) begun(process int32, start int64, kind string, asked fields) operation {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.operations++
	o := operation{r, process, r.operations}
	asked["kind"] = kind
	o.write("invoke", start, asked)
	return o
}

func (o operation) ok(answered fields) {
	answered["end"] = "ok"
	o.end(answered)
}

// It certainly did not happen.
func (o operation) fail(why error) { o.end(fields{"end": "fail", "error": why.Error()}) }

// It may have happened, or may happen later.
func (o operation) info(why error) { o.end(fields{"end": "info", "error": why.Error()}) }

func (o operation) end(answered fields) {
	at := micros()
	o.to.lock.Lock()
	defer o.to.lock.Unlock()
	o.write("complete", at, answered)
}

func (o operation) write(half string, at int64, what fields) {
	what["process"], what["op"], what["time_us"] = o.process, o.number, at
	if err := json.NewEncoder(o.to.out).Encode(fields{half: what}); err != nil {
		panic(err)
	}
}

func (r *recorder) close() error {
	r.lock.Lock()
	defer r.lock.Unlock()
	if err := r.out.Flush(); err != nil {
		return err
	}
	return r.file.Close()
}

// A value of the workload; history/src/payload.rs describes it.
func encoded(run uint64, process int32, counter uint64, topic string, partition int32, timestampMs int64, padding int) string {
	text := fmt.Sprintf("%d|%d|%d|%s|%d|%d|%s", run, process, counter, topic, partition, timestampMs, strings.Repeat("x", padding))
	return fmt.Sprintf("%s|%08x", text, crc32.ChecksumIEEE([]byte(text)))
}

func seen(records []*kgo.Record) [][]any {
	rows := [][]any{}
	for _, r := range records {
		header := fmt.Sprint(r.Headers)
		if len(r.Headers) == 1 && r.Headers[0].Key == "counter" {
			header = string(r.Headers[0].Value)
		}
		rows = append(rows, []any{r.Offset, r.Timestamp.UnixMilli(), string(r.Value), string(r.Key), header})
	}
	return rows
}
