// The publisher of the Redis measures: one pipelined connection to Redis, on the load generator's
// own thread and epoll, so that one clock gives the time at which a message was due and the time
// at which its client has it.
#ifndef HEARTH_BENCH_REDIS_H
#define HEARTH_BENCH_REDIS_H

#include "client.h"

enum {
    PUBLISH_BUFFER = 4 << 20,
    COMMAND_SIZE = 1024,  // the longest PUBLISH: padding and names are short
    TARGET_SIZE = 63,     // the longest target
};

static struct {
    int fd;
    uint8_t buffer[PUBLISH_BUFFER];
    size_t start, end; // the bytes that are not written yet
    bool wants_write;
    uint64_t published, replied, receivers;
    bool in_reply;
    uint64_t reply; // the number that is being read
} publisher;

// A PUBLISH command with places for its target, twice, and its number. Targets of one command have
// one length.
struct command {
    uint8_t bytes[COMMAND_SIZE];
    size_t length, target_length;
    size_t targets[2], number;
};

static size_t unsent(void) { return publisher.end - publisher.start; }

static int connect_redis(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options.redis_port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (connect(fd, (void *)&address, sizeof address))
        give_up("connect to redis: %s", strerror(errno));
    no_delay(fd);
    return fd;
}

// Reads the answers, `:N` each: N connections received the message.
static void read_replies(void) {
    static char buffer[64 << 10];
    ssize_t got = recv(publisher.fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        give_up("redis hung up on the publisher");
    for (ssize_t i = 0; i < got; i++) {
        char byte = buffer[i];
        if (!publisher.in_reply && byte == ':') {
            publisher.in_reply = true;
            publisher.reply = 0;
        } else if (publisher.in_reply && byte >= '0' && byte <= '9') {
            publisher.reply = publisher.reply * 10 + (byte - '0');
        } else if (byte == '\n') {
            publisher.in_reply = false;
            publisher.replied++;
            publisher.receivers += publisher.reply;
        } else if (byte != '\r') {
            give_up("redis answers: %.*s", (int)(got - i < 100 ? got - i : 100), buffer + i);
        }
    }
}

static void flush_publisher(void) {
    while (unsent()) {
        ssize_t taken = send(publisher.fd, publisher.buffer + publisher.start, unsent(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (taken < 0 && errno != EAGAIN)
            give_up("publish: %s", strerror(errno));
        if (taken <= 0)
            break;
        publisher.start += taken;
    }
    if (!unsent())
        publisher.start = publisher.end = 0;
    if (publisher.wants_write == (unsent() > 0))
        return;
    publisher.wants_write = unsent() > 0;
    struct epoll_event event = {.events = EPOLLIN | (publisher.wants_write ? EPOLLOUT : 0), .data.u64 = NOT_A_CLIENT};
    epoll_ctl(poller, EPOLL_CTL_MOD, publisher.fd, &event);
}

static void on_redis(uint32_t events) {
    if (events & ~EPOLLOUT)
        read_replies();
    if (events & EPOLLOUT)
        flush_publisher();
}

static void start_publisher(void) {
    publisher.fd = connect_redis();
    on_other = on_redis;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = NOT_A_CLIENT};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, publisher.fd, &event))
        give_up("epoll_ctl: %s", strerror(errno));
}

// Prepares messages as the reference's emitter writes them, numbered, with a padding of
// options.size bytes, to targets of target_length characters. The type is also the channel's:
// `client` or `room`.
static struct command make_command(const char *type, size_t target_length) {
    static const char target[TARGET_SIZE + 1] = "000000000000000000000000000000000000000000000000000000000000000";
    char payload[COMMAND_SIZE];
    struct command c = {.target_length = target_length};
    if (target_length > TARGET_SIZE || options.size < NUMBER_DIGITS || options.size > COMMAND_SIZE / 2)
        give_up("a message of %d bytes for a target of %zu", options.size, target_length);
    int before_target = snprintf(payload, sizeof payload, "{\"serverId\":\"emitter\",\"type\":\"%s\",\"target\":\"", type);
    int size = snprintf(payload, sizeof payload, "{\"serverId\":\"emitter\",\"type\":\"%s\",\"target\":\"%.*s\",\"event\":\"m\",\"data\":{\"p\":\"%0*d\"}}",
                        type, (int)target_length, target, options.size, 0);
    int channel_size = snprintf(NULL, 0, "ws:%s:", type) + (int)target_length;
    int head = snprintf((char *)c.bytes, sizeof c.bytes, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\nws:%s:%.*s\r\n$%d\r\n", channel_size, type,
                        (int)target_length, target, size);
    int length = snprintf((char *)c.bytes + head, sizeof c.bytes - head, "%s\r\n", payload);
    if (length >= (int)sizeof c.bytes - head)
        give_up("a message of %d bytes", length);
    c.length = head + length;
    c.targets[0] = head - target_length - (size_t)snprintf(NULL, 0, "\r\n$%d\r\n", size);
    c.targets[1] = head + before_target;
    c.number = head + size - (sizeof "\"}}" - 1) - NUMBER_DIGITS;
    return c;
}

// Appends a message to the output buffer, which must have space for it.
static void publish(const struct command *c, const char *target, uint64_t number) {
    uint8_t *out = publisher.buffer + publisher.end;
    memcpy(out, c->bytes, c->length);
    for (int i = 0; i < 2; i++)
        memcpy(out + c->targets[i], target, c->target_length);
    for (int i = NUMBER_DIGITS - 1; i >= 0; i--, number /= 10)
        out[c->number + i] = '0' + number % 10;
    publisher.end += c->length;
    publisher.published++;
}

// Returns whether the output buffer has space for two messages.
static bool publisher_has_room(void) {
    if (publisher.end + 2 * COMMAND_SIZE <= PUBLISH_BUFFER)
        return true;
    if (publisher.start < PUBLISH_BUFFER / 2)
        return false;
    memmove(publisher.buffer, publisher.buffer + publisher.start, unsent());
    publisher.end = unsent();
    publisher.start = 0;
    return true;
}

// Returns the number of channels that have a subscriber. Asks Redis on a blocking connection.
static long subscribed_channels(void) {
    static const char request[] = "INFO stats\r\n", key[] = "pubsub_channels:";
    static int fd = -1;
    static char answer[16 << 10];
    size_t have = 0;
    if (fd < 0)
        fd = connect_redis();
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
        give_up("ask redis for its channels: %s", strerror(errno));
    for (size_t need = 1; have < need;) {
        ssize_t got = recv(fd, answer + have, sizeof answer - 1 - have, 0);
        if (got <= 0)
            give_up("redis does not tell its channels");
        have += got;
        answer[have] = 0;
        const char *head_ends = strstr(answer, "\r\n"); // `$length`, then the bytes and a line end
        if (head_ends)
            need = (head_ends + 2 - answer) + atol(answer + 1) + 2;
        else
            need = have + 1;
    }
    const char *found = strstr(answer, key);
    if (!found)
        give_up("redis tells no pubsub_channels");
    return atol(found + sizeof key - 1);
}

#endif
