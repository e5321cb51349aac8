// limit: a WebSocket fan-out server that does as little as possible, on one thread with epoll. It
// recognizes the messages of the benchmark by their first bytes, parses no JSON and checks nothing.
// Its cost is that of the kernel. A server with a full protocol can come close, but not below.
//
//     limit PORT [sealed]     (0: any free port; prints "READY 127.0.0.1:port")
//
// sealed: its messages have the form and length of encrypted ones. Nothing is encrypted: that cost
// is measured separately.
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    CONGESTED = 256 << 10, // the publisher pauses while more than this waits for a client
    READ_SIZE = 128 << 10,
    EVENTS = 1024,
    NO_ROOM = -1,
};

struct bytes {
    uint8_t *data;
    uint32_t length;
};

struct client {
    int fd;
    int room_slot; // index in room, or NO_ROOM
    bool upgraded;
    bool wants_write;     // registered for EPOLLOUT
    struct bytes unread;  // the received part of a message
    struct bytes backlog; // the bytes that the socket did not accept
    uint32_t backlog_sent; // of it, written since
};

static struct client **clients; // by descriptor
static struct client **room;    // all authenticated clients
static int room_size;
static int poller;
static int congested_clients;
static bool look_sealed;
static uint8_t read_buffer[READ_SIZE + 1];

// One publish order at a time: `total` messages of the same bytes.
static struct {
    int total, sent;
    int rate;          // per second; 0: as fast as clients read
    int batch;         // messages per write, if rate is 0
    uint64_t started;  // ns
    uint8_t *frames;   // `batch` times the frame
    size_t frame_size;
} publisher;

// ---- writing ----

