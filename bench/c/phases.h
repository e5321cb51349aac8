// The phases in which a server is driven through its clients: connect, fan, echo, idle, mixed.
#ifndef HEARTH_BENCH_PHASES_H
#define HEARTH_BENCH_PHASES_H

#include "client.h"

#include <signal.h>

enum { LATENCY_LIMIT_US = 2000000 }; // the last bucket of the histogram includes everything slower

#define STALLED_NS 4000000000u // a phase without progress for this long has lost a message

// For each message of a paced fan-out: the number of clients that have it, and when the first and
// the last client got it.
static struct spread {
    uint32_t clients;
    uint64_t first, last;
} *spreads;

static uint32_t *latencies; // the count of each number of microseconds
static uint64_t latency_count;

// Starts to count, with a function for each message. NULL: every message is wrong.
static void begin(void (*handler)(struct client *c, uint64_t now)) {
    frames = payload_bytes = reads = 0;
    for (int i = 0; i < options.clients; i++)
        clients[i].received = 0;
    on_message = handler;
}

static void clear_latencies(void) {
    if (!latencies)
        latencies = allocate(LATENCY_LIMIT_US + 1, sizeof *latencies);
    memset(latencies, 0, (LATENCY_LIMIT_US + 1) * sizeof *latencies);
    latency_count = 0;
}

static void note_latency(uint64_t from, uint64_t now) {
    uint64_t us = now > from ? (now - from) / 1000 : 0;
    latencies[us < LATENCY_LIMIT_US ? us : LATENCY_LIMIT_US]++;
    latency_count++;
}

static long percentile(double share) {
    uint64_t seen = 0;
    for (long us = 0; us <= LATENCY_LIMIT_US; us++)
        if ((seen += latencies[us]) >= latency_count * share)
            return us;
    return LATENCY_LIMIT_US;
}

static bool stalled(void) { return now_ns() - last_progress > STALLED_NS; }

static void print_counts(uint64_t want, uint64_t got) {
    uint32_t least = UINT32_MAX, most = 0;
    for (int i = 0; i < options.clients; i++) {
        least = clients[i].received < least ? clients[i].received : least;
        most = clients[i].received > most ? clients[i].received : most;
    }
    printf(",\"want\":%lu,\"got\":%lu,\"extra\":%lu,\"least\":%u,\"most\":%u", want, got, frames > want ? frames - want : 0,
           least, most);
}

// ---- connect ----

// Connects and authenticates all clients.
static void run_connect(void) {
    struct reading from = take_reading();
    connect_clients(options.clients);
    struct reading to = take_reading();
    printf(",\"connect_seconds\":%.6f,\"connect_cpu_s\":%.6f", seconds_between(from, to), nodes_cpu(from, to));
    if (options.turns || !strcmp(options.mode, "connect"))
        print_interval(from, to);
}

// ---- fan: the server publishes ----

static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// The time of a message from its first client to its last: the median, and p99.
static void print_spreads(void) {
    uint64_t *lengths = allocate(options.messages, sizeof *lengths);
    int whole = 0;
    for (int i = 0; i < options.messages; i++)
        if (spreads[i].clients == (uint32_t)options.clients)
            lengths[whole++] = spreads[i].last - spreads[i].first;
    if (whole) {
        qsort(lengths, whole, sizeof *lengths, compare_u64);
        printf(",\"spread_p50_us\":%.1f,\"spread_p99_us\":%.1f", lengths[whole / 2] / 1e3, lengths[whole * 99 / 100] / 1e3);
    }
    free(lengths);
}

static void on_fan_message(struct client *c, uint64_t now) {
    uint32_t number = c->received++;
    if (!spreads || number >= (uint32_t)options.messages)
        return;
    struct spread *s = &spreads[number];
    if (!s->clients++)
        s->first = now;
    s->last = now;
}

// Makes the server publish, and counts until all clients have all messages. Encrypted clients get
// numbered messages, which show the order of encryption.
static void run_fan(void) {
    char order[160];
    snprintf(order, sizeof order, "{\"event\":\"pub\",\"data\":{\"n\":%d,\"size\":%d,\"rate\":%d,\"batch\":%d,\"numbered\":%s}}",
             options.messages, options.size, options.rate, options.batch, options.sealed ? "true" : "false");
    expect_messages(options.sealed > 0);
    if (options.rate > 0)
        spreads = allocate(options.messages, sizeof *spreads);
    uint64_t want = (uint64_t)options.clients * options.messages;

    begin(on_fan_message);
    struct reading from = take_reading();
    last_progress = from.at;
    send_text(&clients[0], order);
    while (frames < want) {
        poll_once(100);
        if (now_ns() - from.at > (uint64_t)(options.seconds * SECOND) || stalled())
            break;
    }
    struct reading to = take_reading();

    uint64_t got = frames, bytes = payload_bytes, read_calls = reads;
    poll_for(0.1); // further messages are extra
    print_interval(from, to);
    print_counts(want, got);
    printf(",\"bytes\":%lu,\"reads\":%lu", bytes, read_calls);
    if (spreads)
        print_spreads();
    free(spreads);
    spreads = NULL; // the next turn allocates new ones
}

// ---- echo ----

static uint64_t echo_ends;

