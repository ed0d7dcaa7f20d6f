/* The load of the benchmarks: connections, TLS or not, that send one frame again and again.
 *
 *   load -p PORT [-i IDENTITIES] [-n CONNECTIONS] [-c AT ONCE] [-s SOURCE ADDRESSES]
 *        [-f FRAME -r REQUESTS -w WINDOW [-t OFFSET -T TOKENS]] [-g] [-k]
 *   load -p PORT -i IDENTITIES -f FRAME -u MICROSECONDS          probe until standard input ends
 *
 * It is the same program for every side of a row, so it costs every side the same. It verifies
 * nobody: what the load spends is not measured.
 *
 *   -i  file of identities; without it the connections are plain TCP
 *   -f  a whole frame, header included; an answer is any one frame
 *   -r  requests of each connection, -w of them in flight
 *   -t  where in the frame 16 bytes are replaced by the token that the last answer to the same
 *       identity carried; -T keeps the tokens in a file between two runs
 *   -g  gate: open every connection, say "ready", and wait for a line before the first request
 *   -k  keep the connections when done, until standard input ends
 *
 * The last line of the output is "done CONNECTIONS REQUESTS FAILED MICROSECONDS".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 5, TOKEN = 16, EVENTS = 256, SCRATCH = 1 << 18 };
enum state { CONNECTING, HANDSHAKE, OPEN, ENDED };

struct identity {
    EVP_PKEY *key;
    X509 *leaf;
    STACK_OF(X509) *above;
    unsigned char token[TOKEN];
};

struct link {
    int fd;
    enum state state;
    SSL *ssl;
    struct identity *identity;
    uint32_t events;
    long asked, answered;
    unsigned char *out; /* what is to be written, from `sent` to `filled` */
    size_t room, sent, filled;
    unsigned char header[HEADER];
    size_t header_bytes, body_left;
    unsigned char head_of_body[512]; /* enough to find a token in it */
    size_t kept;
};

static const char *identities_file, *frame_file, *token_file;
static int port, at_once = 1, sources = 1, gate, keep, token_offset = -1, probe_every;
static long connections = 1, requests, window = 1;

static struct identity *identities;
static long identity_count;
static unsigned char *frame;
static size_t frame_size;
static SSL_CTX *context;
static int poller;
static long opened, finished, failed, total_answers, started_links;
static int open_gate = 1;
static unsigned char scratch[SCRATCH];

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static long microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static unsigned char *read_file(const char *name, size_t *size) {
    FILE *file = fopen(name, "rb");
    struct stat status;
    if (!file || fstat(fileno(file), &status)) die("cannot read %s", name);
    unsigned char *bytes = malloc(status.st_size + 1);
    *size = fread(bytes, 1, status.st_size, file);
    fclose(file);
    return bytes;
}

static uint32_t number(const unsigned char **at) {
    uint32_t value;
    memcpy(&value, *at, 4);
    *at += 4;
    return ntohl(value);
}

/* Each identity: the key, the number of certificates, the certificates; all DER, each with its
 * length before it, big-endian in four bytes. */
static void load_identities(void) {
    size_t size;
    const unsigned char *at = read_file(identities_file, &size), *end = at + size;
    long room = 0;
    while (at < end) {
        if (identity_count == room) {
            room = room ? 2 * room : 64;
            identities = realloc(identities, room * sizeof *identities);
        }
        struct identity *one = &identities[identity_count++];
        memset(one, 0, sizeof *one);
        uint32_t length = number(&at);
        one->key = d2i_AutoPrivateKey(NULL, &at, length);
        one->above = sk_X509_new_null();
        uint32_t certificates = number(&at);
        for (uint32_t i = 0; i < certificates; i++) {
            length = number(&at);
            X509 *certificate = d2i_X509(NULL, &at, length);
            if (!certificate) die("no certificate in %s", identities_file);
            if (i == 0)
                one->leaf = certificate;
            else
                sk_X509_push(one->above, certificate);
        }
        if (!one->key || !one->leaf) die("no identity in %s", identities_file);
    }
}

static void load_tokens(void) {
    size_t size = 0;
    if (access(token_file, R_OK)) return;
    unsigned char *bytes = read_file(token_file, &size);
    for (long i = 0; i < identity_count && (size_t)(i + 1) * TOKEN <= size; i++)
        memcpy(identities[i].token, bytes + i * TOKEN, TOKEN);
    free(bytes);
}

static void save_tokens(void) {
    FILE *file = fopen(token_file, "wb");
    if (!file) die("cannot write %s", token_file);
    for (long i = 0; i < identity_count; i++) fwrite(identities[i].token, TOKEN, 1, file);
    fclose(file);
}

