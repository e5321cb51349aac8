// The clients: connections of one epoll, from the first packet to `connected`, and the frames that
// follow it. The phase handles messages: see on_message.
#ifndef HEARTH_BENCH_CLIENT_H
#define HEARTH_BENCH_CLIENT_H

#include "system.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>

enum {
    EVENTS = 1024,
    READ_SIZE = 256 << 10,
    CONNECT_WINDOW = 128, // connections that wait for `connected` at the same time
    SOURCES = 6,          // loopback addresses to connect from
    ID_SIZE = 36,         // of a client: a UUID
    MESSAGE_SIZE = 3500,  // the longest message to send
    NUMBER_DIGITS = 12,   // of a numbered message, at the end of its padding
    NOT_A_CLIENT = -1,    // the event belongs to Redis
};

#define CONNECT_STALLED_NS 10000000000u

static struct {
    const char *mode, *key, *transcript;
    int clients, messages, size, rate, batch, source, sealed, kept, rooms, budget_us;
    int ports[MAX_NODES], redis_port;
    double seconds, settle;
    bool verify, turns;
} options = {.mode = "fan", .clients = 1000, .messages = 500, .size = 100, .rate = 50, .batch = 1, .source = 2,
             .seconds = 60, .settle = 0.7, .budget_us = 50000};

enum stage { CONNECTING, UPGRADING, AUTHENTICATING, READY, GONE };

struct client {
    int fd;
    enum stage stage;
    bool sealed;      // encrypted: it has sent a public key
    bool outstanding; // waits for an answer
    uint8_t header[10], header_have, header_need;
    uint8_t answer_matched, end_matched; // progress through the status line and through CR LF CR LF
    uint32_t received;
    uint64_t number; // of the message that is being read, where messages are numbered
    uint64_t payload_size, payload_left;
    uint64_t asked_at;
    char id[ID_SIZE + 1]; // from `connected`
};

struct frame {
    uint8_t bytes[4096];
    size_t length;
};

static struct client *clients;
static int opened, connecting, ready;
static int poller;
static struct frame authenticate_frame, sealed_authenticate_frame;
static uint64_t last_progress;

// Counters since the phase began, and the handler of messages. NULL: no message is expected.
static void (*on_message)(struct client *c, uint64_t now);
static uint64_t frames, payload_bytes, reads, wrong, closed;

// The payload that every message of the phase must have, except the number of numbered messages.
static struct {
    uint8_t *bytes;
    uint64_t size, sealed_size;
    uint64_t number_at; // size: no number
} expected;

static FILE *transcript; // messages to the first options.kept encrypted clients; the caller opens it

// ---- sending ----

