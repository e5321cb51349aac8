// The phases in which messages come through Redis: held, elsewhere, rate.
#ifndef HEARTH_BENCH_REDIS_PHASES_H
#define HEARTH_BENCH_REDIS_PHASES_H

#include "phases.h"
#include "redis.h"

enum {
    ELSEWHERE_ROOMS = 1000,
    FENCE = 8192, // messages for other nodes between two that return
    OPEN_FENCES = 2,
    REFINEMENTS = 3, // of the highest rate, by bisection
};

#define MAX_RATE 2e6

// Every client receives every message, in order.
static void on_numbered(struct client *c, uint64_t now) {
    (void)now;
    if (c->number != c->received++)
        wrong++;
}

static void need_ids(void) {
    for (int i = 0; i < options.clients; i++)
        if (!clients[i].id[0])
            give_up("client %d has no id: `connected` does not tell it", i);
}

// ---- held: messages for a room with members on this node ----

// Publishes while at most options.batch messages are on their way, so that no message is lost.
static void run_held(void) {
    static const char room[] = "ws-default";
    struct command to_room = make_command("room", sizeof room - 1);
    uint64_t messages = options.messages, window = options.batch, want = messages * options.clients, sent = 0;
    expect_messages(true);
    begin(on_numbered);
    struct reading from = take_reading();
    last_progress = from.at;
    while (frames < want && !stalled()) {
        uint64_t room_for = window - (sent - frames / options.clients);
        if (room_for > window / 8) // several at a time: a write per message is expensive
            for (; room_for && sent < messages && publisher_has_room(); room_for--, sent++)
                publish(&to_room, room, sent);
        flush_publisher();
        poll_once(100);
    }
    struct reading to = take_reading();
    uint64_t got = frames, read_calls = reads;
    poll_for(0.1); // further messages are extra
    print_interval(from, to);
    print_counts(want, got);
    printf(",\"published\":%lu,\"reads\":%lu", messages, read_calls);
}

// ---- elsewhere: messages for rooms without members on this node ----

// Publishes messages for rooms without members on this node, and sometimes one for the first client:
// when that one arrives, all messages before it have been handled.
static void run_elsewhere(void) {
    struct command to_room = make_command("room", strlen("elsewhere-000000")), to_client = make_command("client", ID_SIZE);
    uint64_t messages = options.messages, sent = 0, fences = 0;
    char target[32];
    need_ids();
    struct reading idle = take_reading();
    poll_for(options.settle < 1 ? options.settle : 1);
    expect_messages(true);
    begin(on_numbered);
    struct reading from = take_reading();
    last_progress = from.at;
    while ((sent < messages || frames < fences) && !stalled()) {
        while (sent < messages && fences < frames + OPEN_FENCES && publisher_has_room()) {
            snprintf(target, sizeof target, "elsewhere-%06lu", sent % ELSEWHERE_ROOMS);
            publish(&to_room, target, sent++);
            if (sent % FENCE == 0 || sent == messages)
                publish(&to_client, clients[0].id, fences++);
        }
        flush_publisher();
        poll_once(100);
    }
    struct reading to = take_reading();
    uint64_t got = frames;
    poll_for(0.1); // further messages are extra
    print_interval(from, to);
    printf(",\"idle_cpu_share\":%.6f,\"want\":%lu,\"got\":%lu,\"extra\":%lu,\"published\":%lu,\"receivers\":%lu",
           nodes_cpu(idle, from) / seconds_between(idle, from), fences, got, frames > fences ? frames - fences : 0, messages,
           publisher.receivers - fences);
}

// ---- rate: messages to one client each, at a rate ----

static struct step {
    double rate; // messages a second
    uint64_t first, count, sent, got;
    int nodes; // the first nodes, whose clients receive the messages
    uint64_t started;
    uint8_t *seen;
    struct reading from, to;
    long p50_us, p99_us;
} step;

static uint64_t next_number; // of all steps

// Returns the receiver of a message: spread over all clients, the same in every run.
static struct client *receiver_of(uint64_t number) {
    uint64_t mixed = number * 0x9e3779b97f4a7c15u >> 33;
    if (step.nodes == node_count())
        return &clients[mixed % options.clients];
    return &clients[mixed % (options.clients / node_count()) * node_count()];
}

