/* A switch in user space: one TUN device in each of several network namespaces, joined with a rate
   and a delay, so that processes of one machine talk as devices on a slower network would.

   usage: tunswitch switched|shared DELAY_NS MBIT NAMESPACE...

   A namespace is the path of its file. Its device is DEVICE; what is sent from there to PREFIX.i is
   delivered in the i-th namespace, counted from 1, and everything else is lost. Addresses and the
   state of the devices are set by whoever starts the switch, when it has written "ready".

   switched: each port has a link of its own, as fast in each direction. A packet waits for its
             sender's link, then for its receiver's, through which it passes at the same time.
   shared:   all ports share one medium, which a packet crosses twice, to the access point and from
             there. Senders take turns.

   Flows of one sender take turns too, packet by packet, as with Linux's queue that is fair to flows
   (fq_codel). A packet that finds QUEUE bytes of its flow ahead of it, or as many before its
   receiver, is lost. It arrives DELAY_NS after it has left its last link. On the wire it is as long
   as on Ethernet: a large one that the kernel leaves to the device to be cut into segments counts
   as all of these.

   Commands are lines of standard input, each answered by the line "ok" or "no"; ports count from 0:

       rate PORT MBIT     from now on, also for what waits for the sender's link
       unplug PORT        what it sends, and what is on its way to it, is lost
       plug PORT

   It ends when standard input does. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "net0"
#define MOST_PORTS 32
#define VNET sizeof(struct virtio_net_hdr)
#define MOST_BYTES (VNET + 65536)
#define FRAMING 38 /* bytes of Ethernet around a packet: header, checksum, preamble, gap */
#define QUEUE (1000 * 1538) /* bytes: a thousand full frames, as Linux queues by default */
#define FLOWS 32 /* of a sender that are told apart */
#define AT_ONCE 64 /* packets read from a port before others are looked after */
#define AWAKE 10000 /* ns: a call of poll that takes longer has waited */
#define LEAST_MBIT 1e-3
#define MOST_MBIT 1e5
#define MOST_DELAY 10000000000 /* ns */
#define MOST_LINE 128

#define FRAGMENT 0x3fff /* bits of an IP header's field that are set in parts of a packet */
#define TCP 6
#define UDP 17

static const uint8_t PREFIX[3] = {10, 78, 0};

typedef int64_t Time; /* nanoseconds of CLOCK_MONOTONIC */
#define NEVER INT64_MAX

typedef struct Packet {
    struct Packet *next;
    Time at;     /* in a sender's queue: when it came; in a receiver's: when it is delivered */
    double wire; /* bytes on the wire */
    int to;
    size_t length; /* of bytes: a struct virtio_net_hdr and an IP packet */
    uint8_t bytes[];
} Packet;

typedef struct {
    Packet *first, **end;
    double bytes; /* on the wire */
} Queue;

typedef struct {
    int tun;
    double ns_per_byte;
    bool plugged;
    Queue sent[FLOWS]; /* what waits to be sent */
    int last_flow;
    Queue arriving;
    Time up_free, down_free; /* when its links have sent what they took so far */
    Time empty;              /* when there was last nothing to be read from it */
} Port;

static Port ports[MOST_PORTS];
static int port_count;
static bool shared;
static Time delay, medium_free;
static int last_sender;

static void fail(const char *what, const char *which) {
    fprintf(stderr, "%s%s%s: %s\n", what, *which ? " " : "", which, strerror(errno));
    exit(1);
}

static Time now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (Time)t.tv_sec * 1000000000 + t.tv_nsec;
}

static Time later(Time a, Time b) { return a > b ? a : b; }
static Time sooner(Time a, Time b) { return a < b ? a : b; }

static void put(Queue *queue, Packet *packet) {
    packet->next = NULL;
    *queue->end = packet;
    queue->end = &packet->next;
    queue->bytes += packet->wire;
}

static Packet *take(Queue *queue) {
    Packet *packet = queue->first;
    queue->first = packet->next;
    queue->bytes -= packet->wire;
    if (!queue->first) queue->end = &queue->first;
    return packet;
}

/* The port that an IP packet is for; -1 where there is none. */
static int receiver(const uint8_t *ip, size_t length, int from) {
    if (length < 20 || ip[0] >> 4 != 4 || memcmp(ip + 16, PREFIX, sizeof PREFIX)) return -1;
    int to = ip[19] - 1;
    return to >= 0 && to < port_count && to != from ? to : -1;
}

/* The flow that an IP packet belongs to: by protocol, receiver and ports. */
static int flow(const uint8_t *ip, size_t length) {
    size_t header = (size_t)(ip[0] & 15) * 4;
    bool whole = !(((ip[6] << 8) + ip[7]) & FRAGMENT);
    uint32_t found = ip[9] * 31u + ip[19];
    if (whole && (ip[9] == TCP || ip[9] == UDP) && header + 4 <= length)
        for (size_t i = header; i < header + 4; i++) found = found * 31 + ip[i];
    return (int)(found * 2654435761u >> 16) % FLOWS;
}

