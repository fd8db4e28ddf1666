/* An HTTP/1.1 load client that costs little beside what it measures: one thread, epoll, keep-alive.
 *
 *     load [options] REQUEST_FILE...
 *
 * Each file is one whole request, head and body, as it goes over the wire; they are sent in turn. Prints one JSON
 * object. Closed loop: each connection sends again as soon as it is answered. Open loop (--rate): requests begin at
 * the times of a Poisson process, whatever became of those before, and a latency counts from that intended start, so
 * that a server that stalls cannot hide it. A request that finds no idle connection opens one; at the limit it waits
 * its turn, and its latency with it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUSY = 503 };
enum { HEAD_BYTES = 16384, SAMPLE_BYTES = 600, EVENTS = 256, CODES = 600 };

typedef struct {
    char *bytes;
    size_t size;
} Request;

typedef enum { CLOSED, CONNECTING, IDLE, SENDING, HEAD, FIXED, CHUNK_SIZE, CHUNK_DATA, CHUNK_TAIL, UNTIL_EOF } Stage;

typedef struct {
    int fd;
    Stage stage;
    bool watching_output;
    bool must_close;      /* the server said so */
    bool advises;         /* it said when to try again */
    bool fresh;           /* nothing was answered on it yet */
    int status;
    size_t sent;
    size_t head_size;
    uint64_t left;        /* bytes of the body, or of its chunk, still to come */
    uint64_t chunk;       /* the chunk size being read */
    int line;             /* characters on the current line of a chunk's size or of the trailer */
    const Request *request;
    int64_t start_ns;     /* intended, in open loop */
    char head[HEAD_BYTES + 1];
} Connection;

typedef struct {
    double *ms;
    size_t count, room;
} Latencies;