static struct frame make_frame(uint8_t opcode, const char *text) {
    // A fixed mask is enough: there is no cache on the way.
    static const uint8_t mask[4] = {0x5a, 0xc3, 0x17, 0x8e};
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

static void send_text(struct client *c, const char *text) {
    struct frame f = make_frame(OPCODE_TEXT, text);
    send_all(c, f.bytes, f.length, text);
}

// ---- what is expected ----

// The length of the base64 of size bytes.
static uint64_t base64_size(uint64_t size) { return (size + 2) / 3 * 4; }

static void expect(const char *prefix, char filler, int filling, const char *suffix) {
    static const char head[] = "{\"event\":\"encrypted\",\"data\":{\"iv\":\"", middle[] = "\",\"ct\":\"", tail[] = "\"}}";
    size_t before = strlen(prefix), after = strlen(suffix);
    free(expected.bytes);
    expected.size = expected.number_at = before + filling + after;
    expected.bytes = allocate(1, expected.size + 1);
    memcpy(expected.bytes, prefix, before);
    memset(expected.bytes + before, filler, filling);
    memcpy(expected.bytes + before + filling, suffix, after);
    // 12 bytes of IV, 16 of tag.
    expected.sealed_size = sizeof head + sizeof middle + sizeof tail - 3 + base64_size(12) + base64_size(expected.size + 16);
}

#define MESSAGE_HEAD "{\"event\":\"m\",\"data\":{\"p\":\""
#define MESSAGE_TAIL "\"}}"

// Messages with a padding of x, or of zeros that end in the message's number.
static void expect_messages(bool numbered) {
    expect(MESSAGE_HEAD, numbered ? '0' : 'x', options.size, MESSAGE_TAIL);
    if (!numbered)
        return;
    if (options.size < NUMBER_DIGITS)
        give_up("a filling of %d bytes is too small for a number", options.size);
    expected.number_at = sizeof MESSAGE_HEAD - 1 + options.size - NUMBER_DIGITS;
}

static uint64_t expected_size(const struct client *c) { return c->sealed ? expected.sealed_size : expected.size; }

// Compares the part of data, which begins at offset `at` of its payload, that lies in [from, to).
static bool differs(const uint8_t *data, uint64_t length, uint64_t at, uint64_t from, uint64_t to) {
    uint64_t first = from > at ? from : at, last = to < at + length ? to : at + length;
    return first < last && memcmp(data + (first - at), expected.bytes + first, last - first);
}

static void check_payload(struct client *c, const uint8_t *data, size_t length) {
    static const char sealed_head[] = "{\"event\":\"encrypted\",\"data\":{\"iv\":\"";
    uint64_t at = c->payload_size - c->payload_left, number_ends = expected.number_at + NUMBER_DIGITS;
    if (!on_message || c->payload_size != expected_size(c) || (c->header[0] & 0x0f) != OPCODE_TEXT)
        return; // a wrong message is counted when the frame ends
    if (c->sealed) { // its content is in the transcript
        uint64_t size = sizeof sealed_head - 1;
        if (at < size && memcmp(data, sealed_head + at, at + length < size ? length : size - at))
            wrong++;
        return;
    }
    for (uint64_t i = expected.number_at > at ? expected.number_at : at; i < number_ends && i < at + length && i < expected.size; i++)
        c->number = c->number * 10 + (data[i - at] - '0');
    if (options.verify && (differs(data, length, at, 0, expected.number_at) || differs(data, length, at, number_ends, expected.size)))
        wrong++;
}

// ---- receiving ----

static void make_ready(struct client *c) { // the first message is `connected`
    c->stage = READY;
    connecting--;
    ready++;
}

static void on_data_frame(struct client *c, uint64_t now) {
    if (c->stage == AUTHENTICATING) {
        make_ready(c);
        return;
    }
    frames++;
    if (!on_message || c->header[0] != FRAME_TEXT || c->payload_size != expected_size(c)) {
        wrong++; // unexpected, or different from the expected message
        if (!on_message)
            return;
    }
    on_message(c, now);
}

static void on_frame(struct client *c, uint64_t now) {
    c->header_have = 0;
    switch (c->header[0] & 0x0f) {
    case OPCODE_PING: {
        // The payload was not kept: only the activity counts.
        struct frame pong = make_frame(OPCODE_PONG, "");
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

// Reads header bytes until the header is complete. Returns the number of bytes read.
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
    c->number = 0;
    return taken;
}

// Writes the payload of a message to the transcript: `client number, length, bytes`, in pieces. A
// piece that ends its message has the length's upper bit set.
static void keep(const struct client *c, const uint8_t *data, uint32_t length) {
    uint32_t head[2] = {c - clients, length | (length == c->payload_left ? 1u << 31 : 0)};
    if (fwrite(head, sizeof head, 1, transcript) != 1 || fwrite(data, 1, length, transcript) != length)
        give_up("write the transcript: %s", strerror(errno));
}

// Finds the client's id in `connected`.
static void read_greeting(struct client *c, const uint8_t *data, size_t length) {
    static const char before[] = "\"id\":\"";
    const uint8_t *found = memmem(data, length, before, sizeof before - 1);
    if (found && found + sizeof before - 1 + ID_SIZE <= data + length)
        memcpy(c->id, found + sizeof before - 1, ID_SIZE);
}

static void take_payload(struct client *c, const uint8_t *data, size_t length) {
    if (c->stage == AUTHENTICATING)
        read_greeting(c, data, length);
    else if (options.verify || c->sealed || expected.number_at < expected.size)
        check_payload(c, data, length);
    if (transcript && c->sealed && c - clients >= options.clients - options.kept && (c->header[0] & 0x0f) <= OPCODE_TEXT)
        keep(c, data, length);
    payload_bytes += length;
    c->payload_left -= length;
}

static void consume(struct client *c, const uint8_t *data, size_t length, uint64_t now) {
    const uint8_t *end = data + length;
    while (data < end) {
        if (!c->header_have || c->header_have < c->header_need)
            data += take_header(c, data, end - data);
        if (c->header_have < c->header_need)
            return;
        size_t part = (uint64_t)(end - data) < c->payload_left ? (uint64_t)(end - data) : c->payload_left;
        take_payload(c, data, part);
        data += part;
        if (!c->payload_left)
            on_frame(c, now);
    }
}

// Reads the answer to the upgrade, in any pieces, and authenticates. Returns the number of bytes
// read.
static size_t take_answer(struct client *c, const uint8_t *data, size_t length) {
    static const char answer[] = "HTTP/1.1 101", end[] = "\r\n\r\n";
    for (size_t i = 0; i < length; i++) {
        if (answer[c->answer_matched] && data[i] != answer[c->answer_matched++])
            give_up("the upgrade was rejected: %.*s", (int)(length < 200 ? length : 200), data);
        c->end_matched = data[i] == end[c->end_matched] ? c->end_matched + 1 : data[i] == '\r';
        if (c->end_matched == 4) {
            const struct frame *f = c->sealed ? &sealed_authenticate_frame : &authenticate_frame;
            c->stage = AUTHENTICATING;
            send_all(c, f->bytes, f->length, "authenticate");
            return i + 1;
        }
    }
    return length;
}

static void on_connected(struct client *c, uint32_t events) {
    char request[256];
    int error = 0, number = c - clients;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error || (events & (EPOLLERR | EPOLLHUP)))
        give_up("connect: %s", strerror(error));
    int length = snprintf(request, sizeof request,
                          "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " HANDSHAKE_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n", options.ports[0]);
    send_all(c, request, length, "upgrade");
    c->stage = UPGRADING;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = number};
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

static void (*on_other)(uint32_t events); // for the connection that belongs to no client

static void poll_once(int wait_ms) {
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, wait_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == (uint64_t)NOT_A_CLIENT) {
            on_other(events[i].events);
            continue;
        }
        struct client *c = &clients[events[i].data.u64];
        if (c->stage == CONNECTING)
            on_connected(c, events[i].events);
        else if (c->stage != GONE)
            on_readable(c);
    }
}

static void poll_for(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * SECOND);
    for (uint64_t now; (now = now_ns()) < end;) {
        uint64_t left_ms = (end - now) / 1000000u + 1;
        poll_once(left_ms < 50 ? left_ms : 50);
    }
}