static double wire_bytes(const struct virtio_net_hdr *head, size_t length) {
    size_t segments = 1, header = head->hdr_len;
    if (head->gso_type != VIRTIO_NET_HDR_GSO_NONE && head->gso_size && header < length)
        segments = (length - header + head->gso_size - 1) / head->gso_size;
    return (double)(length + (segments - 1) * header + segments * FRAMING);
}

/* Read what a port sends; where more may have come meanwhile, the next call goes on. */
static void receive(int from) {
    static uint8_t bytes[MOST_BYTES];
    Port *port = &ports[from];
    for (int count = 0; count < AT_ONCE; count++) {
        ssize_t found = read(port->tun, bytes, sizeof bytes);
        if (found < 0 && errno == EAGAIN) {
            port->empty = now();
            return;
        }
        if (found < 0 && errno != EINTR) fail("read from port of", DEVICE);
        if (found <= (ssize_t)VNET) continue;
        struct virtio_net_hdr head;
        memcpy(&head, bytes, VNET);
        size_t length = (size_t)found - VNET;
        int to = receiver(bytes + VNET, length, from);
        if (to < 0) continue;
        double wire = wire_bytes(&head, length);
        Queue *queue = &port->sent[flow(bytes + VNET, length)];
        if (queue->bytes + wire > QUEUE) continue;
        Packet *packet = malloc(sizeof *packet + (size_t)found);
        if (!packet) fail("packet", "");
        /* It came since the port was last found empty: the link was not idle for longer. */
        packet->at = port->empty;
        packet->wire = wire;
        packet->to = to;
        packet->length = (size_t)found;
        memcpy(packet->bytes, bytes, (size_t)found);
        put(queue, packet);
    }
}

/* When a port starts to send its next packet; NEVER where it has none. */
static Time starts(const Port *port) {
    Time first = NEVER;
    for (int i = 0; i < FLOWS; i++)
        if (port->sent[i].first) first = sooner(first, port->sent[i].first->at);
    return later(first, shared ? medium_free : port->up_free);
}

/* Take the next packet that a port sends, which starts then: flows take turns. */
static Packet *next_packet(Port *port, Time start) {
    for (int i = 1; i <= FLOWS; i++) {
        int next = (port->last_flow + i) % FLOWS;
        Queue *queue = &port->sent[next];
        if (queue->first && queue->first->at <= start) {
            port->last_flow = next;
            return take(queue);
        }
    }
    abort(); /* something starts then */
}

/* The sender whose packet starts first, in turns where several do. */
static int next_sender(void) {
    int found = last_sender;
    Time first = NEVER;
    for (int i = 1; i <= port_count; i++) {
        int from = (last_sender + i) % port_count;
        Time start = starts(&ports[from]);
        if (start < first) {
            first = start;
            found = from;
        }
    }
    return found;
}

/* Send the next packet of a port, which says when it is to be delivered. */
static void send_next(int from, Time start) {
    Port *port = &ports[from];
    Packet *packet = next_packet(port, start);
    Port *to = &ports[packet->to];
    last_sender = from;
    Time up = (Time)(packet->wire * port->ns_per_byte);
    Time down = (Time)(packet->wire * to->ns_per_byte);
    if (!port->plugged || !to->plugged) {
        free(packet);
        return;
    }
    if (shared) {
        to->down_free = medium_free = start + up + down;
    } else {
        port->up_free = start + up;
        if ((double)(to->down_free - start) > QUEUE * to->ns_per_byte) {
            free(packet);
            return;
        }
        to->down_free = later(later(to->down_free, start) + down, port->up_free);
    }
    packet->at = to->down_free + delay;
    put(&to->arriving, packet);
}

/* Deliver what is due; a packet that the kernel does not take is lost. */
static void deliver(Port *port, Time due) {
    while (port->arriving.first && port->arriving.first->at <= due) {
        Packet *packet = take(&port->arriving);
        if (port->plugged && write(port->tun, packet->bytes, packet->length) < 0 &&
            errno == EBADFD)
            fail("write to", DEVICE);
        free(packet);
    }
}

/* Send all packets that start by then, in the order in which they do. */
static void send_until(Time due) {
    for (;;) {
        int from = next_sender();
        Time start = starts(&ports[from]);
        if (start > due) return;
        send_next(from, start);
    }
}

/* Do what is due; returns when something may be due next. */
static Time advance(void) {
    Time due = now(), next = NEVER;
    send_until(due);
    for (int i = 0; i < port_count; i++) {
        Port *port = &ports[i];
        deliver(port, due);
        if (port->arriving.first) next = sooner(next, port->arriving.first->at);
        /* What starts later may wait for its receiver: that is found out when it could be there. */
        Time start = starts(port);
        if (start != NEVER) next = sooner(next, start + delay);
    }
    return next;
}

static bool valid_rate(double mbit) { return mbit >= LEAST_MBIT && mbit <= MOST_MBIT; }

