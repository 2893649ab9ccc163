#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/keepalive.h"

static int option(int descriptor, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);
    assert_int_equal(getsockopt(descriptor, level, name, &value, &size), 0);
    return value;
}

static void test_a_silent_peer_is_noticed_in_time(void **state)
{
    (void)state;
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(descriptor >= 0);
    keepalive_set(descriptor);
    assert_int_equal(option(descriptor, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT), KEEPALIVE_SILENCE_MS);
    int probing_s = option(descriptor, IPPROTO_TCP, TCP_KEEPINTVL)
                    * option(descriptor, IPPROTO_TCP, TCP_KEEPCNT);
    int idle_s = option(descriptor, IPPROTO_TCP, TCP_KEEPIDLE);
    assert_int_equal((idle_s + probing_s) * 1000, KEEPALIVE_SILENCE_MS);
    assert_int_equal(close(descriptor), 0);
}

static void test_a_socket_that_is_none_is_left_alone(void **state)
{
    (void)state;
    keepalive_set(-1);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    keepalive_set(descriptor);
    assert_int_equal(close(descriptor), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_silent_peer_is_noticed_in_time),
        cmocka_unit_test(test_a_socket_that_is_none_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
