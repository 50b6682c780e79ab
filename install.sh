#!/bin/sh
# Installs MCIAS from the unpacked tarball that this script is in. POSIX sh; no network; starts nothing.
#
# What is there already and isn't known to be from us is never overwritten: a file that somebody has changed stays, and
# the new one goes beside it as .new. What we have put in place is in a list, /etc/mcias/.installed, with its SHA-256;
# by that list the next version and --uninstall tell ours from somebody's. It is written before the first file is placed,
# so that whatever interrupts us, the next run knows its own. Files are put in place by renaming, so that a running server
# keeps the executable that it was started from.
set -eu
umask 022
LC_ALL=C
export LC_ALL

usage() {
    cat <<'END'
Usage: ./install.sh [--prefix DIR] [--destdir DIR] [--check | --uninstall]

Installs MCIAS from the unpacked tarball: the executable and a link for each of its
names, manual pages, shell completions, examples of configuration, a unit for systemd
or OpenRC; the user and group mcias; /etc/mcias and /var/lib/mcias. It can be run again
at any time, and over an older version while the server runs. It starts nothing.

  --prefix DIR   below which it goes; /usr/local without it
  --destdir DIR  put everything below DIR, for a package or an image: no users, no
                 owners, relative links
  --check        see whether this version is installed as it should be; change nothing;
                 exit code 0 or 1
  --uninstall    remove what was installed; data, configuration and user stay
  --help         show this
END
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
wrong() {
    printf "install.sh: %s; see './install.sh --help'\n" "$*" >&2
    exit 2
}

# What was asked.

prefix=/usr/local destdir='' doing=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --destdir)
            [ $# -gt 1 ] || wrong "$1 needs a folder"
            option=$1 value=$2
            shift
            ;;
        --prefix=* | --destdir=*) option=${1%%=*} value=${1#*=} ;;
        --check | --uninstall)
            [ "$doing" = install ] || [ "$doing" = "${1#--}" ] || wrong "--check and --uninstall exclude each other"
            option='' doing=${1#--}
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) wrong "unknown argument '$1'" ;;
    esac
    shift
    case $option in
        --prefix)
            # It goes into the unit and the links as it is.
            case $value in
                [!/]* | '' | *[!A-Za-z0-9/._+-]* | */../* | */..)
                    wrong "--prefix must be an absolute path of letters, digits and / . _ + -"
                    ;;
            esac
            prefix=$value
            ;;
        --destdir)
            case $value in
                '') wrong "--destdir is empty" ;;
                /*) destdir=$value ;;
                *) destdir=./$value ;;
            esac
            packing=yes
            ;;
    esac
done
while [ "$prefix" != "${prefix%/}" ]; do prefix=${prefix%/}; done
packing=${packing-}
if [ -n "$packing" ]; then
    [ "$doing" != install ] || mkdir -p "$destdir" 2>/dev/null || fail "$destdir can't be made"
    destdir=$(CDPATH='' cd "$destdir" 2>/dev/null && pwd) || fail "$destdir: no such folder"
    [ "$destdir" != / ] || destdir=''
fi

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
bin=$prefix/bin
share=$prefix/share
etc=/etc/mcias
list=$etc/.installed
data=/var/lib/mcias
user=mcias
# The names of the executable besides mcias, which makes each of them a program of its own.
names='mciassrv mciasctl mciasgrpcctl mciasdb'
# Words that are in every MCIAS executable, of whatever version.
mark='identity and access for people who own their infrastructure'

# A root with next to nothing in it may have no /tmp.
work=$(mktemp -d "${TMPDIR:-/tmp}/mcias-install.XXXXXX" 2>/dev/null || mktemp -d "$here/.work.XXXXXX")
fresh=''
trap 'rm -rf "$work"; [ -z "$fresh" ] || rm -f "$fresh"' EXIT
trap 'exit 1' HUP INT PIPE TERM

command -v sha256sum >/dev/null || fail "sha256sum is missing"
sum() { sha256sum <"$1" | cut -d ' ' -f 1; }
exists() { [ -e "$1" ] || [ -h "$1" ]; }
# is_listed PLACE SUM: whether we have put this there. What lay beside it as .new may have taken its place since.
is_listed() {
    [ -f "$destdir$list" ] || return 1
    awk -v path="$1" -v sum="$2" '$1 == sum && (substr($0, 67) == path || substr($0, 67) == path ".new") { found = 1 }
        END { exit !found }' "$destdir$list"
}
# The prefix that MCIAS is installed below; nothing where it isn't.
listed_prefix() { [ ! -f "$destdir$list" ] || sed -n '1s/^# below //p' "$destdir$list"; }

# The tarball is whole: what its SHA256SUMS names is as it was packed, and everything that is used is named there.
verify_tarball() {
    [ -f "$here/SHA256SUMS" ] || fail "$here has no SHA256SUMS: run this from the unpacked tarball, or 'make install'"
    (cd "$here" && sha256sum -c SHA256SUMS >"$work/verified" 2>&1) || {
        grep -v ': OK$' "$work/verified" >&2 || :
        fail "this isn't what was packed; unpack the tarball again, and check it against the SHA256SUMS beside it"
    }
}
packed() {
    awk -v path="$1" 'substr($0, 67) == path { found = 1 } END { exit !found }' "$here/SHA256SUMS" ||
        fail "$1 is not in SHA256SUMS"
}

has_systemd() {
    [ -n "$packing" ] || [ -d /run/systemd/system ] || [ -x /usr/lib/systemd/systemd ] || [ -x /lib/systemd/systemd ]
}
has_openrc() { [ -x "$destdir/sbin/openrc-run" ]; }

# What is to be where: a line each, of mode, file in the tarball, place; and of links, target, place.
plan() {
    say "0755 mcias $bin/mcias"
    for page in "$here"/man/*.gz; do
        page=${page##*/}
        section=${page%.gz}
        say "0644 man/$page $share/man/man${section##*.}/$page"
    done
    say "0644 completions/mcias.bash $share/bash-completion/completions/mcias"
    say "0644 completions/_mcias $share/zsh/site-functions/_mcias"
    say "0644 completions/mcias.fish $share/fish/vendor_completions.d/mcias.fish"
    for example in mcias.conf mcias-dev.conf mcias.conf.docker mcias.env; do
        say "0644 dist/$example.example $etc/$example.example"
    done
    ! has_systemd || say "0644 dist/mcias.service /etc/systemd/system/mcias.service"
    ! has_openrc || say "0755 dist/mcias.openrc /etc/init.d/mcias"
}
plan_links() {
    target=$bin/mcias
    [ -z "$packing" ] || target=mcias
    for name in $names; do
        say "$target $bin/$name"
        say "mcias $share/bash-completion/completions/$name"
        say "mcias.fish $share/fish/vendor_completions.d/$name.fish"
    done
}

