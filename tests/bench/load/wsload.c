/* Open-loop WebSocket load for a Millrace gateway: one thread, epoll, latencies from the intended instant of each send.
 *
 *   cc -O2 -o wsload wsload.c && ./wsload --ports 8080,8090 --key mr_... --sessions 10000 --rate 500 --seconds 60
 *
 * Opens `sessions` connections, waits until all are open, then submits `rate` prompts a second, round robin, whether or not
 * earlier ones were answered (no coordinated omission: a submission that had to wait counts from when it was due).
 * `--rate 0` submits one prompt on each session at once, `--rate 0 --max-tokens 0` none: sessions stay idle.
 * `--hold N` keeps the load generator, idle, open for N seconds after "open" was printed.
 * With `--stamped` the simulator is asked to write the instant of each token into the text (16 hex digits of CLOCK_MONOTONIC
 * nanoseconds and a blank), and the latency from there to here is measured.
 *
 * Prints one JSON object. Times are in milliseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 8, MAX_PORTS = 16 };

static uint64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* -- histogram: 64 buckets per power of two of microseconds, so a quantile is exact to 1.6 % ----------------------------- */

typedef struct { uint64_t bucket[4096], count; double max; } Histogram;

static void record(Histogram *h, uint64_t ns) {
  uint64_t us = ns / 1000, b = us;
  if (us >= 64) { int e = 63 - __builtin_clzll(us); b = (uint64_t)(e - 5) * 64 + ((us >> (e - 6)) & 63); }
  if (b > 4095) b = 4095;
  h->bucket[b]++; h->count++;
  if (ns / 1e6 > h->max) h->max = ns / 1e6;
}

static double quantile(const Histogram *h, double q) {
  uint64_t seen = 0, target = (uint64_t)(q * (double)h->count);
  for (uint64_t b = 0; b < 4096; b++) {
    seen += h->bucket[b];
    if (seen > target) {
      if (b < 64) return (double)b / 1e3;
      uint64_t e = b / 64 + 5;
      return (double)((1ull << e) + ((b % 64) << (e - 6))) / 1e3;
    }
  }
  return h->max;
}

static void print_histogram(const char *name, const Histogram *h) {
  printf("\"%s\":{\"count\":%llu,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f},", name,
         (unsigned long long)h->count, quantile(h, .5), quantile(h, .9), quantile(h, .99), quantile(h, .999), h->max);
}

/* -- sessions ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  uint64_t due;          /* when it should have been sent; 0 = free */
  uint32_t number;       /* in its key */
  bool measured, acked, started;
  char task[28];
} Submission;

typedef enum { CONNECTING, UPGRADING, OPEN, CLOSED } State;

typedef struct {
  int fd;
  State state;
  unsigned char *rest;   /* a frame that is not here as a whole yet */
  size_t length, capacity;
  uint32_t submitted;
  Submission slot[SLOTS];
} Session;

static struct {
  const char *key, *model, *class, *input, *label;
  int ports[MAX_PORTS], n_ports, sessions, max_tokens, prompt_bytes, sources, hold;
  double rate, seconds, warm;
  bool stamped, cached;
} options = {.key = "", .model = "sim", .class = "standard", .label = "load", .sessions = 1, .max_tokens = 16, .prompt_bytes = 200,
             .sources = 1, .rate = 1, .seconds = 10, .warm = 2};

static Session *sessions;
static int epoll;
static const uint64_t GRID_NS = 1000000;
static int opened, failed, closed;
static bool measuring;
static Histogram ack, ttft, total, emit, handshake;
static uint64_t sent, measured_sent, skipped, acks, dones, incomplete, errors, deltas, errors_printed;
static uint64_t *connect_at;

static char prompt[4096];

static void make_prompt(void) {
  int n = 0;
  if (options.stamped) n = snprintf(prompt, sizeof prompt, "[[sim stamp]] ");
  if (options.input) { snprintf(prompt + n, sizeof prompt - n, "%s", options.input); return; }
  for (int i = 0; i < options.prompt_bytes && n < (int)sizeof prompt - 1; i++) prompt[n++] = i % 6 == 5 ? ' ' : (char)('a' + (i * 7) % 26);
  prompt[n] = 0;
}

static bool send_text(Session *s, const char *text, size_t n) {
  unsigned char frame[8192];
  size_t h = 2;
  static const unsigned char mask[4] = {0x1b, 0x2c, 0x3d, 0x4e};
  frame[0] = 0x81;
  if (n < 126) frame[1] = 0x80 | (unsigned char)n;
  else { frame[1] = 0x80 | 126; frame[2] = (unsigned char)(n >> 8); frame[3] = (unsigned char)n; h = 4; }
  memcpy(frame + h, mask, 4);
  h += 4;
  for (size_t i = 0; i < n; i++) frame[h + i] = (unsigned char)text[i] ^ mask[i & 3];
  return write(s->fd, frame, h + n) == (ssize_t)(h + n);
}

