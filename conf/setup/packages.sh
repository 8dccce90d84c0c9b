#!/bin/sh
# Installs the Debian packages that are missing: packages.sh build|demo|test|benchmark ...
# Does nothing, and needs no root, when everything is there.
set -eu

build="gcc meson ninja-build pkg-config libdpdk-dev libjansson-dev libnuma-dev libpcap-dev libmnl-dev
       libedit-dev libsystemd-dev libcmocka-dev libipsec-mb-dev"
demo="iproute2 iputils-ping procps"
test="python3 python3-scapy python3-jsonschema clang libclang-rt-14-dev iperf3 traceroute tcpdump
      ethtool mandoc bash-completion socat util-linux iputils-tracepath nmap hping3 stun-client
      stun-server libssl-dev charon-systemd strongswan-swanctl libstrongswan-standard-plugins
      libcharon-extra-plugins qemu-system-x86 busybox-static libnss3-tools libunbound8 libldns3
      libcurl3-nss libevent-core-2.1-7 libevent-pthreads-2.1-7 libldap-2.5-0 libcap-ng0 libaudit1
      libpam0g libselinux1"
benchmark="dpdk-dev python3-scapy python3-cryptography gnuplot-nox"

wanted=
for group; do
  case $group in
    build) wanted="$wanted $build" ;;
    demo) wanted="$wanted $demo" ;;
    test) wanted="$wanted $test" ;;
    benchmark) wanted="$wanted $benchmark" ;;
    *) echo "packages.sh: unknown group \"$group\"; use build, demo, test or benchmark" >&2; exit 2 ;;
  esac
done

missing=
for package in $wanted; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "These packages are missing:$missing" >&2
  echo "Run this as root, or first: sudo apt-get install$missing" >&2
  exit 1
fi
echo "Installing:$missing"
apt-get update -q
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
