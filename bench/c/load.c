// load: one thread that plays many WebSocket clients at once with epoll, parses frame headers only, and says in one
// line of JSON what it saw: counts, times, and the server's CPU and memory before and after. It draws no conclusions.
//
//     load -port N -pid N -mode fan|echo|connect|idle [-clients N] [-messages N] [-size N] [-rate N] [-batch N]
//          [-seconds S] [-settle S] [-source N] [-verify 1]
//
// -seconds is how long echo runs, and how long fan may take. Sources are the six loopback addresses 127.0.0.source
// and up, since one address has ports for 28,000 connections only. -verify compares payloads as well as their lengths.
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    EVENTS = 1024,
    READ_SIZE = 256 << 10,
    CONNECT_WINDOW = 128,       // connections that may be on their way to `connected` at once
    SOURCES = 6,                // loopback addresses to connect from
    LATENCY_LIMIT_US = 2000000, // the histogram's last bucket takes all that is slower
};

#define SECOND 1000000000.0
#define STALLED_NS 4000000000u          // a fan-out that makes no progress for this long has lost something
#define CONNECT_STALLED_NS 10000000000u // the same while connecting

static struct {
    const char *mode;
    int port, clients, messages, size, rate, batch, source;
    pid_t pid;
    double seconds, settle;
    bool verify;
} options = {.mode = "fan", .clients = 1000, .messages = 500, .size = 100, .rate = 50, .batch = 1, .source = 2,
             .seconds = 60, .settle = 0.7};

enum stage { CONNECTING, UPGRADING, AUTHENTICATING, READY, GONE };

struct client {
    int fd;
    enum stage stage;
    uint8_t header[10], header_have, header_need;
    uint8_t answer_matched, end_matched; // progress through the status line and through CR LF CR LF
    bool outstanding;                    // echo: a question was asked
    uint32_t received;
    uint64_t payload_size, payload_left;
    uint64_t asked_at;
};

struct frame {
    uint8_t bytes[512];
    size_t length;
};

static struct client *clients;
static int opened, connecting, ready;
static int poller;
static struct frame authenticate_frame, echo_frame;
static char upgrade_request[512];
static size_t upgrade_length;
static uint64_t last_progress;

// What arrived since the phase began.
static enum { QUIET, FANNING, ECHOING } phase;
static uint64_t frames, payload_bytes, reads, wrong, closed;
static uint8_t *expected; // the payload that every message of the phase must have
static uint64_t expected_size;

// For each message of a paced fan-out: who has it, and when the first and the last client got it.
static struct spread {
    uint32_t clients;
    uint64_t first, last;
} *spreads;

static uint32_t *latencies; // echo: how often each number of microseconds was seen
static uint64_t echo_ends;

// ---- what the system says of the server, of us and of the machine ----

static double cpu_seconds(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t))
        give_up("the server is gone: no CPU clock of process %d", options.pid);
    return t.tv_sec + t.tv_nsec / SECOND;
}

// The CPU clock of a process counts what /proc/PID/stat counts, in nanoseconds instead of ticks.
static double server_cpu(void) {
    clockid_t clock;
    if (clock_getcpuclockid(options.pid, &clock))
        give_up("the server is gone: no process %d", options.pid);
    return cpu_seconds(clock);
}

// A value in KiB out of a /proc file of lines "Key:  value kB", 0 where there is none.
static long proc_kb(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    long value = 0;
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
            value = atol(line + strlen(key) + 1);
    if (file)
        fclose(file);
    return value;
}

struct memory {
    long rss, anonymous, slab;
};

static struct memory read_memory(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", options.pid);
    return (struct memory){proc_kb(path, "VmRSS"), proc_kb(path, "RssAnon"), proc_kb("/proc/meminfo", "Slab")};
}

struct reading {
    uint64_t at;
    double server, load, busy, steal; // CPU seconds so far
};