# The file as it is to be installed, in $source: with the prefix, where it names the executable.
prepare() {
    packed "$1"
    source=$here/$1
    case $1 in
        dist/mcias.service | dist/mcias.openrc)
            if [ "$bin" != /usr/local/bin ]; then
                source=$work/prepared
                sed "s|/usr/local/bin/|$bin/|g" "$here/$1" >"$source"
            fi
            ;;
    esac
}

# A link is ours if it leads to our file beside it, said in either way.
is_our_link() {
    [ -h "$1" ] || return 1
    to=$(readlink "$1")
    [ "$to" = "$2" ] || [ "$to" = "${2##*/}" ] || [ "$to" = "$bin/${2##*/}" ]
}

# Puts a file in place of whatever has its name, at once and whole.
put() {
    mkdir -p "${3%/*}"
    # What a run left behind that was killed.
    rm -f "${3%/*}"/.mcias-install.??????
    fresh=$(mktemp "${3%/*}/.mcias-install.XXXXXX")
    # A power cut must not leave the new name with nothing in it.
    if cat "$2" >"$fresh" && chmod "$1" "$fresh" && { sync "$fresh" 2>/dev/null || sync; } && mv -f "$fresh" "$3"; then
        fresh=''
        return 0
    fi
    fail "$3 can't be written"
}

