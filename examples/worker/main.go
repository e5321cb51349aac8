// Command worker runs a long job outside of any server and reports its progress to the user that
// waits for it.
//
// It serves no clients: it sends through the Redis of the servers, and they deliver the events. So
// it can run on any machine, be started by cron, or run many times in parallel:
//
//	go run ./examples/worker -redis redis://localhost:6379 -user ada -pages 5
//
// It shows which errors matter. A lost progress event does no harm, because the next one replaces
// it. The event "ready" must not get lost, so the worker retries until Redis has accepted it or the
// worker is stopped.
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
	flag.StringVar(&j.User, "user", "ada", "user that waits for the report")
	flag.IntVar(&j.Pages, "pages", 5, "number of pages of the report")
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
	pause   time.Duration // time per page, and between two attempts to send
}

// sendTimeout bounds one attempt.
const sendTimeout = 2 * time.Second

func (w *worker) work(ctx context.Context, j job) error {
	for page := range j.Pages {
		if err := w.sleep(ctx); err != nil { // a real worker would write the page here
			return fmt.Errorf("write page %d: %w", page+1, err)
		}
		sending, cancel := context.WithTimeout(ctx, sendTimeout)
		err := w.emitter.Send(sending, emitter.ToUser(j.User), "progress", map[string]any{"report": j.Report, "done": page + 1, "of": j.Pages})
		cancel()
		if err != nil {
			w.log.Warn("progress was not sent", "page", page+1, "error", err)
		}
	}
	if err := w.sendUntilAccepted(ctx, j); err != nil {
		return fmt.Errorf("tell %s of the report: %w", j.User, err)
	}
	// Tell the followers of reports, too. A batch sends many events at once.
	followers := w.emitter.Batch()
	followers.Add(emitter.ToRoom("reports"), "published", j)
	followers.Add(emitter.ToRoom("reports:"+j.User), "published", j)
	return errors.Join(followers.Send(ctx)...)
}

// sendUntilAccepted retries until Redis has accepted the event "ready". If the connection breaks
// during a send, the user may get it twice; both have the same report name.
func (w *worker) sendUntilAccepted(ctx context.Context, j job) error {
	for {
		sending, cancel := context.WithTimeout(ctx, sendTimeout)
		err := w.emitter.Send(sending, emitter.ToUser(j.User), "ready", j)
		cancel()
		if !errors.Is(err, broker.ErrDown) && !errors.Is(err, context.DeadlineExceeded) {
			return err // nil, or an error that a retry cannot fix
		}
		w.log.Warn("sending failed, retrying", "error", err)
		if err := w.sleep(ctx); err != nil {
			return err
		}
	}
}

// sleep waits for the pause or until ctx is done.
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
