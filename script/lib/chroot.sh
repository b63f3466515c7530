# shellcheck shell=bash disable=SC2154
# Debian releases in folders, to run things on other versions than this machine's. Sourced.
#
# They are made by debootstrap from the mirror that this machine's apt uses, and kept in
# EXILE_CHROOTS, by default ~/.cache/exile/chroots; what is kept there may be removed at any time.
# Everything runs in mount and process namespaces of its own. So whatever happens to a script,
# nothing stays mounted and no process stays behind.
#
# A function that fails because something could not be downloaded, in time or at all, returns 75.

# Nothing but SIGKILL ends unshare, and what runs in its namespaces with it. If timeout itself
# is told to end it needs a second for that.
readonly bounded=(timeout --foreground --signal=KILL --kill-after=1)

# What is left for downloads: without trouble each step takes half a minute.
download_seconds=420
limit=

chroots=${EXILE_CHROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/exile/chroots}
crates=$chroots/crates

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Ends the script because something that is needed cannot be had here and now.
give_up() {
  echo "${0##*/}: skipped: $*" >&2
  exit "$temporary_failure"
}

# Ends the script when folders cannot be made here; otherwise waits for others that use them.
open_chroots() {
  has debootstrap || give_up "debootstrap is not installed"
  as_root unshare --mount --pid --fork true 2>/dev/null ||
    give_up "making mount and process namespaces needs root"
  mirror=$(debian_mirror)
  if [ -z "$mirror" ] && has apt-get; then
    as_root apt-get -qq update || true # apt may not know yet whose its sources are
    mirror=$(debian_mirror)
  fi
  [ -n "$mirror" ] || give_up "no Debian mirror among the sources of apt"

  mkdir -p "$crates"
  exec {chroots_lock}>"$chroots/lock"
  flock "$chroots_lock"
}

debian_mirror() {
  has apt-get || return 0
  # shellcheck disable=SC2016 # these are apt's variables
  apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | sed -n 1p
}

# Runs a command, or a function, that downloads and heeds $limit.
download() {
  local start=$SECONDS status=0
  [ "$download_seconds" -gt 0 ] || return "$temporary_failure"
  limit=$download_seconds "$@" || status=$?
  download_seconds=$((download_seconds - (SECONDS - start)))
  # Statuses above 123 are those of timeout and of signals.
  [ "$status" -lt 124 ] || return "$temporary_failure"
  return "$status"
}

# Makes a Debian of release $1 with packages $2 ..., unless it is there already. A folder whose
# making was interrupted is made anew.
make_chroot() {
  local root=$chroots/$1
  if [ -e "$root.unfinished" ]; then
    as_root rm -rf --one-file-system "$root"
  fi
  if [ ! -d "$root" ]; then
    touch "$root.unfinished"
    download debootstrap_release "$1" "$root" || return "$temporary_failure"
    rm "$root.unfinished"
  fi
  shift
  if [ "$#" -gt 0 ] && ! in_chroot "$root" dpkg --status "$@" &>/dev/null; then
    change_chroot "$root" apt-get -qq update || return "$temporary_failure"
    change_chroot "$root" apt-get -qq install -y --no-install-recommends "$@" ||
      return "$temporary_failure"
  fi
}

# Runs in folder $1 a command that downloads and installs. If it is interrupted the folder is made
# anew the next time.
change_chroot() {
  local root=$1 status=0
  touch "$root.unfinished"
  download in_chroot "$@" || status=$?
  [ "$status" = "$temporary_failure" ] || rm "$root.unfinished"
  return "$status"
}

# The script for sid serves every release, also those that this debootstrap is too old to know.
debootstrap_release() {
  as_root "${bounded[@]}" "$limit" \
    unshare --mount --pid --fork --kill-child --mount-proc \
    debootstrap --variant=minbase "$1" "$2" "$mirror" /usr/share/debootstrap/scripts/sid || return
  # How packages are reached: proxies, and the certificates that these may need.
  apt-config dump | grep -iE '^Acquire::([a-z]+::)?(Proxy|CaInfo|Check-Valid-Until|Check-Date)' |
    as_root tee "$2/etc/apt/apt.conf.d/90host" >/dev/null || true
  local certificates
  for certificates in /usr/local/share/ca-certificates /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$certificates" ] || as_root cp -rL --parents "$certificates" "$2"
  done
}

# Runs a command in folder $1, as root, without this machine's environment and for at most $limit
# seconds, if that is set; timeout gives status 124. The crates are bound there.
in_chroot() {
  local root=$1 environment=() name
  shift
  for name in $(compgen -e | grep -iE '^(https?|ftp|all|no)_proxy$'); do
    environment+=("$name=${!name}")
  done
  # shellcheck disable=SC2016
  as_root "${bounded[@]}" "${limit:-0}" \
    unshare --mount --pid --fork --kill-child --mount-proc bash -euc '
      root=$1 crates=$2
      shift 2
      mount --bind "$root" "$root" # so that what runs there can mount things of its own
      mount --rbind /dev "$root/dev"
      mount --rbind /sys "$root/sys"
      mount -t proc proc "$root/proc"
      mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
      mkdir -p "$root/usr/local/src/crates"
      mount --bind "$crates" "$root/usr/local/src/crates"
      cp /etc/resolv.conf /etc/hosts "$root/etc/"
      exec chroot "$root" env -i "$@"
    ' bash "$root" "$crates" \
    HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    ${environment[@]+"${environment[@]}"} \
    bash -c '"$@"; exit' bash "$@" </dev/null # this bash is the init that reaps orphans
}

# Puts a clean checkout of the project, with what is not committed yet, into folder $1 as /exile,
# and the crates that it needs, so that cargo needs no network there.
copy_project() {
  local root=$1
  as_root rm -rf --one-file-system "$root/exile"
  as_root mkdir -p "$root/exile" "$root/root/.cargo"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      [ ! -e "$file" ] || printf '%s\0' "$file"
    done |
    tar -c --null -T - | as_root tar -x --no-same-owner -C "$root/exile"

  download vendor_crates || return "$temporary_failure"
  as_root tee "$root/root/.cargo/config.toml" >/dev/null <<'CONFIG'
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "/usr/local/src/crates"
CONFIG
}

vendor_crates() {
  CARGO_NET_RETRY=5 "${bounded[@]}" "$limit" \
    cargo vendor --locked --quiet "$crates" >/dev/null
}
