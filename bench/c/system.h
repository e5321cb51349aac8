// CPU and memory of the processes under test, of the load generator and of the machine.
#ifndef HEARTH_BENCH_SYSTEM_H
#define HEARTH_BENCH_SYSTEM_H

#include "common.h"

#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define SECOND 1000000000.0

enum { MAX_NODES = 2 };

// The processes whose CPU is read: the nodes under test, and Redis if it takes part, otherwise 0.
static pid_t node_pids[MAX_NODES], redis_pid;

static double cpu_seconds(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t))
        give_up("a process under test is gone: it has no CPU clock");
    return t.tv_sec + t.tv_nsec / SECOND;
}

// The CPU clock of a process counts what /proc/PID/stat counts, in nanoseconds instead of ticks.
static double process_cpu(pid_t pid) {
    clockid_t clock;
    if (!pid)
        return 0;
    if (clock_getcpuclockid(pid, &clock))
        give_up("a process under test is gone: no process %d", pid);
    return cpu_seconds(clock);
}

// Returns a value in KiB from a /proc file of lines "Key:  value kB", or 0 if it is missing.
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

// The first node's memory.
static struct memory read_memory(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", node_pids[0]);
    return (struct memory){proc_kb(path, "VmRSS"), proc_kb(path, "RssAnon"), proc_kb("/proc/meminfo", "Slab")};
}

struct reading {
    uint64_t at;
    double nodes[MAX_NODES], redis, load, busy, steal; // CPU seconds so far
};

static struct reading take_reading(void) {
    struct reading r = {.at = now_ns(), .redis = process_cpu(redis_pid), .load = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID)};
    for (int i = 0; i < MAX_NODES; i++)
        r.nodes[i] = process_cpu(node_pids[i]);
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

static double seconds_between(struct reading from, struct reading to) { return (to.at - from.at) / SECOND; }

// The CPU of all nodes together.
static double nodes_cpu(struct reading from, struct reading to) {
    double sum = 0;
    for (int i = 0; i < MAX_NODES; i++)
        sum += to.nodes[i] - from.nodes[i];
    return sum;
}

static void print_interval(struct reading from, struct reading to) {
    printf(",\"seconds\":%.6f,\"server_cpu_s\":%.6f,\"load_cpu_s\":%.6f,\"redis_cpu_s\":%.6f,\"busy_s\":%.2f,\"steal_s\":%.2f",
           seconds_between(from, to), nodes_cpu(from, to), to.load - from.load, to.redis - from.redis, to.busy - from.busy,
           to.steal - from.steal);
}

#endif
