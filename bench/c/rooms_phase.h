// The rooms phase: clients join and leave thousands of rooms on a server with Redis.
#ifndef HEARTH_BENCH_ROOMS_PHASE_H
#define HEARTH_BENCH_ROOMS_PHASE_H

#include "redis_phases.h"

enum {
    ROOMS_A_MESSAGE = 50,
    ROOM_NAME_SIZE = 12, // room-0000000
    UNSUBSCRIBE_MS = 60000, // the time for a server to remove its channels from Redis
};

static const char *storm_event; // join or leave
static int rooms_each;          // of a client; no two clients share one

static void room_name(char *out, uint64_t number) { snprintf(out, ROOM_NAME_SIZE + 1, "room-%07u", (unsigned)number % 10000000); }

// Joins or leaves the next few of the client's rooms, and sends a message whose answer comes when
// this is done.
static void storm_on(struct client *c, uint64_t now) {
    char text[MESSAGE_SIZE], name[ROOM_NAME_SIZE + 1];
    (void)now;
    int first = c->received++ * ROOMS_A_MESSAGE, number = c - clients;
    if (first >= rooms_each)
        return;
    int length = snprintf(text, sizeof text, "{\"event\":\"%s\",\"data\":{\"rooms\":[", storm_event);
    for (int i = first; i < rooms_each && i < first + ROOMS_A_MESSAGE; i++) {
        room_name(name, (uint64_t)number * rooms_each + i);
        length += snprintf(text + length, sizeof text - length, "%s\"%s\"", i > first ? "," : "", name);
    }
    snprintf(text + length, sizeof text - length, "]}}");
    send_text(c, text);
    send_text(c, ECHO_QUESTION);
}

// Every client joins, or leaves, all its rooms. It sends the next message once the last one has
// been handled.
static void storm(const char *event) {
    uint64_t answers = (uint64_t)options.clients * ((rooms_each + ROOMS_A_MESSAGE - 1) / ROOMS_A_MESSAGE);
    storm_event = event;
    expect(ECHO_QUESTION, 0, 0, "");
    begin(storm_on);
    struct reading from = take_reading();
    last_progress = from.at;
    for (int i = 0; i < options.clients; i++)
        storm_on(&clients[i], from.at);
    while (frames < answers && !stalled())
        poll_once(100);
    struct reading to = take_reading();
    if (frames < answers)
        give_up("stalled in the storm: %lu of %lu messages with a %s were handled", frames, answers, event);
    printf(",\"%s_seconds\":%.6f,\"%s_cpu_s\":%.6f", event, seconds_between(from, to), event, nodes_cpu(from, to));
}

// Waits until Redis has the wanted number of channels with subscribers, or the number no longer
// changes. Returns the number.
static long settle_channels(long want, bool at_most, int unchanged_ms) {
    uint64_t changed = now_ns(), ends = changed + UNSUBSCRIBE_MS * 1000000ull;
    long channels = subscribed_channels();
    while ((at_most ? channels > want : channels < want) && now_ns() < ends && now_ns() - changed < unchanged_ms * 1000000ull) {
        poll_for(0.02);
        long next = subscribed_channels();
        if (next != channels)
            changed = now_ns();
        channels = next;
    }
    return channels;
}

static struct client *owner_of(uint64_t room) { return &clients[room / rooms_each]; }

static void on_room_message(struct client *c, uint64_t now) {
    (void)now;
    c->received++;
    if (owner_of(c->number) != c)
        wrong++;
}

// Sends one message to each room: all arrive while clients are in the rooms, none afterwards.
static void publish_to_rooms(bool arrive) {
    struct command to_room = make_command("room", ROOM_NAME_SIZE);
    uint64_t rooms = (uint64_t)options.clients * rooms_each, want = arrive ? rooms : 0, sent = 0;
    char name[ROOM_NAME_SIZE + 1];
    expect_messages(true);
    begin(on_room_message);
    last_progress = now_ns();
    while ((sent < rooms || publisher.replied < publisher.published || frames < want) && !stalled()) {
        for (; sent < rooms && sent < publisher.replied + 2048 && (!arrive || sent < frames + 2048) && publisher_has_room(); sent++) {
            room_name(name, sent);
            publish(&to_room, name, sent);
        }
        flush_publisher();
        poll_once(10);
        if (!arrive && publisher.replied < publisher.published)
            last_progress = now_ns();
    }
    poll_for(0.2); // further messages are extra
    if (arrive)
        print_counts(want, frames);
    else
        wrong += frames;
}

static void run_rooms(void) {
    rooms_each = options.rooms / options.clients;
    poll_for(options.settle);
    ask_to_collect();
    struct memory before = read_memory();
    long channels_before = subscribed_channels(), rooms = (long)rooms_each * options.clients;

    struct reading from = take_reading();
    storm("join");
    long channels = settle_channels(channels_before + rooms, false, 500);
    struct reading to = take_reading();
    print_interval(from, to);
    publish_to_rooms(true);
    poll_for(options.settle);
    struct memory full = read_memory();

    storm("leave");
    uint64_t left = now_ns();
    long channels_after = settle_channels(channels_before, true, UNSUBSCRIBE_MS);
    double unsubscribed = (now_ns() - left) / SECOND;
    publish_to_rooms(false);
    ask_to_collect();
    struct memory after = read_memory();
    printf(",\"rooms\":%ld,\"rss_before_kb\":%ld,\"rss_kb\":%ld,\"rss_collected_kb\":%ld", rooms, before.rss, full.rss, after.rss);
    printf(",\"channels_before\":%ld,\"channels\":%ld,\"channels_after\":%ld,\"unsubscribe_seconds\":%.3f", channels_before,
           channels, channels_after, unsubscribed);
}

#endif