static struct reading take_reading(void) {
    struct reading r = {.at = now_ns(), .server = server_cpu(), .load = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID)};
    unsigned long user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (file) {
        if (fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &iowait, &irq, &softirq,
                   &steal) < 4)
            give_up("no CPU line in /proc/stat");
        fclose(file);
    }
    double tick = sysconf(_SC_CLK_TCK);
    r.busy = (user + nice + system + irq + softirq) / tick;
    r.steal = steal / tick;
    return r;
}

static void print_interval(struct reading from, struct reading to) {
    printf(",\"seconds\":%.6f,\"server_cpu_s\":%.6f,\"load_cpu_s\":%.6f,\"busy_s\":%.2f,\"steal_s\":%.2f",
           (to.at - from.at) / SECOND, to.server - from.server, to.load - from.load, to.busy - from.busy,
           to.steal - from.steal);
}

// ---- sending ----

static struct frame make_frame(uint8_t opcode, const char *text) {
    static const uint8_t mask[4] = {0x5a, 0xc3, 0x17, 0x8e}; // a fixed mask will do: nobody caches in between
    size_t size = strlen(text), header = 2;
    struct frame f = {.bytes = {0x80 | opcode, 0x80 | size}};
    if (size > sizeof f.bytes - 8)
        give_up("frame of %zu bytes", size);
    if (size > 125) {
        f.bytes[1] = 0x80 | 126;
        f.bytes[2] = size >> 8;
        f.bytes[3] = size;
        header = 4;
    }
    memcpy(f.bytes + header, mask, sizeof mask);
    for (size_t i = 0; i < size; i++)
        f.bytes[header + 4 + i] = text[i] ^ mask[i & 3];
    f.length = header + 4 + size;
    return f;
}

static void send_all(struct client *c, const void *data, size_t length, const char *what) {
    if (send(c->fd, data, length, MSG_NOSIGNAL) != (ssize_t)length)
        give_up("send %s: %s", what, strerror(errno));
}

static void ask(struct client *c) {
    c->asked_at = now_ns();
    c->outstanding = true;
    send_all(c, echo_frame.bytes, echo_frame.length, "echo");
}

static void expect(const char *prefix, int filling, const char *suffix) {
    size_t before = strlen(prefix), after = strlen(suffix);
    expected_size = before + filling + after;
    expected = allocate(1, expected_size + 1);
    memcpy(expected, prefix, before);
    memset(expected + before, 'x', filling);
    memcpy(expected + before + filling, suffix, after);
}

// ---- receiving ----

static void on_data_frame(struct client *c, uint64_t now) {
    if (c->stage == AUTHENTICATING) { // the first message is `connected`
        c->stage = READY;
        connecting--;
        ready++;
        return;
    }
    frames++;
    if (phase == QUIET || c->header[0] != FRAME_TEXT || c->payload_size != expected_size)
        wrong++; // nobody asked for it, or it is not what was asked for
    if (phase == FANNING) {
        uint32_t number = c->received++;
        if (spreads && number < (uint32_t)options.messages) {
            struct spread *s = &spreads[number];
            if (!s->clients++)
                s->first = now;
            s->last = now;
        }
    } else if (phase == ECHOING && !c->outstanding) {
        wrong++; // a second answer
    } else if (phase == ECHOING) {
        uint64_t us = (now - c->asked_at) / 1000;
        latencies[us < LATENCY_LIMIT_US ? us : LATENCY_LIMIT_US]++;
        c->outstanding = false;
        if (now < echo_ends)
            ask(c);
    }
}

static void on_frame(struct client *c, uint64_t now) {
    c->header_have = 0;
    switch (c->header[0] & 0x0f) {
    case OPCODE_PING: {
        struct frame pong = make_frame(OPCODE_PONG, ""); // the payload was not kept; activity is what counts
        send_all(c, pong.bytes, pong.length, "pong");
        return;
    }
    case OPCODE_PONG:
        return;
    case OPCODE_CLOSE:
        closed++;
        return;
    default:
        on_data_frame(c, now);
    }
}

