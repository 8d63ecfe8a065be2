# Runs in mount and pid namespaces of its own: build.sh LOWERS UPPER WORK ROOT RECIPE PACKAGES
# Mounts the base with a fresh layer on top and runs the recipe in it. What ends up in UPPER is the new layer.
set -eu
lowers=$1 upper=$2 work=$3 root=$4 recipe=$5 packages=$6
mount --make-rprivate /
mkdir -p "$upper" "$work" "$root"
mount -t overlay overlay -o "lowerdir=$lowers,upperdir=$upper,workdir=$work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/build" "$root/out"
mount --bind -o ro "$recipe" "$root/build"
resolv=$(readlink -f /etc/resolv.conf)
[ -e "$root/etc/resolv.conf" ] || : > "$root/etc/resolv.conf"
mount --bind "$resolv" "$root/etc/resolv.conf"
mount -t tmpfs tmpfs "$root/var/lib/apt/lists"
mount -t tmpfs tmpfs "$root/var/cache/apt"
mount -t tmpfs tmpfs "$root/tmp"
inside() { chroot "$root" /usr/bin/env -i DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
if [ -n "$packages" ]; then
    mkdir -p "$root/usr/sbin"
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    inside apt-get update -qq
    # shellcheck disable=SC2086
    inside apt-get install -y -qq --no-install-recommends $packages
    rm -f "$root/usr/sbin/policy-rc.d"
fi
[ ! -e "$recipe/build" ] || inside /bin/sh -eu /build/build
umount "$root/build" "$root/tmp" "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root/etc/resolv.conf"
rmdir "$root/build"
rmdir "$root/out" 2>/dev/null || :
rm -rf "$root"/var/log/apt "$root"/var/log/dpkg.log "$root"/var/log/alternatives.log
