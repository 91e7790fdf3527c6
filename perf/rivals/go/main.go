// A rival of perf/compare: takes events with net/http and inserts them with go-sql-driver. A channel of events is emptied
// into multi-value inserts. An event is answered 200 once it is in the channel, so that one may be lost.
//
// Usage: rival-go ADDRESS DSN
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	_ "github.com/go-sql-driver/mysql"
)

const (
	// Events that wait for an insert. More are answered 503.
	waitingEvents = 100_000
	// Rows of an insert.
	batchEvents = 1_000
	// How long an event waits for others of its insert.
	batchWait = 100 * time.Millisecond
	// Connections to the database, each with a goroutine that inserts.
	connections = 4
	// How often an insert is tried.
	tries = 5
	// Characters of the column.
	nameCharacters = 255
)

type event struct {
	at    time.Time
	name  string
	value uint32
}

// take answers a request.
func take(events chan<- event) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		query := r.URL.Query()
		name := query.Get("name")
		value, err := strconv.ParseUint(query.Get("value"), 10, 32)
		if err != nil || name == "" || !utf8.ValidString(name) || utf8.RuneCountInString(name) > nameCharacters {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		select {
		case events <- event{time.Now().UTC(), name, uint32(value)}:
			w.WriteHeader(http.StatusOK)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
}

// statement inserts a number of rows.
func statement(rows int) string {
	return "INSERT INTO eventlog (at, name, value) VALUES (?, ?, ?)" + strings.Repeat(", (?, ?, ?)", rows-1)
}

// insert inserts a batch. A full one has a prepared statement.
func insert(db *sql.DB, full *sql.Stmt, batch []event) {
	values := make([]interface{}, 0, 3*len(batch))
	for _, one := range batch {
		values = append(values, one.at, one.name, one.value)
	}
	for try := 1; try <= tries; try++ {
		var err error
		if len(batch) == batchEvents {
			_, err = full.Exec(values...)
		} else {
			_, err = db.Exec(statement(len(batch)), values...)
		}
		if err == nil {
			return
		}
		log.Printf("try %d of an insert of %d events: %v", try, len(batch), err)
		time.Sleep(200 * time.Millisecond)
	}
	log.Printf("%d events were dropped", len(batch))
}

// collect makes a batch of events when it is full or its time is over. It is false if the channel is closed.
func collect(events <-chan event) ([]event, bool) {
	first, open := <-events
	if !open {
		return nil, false
	}
	batch := append(make([]event, 0, batchEvents), first)
	timer := time.NewTimer(batchWait)
	defer timer.Stop()
	for len(batch) < batchEvents {
		select {
		case one, open := <-events:
			if !open {
				return batch, false
			}
			batch = append(batch, one)
		case <-timer.C:
			return batch, true
		}
	}
	return batch, true
}

// store empties the channel into inserts until it is closed, and waits for the last of them.
func store(events <-chan event, db *sql.DB, full *sql.Stmt) {
	batches := make(chan []event)
	var inserting sync.WaitGroup
	for i := 0; i < connections; i++ {
		inserting.Add(1)
		go func() {
			defer inserting.Done()
			for batch := range batches {
				insert(db, full, batch)
			}
		}()
	}
	for open := true; open; {
		var batch []event
		batch, open = collect(events)
		if len(batch) > 0 {
			batches <- batch
		}
	}
	close(batches)
	inserting.Wait()
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: rival-go ADDRESS DSN")
	}
	db, err := sql.Open("mysql", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	full, err := db.Prepare(statement(batchEvents))
	if err != nil {
		log.Fatal(err)
	}

	events := make(chan event, waitingEvents)
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		store(events, db, full)
	}()

	mux := http.NewServeMux()
	mux.Handle("/hakaru", take(events))
	server := &http.Server{Addr: os.Args[1], Handler: mux}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	served := make(chan struct{})
	go func() {
		defer close(served)
		<-terminated
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-served
	// All handlers have returned.
	close(events)
	<-stored
	if err := db.Close(); err != nil {
		log.Print(err)
	}
}