static void submit(Session *s, int index, uint64_t due) {
  Submission *free_slot = NULL;
  for (int i = 0; i < SLOTS && !free_slot; i++) if (!s->slot[i].due) free_slot = &s->slot[i];
  if (s->state != OPEN || !free_slot) { skipped++; return; }
  char text[6000];
  uint32_t number = s->submitted++;
  int n = snprintf(text, sizeof text,
                   "{\"t\":\"submit\",\"key\":\"%s-%d-%u\",\"model\":\"%s\",\"class\":\"%s\",\"max_tokens\":%d,%s\"cache\":\"%s\",\"input\":\"%s\"}",
                   options.label, index, number, options.model, options.class, options.max_tokens,
                   options.cached ? "\"temperature\":0," : "", options.cached ? "default" : "bypass", prompt);
  if (!send_text(s, text, (size_t)n)) { skipped++; return; }
  *free_slot = (Submission){.due = due, .number = number, .measured = measuring};
  sent++;
  if (measuring) measured_sent++;
}

/* -- what the gateway says ----------------------------------------------------------------------------------------------- */

static const char *after(const char *text, const char *name) { const char *p = strstr(text, name); return p ? p + strlen(name) : NULL; }

static Submission *by_key(Session *s, const char *text) {
  const char *p = after(text, "\"key\":\"");
  if (!p || !(p = strrchr(strndupa(p, strcspn(p, "\"")), '-'))) return NULL;
  uint32_t number = (uint32_t)strtoul(p + 1, NULL, 10);
  for (int i = 0; i < SLOTS; i++) if (s->slot[i].due && s->slot[i].number == number) return &s->slot[i];
  return NULL;
}

static Submission *by_task(Session *s, const char *text) {
  const char *p = after(text, "\"task\":\"");
  if (!p) return NULL;
  for (int i = 0; i < SLOTS; i++) if (s->slot[i].due && !strncmp(s->slot[i].task, p, 26)) return &s->slot[i];
  return NULL;
}

static void stamps(const char *text, uint64_t t) {
  const char *p = after(text, "\"text\":\"");
  for (; p && strspn(p, "0123456789abcdef") == 16; p += 17) {
    uint64_t stamp = strtoull(strndupa(p, 16), NULL, 16);
    if (measuring && t > stamp) record(&emit, t - stamp);
    if (p[16] != ' ') break;
  }
}

static void take(Session *s, char *text, size_t n, uint64_t t) {
  char saved = text[n];
  text[n] = 0;
  Submission *m;
  if (!strncmp(text, "{\"t\":\"delta\"", 12)) {
    deltas++;
    if ((m = by_task(s, text)) && !m->started) { m->started = true; if (m->measured) record(&ttft, t - m->due); }
    if (options.stamped) stamps(text, t);
  } else if (!strncmp(text, "{\"t\":\"ack\"", 10)) {
    if ((m = by_key(s, text))) {
      const char *p = after(text, "\"task\":\"");
      if (p) memcpy(m->task, p, 26);
      m->acked = true;
      acks++;
      if (m->measured) record(&ack, t - m->due);
    }
  } else if (!strncmp(text, "{\"t\":\"done\"", 11)) {
    if ((m = by_task(s, text))) {
      dones++;
      if (!strstr(text, "\"outcome\":\"completed\"")) incomplete++;
      if (m->measured) record(&total, t - m->due);
      m->due = 0;
      m->task[0] = 0;
    }
  } else if (!strncmp(text, "{\"t\":\"error\"", 12)) {
    errors++;
    if (errors_printed++ < 3) fprintf(stderr, "%.300s\n", text);
    if ((m = by_key(s, text)) || (m = by_task(s, text))) m->due = 0;
  }
  text[n] = saved;
}

/* Frames in `p`, which has one writable byte beyond `n`; returns how many bytes were used. */
static size_t parse(Session *s, unsigned char *p, size_t n, uint64_t t) {
  size_t used = 0;
  while (n - used >= 2) {
    unsigned char *f = p + used;
    size_t have = n - used, header = 2;
    uint64_t length = f[1] & 127;
    if (length == 126) { if (have < 4) break; header = 4; length = (uint64_t)f[2] << 8 | f[3]; }
    else if (length == 127) { if (have < 10) break; header = 10; length = 0; for (int i = 2; i < 10; i++) length = length << 8 | f[i]; }
    if (have < header + length) break;
    int opcode = f[0] & 15;
    if (opcode == 1) take(s, (char *)f + header, length, t);
    else if (opcode == 9) {
      unsigned char pong[140] = {0x8a, (unsigned char)(0x80 | length)};
      memcpy(pong + 6, f + header, length); /* mask 0: the payload as it is */
      if (write(s->fd, pong, 6 + length) < 0) closed++;
    }
    used += header + length;
  }
  return used;
}

