#include "base/keepalive.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

#include "base/attributes.h"

#define IDLE_S     30
#define INTERVAL_S 5
#define PROBES     3

void keepalive_set(int descriptor)
{
    static const struct {
        int level;
        int name;
        int value;
    } options[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, PROBES},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, KEEPALIVE_SILENCE_MS}, /* data that nobody acknowledges */
    };

    for (size_t index = 0; index < ARRAY_LENGTH(options); index++) {
        (void)setsockopt(descriptor, options[index].level, options[index].name,
                         &options[index].value, sizeof(options[index].value));
    }
}