// ---- connecting ----

static int node_count(void) { return options.ports[1] ? 2 : 1; }

// The clients are spread over the nodes in turn.
static int node_of(const struct client *c) { return (c - clients) % node_count(); }

static void open_client(void) {
    int number = opened++, on = 1;
    struct client *c = &clients[number];
    c->sealed = number >= options.clients - options.sealed;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        give_up("socket for client %d: %s", number, strerror(errno));
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + options.source + number % SOURCES);
    // A port for each pair of addresses, not for each source.
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(c->fd, (void *)&address, sizeof address))
        give_up("bind client %d: %s", number, strerror(errno));
    struct linger reset = {.l_onoff = 1}; // no TIME_WAIT: the next run needs the ports
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    no_delay(c->fd);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(options.ports[node_of(c)]);
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS)
        give_up("connect client %d: %s", number, strerror(errno));
    connecting++;
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = number};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event))
        give_up("epoll_ctl: %s", strerror(errno));
}

// Connects and authenticates clients up to the given number.
static void connect_clients(int many) {
    last_progress = now_ns();
    while (ready < many) {
        while (connecting < CONNECT_WINDOW && opened < many)
            open_client();
        poll_once(100);
        if (now_ns() - last_progress > CONNECT_STALLED_NS)
            give_up("stalled while connecting: %d of %d clients are ready", ready, many);
    }
}

static void prepare_clients(void) {
    char text[256];
    poller = epoll_create1(0);
    clients = allocate(options.clients, sizeof *clients);
    authenticate_frame = make_frame(OPCODE_TEXT, "{\"event\":\"authenticate\",\"data\":{\"token\":\"t\"}}");
    if (options.sealed && !options.key)
        give_up("encrypted clients need a -key");
    snprintf(text, sizeof text, "{\"event\":\"authenticate\",\"data\":{\"token\":\"t\",\"publicKey\":\"%s\"}}", options.key);
    sealed_authenticate_frame = make_frame(OPCODE_TEXT, text);
    if (options.transcript && !(transcript = fopen(options.transcript, "w")))
        give_up("open %s: %s", options.transcript, strerror(errno));
}

#endif