# Everything that could be refused is looked at before anything is changed.
look_before() {
    verify_tarball
    if [ -z "$packing" ]; then
        [ "$(id -u)" = 0 ] || fail "this needs root; --destdir DIR doesn't"
        "$here/mcias" version >/dev/null 2>&1 ||
            fail "the executable doesn't run here: is the tarball the one for $(uname -m), and may $here hold programs?"
    fi
    was=$(listed_prefix)
    [ "${was:-$prefix}" = "$prefix" ] ||
        fail "MCIAS is installed below $was: say --prefix $was, or first --uninstall --prefix $was"
    { plan && plan_links | sed 's/^/- /' && say "- - $etc/x" && say "- - $data/x"; } | while read -r _ _ place; do
        parent=$destdir${place%/*}
        while [ -n "$parent" ] && ! exists "$parent"; do parent=${parent%/*}; done
        [ -d "$parent/" ] || fail "$parent is there already and no folder; nothing was changed"
        [ -w "$parent/" ] || fail "$parent can't be written to; nothing was changed"
    done
    plan_links | while read -r target place; do
        exists "$destdir$place" || continue
        is_our_link "$destdir$place" "$target" ||
            fail "$destdir$place is there already and not ours; nothing was changed"
    done
    plan | while read -r _ file place; do
        packed "$file"
        ! exists "$destdir$place" || [ -f "$destdir$place" ] ||
            fail "$destdir$place is there already and no file; nothing was changed"
    done
    if exists "$destdir$bin/mcias"; then
        if [ -h "$destdir$bin/mcias" ] || ! grep -q "$mark" "$destdir$bin/mcias"; then
            fail "$destdir$bin/mcias is there already and no MCIAS; nothing was changed"
        fi
    fi
    for folder in "$etc" "$data"; do
        ! exists "$destdir$folder" || [ -d "$destdir$folder" ] ||
            fail "$destdir$folder is there already and no folder; nothing was changed"
    done
}

has_user() { grep -q "^$user:" /etc/passwd 2>/dev/null; }
has_group() { grep -q "^$user:" /etc/group 2>/dev/null; }

# Local ones: the server has to start without a directory service.
make_user() {
    nologin=/bin/false
    for shell in /sbin/nologin /usr/sbin/nologin; do [ ! -x "$shell" ] || nologin=$shell; done
    for file in /etc/group /etc/passwd; do [ -e "$file" ] || : >"$file"; done
    if ! has_group; then
        if command -v groupadd >/dev/null; then
            groupadd --system "$user"
        elif command -v addgroup >/dev/null; then
            addgroup -S "$user"
        else
            append /etc/group "$user:x:$(free_id):"
        fi || fail "the group $user can't be made"
        say "made the group $user"
    fi
    if ! has_user; then
        if command -v useradd >/dev/null; then
            useradd --system --gid "$user" --home-dir "$data" --no-create-home --shell "$nologin" "$user"
        elif command -v adduser >/dev/null; then
            adduser -S -D -H -h "$data" -s "$nologin" -G "$user" "$user"
        else
            # No password fits the x.
            append /etc/passwd "$user:x:$(free_id):$(awk -F : -v name="$user" '$1 == name { print $3 }' /etc/group):MCIAS:$data:$nologin"
        fi || fail "the user $user can't be made"
        say "made the user $user"
    fi
}
# append FILE LINE: whole or not at all, also where the last line has no end.
append() {
    fresh=$1.mcias-install
    cp -p "$1" "$fresh" && { [ -z "$(tail -c 1 "$1")" ] || echo >>"$fresh"; } && say "$2" >>"$fresh" && mv -f "$fresh" "$1" && fresh=''
}
# A number below 1000 that neither a user nor a group has, for a system without tools to make them.
free_id() { awk -F : '{ taken[$3] = 1 } END { for (id = 999; id in taken; id--); print id }' /etc/passwd /etc/group; }

# The data may be on another disk, behind a link.
owner_of() { stat -L -c '%U:%G' "$1"; }
mode_of() { printf '0%s\n' "$(stat -L -c '%a' "$1")"; }
# is_as PLACE MODE OWNER: whether it is so. There are no owners in a package.
is_as() {
    [ "$(mode_of "$destdir$1")" = "$2" ] && { [ -n "$packing" ] || [ "$(owner_of "$1")" = "$3" ]; }
}
# is_somebodys PLACE SUM: whether there is something that is neither this nor what we have put there before.
is_somebodys() {
    exists "$destdir$1" || return 1
    [ -f "$destdir$1" ] || return 0
    there=$(sum "$destdir$1")
    [ "$there" != "$2" ] && ! is_listed "$1" "$there"
}

# folder PLACE MODE OWNER
folder() {
    mkdir -p "$destdir$1"
    if [ -z "$packing" ] && [ "$(owner_of "$1")" != "$3" ]; then
        chown "$3" "$1"
        say "$1 belongs to $3"
    fi
    is_as "$1" "$2" "$3" || chmod "$2" "$destdir$1"
}

do_install() {
    look_before
    older=no
    ! exists "$destdir$bin/mcias" || older=yes
    [ -n "$packing" ] || make_user
    folder "$etc" 0750 "root:$user"
    folder "$data" 0700 "$user:$user"

    plan >"$work/plan"
    # All that will be ours, and all that was.
    { [ ! -f "$destdir$list" ] || cat "$destdir$list"; } >"$work/was"
    say "# below $prefix" >"$work/installed"
    cp "$work/installed" "$work/either"
    while read -r mode file place; do
        prepare "$file"
        new=$(sum "$source")
        say "$new  $place"
    done <"$work/plan" >>"$work/either"
    sed 1d "$work/was" >>"$work/either"
    put 0644 "$work/either" "$destdir$list"
    while read -r mode file place; do
        prepare "$file"
        new=$(sum "$source")
        at=$place
        old=''
        [ ! -f "$destdir$place" ] || old=$(sum "$destdir$place")
        if [ -z "$old" ]; then
            put "$mode" "$source" "$destdir$place"
            say "$destdir$place"
        elif [ "$old" = "$new" ]; then
            is_as "$place" "$mode" root:root || put "$mode" "$source" "$destdir$place"
        elif [ "$file" = mcias ] || is_listed "$place" "$old"; then
            put "$mode" "$source" "$destdir$place"
            say "$destdir$place: renewed"
        else
            at=$place.new
            if is_somebodys "$at" "$new"; then
                say "$destdir$place and $destdir$at have been changed and stay; see $here/$file"
                continue
            fi
            put "$mode" "$source" "$destdir$at"
            say "$destdir$place has been changed and stays; the new one is beside it as .new"
        fi
        # A .new that nobody needs any more.
        [ "$at" != "$place" ] || is_somebodys "$place.new" "$new" || rm -f "$destdir$place.new"
        say "$new  $at" >>"$work/installed"
    done <"$work/plan"

    plan_links >"$work/links"
    while read -r target place; do
        ! exists "$destdir$place" || continue
        mkdir -p "$destdir${place%/*}"
        ln -s "$target" "$destdir$place"
        say "$destdir$place"
    done <"$work/links"
    # What this version no longer has.
    cut -c 67- "$work/installed" >"$work/now"
    sed 1d "$work/was" | while read -r was place; do
        grep -Fqx "$place" "$work/now" || ! exists "$destdir$place" || [ "$(sum "$destdir$place")" != "$was" ] || {
            rm -f "$destdir$place"
            say "$destdir$place: removed"
        }
    done
    put 0644 "$work/installed" "$destdir$list"
    [ -n "$packing" ] || next_steps
}

next_steps() {
    say
    if [ -e "$etc/mcias.conf" ]; then
        [ "$older" = no ] || say "A server that runs goes on with the version it was started from. To change over:"
        if has_systemd; then say "  systemctl daemon-reload && systemctl restart mcias"; fi
        if has_openrc; then say "  rc-service mcias restart"; fi
        return
    fi
    hostname=$(cat /proc/sys/kernel/hostname 2>/dev/null) || hostname=auth.example.com
    say "MCIAS is installed. Nothing runs yet. Next, make an instance, with the name that its clients will use:"
    say "  $bin/mcias init --system --hostname ${hostname:-auth.example.com}"
    say "and start it:"
    if has_systemd; then
        say "  systemctl enable --now mcias"
    elif has_openrc; then
        say "  rc-update add mcias && rc-service mcias start"
    else
        say "  su -s /bin/sh $user -c '$bin/mciassrv --config $etc/mcias.conf'"
    fi
    say "The first password of 'admin' will be in $etc/admin-password. To log in:"
    say "  $bin/mciasctl --server https://127.0.0.1:8443 --cacert $etc/tls/ca.crt login --username admin --password-stdin --save <$etc/admin-password"
}

do_check() {
    verify_tarball
    : >"$work/faults"
    fault() { say "$*" | tee -a "$work/faults"; }
    # has PLACE MODE OWNER
    has() {
        is_as "$@" || fault "$destdir$1: is $(mode_of "$destdir$1") $(owner_of "$destdir$1") and should be $2 $3"
    }
    for one in "$etc 0750 root:$user" "$data 0700 $user:$user"; do
        # shellcheck disable=SC2086 # three words
        set -- $one
        if [ -d "$destdir$1" ]; then has "$@"; else fault "$destdir$1: isn't there"; fi
    done
    if [ -z "$packing" ]; then
        has_user || fault "there is no user $user"
        has_group || fault "there is no group $user"
    fi
    plan >"$work/plan"
    while read -r mode file place; do
        prepare "$file"
        if [ ! -f "$destdir$place" ]; then
            fault "$destdir$place: isn't there, or can't be seen"
            continue
        fi
        has "$place" "$mode" root:root
        if cmp -s "$source" "$destdir$place"; then
            continue
        elif [ "$file" != mcias ] && cmp -s "$source" "$destdir$place.new"; then
            say "$destdir$place: changed on purpose, as it seems; this version's is beside it as .new"
        else
            fault "$destdir$place: isn't this version's"
        fi
    done <"$work/plan"
    plan_links >"$work/links"
    while read -r target place; do
        is_our_link "$destdir$place" "$target" || fault "$destdir$place: is no link to ${target##*/}"
    done <"$work/links"
    [ ! -s "$work/faults" ] || fail "not installed as it should be"
    say "everything is as it should be"
}

