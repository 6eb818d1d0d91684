#!/usr/bin/env bash
# Installs what tests, demo and bench use on a Debian 12 machine. Run it as often as you like: when all is there
# it asks no server and ends in a second. `setup.sh lint` also provides cargo-deny, which takes minutes to compile.
set -euo pipefail

packages=(
    # to compile
    gcc libc6-dev make git ca-certificates
    # virtual machines and their firmware
    qemu-system-x86 qemu-utils ovmf ipxe-qemu
    # what our disks, archives and bootstraps are compared with
    debootstrap mmdebstrap debian-archive-keyring hyperfine
    dosfstools mtools e2fsprogs xfsprogs btrfs-progs exfatprogs gdisk fdisk util-linux xorriso binutils
    cpio xz-utils zstd tar
    # what breaks things and looks inside
    strace iproute2 dnsmasq-base openssh-client minisign
)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

missing() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

# A host may carry qemu-utils from backports; it then shares files with the qemu-system-common of the stable
# release and apt gives up. Asking for one version of both takes it back.
matching_qemu_utils() {
    local wanted present
    wanted=$(apt-cache policy qemu-system-common | awk '/Candidate:/ { print $2 }')
    present=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null || true)
    if [ -n "$present" ] && [ "$present" != "$wanted" ]; then
        say "qemu-utils is $present, the emulator will be $wanted: installing that version of both"
        printf 'qemu-utils=%s\n' "$wanted"
    fi
}

install_packages() {
    local wanted
    mapfile -t wanted < <(missing "${packages[@]}")
    [ "${#wanted[@]}" -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "these packages are missing: ${wanted[*]}; run this script as root, or install them"
    command -v apt-get >/dev/null || fail "this script knows Debian's apt-get only; install by hand: ${wanted[*]}"
    say "installing ${wanted[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    local versions
    mapfile -t versions < <(matching_qemu_utils)
    apt-get install -y -qq --no-install-recommends --allow-downgrades -o Dpkg::Use-Pty=0 \
        "${wanted[@]}" "${versions[@]}" >/dev/null
    mapfile -t wanted < <(missing "${packages[@]}")
    [ "${#wanted[@]}" = 0 ] || fail "apt-get ended well, yet these are not installed: ${wanted[*]}"
}

find_rust() {
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || fail "no cargo found. Install Rust 1.90 or newer with rustup (https://rustup.rs), then run this again"
    local version
    version=$(rustc --version | sed -E 's/^rustc ([0-9]+)\.([0-9]+).*/\1 \2/')
    read -r major minor <<<"$version"
    [ "$major" -gt 1 ] || [ "$minor" -ge 90 ] ||
        fail "rustc is $major.$minor, castiron needs 1.90 or newer: run \`rustup update\`"
}

install_cargo_deny() {
    local root="${XDG_CACHE_HOME:-$HOME/.cache}/castiron"
    ! command -v cargo-deny >/dev/null && [ ! -x "$root/bin/cargo-deny" ] || return 0
    say "compiling cargo-deny into $root/bin (a few minutes, once)"
    (cd / && nice cargo install --quiet --locked --root "$root" cargo-deny)
}

install_packages
find_rust
[ "${1:-}" != lint ] || install_cargo_deny
