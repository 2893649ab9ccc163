#!/bin/sh
# codec/ and dispatch/ never see a clock, a socket or libuv: time is an argument, bytes come from a
# caller. Exits 1 and names each include that breaks this.
set -eu
cd "${1:-src}"
foreign='uv\.h|uv/|curl/|hiredis|amqp|rabbitmq|openssl/(ssl|bio)\.h|(sys/)?time\.h|netdb\.h|poll\.h'
foreign="$foreign|sys/(timerfd|socket|epoll)\.h"
ours='base/(loop|stream|http_client|redis_link)[a-z_]*\.h'
files=$(find codec dispatch -name '*.[ch]') # fails when one of them is missing
# shellcheck disable=SC2086 # a list of words
if [ -n "$files" ] && grep -nHE "^ *# *include *[<\"]($foreign|$ours)" $files; then
    echo "codec/ and dispatch/ must stay pure"
    exit 1
fi