static void drop(Session *s) {
  if (s->state == OPEN) closed++; else failed++;
  s->state = CLOSED;
  close(s->fd);
}

static void receive(Session *s, int index) {
  static unsigned char buffer[1 << 18];
  for (;;) {
    memcpy(buffer, s->rest, s->length);
    ssize_t got = read(s->fd, buffer + s->length, sizeof buffer - s->length - 1);
    if (got <= 0) { if (got == 0 || errno != EAGAIN) drop(s); return; }
    uint64_t t = nanoseconds();
    size_t n = s->length + (size_t)got, used = 0;
    if (s->state == UPGRADING) {
      buffer[n] = 0;
      char *end = strstr((char *)buffer, "\r\n\r\n");
      if (end) {
        if (strncmp((char *)buffer, "HTTP/1.1 101", 12)) { fprintf(stderr, "refused: %.200s\n", buffer); drop(s); return; }
        s->state = OPEN;
        opened++;
        record(&handshake, t - connect_at[index]);
        used = (size_t)(end + 4 - (char *)buffer);
      }
    }
    if (s->state == OPEN) used += parse(s, buffer + used, n - used, t);
    s->length = n - used;
    if (s->length > s->capacity) { s->capacity = s->length + 256; s->rest = realloc(s->rest, s->capacity); }
    if (s->length) memcpy(s->rest, buffer + used, s->length);
    else { free(s->rest); s->rest = NULL; s->capacity = 0; }
    if (got < 4096) return;
  }
}

static void begin(int index) {
  Session *s = &sessions[index];
  int one = 1;
  s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (s->fd < 0) { perror("socket"); exit(1); }
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (options.sources > 1) { /* one address has some 28,000 ports */
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101u + (uint32_t)(index % options.sources))};
    setsockopt(s->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    bind(s->fd, (struct sockaddr *)&from, sizeof from);
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.ports[index % options.n_ports]),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  connect_at[index] = nanoseconds();
  if (connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) { drop(s); return; }
  struct epoll_event e = {EPOLLIN | EPOLLOUT | EPOLLET, {.u32 = (uint32_t)index}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e);
}

static void upgrade(Session *s, int index) {
  char request[600];
  int n = snprintf(request, sizeof request,
                   "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Protocol: millrace.v1\r\nAuthorization: Bearer %s\r\n\r\n",
                   options.ports[index % options.n_ports], options.key);
  s->state = UPGRADING;
  if (write(s->fd, request, (size_t)n) != n) drop(s);
}

static void poll_once(int timeout_us) {
  struct epoll_event events[1024];
  struct timespec wait = {timeout_us / 1000000, timeout_us % 1000000 * 1000L};
  int n = epoll_pwait2(epoll, events, 1024, &wait, NULL);
  for (int i = 0; i < n; i++) {
    int index = (int)events[i].data.u32;
    Session *s = &sessions[index];
    if (s->state == CONNECTING && events[i].events & EPOLLOUT) upgrade(s, index);
    if (s->state != CLOSED && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(s, index);
  }
}

static void usage(const char *program) {
  fprintf(stderr, "usage: %s --ports P[,P...] --key KEY [--sessions N] [--rate PER_SECOND] [--seconds S] [--warm S] [--model M]\n"
                  "  [--class C] [--max-tokens N] [--prompt-bytes N] [--input TEXT] [--label L] [--stamped] [--cached] [--sources N] [--hold S]\n", program);
  exit(2);
}

static void parse_options(int argc, char **argv) {
  static const struct option known[] = {
      {"ports", 1, 0, 'p'}, {"key", 1, 0, 'k'}, {"sessions", 1, 0, 'n'}, {"rate", 1, 0, 'r'}, {"seconds", 1, 0, 's'}, {"warm", 1, 0, 'w'},
      {"model", 1, 0, 'm'}, {"class", 1, 0, 'c'}, {"max-tokens", 1, 0, 't'}, {"prompt-bytes", 1, 0, 'b'}, {"input", 1, 0, 'i'},
      {"label", 1, 0, 'l'}, {"stamped", 0, 0, 'S'}, {"cached", 0, 0, 'C'}, {"sources", 1, 0, 'a'}, {"hold", 1, 0, 'h'}, {0, 0, 0, 0}};
  int c;
  while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) switch (c) {
      case 'p': for (char *p = strtok(optarg, ","); p && options.n_ports < MAX_PORTS; p = strtok(NULL, ",")) options.ports[options.n_ports++] = atoi(p); break;
      case 'k': options.key = optarg; break;
      case 'n': options.sessions = atoi(optarg); break;
      case 'r': options.rate = atof(optarg); break;
      case 's': options.seconds = atof(optarg); break;
      case 'w': options.warm = atof(optarg); break;
      case 'm': options.model = optarg; break;
      case 'c': options.class = optarg; break;
      case 't': options.max_tokens = atoi(optarg); break;
      case 'b': options.prompt_bytes = atoi(optarg); break;
      case 'i': options.input = optarg; break;
      case 'l': options.label = optarg; break;
      case 'S': options.stamped = true; break;
      case 'C': options.cached = true; break;
      case 'a': options.sources = atoi(optarg); break;
      case 'h': options.hold = atoi(optarg); break;
      default: usage(argv[0]);
    }
  if (!options.n_ports || options.sessions < 1) usage(argv[0]);
}