static struct sockaddr_in address;
static Request *requests;
static size_t request_count, next_request;
static Connection *connections;
static int *idle;
static int idle_count, connection_count, opened, queue_epoll;
static int64_t *waiting; /* intended starts of requests that found no connection: a ring */
static size_t waiting_first, waiting_count, waiting_room;
static bool open_loop;
static int64_t begin_ns, end_ns, deadline_ns;
static uint64_t statuses[CODES], broken, unanswered, in_time, begun, connects, advised;
static Latencies accepted, refused, begun_late;
static char sample[CODES][SAMPLE_BYTES + 1];
static size_t sampled[CODES];
static bool sampled_whole[CODES];
static const Connection *sampler[CODES]; /* the connection whose answer is kept: the first of its status */
static uint64_t random_state;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static void *need(void *memory) {
    if (!memory) fail("out of memory");
    return memory;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* SplitMix64, then the exponential distribution by its inverse. */
static double uniform(void) {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return ((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

static int64_t gap_ns(double rate) { return (int64_t)(-log(1 - uniform()) / rate * 1e9); }

static void note(Latencies *latencies, int64_t ns) {
    if (latencies->count == latencies->room) {
        latencies->room = latencies->room ? 2 * latencies->room : 4096;
        latencies->ms = need(realloc(latencies->ms, latencies->room * sizeof *latencies->ms));
    }
    latencies->ms[latencies->count++] = ns / 1e6;
}

/* Closed loop counts what ended within the measured time; open loop what was meant to start within it. */
static bool measured(int64_t start_ns, int64_t at_ns) {
    int64_t when_ns = open_loop ? start_ns : at_ns;
    return when_ns >= begin_ns && when_ns < end_ns;
}

static void close_connection(Connection *connection) {
    if (connection->fd >= 0) close(connection->fd);
    connection->fd = -1;
    connection->stage = CLOSED;
}

static void watch(Connection *connection, bool output) {
    struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = connection};
    if (connection->watching_output == output) return;
    connection->watching_output = output;
    epoll_ctl(queue_epoll, EPOLL_CTL_MOD, connection->fd, &event);
}

static void send_more(Connection *connection);

static void open_connection(Connection *connection) {
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connection->fd < 0) fail("no more sockets: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connection->fresh = true;
    connection->watching_output = true;
    connects++;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = connection};
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("cannot connect: %s", strerror(errno));
    epoll_ctl(queue_epoll, EPOLL_CTL_ADD, connection->fd, &event);
    connection->stage = CONNECTING;
}

static void begin(Connection *connection, int64_t start_ns) {
    connection->request = &requests[next_request++ % request_count];
    connection->start_ns = start_ns;
    connection->sent = connection->head_size = 0;
    if (!open_loop && measured(start_ns, start_ns)) begun++;
    if (open_loop && measured(start_ns, start_ns)) note(&begun_late, now_ns() - start_ns);
    if (connection->stage == CLOSED) {
        open_connection(connection);
        return;
    }
    connection->stage = SENDING;
    send_more(connection);
}

/* What a free connection does next. */
static void go_on(Connection *connection) {
    int64_t at_ns = now_ns();
    if (!open_loop) {
        if (at_ns < end_ns) begin(connection, at_ns);
        return;
    }
    if (waiting_count) {
        int64_t start_ns = waiting[waiting_first];
        waiting_first = (waiting_first + 1) % waiting_room;
        waiting_count--;
        begin(connection, start_ns);
        return;
    }
    idle[idle_count++] = (int)(connection - connections);
}

static void arrive(int64_t start_ns) {
    if (measured(start_ns, start_ns)) begun++;
    if (idle_count) {
        begin(&connections[idle[--idle_count]], start_ns);
    } else if (opened < connection_count) {
        begin(&connections[opened++], start_ns);
    } else {
        if (waiting_count == waiting_room) fail("%zu requests wait for a connection: lower the rate", waiting_count);
        waiting[(waiting_first + waiting_count++) % waiting_room] = start_ns;
    }
}

static void give_up(Connection *connection) {
    /* A kept connection may be closed by the server just as it is used again: that request is sent anew. */
    bool again = !connection->fresh && connection->head_size == 0 && connection->stage != IDLE;
    bool was_idle = connection->stage == IDLE;
    close_connection(connection);
    if (was_idle) return; /* it stays in the list of idle ones, and is opened again when it is wanted */
    if (again) {
        connection->sent = 0;
        open_connection(connection);
        return;
    }
    if (measured(connection->start_ns, now_ns())) broken++;
    go_on(connection);
}

static void answered(Connection *connection) {
    int64_t at_ns = now_ns(), took_ns = at_ns - connection->start_ns;
    if (sampler[connection->status] == connection) sampled_whole[connection->status] = true;
    if (measured(connection->start_ns, at_ns)) {
        bool good = connection->status >= 200 && connection->status < 300;
        statuses[connection->status]++;
        if (good) note(&accepted, took_ns);
        if (connection->status == BUSY) {
            note(&refused, took_ns);
            advised += connection->advises;
        }
        if (good && (!deadline_ns || took_ns <= deadline_ns)) in_time++;
    }
    connection->fresh = false;
    connection->stage = IDLE;
    if (connection->must_close) close_connection(connection);
    go_on(connection);
}

static void send_more(Connection *connection) {
    const Request *request = connection->request;
    while (connection->sent < request->size) {
        ssize_t count = send(connection->fd, request->bytes + connection->sent, request->size - connection->sent,
                             MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            watch(connection, true);
            return;
        }
        if (count < 0) {
            give_up(connection);
            return;
        }
        connection->sent += (size_t)count;
    }
    watch(connection, false);
    if (connection->stage == SENDING) connection->stage = HEAD;
}

static const char *header(const char *head, const char *name) {
    const char *found = strcasestr(head, name);
    return found ? found + strlen(name) : NULL;
}

static void begin_body(Connection *connection) {
    const char *head = connection->head, *value;
    connection->status = atoi(head + strlen("HTTP/1.1 "));
    if (connection->status < 100 || connection->status >= CODES) fail("no HTTP answer: %.40s", head);
    connection->must_close = header(head, "\r\nconnection: close") != NULL;
    value = header(head, "\r\nretry-after:");
    connection->advises = value && atoi(value) > 0;
    if (header(head, "\r\ntransfer-encoding: chunked")) {
        connection->stage = CHUNK_SIZE;
        connection->chunk = 0;
        connection->line = 0;
    } else if ((value = header(head, "\r\ncontent-length:"))) {
        connection->stage = FIXED;
        connection->left = strtoull(value, NULL, 10);
    } else {
        connection->stage = UNTIL_EOF;
        connection->must_close = true;
    }
}

static void keep_sample(Connection *connection, const char *bytes, size_t count) {
    int status = connection->status;
    size_t room = SAMPLE_BYTES - sampled[status], kept = count < room ? count : room;
    if (!sampler[status]) sampler[status] = connection;
    if (sampler[status] != connection || sampled_whole[status]) return;
    memcpy(sample[status] + sampled[status], bytes, kept);
    sampled[status] += kept;
}

/* One character of a chunk's size line or of the trailer. */
static void take_line(Connection *connection, char character) {
    static const char digits[] = "0123456789abcdef";
    if (character == '\n') {
        if (connection->stage == CHUNK_TAIL) {
            if (connection->line == 0) answered(connection);
            connection->line = 0;
            return;
        }
        connection->stage = connection->chunk ? CHUNK_DATA : CHUNK_TAIL;
        connection->left = connection->chunk + 2; /* and its line's end */
        connection->chunk = 0;
        connection->line = 0;
        return;
    }
    if (character == '\r') return;
    connection->line++;
    const char *digit = strchr(digits, character | 0x20);
    if (connection->stage == CHUNK_SIZE && digit && *digit) connection->chunk = 16 * connection->chunk + (uint64_t)(digit - digits);
}

static void take(Connection *connection, const char *bytes, size_t count) {
    size_t at = 0;
    int fd = connection->fd;
    while (at < count && connection->fd == fd) {
        switch (connection->stage) {
        case SENDING: /* the server answers before it has read everything */
        case HEAD: {
            if (connection->head_size == HEAD_BYTES) fail("an answer's head is over %d bytes", HEAD_BYTES);
            connection->head[connection->head_size++] = bytes[at++];
            connection->head[connection->head_size] = 0;
            size_t size = connection->head_size;
            if (size >= 4 && !memcmp(connection->head + size - 4, "\r\n\r\n", 4)) {
                bool sent_whole = connection->sent == connection->request->size;
                begin_body(connection);
                /* No other request can follow a part of one. */
                if (!sent_whole) connection->must_close = true;
                if (connection->status == 100) {
                    connection->stage = sent_whole ? HEAD : SENDING;
                    connection->head_size = 0;
                } else if (connection->stage == FIXED && connection->left == 0) {
                    answered(connection);
                }
            }
            break;
        }
        case FIXED:
        case CHUNK_DATA: {
            size_t part = count - at < connection->left ? count - at : connection->left;
            keep_sample(connection, bytes + at, part);
            connection->left -= part;
            at += part;
            if (connection->left == 0) {
                if (connection->stage == FIXED) answered(connection);
                else connection->stage = CHUNK_SIZE;
            }
            break;
        }
        case CHUNK_SIZE:
        case CHUNK_TAIL: take_line(connection, bytes[at++]); break;
        case UNTIL_EOF: keep_sample(connection, bytes + at, count - at); at = count; break;
        default: fail("the server sent %zu bytes that nobody asked for", count - at);
        }
    }
}

static void receive(Connection *connection) {
    static char buffer[65536];
    ssize_t count = recv(connection->fd, buffer, sizeof buffer, 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
        if (connection->stage == UNTIL_EOF) answered(connection);
        else give_up(connection);
        return;
    }
    take(connection, buffer, (size_t)count);
}

static void handle(struct epoll_event *event) {
    Connection *connection = event->data.ptr;
    if (connection->fd < 0) return;
    if (connection->stage == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            give_up(connection);
            return;
        }
        connection->stage = SENDING;
        send_more(connection);
        return;
    }
    if (event->events & EPOLLOUT && connection->stage == SENDING) send_more(connection);
    if (connection->fd >= 0 && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(connection);
}

static uint64_t still_open(void) {
    uint64_t count = waiting_count;
    for (int index = 0; index < opened; index++)
        count += connections[index].stage != CLOSED && connections[index].stage != IDLE;
    return count;
}

static void run(double rate, int64_t patience_ns) {
    struct epoll_event events[EVENTS];
    int64_t due_ns = now_ns(), stop_ns = end_ns + patience_ns;
    if (!open_loop)
        for (opened = 0; opened < connection_count; opened++) begin(&connections[opened], now_ns());
    for (;;) {
        int64_t at_ns = now_ns();
        if (open_loop)
            for (; due_ns <= at_ns && due_ns < end_ns; due_ns += gap_ns(rate)) arrive(due_ns);
        bool over = at_ns >= end_ns;
        if ((over && (!open_loop || still_open() == 0)) || at_ns >= stop_ns) break;
        int64_t next_ns = open_loop && due_ns < end_ns ? due_ns : over ? stop_ns : end_ns;
        int64_t wait_ns = next_ns > at_ns ? next_ns - at_ns : 0;
        struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        int count = epoll_pwait2(queue_epoll, events, EVENTS, &wait, NULL);
        if (count < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
        for (int index = 0; index < count; index++) handle(&events[index]);
    }
    if (open_loop)
        for (int index = 0; index < opened; index++) {
            Connection *each = &connections[index];
            if (each->stage != CLOSED && each->stage != IDLE && measured(each->start_ns, each->start_ns)) unanswered++;
        }
    for (; waiting_count; waiting_count--, waiting_first = (waiting_first + 1) % waiting_room)
        if (measured(waiting[waiting_first], waiting[waiting_first])) unanswered++;
}

static int ascending(const void *a, const void *b) {
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static void print_latencies(const char *name, Latencies *latencies) {
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 1};
    static const char *names[] = {"p50", "p90", "p99", "p99.9", "max"};
    double sum = 0;
    qsort(latencies->ms, latencies->count, sizeof *latencies->ms, ascending);
    for (size_t index = 0; index < latencies->count; index++) sum += latencies->ms[index];
    printf("\"%s\": {\"count\": %zu", name, latencies->count);
    for (size_t index = 0; latencies->count && index < 5; index++) {
        size_t rank = (size_t)ceil(shares[index] * (double)latencies->count);
        printf(", \"%s\": %.3f", names[index], latencies->ms[rank - 1]);
    }
    if (latencies->count) printf(", \"mean\": %.3f", sum / (double)latencies->count);
    printf("}");
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f) printf("\\u%04x", (unsigned char)*text);
        else putchar(*text);
    }
    putchar('"');
}

static void print_result(double seconds) {
    bool first = true;
    printf("{\"seconds\": %.3f, \"begun\": %lu, \"in_time\": %lu, \"broken\": %lu, \"unanswered\": %lu, \"connects\": %lu, "
           "\"advised\": %lu, ",
           seconds, begun, in_time, broken, unanswered, connects, advised);
    printf("\"statuses\": {");
    for (int status = 0; status < CODES; status++)
        if (statuses[status]) {
            printf("%s\"%d\": %lu", first ? "" : ", ", status, statuses[status]);
            first = false;
        }
    printf("}, ");
    print_latencies("accepted_ms", &accepted);
    printf(", ");
    print_latencies("refused_ms", &refused);
    printf(", ");
    print_latencies("begun_late_ms", &begun_late);
    printf(", \"samples\": {");
    first = true;
    for (int status = 0; status < CODES; status++)
        if (statuses[status] && sampled[status]) {
            printf("%s\"%d\": ", first ? "" : ", ", status);
            print_text(sample[status]);
            first = false;
        }
    printf("}}\n");
}

static Request read_request(const char *path) {
    struct stat status;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &status)) fail("%s: %s", path, strerror(errno));
    Request request = {need(malloc((size_t)status.st_size + 1)), (size_t)status.st_size};
    if (fread(request.bytes, 1, request.size, file) != request.size) fail("%s: cannot be read", path);
    fclose(file);
    return request;
}

