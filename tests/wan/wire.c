// A wire between two network namespaces. What enters the TUN device of one side leaves that of the other: later, at a
// limited rate, or never.
//
//   wire NAMESPACE_A DEVICE_A NAMESPACE_B DEVICE_B      namespaces by their path
//
// Each line of standard input is an order, answered by one line:
//   delay MS               on the way, each direction
//   loss PERCENT           of the packets, by chance; the same ones in each run
//   rate KBIT_AB KBIT_BA   a second; 0 has no limit
//   queue MS               how long a packet waits for its turn at most; later ones are dropped
//   cut, mend              nothing passes, and what was on its way is lost; everything passes again
//   count                  answers with the bytes that came out so far: of A at B, of B at A
// It ends with its standard input.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PACKET_BYTES_MAX = 2048, PACKETS_MAX = 32768, PACKETS_A_TURN = 256, FRAME_BYTES = 14 };

struct packet {
  uint64_t leaves_ns;
  size_t length;
  unsigned char bytes[PACKET_BYTES_MAX];
};

struct direction {
  int in, out;
  double kbit;             // a second; 0 has no limit
  uint64_t free_ns;        // when the packets that wait for their turn will have left
  uint64_t first, next;    // packets on their way: counted for ever, kept at their number modulo PACKETS_MAX
  uint64_t bytes;          // that came out
  struct packet *packets;
};

static double delay_ms, loss_percent, queue_ms = 200;
static int is_cut;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int is_lost(void) {
  return loss_percent > 0 && drand48() * 100 < loss_percent; // never seeded: the same ones in each run
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// The TUN device `name` in the namespace at `path`. It is made there, and stays there.
static int open_device(const char *path, const char *name) {
  int namespace = open(path, O_RDONLY | O_CLOEXEC);
  if (namespace < 0 || setns(namespace, CLONE_NEWNET)) fail(path);
  close(namespace);
  int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (device < 0 || ioctl(device, TUNSETIFF, &request)) fail("/dev/net/tun");
  return device;
}

// Takes the packets that have come to a device, and decides when each leaves the other one.
static void take(struct direction *d) {
  for (int taken = 0; taken < PACKETS_A_TURN; taken++) {
    struct packet spare, *packet = &spare;
    int is_full = d->next - d->first == PACKETS_MAX;
    if (!is_full) packet = &d->packets[d->next % PACKETS_MAX];
    ssize_t length = read(d->in, packet->bytes, PACKET_BYTES_MAX);
    if (length <= 0) return;
    if (is_full || is_cut || is_lost()) continue;
    uint64_t leaves = now_ns();
    if (d->kbit > 0) {
      uint64_t turn = d->free_ns > leaves ? d->free_ns : leaves;
      if ((double)(turn - leaves) > queue_ms * 1e6) continue;
      leaves = d->free_ns = turn + (uint64_t)((double)(length + FRAME_BYTES) * 8 * 1e6 / d->kbit);
    }
    packet->length = (size_t)length;
    packet->leaves_ns = leaves + (uint64_t)(delay_ms * 1e6);
    d->next++;
  }
}

// Lets the packets out whose time has come.
static void let_out(struct direction *d) {
  for (; d->first != d->next; d->first++) {
    struct packet *packet = &d->packets[d->first % PACKETS_MAX];
    if (packet->leaves_ns > now_ns()) return;
    if (write(d->out, packet->bytes, packet->length) > 0) d->bytes += packet->length;
  }
}

static void obey(const char *order, struct direction *ab, struct direction *ba) {
  if (!strcmp(order, "cut\n")) {
    is_cut = 1;
    ab->first = ab->next;
    ba->first = ba->next;
  } else if (!strcmp(order, "mend\n")) {
    is_cut = 0;
  } else if (!strcmp(order, "count\n")) {
    printf("%llu %llu\n", (unsigned long long)ab->bytes, (unsigned long long)ba->bytes);
    return;
  } else if (sscanf(order, "rate %lf %lf", &ab->kbit, &ba->kbit) != 2 && sscanf(order, "delay %lf", &delay_ms) != 1 &&
             sscanf(order, "loss %lf", &loss_percent) != 1 && sscanf(order, "queue %lf", &queue_ms) != 1) {
    printf("not an order: %s", order);
    return;
  }
  puts("ok");
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  int a = open_device(arguments[1], arguments[2]), b = open_device(arguments[3], arguments[4]);
  struct direction ways[2] = {{.in = a, .out = b}, {.in = b, .out = a}};
  for (int i = 0; i < 2; i++) {
    ways[i].packets = calloc(PACKETS_MAX, sizeof(struct packet)); // untouched pages cost nothing
    if (!ways[i].packets) fail("memory");
  }
  setvbuf(stdin, NULL, _IONBF, 0);
  setvbuf(stdout, NULL, _IOLBF, 0);
  prctl(PR_SET_TIMERSLACK, 1UL);
  puts("ok");
  for (;;) {
    uint64_t due = UINT64_MAX;
    for (int i = 0; i < 2; i++) {
      struct direction *d = &ways[i];
      if (d->first != d->next && d->packets[d->first % PACKETS_MAX].leaves_ns < due)
        due = d->packets[d->first % PACKETS_MAX].leaves_ns;
    }
    uint64_t now = now_ns(), wait = due > now ? due - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait / 1000000000), .tv_nsec = (long)(wait % 1000000000)};
    struct pollfd polled[3] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    if (ppoll(polled, 3, due == UINT64_MAX ? NULL : &timeout, NULL) < 0) fail("poll");
    for (int i = 0; i < 2; i++)
      if (polled[i].revents) take(&ways[i]);
    if (polled[2].revents) {
      char order[128];
      if (!fgets(order, sizeof order, stdin)) return 0;
      obey(order, &ways[0], &ways[1]);
    }
    for (int i = 0; i < 2; i++) let_out(&ways[i]);
  }
}
