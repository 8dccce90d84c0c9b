# Hugepages for as long as a script runs. To be sourced; then
#   hugepages_begin MIB    makes sure that so many MiB are free and a hugetlbfs is mounted;
#                          sets $hugepages to "yes" or "no" (the machine gives none)
#   hugepages_end          puts back what was before
hugepages=no
hugepages_before=
hugepages_mounted=

hugepages_begin() {
  [ -w /proc/sys/vm/nr_hugepages ] || return 0
  hugepages_before=$(cat /proc/sys/vm/nr_hugepages)
  hugepages_free=$(awk '/^HugePages_Free/ { print $2 }' /proc/meminfo)
  hugepages_size=$(awk '/^Hugepagesize/ { print $2 }' /proc/meminfo)
  hugepages_need=$(($1 * 1024 / hugepages_size))
  if [ "$hugepages_free" -lt "$hugepages_need" ]; then
    echo $((hugepages_before + hugepages_need - hugepages_free)) > /proc/sys/vm/nr_hugepages
    hugepages_free=$(awk '/^HugePages_Free/ { print $2 }' /proc/meminfo)
  fi
  if ! grep -q ' hugetlbfs ' /proc/mounts; then
    mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages &&
      hugepages_mounted=/dev/hugepages
  fi
  if [ "$hugepages_free" -ge "$hugepages_need" ] && grep -q ' hugetlbfs ' /proc/mounts; then
    hugepages=yes
  fi
}

hugepages_end() {
  [ -z "$hugepages_mounted" ] || umount "$hugepages_mounted" 2>/dev/null || true
  [ -z "$hugepages_before" ] || echo "$hugepages_before" > /proc/sys/vm/nr_hugepages
  hugepages_before= hugepages_mounted=
}