int main(int argument_count, char **arguments) {
    static const struct option options[] = {
        {"host", required_argument, 0, 'h'},      {"port", required_argument, 0, 'p'},
        {"connections", required_argument, 0, 'c'}, {"warmup-s", required_argument, 0, 'w'},
        {"seconds", required_argument, 0, 's'},   {"rate", required_argument, 0, 'r'},
        {"deadline-ms", required_argument, 0, 'd'}, {"patience-s", required_argument, 0, 'g'},
        {"seed", required_argument, 0, 'x'},      {0, 0, 0, 0}};
    const char *host = "127.0.0.1";
    double warmup_s = 0, seconds = 1, rate = 0, deadline_ms = 0, patience_s = 0;
    int port = 8000, option;
    connection_count = 1;
    while ((option = getopt_long(argument_count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'h': host = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 'w': warmup_s = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'd': deadline_ms = atof(optarg); break;
        case 'g': patience_s = atof(optarg); break;
        case 'x': random_state = strtoull(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    request_count = (size_t)(argument_count - optind);
    if (!request_count || connection_count < 1 || seconds <= 0) fail("wants a request file, a connection and a time");
    requests = need(calloc(request_count, sizeof *requests));
    for (size_t index = 0; index < request_count; index++) requests[index] = read_request(arguments[optind + (int)index]);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("%s is no IPv4 address", host);
    connections = need(calloc((size_t)connection_count, sizeof *connections));
    idle = need(calloc((size_t)connection_count, sizeof *idle));
    for (int index = 0; index < connection_count; index++) connections[index].fd = -1;
    waiting_room = 1 << 22;
    waiting = need(calloc(waiting_room, sizeof *waiting));
    queue_epoll = epoll_create1(0);
    open_loop = rate > 0;
    begin_ns = now_ns() + (int64_t)(warmup_s * 1e9);
    end_ns = begin_ns + (int64_t)(seconds * 1e9);
    deadline_ns = (int64_t)(deadline_ms * 1e6);
    run(rate, (int64_t)(patience_s * 1e9));
    print_result(seconds);
    return 0;
}