do_uninstall() {
    if [ -z "$packing" ]; then
        [ "$(id -u)" = 0 ] || fail "this needs root"
        # In a chroot systemctl says yes to everything.
        if [ -d /run/systemd/system ] && command -v systemctl >/dev/null && { systemctl -q is-active mcias || systemctl -q is-enabled mcias; } 2>/dev/null; then
            fail "the service is running or enabled; first: systemctl disable --now mcias"
        fi
    fi
    was=$(listed_prefix)
    [ -n "$was" ] || fail "$destdir$list isn't there: nothing of ours is known to be installed"
    [ "$was" = "$prefix" ] || fail "MCIAS is installed below $was: say --prefix $was"
    plan_links >"$work/links"
    while read -r target place; do
        if is_our_link "$destdir$place" "$target"; then
            rm -f "$destdir$place"
        elif exists "$destdir$place"; then
            say "$destdir$place isn't ours and stays"
        fi
    done <"$work/links"
    # What lay beside as .new may have taken its place since.
    sed 1d "$destdir$list" | awk '{ print } sub(/[.]new$/, "")' >"$work/list"
    while read -r was place; do
        exists "$destdir$place" || continue
        if [ "$(sum "$destdir$place")" = "$was" ]; then
            rm -f "$destdir$place"
        else
            say "$destdir$place has been changed and stays"
        fi
    done <"$work/list"
    rm -f "$destdir$list"
    # Only what is empty.
    rmdir "$destdir$etc" 2>/dev/null || :
    rmdir "$destdir$data" 2>/dev/null || :
    for folder in "$etc" "$data"; do [ ! -d "$destdir$folder" ] || say "$destdir$folder stays, with all that is in it"; done
    [ -n "$packing" ] || say "The user and the group $user stay as well."
}

"do_$doing"