#define ECHO_QUESTION "{\"event\":\"e\",\"data\":{\"i\":12345}}"

static void ask(struct client *c) {
    c->asked_at = now_ns();
    c->outstanding = true;
    send_text(c, ECHO_QUESTION);
}

static void on_echo(struct client *c, uint64_t now) {
    if (!c->outstanding) {
        wrong++; // a second answer
        return;
    }
    note_latency(c->asked_at, now);
    c->outstanding = false;
    if (now < echo_ends)
        ask(c);
}

static uint64_t unanswered(void) {
    uint64_t count = 0;
    for (int i = 0; i < options.clients; i++)
        count += clients[i].outstanding;
    return count;
}

// Each client sends, waits for the answer, and sends again, until the time is over and at least
// one answer has arrived.
static void run_echo(void) {
    expect(ECHO_QUESTION, 0, 0, "");
    clear_latencies();
    echo_ends = UINT64_MAX;
    begin(on_echo);
    for (int i = 0; i < options.clients; i++)
        ask(&clients[i]);
    poll_for(options.seconds < 1 ? options.seconds : 1); // to warm up

    clear_latencies();
    begin(on_echo);
    struct reading from = take_reading();
    last_progress = from.at;
    echo_ends = from.at + (uint64_t)(options.seconds * SECOND);
    while ((now_ns() < echo_ends || !frames) && !stalled())
        poll_once(50);
    struct reading to = take_reading();

    uint64_t answers = frames;
    printf(",\"p50_us\":%ld,\"p99_us\":%ld,\"p999_us\":%ld", percentile(0.50), percentile(0.99), percentile(0.999));
    while (unanswered() && !stalled())
        poll_once(50);
    poll_for(0.1); // further messages are extra
    print_interval(from, to);
    printf(",\"want\":%lu,\"got\":%lu,\"reads\":%lu", answers + unanswered(), answers, reads);
}

// ---- idle ----

static void ask_to_collect(void) {
    if (kill(node_pids[0], SIGUSR2))
        give_up("ask the server to collect: %s", strerror(errno));
    poll_for(options.settle < 1.5 ? options.settle : 1.5);
}

// All clients stay connected and do nothing. Reads the memory at once, and again after the server
// has collected its garbage.
static void run_idle(struct memory before) {
    poll_for(options.settle);
    struct memory settled = read_memory();
    struct reading from = take_reading();
    poll_for(options.settle < 3 ? options.settle : 3);
    struct reading to = take_reading();
    ask_to_collect();
    struct memory collected = read_memory();
    print_interval(from, to);
    printf(",\"rss_before_kb\":%ld,\"rss_kb\":%ld,\"rss_collected_kb\":%ld", before.rss, settled.rss, collected.rss);
    printf(",\"anon_before_kb\":%ld,\"anon_kb\":%ld,\"anon_collected_kb\":%ld", before.anonymous, settled.anonymous,
           collected.anonymous);
    // The slab has both ends of all sockets.
    printf(",\"slab_before_kb\":%ld,\"slab_kb\":%ld", before.slab, settled.slab);
}

// ---- mixed: a client sends to a room of unencrypted clients, without and with encrypted clients
// in addition ----

static uint64_t *said_at; // when each message was sent
static uint32_t said;     // messages that were sent before this part

static void on_said(struct client *c, uint64_t now) {
    uint32_t number = c->received++;
    if (c->sealed || number >= (uint32_t)options.messages)
        return;
    if (c->number != number + said)
        wrong++;
    note_latency(said_at[number], now);
}

static void say(int number) {
    char text[MESSAGE_SIZE];
    snprintf(text, sizeof text, "{\"event\":\"say\",\"data\":{\"p\":\"%0*d\"}}", options.size, (int)said + number);
    said_at[number] = now_ns();
    send_text(&clients[0], text);
}

// Sends messages at their rate and waits until all connected clients have them.
static void say_all(void) {
    uint64_t want = (uint64_t)ready * options.messages, start = now_ns();
    clear_latencies();
    begin(on_said);
    last_progress = start;
    for (int sent = 0; frames < want && !stalled();) {
        uint64_t due = (now_ns() - start) * options.rate / (uint64_t)SECOND + 1;
        for (; sent < options.messages && (uint64_t)sent < due; sent++)
            say(sent);
        poll_once(sent < options.messages ? 1 : 100);
    }
}

static void run_mixed(void) {
    said_at = allocate(options.messages, sizeof *said_at);
    expect_messages(true);
    connect_clients(options.clients - options.sealed);
    poll_for(options.settle);
    say_all();
    uint64_t want = (uint64_t)ready * options.messages, got = frames;
    printf(",\"alone_p50_us\":%ld,\"alone_p99_us\":%ld", percentile(0.50), percentile(0.99));
    said += options.messages;

    on_message = NULL;
    connect_clients(options.clients);
    poll_for(options.settle);
    struct reading from = take_reading();
    say_all();
    struct reading to = take_reading();
    got += frames;
    want += (uint64_t)ready * options.messages;
    poll_for(0.1); // further messages are extra
    print_interval(from, to);
    printf(",\"p50_us\":%ld,\"p99_us\":%ld", percentile(0.50), percentile(0.99));
    print_counts(want, got);
}

#endif