static void make_context(void) {
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    /* One curve and one cipher on every side: the rows compare servers, not preferences. */
    if (!SSL_CTX_set1_groups_list(context, "P-256") ||
        !SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256"))
        die("no such curve or cipher");
}

static void watch(struct link *link, uint32_t events) {
    if (link->events == events) return;
    struct epoll_event event = {.events = events, .data.ptr = link};
    epoll_ctl(poller, link->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, link->fd, &event);
    link->events = events;
}

static void close_link(struct link *link, int well) {
    if (link->state == ENDED) return;
    if (link->ssl) {
        if (well) SSL_shutdown(link->ssl);
        SSL_free(link->ssl);
        link->ssl = NULL;
        ERR_clear_error();
    }
    close(link->fd);
    free(link->out);
    link->out = NULL;
    if (!well) failed++;
    if (link->state != OPEN) opened++; /* whoever waits for it waits no longer */
    finished++;
    link->state = ENDED;
}

static void begin(struct link *link, long index) {
    memset(link, 0, sizeof *link);
    link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (link->fd < 0) die("no socket: %s", strerror(errno));
    int on = 1;
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f000002 + (uint32_t)(index % sources));
    setsockopt(link->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (sources > 1 && bind(link->fd, (void *)&from, sizeof from))
        die("cannot bind: %s", strerror(errno));
    to.sin_port = htons((uint16_t)port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(link->fd, (void *)&to, sizeof to) && errno != EINPROGRESS)
        die("cannot connect: %s", strerror(errno));
    if (identity_count) {
        link->identity = &identities[index % identity_count];
        link->ssl = SSL_new(context);
        SSL_use_certificate(link->ssl, link->identity->leaf);
        SSL_use_PrivateKey(link->ssl, link->identity->key);
        for (int i = 0; i < sk_X509_num(link->identity->above); i++)
            SSL_add1_chain_cert(link->ssl, sk_X509_value(link->identity->above, i));
        SSL_set_fd(link->ssl, link->fd);
        SSL_set_connect_state(link->ssl);
    }
    link->state = CONNECTING;
    started_links++;
    watch(link, EPOLLOUT);
}

/* Bytes done, 0 where it would block, -1 at the end. */
static long put(struct link *link, const unsigned char *bytes, size_t size) {
    if (!link->ssl) {
        ssize_t done = send(link->fd, bytes, size, MSG_NOSIGNAL);
        return done >= 0 ? done : errno == EAGAIN ? 0 : -1;
    }
    int done = SSL_write(link->ssl, bytes, (int)size);
    if (done > 0) return done;
    return SSL_get_error(link->ssl, done) == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static long take(struct link *link) {
    if (!link->ssl) {
        ssize_t done = recv(link->fd, scratch, SCRATCH, 0);
        return done > 0 ? done : done < 0 && errno == EAGAIN ? 0 : -1;
    }
    int done = SSL_read(link->ssl, scratch, SCRATCH);
    if (done > 0) return done;
    return SSL_get_error(link->ssl, done) == SSL_ERROR_WANT_READ ? 0 : -1;
}

/* Queue as many requests as the window has room for, in one piece. */
static void ask(struct link *link) {
    long more = window - (link->asked - link->answered);
    if (more > requests - link->asked) more = requests - link->asked;
    if (more <= 0) return;
    size_t size = (size_t)more * frame_size;
    if (link->filled + size > link->room) {
        link->room = link->filled + size;
        link->out = realloc(link->out, link->room);
    }
    for (long i = 0; i < more; i++) {
        unsigned char *copy = link->out + link->filled;
        memcpy(copy, frame, frame_size);
        if (token_offset >= 0) memcpy(copy + token_offset, link->identity->token, TOKEN);
        link->filled += frame_size;
    }
    link->asked += more;
}

static int flush(struct link *link) {
    while (link->sent < link->filled) {
        long done = put(link, link->out + link->sent, link->filled - link->sent);
        if (done < 0) return -1;
        if (!done) {
            watch(link, EPOLLIN | EPOLLOUT);
            return 0;
        }
        link->sent += (size_t)done;
    }
    link->sent = link->filled = 0;
    watch(link, EPOLLIN);
    return 0;
}

/* A msgpack map has the key "token" and then 16 bytes of bin 8. */
static void keep_token(struct link *link) {
    static const unsigned char mark[] = {0xa5, 't', 'o', 'k', 'e', 'n', 0xc4, TOKEN};
    unsigned char *found = memmem(link->head_of_body, link->kept, mark, sizeof mark);
    if (!found || found + sizeof mark + TOKEN > link->head_of_body + link->kept)
        die("an answer of type %d without a token", link->header[4]);
    memcpy(link->identity->token, found + sizeof mark, TOKEN);
}

/* Count the frames in what has arrived. */
static void count(struct link *link, const unsigned char *at, size_t size) {
    while (size) {
        if (link->header_bytes < HEADER) {
            link->header[link->header_bytes++] = *at++;
            size--;
            if (link->header_bytes < HEADER) continue;
            const unsigned char *header = link->header;
            link->body_left = number(&header);
            link->kept = 0;
        }
        size_t part = size < link->body_left ? size : link->body_left;
        size_t kept = sizeof link->head_of_body - link->kept;
        if (token_offset >= 0 && kept) {
            if (kept > part) kept = part;
            memcpy(link->head_of_body + link->kept, at, kept);
            link->kept += kept;
        }
        at += part;
        size -= part;
        link->body_left -= part;
        if (!link->body_left) {
            link->header_bytes = 0;
            link->answered++;
            total_answers++;
            if (token_offset >= 0) keep_token(link);
        }
    }
}

static void work(struct link *link) {
    ask(link);
    if (flush(link)) {
        close_link(link, 0);
        return;
    }
    for (;;) {
        long done = take(link);
        if (done < 0) {
            close_link(link, link->answered == requests && requests > 0);
            return;
        }
        if (!done) break;
        count(link, scratch, (size_t)done);
        ask(link);
        if (flush(link)) {
            close_link(link, 0);
            return;
        }
    }
    if (link->answered == requests && open_gate) {
        if (!keep) {
            close_link(link, 1);
            return;
        }
        epoll_ctl(poller, EPOLL_CTL_DEL, link->fd, NULL); /* from now on it only exists */
        link->events = 0;
        finished++;
    }
}

static void step(struct link *link) {
    if (link->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            close_link(link, 0);
            return;
        }
        link->state = HANDSHAKE;
    }
    if (link->state == HANDSHAKE) {
        if (link->ssl) {
            ERR_clear_error();
            int done = SSL_do_handshake(link->ssl);
            if (done != 1) {
                int why = SSL_get_error(link->ssl, done);
                if (why == SSL_ERROR_WANT_READ)
                    watch(link, EPOLLIN);
                else if (why == SSL_ERROR_WANT_WRITE)
                    watch(link, EPOLLOUT);
                else
                    close_link(link, 0);
                return;
            }
        }
        link->state = OPEN;
        opened++;
        if (!open_gate) {
            watch(link, EPOLLIN);
            return;
        }
    }
    if (open_gate) work(link);
}

static void wait_for_line(const char *said) {
    char line[16];
    puts(said);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

static void turn(void) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poller, events, EVENTS, 20000);
    if (ready == 0) die("nothing for 20 s: %ld open, %ld done", opened, finished);
    for (int i = 0; i < ready; i++) {
        struct link *link = events[i].data.ptr;
        if (link->state != ENDED) step(link);
    }
}

