/* What handshake-c compares with: a server on the system's OpenSSL, one thread, epoll.
 *
 *   server CHAIN.pem KEY.pem ROOT.pem      says "port N", then accepts until it is killed
 *
 * It does what a C programmer would do for the same job: TLS 1.2, a client certificate required
 * and verified up to the root, no sessions, no tickets. After the handshake it looks at the chain
 * once (there is one, and it ends at a root), and then throws away what comes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, BACKLOG = 512 };

struct visitor {
    int fd, open;
    SSL *ssl;
};

static SSL_CTX *context;
static int poller;

static void die(const char *what) {
    fprintf(stderr, "server: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void make_context(char **files) {
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    if (!SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256") ||
        SSL_CTX_use_certificate_chain_file(context, files[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, files[2], SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_file(context, files[3]) != 1)
        die("certificates cannot be used");
}

static void watch(int operation, int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    epoll_ctl(poller, operation, fd, &event);
}

static void leave(struct visitor *visitor) {
    if (visitor->open) SSL_shutdown(visitor->ssl);
    SSL_free(visitor->ssl);
    close(visitor->fd);
    free(visitor);
    ERR_clear_error();
}

static void arrive(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct visitor *visitor = calloc(1, sizeof *visitor);
        visitor->fd = fd;
        visitor->ssl = SSL_new(context);
        SSL_set_fd(visitor->ssl, fd);
        SSL_set_accept_state(visitor->ssl);
        watch(EPOLL_CTL_ADD, fd, visitor);
    }
}

static void serve(struct visitor *visitor) {
    char thrown_away[16384];
    if (!visitor->open) {
        int done = SSL_do_handshake(visitor->ssl);
        if (done != 1) {
            /* A flight of ours fits into the socket's buffer: it never waits to write. */
            if (SSL_get_error(visitor->ssl, done) != SSL_ERROR_WANT_READ) leave(visitor);
            return;
        }
        if (sk_X509_num(SSL_get0_verified_chain(visitor->ssl)) < 2) {
            leave(visitor);
            return;
        }
        visitor->open = 1;
    }
    for (;;) {
        int done = SSL_read(visitor->ssl, thrown_away, sizeof thrown_away);
        if (done > 0) continue;
        if (SSL_get_error(visitor->ssl, done) != SSL_ERROR_WANT_READ) leave(visitor);
        return;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) die("server CHAIN.pem KEY.pem ROOT.pem");
    signal(SIGPIPE, SIG_IGN);
    make_context(argv);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in where = {.sin_family = AF_INET};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof where;
    if (bind(listener, (void *)&where, sizeof where) || listen(listener, BACKLOG) ||
        getsockname(listener, (void *)&where, &size))
        die("cannot listen");
    poller = epoll_create1(0);
    watch(EPOLL_CTL_ADD, listener, NULL);
    printf("port %d\n", ntohs(where.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else
                arrive(listener);
        }
    }
}
