// Command worker does work that takes a while, outside of any server, and tells those who wait for it how far it is.
//
// It serves no clients: it sends through the Redis that the servers share, and they pass it on. So it may run anywhere,
// be started by cron, or be one of many:
//
//	go run ./examples/worker -redis redis://localhost:6379 -user ada -pages 5
//
// It shows which errors matter. Progress that nobody hears of is no loss, the next one says more. That the report is
// there must not get lost, so it is sent until Redis has taken it, or the worker is told to end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/emitter"
)

func main() {
	url := flag.String("redis", "redis://localhost:6379", "the Redis of the servers")
	var j job
	flag.StringVar(&j.User, "user", "ada", "who waits for the report")
	flag.IntVar(&j.Pages, "pages", 5, "how long the report is")
	flag.Parse()
	j.Report = fmt.Sprintf("report-%d", os.Getpid())
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *url, j, log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

// run does one job.
func run(ctx context.Context, url string, j job, log *slog.Logger) error {
	b, err := redis.New(redis.Config{URL: url, ClientName: "worker", Logger: log})
	if err != nil {
		return err
	}
	e, err := emitter.New(b)
	if err != nil {
		return err
	}
	w := &worker{emitter: e, log: log, pause: time.Second}
	return errors.Join(w.work(ctx, j), e.Close())
}

// A job is a report that a user waits for.
type job struct {
	Report string `json:"report"`
	User   string `json:"-"`
	Pages  int    `json:"pages"`
}

type worker struct {
	emitter *emitter.Emitter
	log     *slog.Logger
	pause   time.Duration // what a page takes, and the time between two attempts to send
}

// sendTimeout is how long one attempt may take.
const sendTimeout = 2 * time.Second

func (w *worker) work(ctx context.Context, j job) error {
	for page := range j.Pages {
		if err := w.sleep(ctx); err != nil { // a real one would write the page here
			return fmt.Errorf("write page %d: %w", page+1, err)
		}
		sending, cancel := context.WithTimeout(ctx, sendTimeout)
		err := w.emitter.Send(sending, emitter.ToUser(j.User), "progress", map[string]any{"report": j.Report, "done": page + 1, "of": j.Pages})
		cancel()
		if err != nil {
			w.log.Warn("nobody hears of the progress", "page", page+1, "error", err)
		}
	}
	if err := w.sendUntilAccepted(ctx, j); err != nil {
		return fmt.Errorf("tell %s of the report: %w", j.User, err)
	}
	// Those who follow reports get to know, too: many events at once are a batch.
	followers := w.emitter.Batch()
	followers.Add(emitter.ToRoom("reports"), "published", j)
	followers.Add(emitter.ToRoom("reports:"+j.User), "published", j)
	return errors.Join(followers.Send(ctx)...)
}

// sendUntilAccepted sends that the report is ready until Redis has taken it. Where the connection broke half-way the user may be
// told twice: the report's name says that it is the same.
func (w *worker) sendUntilAccepted(ctx context.Context, j job) error {
	for {
		sending, cancel := context.WithTimeout(ctx, sendTimeout)
		err := w.emitter.Send(sending, emitter.ToUser(j.User), "ready", j)
		cancel()
		if !errors.Is(err, broker.ErrDown) && !errors.Is(err, context.DeadlineExceeded) {
			return err // nil, or what no repetition helps
		}
		w.log.Warn("trying again", "error", err)
		if err := w.sleep(ctx); err != nil {
			return err
		}
	}
}

// sleep waits for a while.
func (w *worker) sleep(ctx context.Context) error {
	timer := time.NewTimer(w.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