// Takes header bytes until the header is whole. Returns how many it took.
static size_t take_header(struct client *c, const uint8_t *data, size_t length) {
    size_t taken = 0;
    if (!c->header_have)
        c->header_need = 2;
    while (c->header_have < c->header_need && taken < length) {
        c->header[c->header_have++] = data[taken++];
        if (c->header_have == 2) {
            uint8_t code = c->header[1] & 0x7f;
            c->header_need = code < 126 ? 2 : code == 126 ? 4 : 10;
        }
    }
    if (c->header_have < c->header_need)
        return taken;
    uint64_t size = c->header[1];
    if (c->header_need > 2) {
        size = 0;
        for (int i = 2; i < c->header_need; i++)
            size = size << 8 | c->header[i];
    }
    c->payload_size = c->payload_left = size;
    return taken;
}

static void check_payload(struct client *c, const uint8_t *data, size_t length) {
    if (phase == QUIET || c->payload_size != expected_size || (c->header[0] & 0x0f) != OPCODE_TEXT)
        return; // counted, where it is wrong, when the frame ends
    if (memcmp(data, expected + (c->payload_size - c->payload_left), length))
        wrong++;
}

static void consume(struct client *c, const uint8_t *data, size_t length, uint64_t now) {
    const uint8_t *end = data + length;
    while (data < end) {
        if (!c->header_have || c->header_have < c->header_need)
            data += take_header(c, data, end - data);
        if (c->header_have < c->header_need)
            return;
        size_t part = (uint64_t)(end - data) < c->payload_left ? (uint64_t)(end - data) : c->payload_left;
        if (options.verify)
            check_payload(c, data, part);
        data += part;
        payload_bytes += part;
        c->payload_left -= part;
        if (!c->payload_left)
            on_frame(c, now);
    }
}

// Reads the answer to the upgrade, in whatever pieces it comes, and authenticates. Returns how many bytes it took.
static size_t take_answer(struct client *c, const uint8_t *data, size_t length) {
    static const char answer[] = "HTTP/1.1 101", end[] = "\r\n\r\n";
    for (size_t i = 0; i < length; i++) {
        if (answer[c->answer_matched] && data[i] != answer[c->answer_matched++])
            give_up("the upgrade was refused: %.*s", (int)(length < 200 ? length : 200), data);
        c->end_matched = data[i] == end[c->end_matched] ? c->end_matched + 1 : data[i] == '\r';
        if (c->end_matched == 4) {
            c->stage = AUTHENTICATING;
            send_all(c, authenticate_frame.bytes, authenticate_frame.length, "authenticate");
            return i + 1;
        }
    }
    return length;
}

static void on_connected(struct client *c, uint32_t events) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error || (events & (EPOLLERR | EPOLLHUP)))
        give_up("connect: %s", strerror(error));
    send_all(c, upgrade_request, upgrade_length, "upgrade");
    c->stage = UPGRADING;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = c - clients};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void on_readable(struct client *c) {
    static uint8_t buffer[READ_SIZE];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    reads++;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        if (c->stage != READY)
            give_up("the server hung up on client %d before it was connected", (int)(c - clients));
        close(c->fd);
        c->stage = GONE;
        closed++;
        return;
    }
    uint64_t now = last_progress = now_ns();
    size_t taken = c->stage == UPGRADING ? take_answer(c, buffer, got) : 0;
    consume(c, buffer + taken, got - taken, now);
}

static void turn(int wait_ms) {
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, wait_ms);
    for (int i = 0; i < count; i++) {
        struct client *c = &clients[events[i].data.u32];
        if (c->stage == CONNECTING)
            on_connected(c, events[i].events);
        else if (c->stage != GONE)
            on_readable(c);
    }
}

static void turn_for(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * SECOND);
    for (uint64_t now; (now = now_ns()) < end;) {
        uint64_t left_ms = (end - now) / 1000000u + 1;
        turn(left_ms < 50 ? left_ms : 50);
    }
}

// ---- the phases ----

static void open_client(void) {
    int number = opened++, on = 1;
    struct client *c = &clients[number];
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        give_up("socket for client %d: %s", number, strerror(errno));
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + options.source + number % SOURCES);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on); // a port for each pair, not for each source
    if (bind(c->fd, (void *)&address, sizeof address))
        give_up("bind client %d: %s", number, strerror(errno));
    struct linger reset = {.l_onoff = 1}; // no TIME_WAIT: the next run wants the ports
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    no_delay(c->fd);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(options.port);
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS)
        give_up("connect client %d: %s", number, strerror(errno));
    connecting++;
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = number};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event))
        give_up("epoll_ctl: %s", strerror(errno));
}

