#include "support/fake_pool.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "executor/process_frame.h"

#define CONTROL      0
#define TURN_MS      5
#define PACKET_BYTES 9
#define HEAD_BYTES   5
#define LENGTH_BYTES 4
#define DONE_BYTES   39 /* 15 bytes of numbers, and six empty texts */
#define MAX_TASK     65536

/* python-shim/src/petiole/pool.py */
enum packet_kind {
    PACKET_FORK = 1,
    PACKET_LOADED = 1,
    PACKET_FORKED = 2,
    PACKET_EXITED = 3,
    PACKET_REFUSED = 4,
};

/* A process */

static void send_frame(int peer, enum process_frame_kind kind, const void *payload, unsigned length)
{
    char frame[HEAD_BYTES + DONE_BYTES] = {0};
    memcpy(frame, &length, sizeof(length));
    frame[LENGTH_BYTES] = (char)kind;
    memcpy(frame + HEAD_BYTES, payload, length);
    (void)!write(peer, frame, HEAD_BYTES + length);
}

static bool read_whole(int peer, char *place, size_t count)
{
    size_t length = 0;
    while (length < count) {
        ssize_t got = read(peer, place + length, count - length);
        if (got <= 0) {
            return false;
        }
        length += (size_t)got;
    }
    return true;
}

static unsigned number_at(const char *data)
{
    unsigned number = 0;
    memcpy(&number, data, sizeof(number));
    return number;
}

/* Whether the second text of a TASK is the name of what is held. */
static bool is_held_task(const char *payload)
{
    const char *name = payload + LENGTH_BYTES + number_at(payload);
    return bytes_equal_text(bytes_of(name + LENGTH_BYTES, number_at(name)), FAKE_POOL_HELD_TASK);
}

static void wait_for_release(void)
{
    sigset_t signals;
    int number = 0;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGUSR1);
    (void)sigwait(&signals, &number);
}

static void serve_tasks(int peer)
{
    char head[HEAD_BYTES];
    char payload[MAX_TASK];
    const char done[DONE_BYTES] = {PROCESS_FRAME_SUCCESS, 0, true};
    while (read_whole(peer, head, HEAD_BYTES) && number_at(head) <= MAX_TASK
           && read_whole(peer, payload, number_at(head))) {
        send_frame(peer, PROCESS_FRAME_ACCEPTED, "", 0);
        if (is_held_task(payload)) {
            wait_for_release();
        }
        send_frame(peer, PROCESS_FRAME_DONE, done, DONE_BYTES);
    }
}

static void become_process(const int ends[2])
{
    sigset_t signals;
    unsigned pid = (unsigned)getpid();
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    (void)setpgid(0, 0);
    (void)close(CONTROL);
    (void)close(ends[1]);
    send_frame(ends[0], PROCESS_FRAME_READY, &pid, sizeof(pid));
    serve_tasks(ends[0]);
    _exit(0);
}

/* Their parent */

static void tell(enum packet_kind kind, int first, int second)
{
    char packet[PACKET_BYTES] = {(char)kind};
    memcpy(packet + 1, &first, sizeof(first));
    memcpy(packet + 1 + sizeof(first), &second, sizeof(second));
    (void)!send(CONTROL, packet, sizeof(packet), MSG_NOSIGNAL);
}

static void fork_process(int room, int number, const int ends[2], int *process_count)
{
    pid_t pid = *process_count < room ? fork() : -1;
    if (pid == 0) {
        become_process(ends);
    } else if (pid > 0) {
        (*process_count)++;
        tell(PACKET_FORKED, pid, number);
    } else {
        tell(PACKET_REFUSED, EAGAIN, number);
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* False when the worker has closed. */
static bool receive(int room, int *process_count)
{
    char packet[PACKET_BYTES];
    int ends[2] = {-1, -1};
    int number = 0;

    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(ends))];
    } control = {.space = {0}};

    struct iovec piece = {.iov_base = packet, .iov_len = sizeof(packet)};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    if (recvmsg(CONTROL, &message, MSG_CMSG_CLOEXEC) != PACKET_BYTES) {
        return false;
    }
    if (packet[0] == PACKET_FORK) {
        memcpy(ends, CMSG_DATA(&control.head), sizeof(ends));
        memcpy(&number, packet + 1 + sizeof(number), sizeof(number));
        fork_process(room, number, ends, process_count);
    }
    return true;
}

static void tell_ended(int *process_count)
{
    int status = 0;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        (*process_count)--;
        tell(PACKET_EXITED, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), pid);
    }
}

int fake_pool_run(int room)
{
    int process_count = 0;
    bool is_open = true;
    tell(PACKET_LOADED, 0, 0);
    while (is_open) {
        struct pollfd control = {.fd = CONTROL, .events = POLLIN};
        if (poll(&control, 1, TURN_MS) > 0) {
            is_open = receive(room, &process_count);
        }
        tell_ended(&process_count);
    }
    return 0;
}
