#include "executor/process_nursery.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/stream.h"
#include "executor/local_process.h"
#include "executor/process_output.h"

#define STOP_MS         12000 /* above CLOSE_GRACE_S of pool.py */
#define OPEN_MS         60000
#define MAX_WRITE_BYTES 65536
#define PACKET_BYTES    9
#define REASON_SIZE     128

/* python-shim/src/petiole/pool.py */
enum packet_kind {
    PACKET_FORK = 1,
    PACKET_REAP = 2,
    PACKET_LOADED = 1,
    PACKET_FORKED = 2,
    PACKET_EXITED = 3,
    PACKET_REFUSED = 4,
};

struct process_nursery {
    struct loop *loop;
    const struct process_nursery_events *events;
    void *context;
    struct local_process process;
    int control_descriptor;        /* for sending; a copy of the stream's */
    struct stream *control;        /* owned; NULL: stopped */
    struct process_output *output; /* owned */
    struct timer stop_timer;
    bool is_loaded; /* it may have forked */
};

/* Packets */

static void write_packet(char packet[PACKET_BYTES], enum packet_kind kind, int first, int second)
{
    packet[0] = (char)kind;
    memcpy(packet + 1, &first, sizeof(first));
    memcpy(packet + 1 + sizeof(first), &second, sizeof(second));
}

/* Sends a packet at once, with the descriptors of `ends` unless that is NULL; false with errno. What
 * goes to a nursery that is about to be told dead counts as sent. */
static bool send_packet(struct process_nursery *nursery, enum packet_kind kind, int first,
                        int second, const struct process_child_ends *ends)
{
    char packet[PACKET_BYTES];

    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control = {.space = {0}};

    write_packet(packet, kind, first, second);
    struct iovec piece = {.iov_base = packet, .iov_len = sizeof(packet)};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (ends) {
        const int descriptors[] = {ends->peer, ends->output};
        message.msg_control = control.space;
        message.msg_controllen = sizeof(control.space);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(descriptors));
        memcpy(CMSG_DATA(&control.head), descriptors, sizeof(descriptors));
    }
    return !nursery->control
           || sendmsg(nursery->control_descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0
           || errno == EPIPE || errno == ECONNRESET;
}

static void on_packets(void *context, struct bytes data)
{
    struct process_nursery *nursery = context;
    for (; data.length >= PACKET_BYTES && nursery->control; data = bytes_skip(data, PACKET_BYTES)) {
        int first = 0;
        int second = 0;
        memcpy(&first, data.data + 1, sizeof(first));
        memcpy(&second, data.data + 1 + sizeof(first), sizeof(second));
        if (data.data[0] == PACKET_LOADED) {
            nursery->is_loaded = true;
        } else if (data.data[0] == PACKET_FORKED) {
            nursery->events->on_forked(nursery->context, first, second);
        } else if (data.data[0] == PACKET_EXITED) {
            nursery->events->on_exited(nursery->context, second, first);
        } else if (data.data[0] == PACKET_REFUSED) {
            nursery->events->on_refused(nursery->context, first, second);
        }
    }
}

static void on_open(void *context)
{
    (void)context;
}

/* Without it the nursery ends by itself, if it has not already. */
static void close_control(struct process_nursery *nursery)
{
    stream_close(&nursery->control);
    loop_start_timer(nursery->loop, &nursery->stop_timer, STOP_MS);
}

/* Its end is told when the process has been waited for. */
static void on_control_drop(void *context, const struct error *error)
{
    struct process_nursery *nursery = context;
    (void)error;
    close_control(nursery);
}

static const struct stream_events control_events = {on_open, on_packets, on_control_drop};

static void on_line(void *context, struct bytes line)
{
    struct process_nursery *nursery = context;
    nursery->events->on_line(nursery->context, line);
}

/* Life cycle */

