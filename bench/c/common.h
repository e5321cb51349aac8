// The parts that both C programs of the benchmarks use: a clock, the exit after an error, and the
// socket options.
#ifndef HEARTH_BENCH_COMMON_H
#define HEARTH_BENCH_COMMON_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

// The first byte of a whole message: FIN and the opcode of text (RFC 6455, section 5.2).
enum { FRAME_TEXT = 0x81, OPCODE_TEXT = 1, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

// The handshake of every connection uses the example of RFC 6455, section 1.3: a fixed key needs no
// SHA-1.
#define HANDSHAKE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define HANDSHAKE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Ends the program: a benchmark that continues after an error would measure something else.
__attribute__((noreturn, format(printf, 1, 2))) static inline void give_up(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        give_up("out of memory: %zu times %zu bytes", count, size);
    return memory;
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Raises the limit of descriptors to the hard limit, and returns it.
static inline size_t raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        give_up("getrlimit failed");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_max < (1u << 20) ? limit.rlim_max : (1u << 20);
}

#endif
