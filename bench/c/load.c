// load: simulates many WebSocket clients on one thread with epoll, parses frame headers only, and
// prints one line of JSON: counts, times, and the server's CPU and memory before and after.
//
//     load -port N -pid N -mode MODE [-clients N] [-messages N] [-size N] [-seconds S] [-settle S]
//         [-source N] [-verify 1] …
//
// | mode      | options besides                                  | see            |
// |-----------|--------------------------------------------------|----------------|
// | fan       | -rate N -batch N                                 | phases.h       |
// | echo, connect, idle |                                        | phases.h       |
// | mixed     | -rate N                                          | phases.h       |
// | held      | -redis-port N -redis-pid N -batch N              | redis_phases.h |
// | elsewhere | -redis-port N -redis-pid N                       | redis_phases.h |
// | rate      | the same, -rate N -budget-us N -port2 N -pid2 N  | redis_phases.h |
// | rooms     | the same, -rooms N                               | rooms_phase.h  |
//
// With -turns 1, fan and echo wait for their turns: load prints a line of JSON once all clients are
// connected. Then it runs the phase, and prints a line, for each line on standard input, until
// standard input ends.
//
// -seconds is the length of echo and of a step of rate, and the limit for fan. Sources are the six
// loopback addresses 127.0.0.source and up, since one address has ports for 28,000 connections
// only. -verify compares payloads as well as their lengths. -sealed N makes the last N clients
// encrypted, with the public key of -key, and -transcript FILE has all messages to the last -kept N
// of them.
#define _GNU_SOURCE
#include "rooms_phase.h"

static void set_option(const char *name, const char *value) {
    struct {
        const char *name;
        int *target;
    } numbers[] = {{"-port", &options.ports[0]}, {"-port2", &options.ports[1]}, {"-pid", &node_pids[0]}, {"-pid2", &node_pids[1]},
                   {"-redis-port", &options.redis_port}, {"-redis-pid", &redis_pid}, {"-clients", &options.clients},
                   {"-messages", &options.messages}, {"-size", &options.size}, {"-rate", &options.rate},
                   {"-batch", &options.batch}, {"-source", &options.source}, {"-sealed", &options.sealed},
                   {"-kept", &options.kept}, {"-rooms", &options.rooms}, {"-budget-us", &options.budget_us}};
    struct {
        const char *name, **target;
    } texts[] = {{"-mode", &options.mode}, {"-key", &options.key}, {"-transcript", &options.transcript}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(name, numbers[i].name)) {
            *numbers[i].target = atoi(value);
            return;
        }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(name, texts[i].name)) {
            *texts[i].target = value;
            return;
        }
    if (!strcmp(name, "-seconds"))
        options.seconds = atof(value);
    else if (!strcmp(name, "-settle"))
        options.settle = atof(value);
    else if (!strcmp(name, "-verify"))
        options.verify = atoi(value);
    else if (!strcmp(name, "-turns"))
        options.turns = atoi(value);
    else
        give_up("unknown option %s", name);
}

static void check_options(void) {
    if (options.ports[0] <= 0 || node_pids[0] <= 0 || options.clients <= 0 || options.messages <= 0 || options.seconds <= 0 ||
        options.size < 0 || options.size > 60000 || options.source < 1 || options.source > 254 - SOURCES || options.sealed < 0 ||
        options.sealed > options.clients || options.kept < 0 || options.kept > options.sealed || options.rate < 0 || options.batch < 0)
        give_up("an option is missing or out of range");
}

static void need(bool given, const char *what) {
    if (!given)
        give_up("mode %s needs %s", options.mode, what);
}

static void print_head(void) { printf("{\"mode\":\"%s\",\"clients\":%d", options.mode, options.clients); }

static void print_tail(void) {
    printf(",\"wrong\":%lu,\"closed\":%lu}\n", wrong, closed);
    if (fflush(stdout))
        give_up("print what was seen: %s", strerror(errno));
}

// ---- in one piece ----

// Runs the phases after connecting, except in the modes that connect by themselves.
static void run_phase(struct memory before) {
    if (!strcmp(options.mode, "idle")) {
        run_idle(before);
    } else if (!strcmp(options.mode, "fan")) {
        poll_for(options.settle);
        run_fan();
    } else if (!strcmp(options.mode, "echo")) {
        poll_for(options.settle);
        run_echo();
    } else if (strcmp(options.mode, "connect")) {
        give_up("unknown mode %s", options.mode);
    }
}

// The same for the modes with Redis. Returns whether the mode is one of them.
static bool run_redis_phase(void) {
    static const struct {
        const char *mode;
        void (*run)(void);
    } modes[] = {{"held", run_held}, {"elsewhere", run_elsewhere}, {"rate", run_rate}, {"rooms", run_rooms}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(options.mode, modes[i].mode))
            continue;
        need(options.redis_port > 0 && redis_pid > 0, "-redis-port and -redis-pid");
        need(options.batch > 0 || modes[i].run != run_held, "-batch");
        need((options.rate > 0 && options.ports[1] > 0) || modes[i].run != run_rate, "-rate and a second node");
        need(options.rooms >= options.clients || modes[i].run != run_rooms, "a room for each client, -rooms");
        start_publisher();
        run_connect();
        poll_for(options.settle);
        modes[i].run();
        return true;
    }
    return false;
}

static void run_once(void) {
    struct memory before = read_memory();
    print_head();
    if (!strcmp(options.mode, "mixed")) {
        need(options.rate > 0 && options.sealed < options.clients, "-rate and a client in clear");
        run_mixed();
    } else if (!run_redis_phase()) {
        run_connect();
        run_phase(before);
    }
    print_tail();
}

// ---- in turns ----

// Reads the messages that arrived between turns, which should be pings only, and sends heartbeats
// of all clients: the turns of others may take longer than a client may be silent.
static void begin_turn(void) {
    on_message = NULL;
    poll_for(0.02);
    if (wrong || closed)
        give_up("since the last turn: %lu unexpected messages, %lu connections closed", wrong, closed);
    for (int i = 0; i < options.clients; i++)
        send_text(&clients[i], "{\"event\":\"heartbeat\"}");
    poll_for(0.05);
}

// Runs the phase once for each input line. In between it waits for the line, uses no CPU
// and reads from no client. After a failed turn, do not request another one.
static void take_turns(void) {
    bool fan = !strcmp(options.mode, "fan");
    char line[8];
    need(fan || !strcmp(options.mode, "echo"), "to be run in one go, without -turns");
    print_head();
    run_connect();
    poll_for(options.settle);
    print_tail();
    while (fgets(line, sizeof line, stdin)) {
        begin_turn();
        print_head();
        (fan ? run_fan : run_echo)();
        print_tail();
    }
}

int main(int argc, char **argv) {
    if (argc % 2 == 0)
        give_up("option %s has no value", argv[argc - 1]);
    for (int i = 1; i < argc; i += 2)
        set_option(argv[i], argv[i + 1]);
    check_options();
    raise_file_limit();
    prepare_clients();
    options.turns ? take_turns() : run_once();
    if (transcript && fclose(transcript))
        give_up("write the transcript: %s", strerror(errno));
    return 0;
}
