#!/bin/bash
# The demonstration: two Linux hosts in network namespaces, `lan` and `wan`, that reach each other
# through the router, as far as its firewall lets them. On a terminal it shows the router at work until
# Ctrl-C; without one it ends by itself, with status 0 only if everything went as announced. It leaves
# nothing behind.
#
#   usage: demo.sh BUILD_DIRECTORY
set -u
cd "$(dirname "$0")/../.."
build=${1:-build}
programs=$build/app
lan=demo-lan-$$ wan=demo-wan-$$
work=$(mktemp -d /tmp/dpdk-router-demo.XXXXXX)
socket=$work/control.sock
router= servers= view=
. conf/setup/hugepages.sh

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

fail() {
  echo "demo: $*" >&2
  [ ! -s "$work/router.log" ] || { echo "--- the router's last words:" >&2; tail -n 20 "$work/router.log" >&2; }
  exit 1
}

clean_up() {
  trap - EXIT INT TERM HUP
  for server in $servers $view; do kill "$server" 2>/dev/null; done
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
  # Once unseen: the first packet waits for neighbours on both sides.
  ip netns exec "$1" ping -c 1 -W 1 "$2" > /dev/null 2>&1
  ip netns exec "$1" ping -c 3 -i 0.2 -W 1 "$2" > "$work/ping" 2>&1
  local status=$?
  sed -n '/bytes from/p; /transmitted/p' "$work/ping"
  return $status
}

# A web server on port 80 that tells who asks. Python is there, because meson needs it.
serve() { # NAMESPACE NAME
  ip netns exec "$1" python3 -c '
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{sys.argv[1]} here; you are {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", len(text))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

http.server.HTTPServer(("0.0.0.0", 80), Handler).serve_forever()' "$2" &
  servers="$servers $!"
}

# Asks such a server; prints its last line.
ask() { # NAMESPACE ADDRESS PORT
  ip netns exec "$1" timeout 3 bash -c '
    exec 3<> "/dev/tcp/$0/$1" && printf "GET / HTTP/1.0\r\n\r\n" >&3 && tail -n 1 <&3' \
    "$2" "$3" 2>/dev/null
}

[ "$(id -u)" = 0 ] || { echo "demo: network namespaces need root; run: sudo make run" >&2; exit 1; }
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

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
serve "$lan" lan
serve "$wan" wan
say "Host lan (192.168.1.10) pings host wan (203.0.113.1) through the router"
reach "$lan" 203.0.113.1 || fail "lan does not reach wan over IPv4"
say "The same over IPv6: 2001:db8:1::10 to 2001:db8:2::1"
reach "$lan" 2001:db8:2::1 || fail "lan does not reach wan over IPv6"

say "NAT: wan sees the router's address, 203.0.113.2"
answer=$(ask "$lan" 203.0.113.1 80)
echo "$answer"
[ "$answer" = "wan here; you are 203.0.113.2" ] || fail "lan is not hidden behind the router"

say "Port forward: wan reaches lan at 203.0.113.2 port 8080"
answer=$(ask "$wan" 203.0.113.2 8080)
echo "$answer"
[ "$answer" = "lan here; you are 203.0.113.1" ] || fail "the port forward does not work"

say "Firewall: wan can open nothing else towards lan"
for address in 192.168.1.10 2001:db8:1::10; do
  reach "$wan" "$address" && fail "wan reaches $address"
done
ask "$wan" 203.0.113.2 80 > /dev/null && fail "wan reaches port 80 of the router"
"$programs/routerctl" -s "$socket" show firewall

say "Sessions"
"$programs/routerctl" -s "$socket" show sessions
say "NAT rules"
"$programs/routerctl" -s "$socket" show nat
say "Routes and neighbours"
"$programs/routerctl" -s "$socket" show routes
"$programs/routerctl" -s "$socket" show neighbours
say "Where the workers' time goes, and what was dropped"
"$programs/routerctl" -s "$socket" show runtime
"$programs/routerctl" -s "$socket" show drops

if [ -t 0 ] && [ -t 1 ]; then
  say "Live view; Ctrl-C ends the demonstration. Try in another terminal:"
  echo "  ip netns exec $lan ping 203.0.113.1"
  echo "  ip netns exec $wan curl 203.0.113.2:8080"
  echo "  $programs/routerctl -s $socket show sessions live"
  echo "  $programs/routerctl -s $socket"
  sleep 2
  ip netns exec "$lan" ping -q -i 0.2 203.0.113.1 > /dev/null 2>&1 &
  servers="$servers $!"
  # Beside the shell, which takes signals only while it waits.
  exec 3<&0
  "$programs/routerctl" -s "$socket" show interfaces live <&3 &
  view=$!
  wait $view
else
  say "lan reached wan over IPv4 and IPv6; wan reached only the port that is forwarded to lan"
fi
exit 0