// Connects and authenticates everyone.
static void run_connect(void) {
    struct reading from = take_reading();
    last_progress = from.at;
    while (ready < options.clients) {
        while (connecting < CONNECT_WINDOW && opened < options.clients)
            open_client();
        turn(100);
        if (now_ns() - last_progress > CONNECT_STALLED_NS)
            give_up("stalled while connecting: %d of %d clients are ready", ready, options.clients);
    }
    struct reading to = take_reading();
    printf(",\"connect_seconds\":%.6f,\"connect_cpu_s\":%.6f", (to.at - from.at) / SECOND, to.server - from.server);
    if (!strcmp(options.mode, "connect"))
        print_interval(from, to);
}

// Begins to count. Whatever comes before it has been asked for is wrong.
static void begin(int next_phase) {
    frames = payload_bytes = reads = 0;
    phase = next_phase;
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// How long a message took from its first client to its last: the median message, and the slowest of a hundred.
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

// Makes the server publish and counts until everyone has everything.
static void run_fan(void) {
    char order[128];
    snprintf(order, sizeof order, "{\"event\":\"pub\",\"data\":{\"n\":%d,\"size\":%d,\"rate\":%d,\"batch\":%d}}",
             options.messages, options.size, options.rate, options.batch);
    struct frame publish = make_frame(OPCODE_TEXT, order);
    expect("{\"event\":\"m\",\"data\":{\"p\":\"", options.size, "\"}}");
    if (options.rate > 0)
        spreads = allocate(options.messages, sizeof *spreads);
    uint64_t want = (uint64_t)options.clients * options.messages;

    begin(FANNING);
    struct reading from = take_reading();
    last_progress = from.at;
    send_all(&clients[0], publish.bytes, publish.length, "publish order");
    while (frames < want) {
        turn(100);
        uint64_t now = now_ns();
        if (now - from.at > (uint64_t)(options.seconds * SECOND) || now - last_progress > STALLED_NS)
            break;
    }
    struct reading to = take_reading();

    uint64_t got = frames, bytes = payload_bytes, read_calls = reads;
    turn_for(0.1); // what comes now is too much
    uint32_t least = UINT32_MAX, most = 0;
    for (int i = 0; i < options.clients; i++) {
        least = clients[i].received < least ? clients[i].received : least;
        most = clients[i].received > most ? clients[i].received : most;
    }
    print_interval(from, to);
    printf(",\"want\":%lu,\"got\":%lu,\"extra\":%lu,\"least\":%u,\"most\":%u,\"bytes\":%lu,\"reads\":%lu", want, got,
           frames > want ? frames - want : 0, least, most, bytes, read_calls);
    if (spreads)
        print_spreads();
}

static long percentile(uint64_t total, double share) {
    uint64_t seen = 0;
    for (long us = 0; us <= LATENCY_LIMIT_US; us++)
        if ((seen += latencies[us]) >= total * share)
            return us;
    return LATENCY_LIMIT_US;
}

// Everyone asks, waits for the answer, and asks again.
static void run_echo(void) {
    static const char question[] = "{\"event\":\"e\",\"data\":{\"i\":12345}}";
    const double warm_up = options.seconds < 1 ? options.seconds : 1;
    echo_frame = make_frame(OPCODE_TEXT, question);
    expect(question, 0, "");
    latencies = allocate(LATENCY_LIMIT_US + 1, sizeof *latencies);
    echo_ends = now_ns() + (uint64_t)((warm_up + options.seconds) * SECOND);
    begin(ECHOING);
    for (int i = 0; i < options.clients; i++)
        ask(&clients[i]);
    turn_for(warm_up);

    memset(latencies, 0, (LATENCY_LIMIT_US + 1) * sizeof *latencies);
    begin(ECHOING);
    struct reading from = take_reading();
    while (now_ns() < echo_ends)
        turn(50);
    struct reading to = take_reading();

    uint64_t answers = frames;
    printf(",\"p50_us\":%ld,\"p99_us\":%ld,\"p999_us\":%ld", percentile(answers, 0.50), percentile(answers, 0.99),
           percentile(answers, 0.999));
    turn_for(0.5); // the last answers
    uint64_t unanswered = 0;
    for (int i = 0; i < options.clients; i++)
        unanswered += clients[i].outstanding;
    print_interval(from, to);
    printf(",\"want\":%lu,\"got\":%lu,\"reads\":%lu", answers + unanswered, answers, reads);
}

// Everyone stays connected and does nothing. Memory is read as it is, and again after the server was asked to collect.
static void run_idle(struct memory before) {
    turn_for(options.settle);
    struct memory settled = read_memory();
    struct reading from = take_reading();
    turn_for(options.settle < 3 ? options.settle : 3);
    struct reading to = take_reading();
    if (kill(options.pid, SIGUSR2))
        give_up("ask the server to collect: %s", strerror(errno));
    turn_for(options.settle < 1.5 ? options.settle : 1.5);
    struct memory collected = read_memory();
    print_interval(from, to);
    printf(",\"rss_before_kb\":%ld,\"rss_kb\":%ld,\"rss_collected_kb\":%ld", before.rss, settled.rss, collected.rss);
    printf(",\"anon_before_kb\":%ld,\"anon_kb\":%ld,\"anon_collected_kb\":%ld", before.anonymous, settled.anonymous,
           collected.anonymous);
    printf(",\"slab_before_kb\":%ld,\"slab_kb\":%ld", before.slab, settled.slab); // both ends of all sockets
}

// ---- start ----

static void set_option(const char *name, const char *value) {
    struct {
        const char *name;
        int *target;
    } numbers[] = {{"-port", &options.port},   {"-pid", &options.pid},   {"-clients", &options.clients},
                   {"-messages", &options.messages}, {"-size", &options.size}, {"-rate", &options.rate},
                   {"-batch", &options.batch}, {"-source", &options.source}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(name, numbers[i].name)) {
            *numbers[i].target = atoi(value);
            return;
        }
    if (!strcmp(name, "-mode"))
        options.mode = value;
    else if (!strcmp(name, "-seconds"))
        options.seconds = atof(value);
    else if (!strcmp(name, "-settle"))
        options.settle = atof(value);
    else if (!strcmp(name, "-verify"))
        options.verify = atoi(value);
    else
        give_up("unknown option %s", name);
}

int main(int argc, char **argv) {
    if (argc % 2 == 0)
        give_up("option %s has no value", argv[argc - 1]);
    for (int i = 1; i < argc; i += 2)
        set_option(argv[i], argv[i + 1]);
    if (options.port <= 0 || options.pid <= 0 || options.clients <= 0 || options.messages <= 0 || options.seconds <= 0 ||
        options.size < 0 || options.size > 60000 || options.source < 1 || options.source > 254 - SOURCES)
        give_up("an option is missing or out of range");

    raise_file_limit();
    poller = epoll_create1(0);
    clients = allocate(options.clients, sizeof *clients);
    authenticate_frame = make_frame(OPCODE_TEXT, "{\"event\":\"authenticate\",\"data\":{\"token\":\"t\"}}");
    upgrade_length = snprintf(upgrade_request, sizeof upgrade_request,
                              "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: " HANDSHAKE_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n", options.port);

    struct memory before = read_memory();
    printf("{\"mode\":\"%s\",\"clients\":%d", options.mode, options.clients);
    run_connect();
    if (!strcmp(options.mode, "idle")) {
        run_idle(before);
    } else if (!strcmp(options.mode, "fan")) {
        turn_for(options.settle);
        run_fan();
    } else if (!strcmp(options.mode, "echo")) {
        turn_for(options.settle);
        run_echo();
    } else if (strcmp(options.mode, "connect")) {
        give_up("unknown mode %s", options.mode);
    }
    printf(",\"wrong\":%lu,\"closed\":%lu}\n", wrong, closed);
    return 0;
}