static bool obey(const char *line) {
    int port, end = -1;
    double mbit;
    if (sscanf(line, "rate %d %lf%n", &port, &mbit, &end) == 2 && end >= 0 && !line[end]) {
        if (port < 0 || port >= port_count || !valid_rate(mbit)) return false;
        ports[port].ns_per_byte = 8e3 / mbit;
        return true;
    }
    bool plug = !strncmp(line, "plug ", 5);
    end = -1;
    if (sscanf(line, plug ? "plug %d%n" : "unplug %d%n", &port, &end) != 1 || end < 0 ||
        line[end] || port < 0 || port >= port_count)
        return false;
    ports[port].plugged = plug;
    return true;
}

/* Read and answer commands; false when there will be no more. */
static bool read_commands(void) {
    static char line[MOST_LINE];
    static size_t length;
    ssize_t found = read(STDIN_FILENO, line + length, sizeof line - 1 - length);
    if (found < 0 && errno == EINTR) return true;
    if (found <= 0) return false;
    length += (size_t)found;
    line[length] = 0;
    char *end, *start = line;
    for (; (end = strchr(start, '\n')); start = end + 1) {
        *end = 0;
        puts(obey(start) ? "ok" : "no");
    }
    fflush(stdout);
    length -= (size_t)(start - line);
    memmove(line, start, length);
    return length < sizeof line - 1;
}

static int open_space(const char *space) {
    int file = open(space, O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("namespace", space);
    return file;
}

static void enter(int file, const char *space) {
    if (setns(file, CLONE_NEWNET)) fail("namespace", space);
    close(file);
}

static int open_device(const char *space) {
    enter(open_space(space), space);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) fail("open", "/dev/net/tun");
    struct ifreq wanted = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strcpy(wanted.ifr_name, DEVICE);
    if (ioctl(tun, TUNSETIFF, &wanted)) fail("make device", DEVICE);
    if (ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) fail("offload of", DEVICE);
    int header = VNET;
    if (ioctl(tun, TUNSETVNETHDRSZ, &header)) fail("header of", DEVICE);
    return tun;
}

static double number(const char *text) {
    char *end;
    double found = strtod(text, &end);
    return *text && !*end ? found : -1;
}

static void start(int count, char **arguments) {
    bool switched = count > 1 && !strcmp(arguments[1], "switched");
    shared = count > 1 && !strcmp(arguments[1], "shared");
    double delay_ns = count > 2 ? number(arguments[2]) : -1;
    double mbit = count > 3 ? number(arguments[3]) : -1;
    port_count = count - 4;
    if (!(switched || shared) || !(delay_ns >= 0 && delay_ns <= MOST_DELAY) ||
        !valid_rate(mbit) || port_count < 1 || port_count > MOST_PORTS) {
        fprintf(stderr, "usage: tunswitch switched|shared DELAY_NS MBIT NAMESPACE...\n");
        exit(2);
    }
    delay = (Time)delay_ns;
    const char *own = "/proc/self/ns/net";
    int home = open_space(own);
    for (int i = 0; i < port_count; i++) {
        Port *port = &ports[i];
        port->tun = open_device(arguments[4 + i]);
        port->ns_per_byte = 8e3 / mbit;
        port->plugged = true;
        for (int j = 0; j < FLOWS; j++) port->sent[j].end = &port->sent[j].first;
        port->arriving.end = &port->arriving.first;
    }
    enter(home, own); /* what runs in a namespace is a device's */
}

/* A switch that has to wait for a core delays what passes it: it goes before other processes. */
static void go_first(void) {
    struct sched_param first = {.sched_priority = 1};
    prctl(PR_SET_TIMERSLACK, 1000);
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first))
        fprintf(stderr, "no priority over other processes: %s\n", strerror(errno));
}

int main(int count, char **arguments) {
    signal(SIGINT, SIG_IGN); /* of a terminal's Ctrl-C, whoever started the switch takes care */
    start(count, arguments);
    go_first();
    puts("ready");
    fflush(stdout);
    struct pollfd polled[MOST_PORTS + 1];
    for (int i = 0; i < port_count; i++) polled[i] = (struct pollfd){ports[i].tun, POLLIN, 0};
    polled[port_count] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
    for (;;) {
        Time next = advance(), before = now();
        Time left = later(next - before, 0);
        struct timespec wait = {left / 1000000000, left % 1000000000};
        int found = ppoll(polled, (nfds_t)port_count + 1, next == NEVER ? NULL : &wait, NULL);
        if (found < 0 && errno != EINTR) fail("poll", "");
        Time woken = now();
        send_until(woken); /* before more comes, which may find less ahead of it */
        for (int i = 0; i < port_count && found >= 0; i++) {
            bool sends = found > 0 && polled[i].revents;
            /* What comes during a wait ends it: nothing had come until now. */
            if (!sends || woken - before > AWAKE) ports[i].empty = woken;
            if (sends) receive(i);
        }
        if (found > 0 && polled[port_count].revents) {
            advance(); /* what came before a command is done before it */
            if (!read_commands()) return 0;
        }
    }
}
