#!/bin/sh
# What test/interop needs of Debian and must not be installed: unpacked.sh kernel|libreswan DIRECTORY
#
#   kernel     of the virtual machine (this one boots another kernel, or none): DIRECTORY/vmlinuz and
#              DIRECTORY/modules
#   libreswan  which conflicts with strongSwan: its files in DIRECTORY/usr
#
# Takes the package apart. Its name is in DIRECTORY/package when that is done; then there is nothing
# to do any more.
set -eu

what=$1
directory=$2
[ ! -e "$directory/package" ] || exit 0

mkdir -p "$directory"
cd "$directory"
rm -rf ./*

# linux-image-amd64 is empty, and depends on the package with the version in its name.
name() {
  case $what in
    kernel)
      apt-cache depends --no-recommends --no-suggests linux-image-amd64 |
        awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'
      ;;
    libreswan) echo libreswan ;;
    *) echo "unpacked.sh: unknown \"$what\"; use kernel or libreswan" >&2 ;;
  esac
}

# apt is not to become its own user, who may not write here.
download() {
  package=$(name)
  [ -n "$package" ] && apt-get download -q -o APT::Sandbox::User=root "$package"
}
download || { apt-get update -q && download; } # the lists may be old, or not there yet

if [ "$what" = kernel ]; then
  kernel='./lib/modules/*/kernel'
  dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x --wildcards './boot/vmlinuz-*' "$kernel/net" \
    "$kernel/crypto" "$kernel/lib" "$kernel/arch/x86/crypto" "$kernel/drivers/virtio" \
    "$kernel/drivers/net/virtio_net.ko" "$kernel/drivers/net/net_failover.ko" "$kernel/drivers/net/dummy.ko"
  mv boot/vmlinuz-* vmlinuz
  mv lib/modules/*/kernel modules
  rm -rf boot lib
else
  dpkg-deb --extract "$package"_*.deb .
fi
rm "$package"_*.deb
echo "$package" > package
