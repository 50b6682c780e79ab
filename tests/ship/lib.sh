# What the tests of this folder share; sourced. Each is run as root with the tools of .ci/run, in a folder of its own.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
servers=() mounts=()

# Processes whose root is below the folder.
below() {
    local process
    for process in /proc/[0-9]*; do
        case $(readlink "$process/root" 2>/dev/null) in "$work"/*) echo "${process#/proc/}" ;; esac
    done
}

clean_up() {
    local code=$? pid at
    for pid in "${servers[@]}" $(below); do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for at in "${mounts[@]}"; do umount "$at" || umount --lazy "$at" || true; done
    rm -rf --one-file-system "$work"
    [ "$code" = 0 ] || printf '%s: FAILED\n' "${0##*/}" >&2
    exit "$code"
}
trap clean_up EXIT

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
ok() { printf '  ok: %s\n' "$*"; }

# refused CODE WORDS COMMAND...: it must fail with this exit code and say this.
refused() {
    local code=$1 words=$2 said status=0
    shift 2
    said=$("$@" 2>&1) || status=$?
    [ "$status" = "$code" ] || fail "exit code $status, not $code, from: $*: $said"
    [[ $said == *"$words"* ]] || fail "'$words' is not in what it said: $said"
}

# Every file below a folder with its mode, owner, size, target and content, a line each.
snapshot() {
    (cd "$1" && find . -printf '%p %y %m %U:%G %l\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum)
}

# until_well COMMAND...: tries it until it works, for ten seconds.
until_well() {
    local try
    for try in $(seq 100); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "never went well ($try times): $*"
}

# A root with a busybox and nothing else but a passwd with root in it.
make_root() {
    mkdir -p "$1/bin" "$1/etc" "$1/proc" "$1/dev" "$1/tmp"
    cp "$(command -v busybox)" "$1/bin/busybox"
    "$1/bin/busybox" --list | grep -vx busybox | while read -r name; do ln -s busybox "$1/bin/$name"; done
    echo 'root:x:0:0:root:/:/bin/sh' >"$1/etc/passwd"
    echo 'root:x:0:' >"$1/etc/group"
    mknod -m 666 "$1/dev/null" c 1 3
    mknod -m 444 "$1/dev/urandom" c 1 9
    mount -t proc proc "$1/proc"
    mounts+=("$1/proc")
}

# Runs a line in it, as it would run there.
in_root() {
    local root=$1
    shift
    env -i PATH=/usr/local/bin:/bin HOME=/ "$(command -v chroot)" "$root" /bin/sh -c "$*" </dev/null
}

# Runs the root of an image as README.md says: init, the database into a folder of its own, and the server without a way
# to write to anything but that. The caller has a network and mounts of its own.
run_image() {
    local image=$1 pid token
    mkdir "$work/etc" "$work/data"
    chown 10001:10001 "$work/etc" "$work/data"
    chmod 0700 "$work/etc" "$work/data"
    mkdir -p "$image/etc/mcias"
    local in_image=(env -i "$(command -v chroot)" --userspec=10001:10001 --groups=10001 "$image")

    mount --bind "$image" "$image"
    mount --bind "$work/etc" "$image/etc/mcias"
    mount --bind "$work/data" "$image/data"
    mounts=("$image/data" "$image/etc/mcias" "$image" "${mounts[@]}")
    mount -o remount,bind,ro "$image"
    # The lines of README.md that aren't the engine's.
    "${in_image[@]}" /mcias init --dir /etc/mcias --hostname auth.example.com >/dev/null
    (cd "$work" && eval "$(awk '/^<!-- test: container -->$/ { on = 1 } on && /^mv / { print; exit }' "$here/README.md")")
    sed -i 's/^# grpc_addr/grpc_addr/' "$work/etc/mcias.conf"
    mount -o remount,bind,ro "$image/etc/mcias"
    refused 1 "Read-only" "${in_image[@]}" /mcias init --dir /x
    refused 1 "Connection refused" "${in_image[@]}" /mcias server --config /etc/mcias/mcias.conf --healthcheck

    "${in_image[@]}" /mciassrv -config /etc/mcias/mcias.conf 2>"$work/log" &
    pid=$!
    servers+=("$pid")
    until_well "${in_image[@]}" /mcias server --config /etc/mcias/mcias.conf --healthcheck
    ctl() { "${in_image[@]}" /mciasctl --server https://127.0.0.1:8443 --cacert /etc/mcias/tls/ca.crt "$@"; }
    token=$(ctl login --username admin --password-stdin <"$work/etc/admin-password")
    [ "$(ctl token validate --token-stdin --json <<<"$token" | jq -r .username)" = admin ] || fail "the token isn't good"
    MCIAS_TOKEN=$token "$(command -v chroot)" --userspec=10001:10001 --groups=10001 "$image" /mciasgrpcctl \
        --server 127.0.0.1:9443 --cacert /etc/mcias/tls/ca.crt account list | grep -q admin || fail "gRPC finds nobody"
    "${in_image[@]}" /mciasdb --config /etc/mcias/mcias.conf account list | grep -q admin || fail "mciasdb finds nobody"
    "${in_image[@]}" /mciasdb --config /etc/mcias/mcias.conf backup --out /data/backup.db >/dev/null
    kill "$pid"
    wait "$pid" || fail "it ended with $?: $(cat "$work/log")"
    [ ! -e "$work/data/mcias.db-wal" ] || fail "it left a log behind"
    ok "its root, read-only, as user 10001: init, serve, health, log in, validate, gRPC, backup, end"
}