int main(int argc, char **argv) {
  parse_options(argc, argv);
  make_prompt();
  /* Whoever measures must not wait for a core behind what it measures: first in line where root is, which is printed. */
  struct sched_param first = {.sched_priority = 1};
  bool real_time = !sched_setscheduler(0, SCHED_FIFO, &first);
  struct rlimit files = {1048576, 1048576};
  setrlimit(RLIMIT_NOFILE, &files);
  sessions = calloc((size_t)options.sessions, sizeof *sessions);
  connect_at = calloc((size_t)options.sessions, sizeof *connect_at);
  epoll = epoll_create1(0);
  uint64_t t0 = nanoseconds();
  for (int next = 0; opened + failed < options.sessions;) {
    while (next < options.sessions && next - opened - failed < 128) begin(next++);
    poll_once(10000);
    if (nanoseconds() - t0 > 120ull * 1000000000ull) { fprintf(stderr, "only %d of %d sessions opened in 120 s\n", opened, options.sessions); return 1; }
  }
  double open_s = (double)(nanoseconds() - t0) / 1e9;
  fprintf(stderr, "open %d failed %d in %.2f s\n", opened, failed, open_s);
  if (options.hold) for (uint64_t end = nanoseconds() + (uint64_t)options.hold * 1000000000ull; nanoseconds() < end;) poll_once(100000);

  uint64_t start = nanoseconds(), warm_until = start + (uint64_t)(options.warm * 1e9), stop = warm_until + (uint64_t)(options.seconds * 1e9);
  uint64_t tick = 0, deltas_at_warm = 0, dones_at_warm = 0;
  if (options.rate <= 0 && options.max_tokens > 0) { for (int i = 0; i < options.sessions; i++) { submit(&sessions[i], i, nanoseconds()); poll_once(0); } }
  for (uint64_t t; (t = nanoseconds()) < stop;) {
    if (!measuring && t >= warm_until) { measuring = true; deltas_at_warm = deltas; dones_at_warm = dones; }
    for (uint64_t due; options.rate > 0 && (due = start + (uint64_t)((double)tick * 1e9 / options.rate)) <= t; tick++) {
      int index = (int)(tick % (uint64_t)options.sessions);
      submit(&sessions[index], index, due);
    }
    /* One look a millisecond: woken by every frame, the generator would preempt the gateway at each of its writes. What it
       sends and reads is up to that much late, which counts against the measured. */
    struct timespec grid = {0, (long)(GRID_NS - nanoseconds() % GRID_NS)};
    nanosleep(&grid, NULL);
    poll_once(0);
  }
  uint64_t measured_deltas = deltas - deltas_at_warm, measured_dones = dones - dones_at_warm;
  measuring = false; /* what is on its way may end, what is sent from here is not counted */
  for (uint64_t end = nanoseconds() + 10ull * 1000000000ull; nanoseconds() < end && options.rate > 0 && total.count < measured_sent;) poll_once(10000);
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  printf("{\"real_time\":%s,", real_time ? "true" : "false");
  print_histogram("ack", &ack);
  print_histogram("ttft", &ttft);
  print_histogram("total", &total);
  print_histogram("emit", &emit);
  print_histogram("handshake", &handshake);
  printf("\"open\":%d,\"failed\":%d,\"closed\":%d,\"open_s\":%.2f,\"sent\":%llu,\"measured\":%llu,\"skipped\":%llu,\"acks\":%llu,\"done\":%llu,"
         "\"not_completed\":%llu,\"errors\":%llu,\"deltas_per_s\":%.0f,\"done_per_s\":%.2f,\"client_cpu_s\":%.2f}\n",
         opened, failed, closed, open_s, (unsigned long long)sent, (unsigned long long)measured_sent, (unsigned long long)skipped,
         (unsigned long long)acks, (unsigned long long)dones, (unsigned long long)incomplete, (unsigned long long)errors,
         (double)measured_deltas / options.seconds, (double)measured_dones / options.seconds, cpu);
  return 0;
}