static void on_process_exit(void *context, int exit_code, int signal_number)
{
    struct process_nursery *nursery = context;
    loop_stop_timer(nursery->loop, &nursery->stop_timer);
    if (nursery->control) {
        stream_read_now(nursery->control);
    }
    process_output_flush(nursery->output);
    stream_close(&nursery->control);
    nursery->events->on_ended(nursery->context, exit_code, signal_number);
}

static void on_stop_late(void *context)
{
    struct process_nursery *nursery = context;
    local_process_signal(&nursery->process, SIGKILL);
}

/* Makes both connections and starts the program at their other ends. */
static bool begin(struct process_nursery *nursery, struct local_process_table *table,
                  const struct process_nursery_options *options, struct error *reterr)
{
    char reason[REASON_SIZE];
    int controls[2] = {-1, -1};
    int outputs[2] = {-1, -1};
    bool ok = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, controls) == 0
              && pipe2(outputs, O_CLOEXEC) == 0;
    if (!ok) {
        (void)error_set(reterr, ERROR_TEMPORARY, "no socket for %s: %s", options->program,
                        strerror_r(errno, reason, sizeof(reason)));
    }
    struct local_process_options process_options = {
        .program = options->program,
        .arguments = options->arguments,
        .environment = options->environment,
        .input = controls[1],
        .output = outputs[1],
    };
    ok = ok && local_process_start(table, &nursery->process, &process_options, reterr);
    (void)close(controls[1]);
    (void)close(outputs[1]);
    if (!ok) {
        (void)close(controls[0]);
        (void)close(outputs[0]);
        return false;
    }
    nursery->control_descriptor = controls[0];
    struct stream_options control = {
        .unix_path = "petiole.pool",
        .descriptor = controls[0],
        .connect_timeout_ms = OPEN_MS,
        .max_write_bytes = MAX_WRITE_BYTES,
    };
    nursery->control = stream_open(nursery->loop, &control, &control_events, nursery);
    nursery->output = process_output_new(nursery->loop, outputs[0], on_line, NULL, nursery);
    return true;
}

struct process_nursery *process_nursery_new(struct loop *loop, struct local_process_table *table,
                                            const struct process_nursery_options *options,
                                            const struct process_nursery_events *events,
                                            void *context, struct error *reterr)
{
    struct process_nursery *nursery = memory_new(sizeof(*nursery));
    nursery->loop = loop;
    nursery->events = events;
    nursery->context = context;
    nursery->process.on_exit = on_process_exit;
    nursery->process.context = nursery;
    nursery->stop_timer = (struct timer){.on_due = on_stop_late, .context = nursery};
    if (!begin(nursery, table, options, reterr)) {
        process_nursery_free(&nursery);
    }
    return nursery;
}

bool process_nursery_fork(struct process_nursery *nursery, int number,
                          const struct process_child_ends *ends, struct error *reterr)
{
    char reason[REASON_SIZE];
    bool ok = send_packet(nursery, PACKET_FORK, 0, number, ends);
    if (!ok) {
        (void)error_set(reterr, ERROR_TEMPORARY, "no more Python processes can be asked for: %s",
                        strerror_r(errno, reason, sizeof(reason)));
    }
    (void)close(ends->peer);
    (void)close(ends->output);
    return ok;
}

void process_nursery_reap(struct process_nursery *nursery, int pid)
{
    (void)send_packet(nursery, PACKET_REAP, pid, 0, NULL);
}

void process_nursery_stop(struct process_nursery *nursery)
{
    close_control(nursery);
    if (!nursery->is_loaded) {
        local_process_signal(&nursery->process, SIGKILL);
    }
}

void process_nursery_free(struct process_nursery **nursery)
{
    if (!*nursery) {
        return;
    }
    loop_stop_timer((*nursery)->loop, &(*nursery)->stop_timer);
    stream_close(&(*nursery)->control);
    process_output_free(&(*nursery)->output);
    memory_free(nursery);
}