/* One request after another, each timed; the latencies go out one a line, in microseconds. */
static void probe(struct link *link) {
    struct sched_param urgent = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &urgent); /* where allowed: not to wait behind the load */
    window = 1;
    struct pollfd end = {.fd = 0, .events = POLLIN};
    puts("ready");
    fflush(stdout);
    while (poll(&end, 1, 0) == 0) {
        long before = microseconds(), wanted = link->answered + 1;
        requests = wanted;
        ask(link);
        if (flush(link)) die("the probed connection is gone");
        while (link->answered < wanted) {
            struct epoll_event event;
            if (epoll_wait(poller, &event, 1, 20000) != 1) die("no answer to a probe for 20 s");
            long done = take(link);
            if (done < 0) die("the probed connection is gone");
            count(link, scratch, (size_t)done);
        }
        printf("%ld\n", microseconds() - before);
        struct timespec pause = {0, probe_every * 1000L};
        nanosleep(&pause, NULL);
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "p:i:n:c:s:f:r:w:t:T:gku:")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'i': identities_file = optarg; break;
        case 'n': connections = atol(optarg); break;
        case 'c': at_once = atoi(optarg); break;
        case 's': sources = atoi(optarg); break;
        case 'f': frame_file = optarg; break;
        case 'r': requests = atol(optarg); break;
        case 'w': window = atol(optarg); break;
        case 't': token_offset = atoi(optarg); break;
        case 'T': token_file = optarg; break;
        case 'g': gate = 1; break;
        case 'k': keep = 1; break;
        case 'u': probe_every = atoi(optarg); break;
        default: die("see the top of load.c");
        }
    }
    signal(SIGPIPE, SIG_IGN);
    if (identities_file) load_identities(), make_context();
    if (token_file) load_tokens();
    if (frame_file) frame = read_file(frame_file, &frame_size);
    poller = epoll_create1(0);
    struct link *links = calloc((size_t)connections, sizeof *links);

    long before = microseconds();
    open_gate = !gate && !probe_every;
    while ((open_gate ? finished : opened) < connections) {
        long under_way = started_links - (open_gate ? finished : opened);
        if (keep && open_gate) under_way = started_links - finished;
        for (; started_links < connections && under_way < at_once; under_way++)
            begin(&links[started_links], started_links);
        turn();
    }
    if (probe_every) {
        if (failed) die("cannot open a connection to probe");
        probe(&links[0]);
        return 0;
    }
    if (gate) {
        wait_for_line("ready");
        before = microseconds();
        open_gate = 1;
        for (long i = 0; i < connections; i++)
            if (links[i].state != ENDED) work(&links[i]);
        while (finished < connections) turn();
    }
    if (token_file) save_tokens(); /* whoever hears "done" may end us */
    printf("done %ld %ld %ld %ld\n", started_links, total_answers, failed,
           microseconds() - before);
    fflush(stdout);
    if (keep) wait_for_line("kept");
    return 0;
}