static void watch(struct client *c, bool wants_write) {
    c->wants_write = wants_write;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (wants_write ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static uint32_t waiting(const struct client *c) { return c->backlog.length - c->backlog_sent; }

// Changes the backlog, and counts the clients with a backlog.
static void set_backlog(struct client *c, struct bytes backlog, uint32_t sent) {
    bool was_congested = waiting(c) > CONGESTED;
    c->backlog = backlog;
    c->backlog_sent = sent;
    congested_clients += (waiting(c) > CONGESTED) - was_congested;
}

static void keep_for_later(struct client *c, const uint8_t *data, size_t length) {
    uint32_t old = waiting(c);
    uint8_t *both = malloc(old + length);
    if (!both)
        give_up("out of memory for a backlog");
    if (old)
        memcpy(both, c->backlog.data + c->backlog_sent, old);
    memcpy(both + old, data, length);
    free(c->backlog.data);
    set_backlog(c, (struct bytes){both, old + length}, 0);
    if (!c->wants_write)
        watch(c, true);
}

static inline void send_to(struct client *c, const void *data, size_t length) {
    ssize_t taken = 0;
    if (!c->backlog.length) {
        taken = send(c->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (taken == (ssize_t)length)
            return;
        if (taken < 0)
            taken = 0; // full or closed: the next read shows which
    }
    keep_for_later(c, (const uint8_t *)data + taken, length - taken);
}

static void drain(struct client *c) {
    ssize_t taken = send(c->fd, c->backlog.data + c->backlog_sent, waiting(c), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken <= 0)
        return;
    set_backlog(c, c->backlog, c->backlog_sent + taken);
    if (waiting(c))
        return;
    free(c->backlog.data);
    set_backlog(c, (struct bytes){0}, 0);
    watch(c, false);
}

// Writes a frame's header and returns its length. `size` is below 64 KiB.
static size_t put_header(uint8_t *out, size_t size) {
    out[0] = FRAME_TEXT;
    if (size < 126) {
        out[1] = size;
        return 2;
    }
    out[1] = 126;
    out[2] = size >> 8;
    out[3] = size;
    return 4;
}

// ---- the room and its publisher ----

static void join_room(struct client *c) {
    if (c->room_slot != NO_ROOM)
        return;
    c->room_slot = room_size;
    room[room_size++] = c;
}

static void leave_room(struct client *c) {
    if (c->room_slot == NO_ROOM)
        return;
    struct client *last = room[--room_size];
    room[c->room_slot] = last;
    last->room_slot = c->room_slot;
    c->room_slot = NO_ROOM;
}

static long number_after(const char *text, size_t length, const char *key, long otherwise) {
    const char *found = memmem(text, length, key, strlen(key));
    return found ? atol(found + strlen(key)) : otherwise;
}

static void start_publishing(const char *order, size_t length) {
    static const char plain[] = "{\"event\":\"m\",\"data\":{\"p\":\"", closing[] = "\"}}";
    static const char sealed[] = "{\"event\":\"encrypted\",\"data\":{\"iv\":\"xxxxxxxxxxxxxxxx\",\"ct\":\"";
    const char *opening = look_sealed ? sealed : plain;
    size_t opening_size = strlen(opening);
    long filling = number_after(order, length, "\"size\":", 100);
    if (filling < 0 || filling > 60000)
        give_up("publish order with a size of %ld", filling);
    publisher.total = number_after(order, length, "\"n\":", 1);
    publisher.rate = number_after(order, length, "\"rate\":", 0);
    publisher.batch = number_after(order, length, "\"batch\":", 1);
    if (publisher.batch < 1)
        publisher.batch = 64; // "as you like"
    publisher.sent = 0;
    publisher.started = now_ns();

    if (look_sealed) // base64 of the message and a tag of 16 bytes
        filling = (sizeof plain - 1 + filling + sizeof closing - 1 + 16 + 2) / 3 * 4;
    size_t size = opening_size + filling + sizeof closing - 1;
    free(publisher.frames);
    publisher.frames = allocate(publisher.batch, size + 4);
    uint8_t *out = publisher.frames;
    for (int i = 0; i < publisher.batch; i++) {
        out += put_header(out, size);
        out = mempcpy(out, opening, opening_size);
        memset(out, 'x', filling);
        out = mempcpy(out + filling, closing, sizeof closing - 1);
    }
    publisher.frame_size = (out - publisher.frames) / publisher.batch;
}

static void fan_out(int messages) {
    size_t length = publisher.frame_size * messages;
    for (int i = 0; i < room_size; i++)
        send_to(room[i], publisher.frames, length);
    publisher.sent += messages;
}

static void publish_due(void) {
    int left = publisher.total - publisher.sent;
    if (left <= 0)
        return;
    if (publisher.rate == 0) {
        if (!congested_clients)
            fan_out(left < publisher.batch ? left : publisher.batch);
        return;
    }
    uint64_t due = (now_ns() - publisher.started) * publisher.rate / 1000000000u + 1;
    while (publisher.sent < publisher.total && (uint64_t)publisher.sent < due)
        fan_out(1);
}

// How long epoll may wait: until the next message is due.
static int wait_ms(void) {
    if (publisher.sent >= publisher.total)
        return -1;
    if (publisher.rate == 0)
        return congested_clients ? -1 : 0;
    uint64_t due = publisher.started + (uint64_t)publisher.sent * 1000000000u / publisher.rate, now = now_ns();
    return due <= now ? 0 : (int)((due - now) / 1000000u + 1);
}

// ---- reading ----

static void drop(struct client *c) {
    leave_room(c);
    free(c->backlog.data);
    set_backlog(c, (struct bytes){0}, 0);
    free(c->unread.data);
    clients[c->fd] = NULL; // before close, which frees the number for reuse
    close(c->fd);
    free(c);
}

static bool starts_with(const char *text, size_t length, const char *prefix) {
    size_t size = strlen(prefix);
    return length >= size && !memcmp(text, prefix, size);
}

static void send_connected(struct client *c) {
    uint8_t frame[160];
    int size = snprintf((char *)frame + 2, sizeof frame - 2,
                        "{\"event\":\"connected\",\"data\":{\"id\":\"%036d\",\"time\":\"2026-01-01T00:00:00.000Z\"}}", c->fd);
    put_header(frame, size); // below 126: two bytes
    send_to(c, frame, size + 2);
}

static void send_echo(struct client *c, const char *text, size_t length) {
    uint8_t frame[1024];
    if (length > sizeof frame - 4)
        give_up("echo of %zu bytes", length);
    size_t header = put_header(frame, length);
    memcpy(frame + header, text, length);
    send_to(c, frame, header + length);
}

static void on_message(struct client *c, const char *text, size_t length) {
    if (starts_with(text, length, "{\"event\":\"authenticate\"")) {
        send_connected(c);
        join_room(c);
    } else if (starts_with(text, length, "{\"event\":\"e\"")) {
        send_echo(c, text, length);
    } else if (starts_with(text, length, "{\"event\":\"pub\"")) {
        start_publishing(text, length);
    }
}

// Answers the upgrade once it is complete. Returns the number of bytes read.
static size_t upgrade(struct client *c, const uint8_t *data, size_t length) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: " HANDSHAKE_ACCEPT "\r\n\r\n";
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    send_to(c, answer, sizeof answer - 1);
    c->upgraded = true;
    return end + 4 - data;
}

// Handles one complete frame at the start of data. Returns its length, 0 if it is incomplete, -1
// to close the connection.
static ssize_t take_frame(struct client *c, uint8_t *data, size_t length) {
    if (length < 2)
        return 0;
    size_t size = data[1] & 0x7f, header = 2;
    if (size == 127)
        return -1;
    if (size == 126) {
        if (length < 4)
            return 0;
        size = data[2] << 8 | data[3];
        header = 4;
    }
    if (length < header + 4 + size)
        return 0;
    uint8_t *mask = data + header, *payload = mask + 4;
    for (size_t i = 0; i < size; i++)
        payload[i] ^= mask[i & 3];
    int opcode = data[0] & 0x0f;
    if (opcode == OPCODE_CLOSE)
        return -1;
    if (opcode == OPCODE_TEXT) {
        uint8_t after = payload[size]; // read_buffer has a byte to spare
        payload[size] = 0;             // atol needs an end
        on_message(c, (const char *)payload, size);
        payload[size] = after;
    }
    return header + 4 + size;
}

// Handles the complete frames in data. Returns their length, -1 to close the connection.
static ssize_t consume(struct client *c, uint8_t *data, size_t length) {
    size_t done = 0;
    if (!c->upgraded && !(done = upgrade(c, data, length)))
        return 0;
    for (;;) {
        ssize_t taken = take_frame(c, data + done, length - done);
        if (taken <= 0)
            return taken < 0 ? -1 : (ssize_t)done;
        done += taken;
    }
}

static void on_readable(struct client *c) {
    size_t length = c->unread.length;
    if (length) {
        memcpy(read_buffer, c->unread.data, length);
        free(c->unread.data);
        c->unread = (struct bytes){0};
    }
    ssize_t got = recv(c->fd, read_buffer + length, READ_SIZE - length, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        drop(c);
        return;
    }
    length += got < 0 ? 0 : got;
    ssize_t done = consume(c, read_buffer, length);
    if (done < 0 || length - done == READ_SIZE) {
        drop(c);
        return;
    }
    if ((size_t)done < length) {
        c->unread = (struct bytes){allocate(1, length - done), length - done};
        memcpy(c->unread.data, read_buffer + done, c->unread.length);
    }
}

static void accept_some(int listener, size_t file_limit) {
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if ((size_t)fd >= file_limit)
            give_up("descriptor %d is past the limit", fd);
        no_delay(fd);
        struct client *c = allocate(1, sizeof *c);
        c->fd = fd;
        c->room_slot = NO_ROOM;
        clients[fd] = c;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

// ---- start ----

static int listen_on(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (void *)&address, size) || listen(fd, 4096) || getsockname(fd, (void *)&address, &size))
        give_up("listen on port %d: %s", port, strerror(errno));
    printf("READY 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void watch_readable(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        give_up("epoll_ctl: %s", strerror(errno));
}

// At SIGUSR2 every server of the benchmark releases memory.
static int collect_signal(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK);
}

static void on_collect(int fd) {
    struct signalfd_siginfo info;
    if (read(fd, &info, sizeof info) > 0)
        malloc_trim(0);
}

int main(int argc, char **argv) {
    look_sealed = argc == 3 && !strcmp(argv[2], "sealed");
    if (argc != 2 + look_sealed)
        give_up("usage: limit PORT [sealed]");
    size_t file_limit = raise_file_limit();
    clients = allocate(file_limit, sizeof *clients);
    room = allocate(file_limit, sizeof *room);
    poller = epoll_create1(0);
    int collect = collect_signal();
    int listener = listen_on(atoi(argv[1]));
    watch_readable(listener);
    watch_readable(collect);

    static struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, wait_ms());
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_some(listener, file_limit);
                continue;
            }
            if (fd == collect) {
                on_collect(fd);
                continue;
            }
            struct client *c = clients[fd];
            if (!c)
                continue;
            if ((events[i].events & EPOLLOUT) && c->backlog.length)
                drain(c);
            if (events[i].events & ~EPOLLOUT)
                on_readable(c);
        }
        publish_due();
    }
}
