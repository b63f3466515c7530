# shellcheck shell=bash disable=SC2034
# What every script does first. Sourced, with the arguments of the script. --help prints the lines at
# the head of the script and runs nothing.

set -euo pipefail

case ${1:-} in
  -h | --help)
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"
    exit
    ;;
esac

readonly started_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C.UTF-8 # Elixir asks for UTF-8, which is not everyone's default

readonly temporary_failure=75 # EX_TEMPFAIL in sysexits.h: says nothing about the code

has() {
  command -v "$1" >/dev/null
}

# Ends the script with a status and a sentence.
fail() {
  printf '%s: %s\n' "$0" "$2" >&2
  exit "$1"
}
