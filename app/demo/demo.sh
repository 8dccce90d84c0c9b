#!/bin/bash
# The demonstration: two Linux hosts in network namespaces, `lan` and `wan`, that reach each other
# through the router. On a terminal it shows the router at work until Ctrl-C; without one it ends by
# itself, with status 0 only if the hosts reached each other. It leaves nothing behind.
#
#   usage: demo.sh BUILD_DIRECTORY
set -u
cd "$(dirname "$0")/../.."
build=${1:-build}
programs=$build/app
lan=demo-lan-$$ wan=demo-wan-$$
work=$(mktemp -d /tmp/dpdk-router-demo.XXXXXX)
socket=$work/control.sock
router=
. conf/setup/hugepages.sh

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

fail() {
  echo "demo: $*" >&2
  [ ! -s "$work/router.log" ] || { echo "--- the router's last words:" >&2; tail -n 20 "$work/router.log" >&2; }
  exit 1
}

clean_up() {
  trap - EXIT INT TERM
  if [ -n "$router" ]; then
    kill "$router" 2>/dev/null
    wait "$router" 2>/dev/null
  fi
  ip netns del "$lan" 2>/dev/null
  ip netns del "$wan" 2>/dev/null
  hugepages_end
  rm -rf "$work"
}

# A host: a namespace with the far end of one of the router's tap devices.
host() { # NAMESPACE DEVICE IPV4/LENGTH GATEWAY IPV6/LENGTH GATEWAY
  ip netns add "$1" && ip link set "$2" netns "$1" name eth0 &&
    ip -n "$1" link set lo up &&
    ip netns exec "$1" sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.accept_ra=0 &&
    ip -n "$1" link set eth0 address "$7" up &&
    ip -n "$1" addr add "$3" dev eth0 && ip -n "$1" addr add "$5" dev eth0 &&
    ip -n "$1" route add default via "$4" && ip -n "$1" -6 route add default via "$6"
}

reach() { # NAMESPACE ADDRESS
  ip netns exec "$1" ping -c 3 -i 0.2 -W 2 "$2" > "$work/ping" 2>&1
  local status=$?
  sed -n '/bytes from/p; /transmitted/p' "$work/ping"
  return $status
}

[ "$(id -u)" = 0 ] || { echo "demo: network namespaces need root; run: sudo make run" >&2; exit 1; }
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

hugepages_begin 320
if [ "$hugepages" = yes ]; then
  memory=
else
  echo "This machine gives no hugepages; the demonstration runs without."
  memory="--no-huge -m 512"
fi
# Control thread on the first CPU, one worker on the last; on a single CPU both share it.
last=$(($(nproc) - 1))
if [ "$last" -gt 0 ]; then lcores="0@0,1@$last"; else lcores="0@0"; fi

say "Starting the router with conf/demo.json"
# shellcheck disable=SC2086 # $memory is a list of words
"$programs/dpdk-router" --lcores "$lcores" $memory -- -c conf/demo.json -s "$socket" \
  > "$work/router.log" 2>&1 &
router=$!
for _ in $(seq 100); do
  kill -0 $router 2>/dev/null || { router=; fail "the router did not start"; }
  "$programs/routerctl" -s "$socket" show system > /dev/null 2>&1 && break
  sleep 0.1
done

host "$lan" demo-lan 192.168.1.10/24 192.168.1.1 2001:db8:1::10/64 2001:db8:1::1 02:00:00:00:01:10 ||
  fail "cannot make the host \"lan\""
host "$wan" demo-wan 203.0.113.1/24 203.0.113.2 2001:db8:2::1/64 2001:db8:2::2 02:00:00:00:02:10 ||
  fail "cannot make the host \"wan\""
sleep 1

"$programs/routerctl" -s "$socket" show interfaces || fail "routerctl cannot talk to the router"
say "Host lan (192.168.1.10) pings host wan (203.0.113.1) through the router"
reach "$lan" 203.0.113.1 || fail "lan does not reach wan over IPv4"
say "The same over IPv6: 2001:db8:1::10 to 2001:db8:2::1"
reach "$lan" 2001:db8:2::1 || fail "lan does not reach wan over IPv6"

say "Routes, neighbours and the workers' time"
"$programs/routerctl" -s "$socket" show routes
"$programs/routerctl" -s "$socket" show neighbours
"$programs/routerctl" -s "$socket" show runtime

if [ -t 0 ] && [ -t 1 ]; then
  say "Live view; Ctrl-C ends the demonstration. Try in another terminal:"
  echo "  ip netns exec $lan ping 203.0.113.1"
  echo "  $programs/routerctl -s $socket"
  sleep 2
  ip netns exec "$lan" ping -q -i 0.2 203.0.113.1 > /dev/null 2>&1 &
  "$programs/routerctl" -s "$socket" show interfaces live
else
  say "lan reached wan over IPv4 and IPv6"
fi
exit 0
