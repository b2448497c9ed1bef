# shellcheck shell=bash
# What the scripts in the VM share: tests that are counted, a player, a server file.

passed=0 failed=0
# check WHAT COMMAND...: one test; its output is shown when it fails.
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "test $what ... ok"
  else
    failed=$((failed + 1))
    printf 'test %s ... FAILED\n%s\n' "$what" "$output"
  fi
}

# within SECONDS COMMAND...: whether it succeeds in that time.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      "$@"
      return 1
    fi
    sleep 0.1
  done
}

# frozen CGROUP 0|1
frozen() { [ "$(cat "/sys/fs/cgroup/$1/cgroup.freeze")" = "$2" ]; }

nothing_is_frozen() {
  local found
  found=$(find /sys/fs/cgroup -name cgroup.freeze -exec grep -l 1 {} +)
  [ -z "$found" ] || { echo "$found"; return 1; }
}

# echoes ADDRESS PORT SEEN [NETNS]: a player at that address of the node's (or in a namespace) is answered, with the
# address that the server saw.
echoes() {
  local said enter=()
  [ $# -lt 4 ] || enter=(nsenter "--net=/run/netns/$4")
  # shellcheck disable=SC2016 # bash -c expands it
  said=$(timeout 20 "${enter[@]}" bash -c \
    'exec 3<>"/dev/tcp/$0/$1"; echo hello >&3; read -r line <&3; echo "$line"' "$1" "$2")
  echo "$said"
  [[ $said = "$3 "* ]]
}

# quickly: the part of a server file that makes it sleep in seconds.
quickly() {
  cat <<SERVER
[limits]
doze_after = "2s"
doze_by = "freeze"
min_awake = "1s"
grace_after_start = "1s"
[assert]
watchdog = { value = "off", reason = "an echo server has none" }
save = { value = "not-needed", reason = "an echo server keeps nothing" }
SERVER
}

all_active() { systemctl is-active dormouse-guard dormouse-shutdown dormoused; }

# ends: the line in the form of cargo's, and the log if something failed.
ends() {
  local result=ok
  if [ "$failed" != 0 ]; then
    journalctl -b -o cat -u dormoused -u dormouse-guard -u dormouse-shutdown | tail -80
    result=FAILED
  fi
  echo "test result: $result. $passed passed; $failed failed; 0 ignored"
  [ "$failed" = 0 ]
}
