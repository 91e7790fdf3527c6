// The floor: one thread that answers the same bytes to every request and parses nothing.
//
// What is left is the time that the kernel takes for a request over TCP: wait, recv and send, and also accept and close
// if every request has its own connection. A server on epoll cannot take less.
//
//   floor PORT REQUEST_BYTES keep|close
//
// Requests are separated only by their length, which is the same for all.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_PER_WAIT = 512, BACKLOG = 65535, READ_BYTES = 16 * 1024, ANSWERS_MAX = 256, FDS_MAX = 1 << 17 };

// What hakaru answers, byte for byte.
#define HEAD                                                                                              \
  "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nAccess-Control-Allow-Origin: *\r\n"           \
  "Access-Control-Allow-Headers: Content-Type\r\nAccess-Control-Allow-Methods: GET\r\n"
#define END "Content-Length: 0\r\n\r\n"
static const char KEEP[] = HEAD END;
static const char CLOSE[] = HEAD "Connection: close\r\n" END;

static char answers[ANSWERS_MAX * sizeof CLOSE];
static size_t partial[FDS_MAX];  // bytes of an incomplete request, by connection
static size_t request_bytes, answer_bytes;
static int closes;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
      bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG))
    die("floor: listen");
  return fd;
}

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("floor: epoll_ctl");
}

static void accept_all(int epoll, int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED)) return;
    if (fd < 0 || fd >= FDS_MAX) die("floor: accept");
    partial[fd] = 0;
    watch(epoll, fd);
  }
}

// Answers the requests that have arrived. Closes a connection that fails or ends, or after each answer with `close`.
static void serve(int fd) {
  static char input[READ_BYTES];
  ssize_t got = recv(fd, input, sizeof input, 0);
  if (got < 0 && errno == EAGAIN) return;
  size_t requests = 0;
  if (got > 0) {
    requests = (partial[fd] + got) / request_bytes;
    partial[fd] = (partial[fd] + got) % request_bytes;
    if (requests > ANSWERS_MAX) die("floor: too many requests in one read");
    if (requests == 0) return;
    size_t bytes = requests * answer_bytes;
    if (send(fd, answers, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) got = -1;
  }
  if (got <= 0 || closes) close(fd);
}

int main(int argc, char **argv) {
  if (argc != 4 || atoi(argv[2]) <= 0) {
    fprintf(stderr, "usage: floor PORT REQUEST_BYTES keep|close\n");
    return 2;
  }
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) die("floor: getrlimit");
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files)) die("floor: setrlimit");
  request_bytes = atoi(argv[2]);
  closes = strcmp(argv[3], "close") == 0;
  const char *answer = closes ? CLOSE : KEEP;
  answer_bytes = strlen(answer);
  for (int i = 0; i < ANSWERS_MAX; i++) memcpy(answers + i * answer_bytes, answer, answer_bytes);

  int epoll = epoll_create1(0), listener = listen_on(atoi(argv[1]));
  if (epoll < 0) die("floor: epoll_create1");
  watch(epoll, listener);
  for (;;) {
    static struct epoll_event events[EVENTS_PER_WAIT];
    int ready = epoll_wait(epoll, events, EVENTS_PER_WAIT, -1);
    if (ready < 0 && errno != EINTR) die("floor: epoll_wait");
    for (int i = 0; i < ready; i++) {
      if (events[i].data.fd == listener) accept_all(epoll, listener);
      else serve(events[i].data.fd);
    }
  }
}
