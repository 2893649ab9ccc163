#!/bin/sh
# install_packages.sh demo|test: installs the Debian packages that `make demo` or `make test` needs
# and that are missing. Exits 0 at once when all are there, 1 when they cannot be installed.
set -eu

build="gcc libc6-dev make pkg-config libhiredis-dev libjansson-dev libcurl4-openssl-dev uuid-dev libuv1-dev
    libyaml-dev libssl-dev zlib1g-dev"
run="redis-server python3 python3-venv openssl ca-certificates"
verify="git libcmocka-dev clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev shellcheck
    containerd containernetworking-plugins"

case "${1:-}" in
demo) wanted="$build $run" ;;
test) wanted="$build $run $verify" ;;
*) echo "usage: install_packages.sh demo|test" >&2 && exit 2 ;;
esac
command -v dpkg-query >/dev/null || { echo "This is not Debian; expected are: $wanted"; exit 0; }

installed=" $(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii *//p' | tr '\n' ' ')"
missing=
for package in $wanted; do
    case "$installed" in *" $package "*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "neither root nor sudo to install:$missing" >&2; exit 1; }
    as_root=sudo
fi
echo "Installing$missing"

# The tests start servers of their own: a policy of 101 keeps packages from starting theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '$as_root rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod 755 $policy
fi
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
log=$(mktemp)
# shellcheck disable=SC2086 # a list of words
if ! { $apt update && $apt install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "apt-get failed; its whole output: $log" >&2
    exit 1
fi
rm -f "$log"