static uint64_t due_at(uint64_t index) { return step.started + (uint64_t)(index * SECOND / step.rate); }

static void on_step_message(struct client *c, uint64_t now) {
    uint64_t index = c->number - step.first;
    if (index >= step.count || step.seen[index] || receiver_of(c->number) != c) {
        wrong++;
        return;
    }
    step.seen[index] = 1;
    step.got++;
    note_latency(due_at(index), now);
}

static void publish_due(const struct command *to_client) {
    uint64_t now = now_ns();
    for (; step.sent < step.count && due_at(step.sent) <= now && publisher_has_room(); step.sent++) {
        uint64_t number = step.first + step.sent;
        publish(to_client, receiver_of(number)->id, number);
    }
    flush_publisher();
}

// Publishes at a rate for a time, whether or not the clients keep up, and waits for late messages.
static struct step run_step(double rate, double seconds, int nodes) {
    struct command to_client = make_command("client", ID_SIZE);
    step = (struct step){.rate = rate, .first = next_number, .count = rate * seconds, .nodes = nodes};
    next_number += step.count;
    step.seen = allocate(step.count + 1, 1);
    clear_latencies();
    begin(on_step_message);
    step.from = take_reading();
    step.started = last_progress = step.from.at;
    while (step.sent < step.count) {
        publish_due(&to_client);
        poll_once(1);
    }
    step.to = take_reading();
    while (step.got < step.count && !stalled()) {
        flush_publisher();
        poll_once(10);
    }
    step.p50_us = percentile(0.50);
    step.p99_us = percentile(0.99);
    free(step.seen);
    step.seen = NULL;
    return step;
}

static bool kept_up(const struct step *s) { return s->got == s->count && s->p99_us <= options.budget_us; }

// Finds the highest rate at which everything arrives and p99 stays within budget: by doubling (or
// halving), then by bisection. Returns whether there is one.
static bool find_rate(void) {
    struct step best = {0}, broken = {0};
    uint64_t lost = 0;
    run_step(options.rate, options.seconds / 2, node_count()); // to warm up
    for (int refined = 0; refined < REFINEMENTS;) {
        double rate = best.rate && broken.rate ? (best.rate + broken.rate) / 2
                      : best.rate              ? best.rate * 2
                      : broken.rate            ? broken.rate / 2
                                               : options.rate;
        if (rate > MAX_RATE || rate < options.rate / 64)
            break;
        refined += best.rate > 0 && broken.rate > 0;
        struct step s = run_step(rate, options.seconds, node_count());
        lost += s.count - s.got;
        *(kept_up(&s) ? &best : &broken) = s;
    }
    const struct step *shown = broken.rate ? &broken : &best; // the rate that was too high, if any
    print_interval(shown->from, shown->to);
    printf(",\"best_rate\":%.0f,\"best_p50_us\":%ld,\"best_p99_us\":%ld,\"broken_rate\":%.0f,\"broken_p99_us\":%ld,\"lost_overloaded\":%lu",
           best.rate, best.p50_us, best.p99_us, broken.rate, broken.p99_us, lost);
    return best.rate > 0;
}

static double node_cpu(int node, struct reading from, struct reading to) { return to.nodes[node] - from.nodes[node]; }

// Measures the cost of a message for the node that has its client and for the other node: the
// clients of the first node receive all messages.
static void cost_of_messages(void) {
    struct reading idle = take_reading();
    poll_for(options.settle < 1 ? options.settle : 1);
    struct reading ends = take_reading();
    double quiet = seconds_between(idle, ends);
    struct step s = run_step(options.rate, options.seconds, 1);
    struct reading to = take_reading();
    double busy = seconds_between(s.from, to);
    printf(",\"want\":%lu,\"got\":%lu,\"held_cpu_s\":%.6f,\"elsewhere_cpu_s\":%.6f", s.count, s.got,
           node_cpu(0, s.from, to) - node_cpu(0, idle, ends) / quiet * busy,
           node_cpu(1, s.from, to) - node_cpu(1, idle, ends) / quiet * busy);
}

static void run_rate(void) {
    need_ids();
    expect_messages(true);
    if (find_rate())
        cost_of_messages();
    poll_for(0.1); // further messages are extra
}

#endif
