# How script/demo tells what happens: steps, commands with their output and their time, checks that hold or fail.
# Sourced; expects the names $root, $work and $port of the demo.
# shellcheck shell=bash

if [ -t 1 ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' cyan='' plain=''
fi

now_ms() { date +%s%3N; }
seconds() { printf '%d.%01d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

demo_begun=$(now_ms)
step_begun=''
end_step() {
  [ -z "$step_begun" ] || printf '%s   step took %s%s\n' "$dim" "$(seconds $(($(now_ms) - step_begun)))" "$plain"
}
step() {
  end_step
  step_begun=$(now_ms)
  printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}
say() { printf '   %s\n' "$*"; }
shown() { sed 's/^/   │ /'; }
command_line() {
  # Paths below the clone and the work directory are shown short.
  local text=${*//"$work"/\$WORK}
  printf '   %s$ %s%s\n' "$cyan" "${text//"$root"\//}" "$plain"
}
fail() {
  printf '\n%s   ✘ %s%s\n' "$red" "$*" "$plain"
  exit 1
}
held() { printf '   %s✔ %s%s\n' "$green" "$*" "$plain"; }
expect() { # what, wanted, got
  [ "$2" = "$3" ] || fail "$1: expected \"$2\", got \"$3\""
}

out=''
# Shows a command, its output and its time; the output stays in $out. Anything but success ends the demo.
run() {
  local begun code=0
  command_line "$@"
  begun=$(now_ms)
  out=$("$@" 2>&1) || code=$?
  [ -z "$out" ] || shown <<<"$out"
  printf '%s   │ %d ms%s\n' "$dim" $(($(now_ms) - begun)) "$plain"
  [ $code = 0 ] || fail "it ended with $code"
}
# Runs a command that must fail with this exit code and reason.
refused() {
  local want=$1 reason=$2 code=0
  shift 2
  command_line "$@"
  out=$("$@" 2>&1) || code=$?
  shown <<<"$out"
  expect "exit code" "$want" "$code"
  grep -q "reason: $reason" <<<"$out" || fail "the reason is not $reason"
  held "refused: $reason, exit code $code"
}
# One HTTP request to an actor, of / or another path; its answer is in $out, its milliseconds in $took.
ask() { # actor, path
  local answer
  answer=$(curl -sS --noproxy '*' --max-time 60 -w '%{http_code} %{time_total}' "http://$1.default.localhost:$port${2:-/}" 2>&1) ||
    fail "no answer from $1: $answer"
  out=${answer%$'\n'*}
  local code=${answer##*$'\n'}
  took=$(awk '{ printf "%d", $2 * 1000 }' <<<"$code")
  [ "${code%% *}" = 200 ] || fail "$1 answered ${code%% *}: $out"
}
# The answer of the example actor, without the last and longest of what it tells.
answered() { say "${out%% uid=*}  ($took ms)"; }
count() { sed -n 's/^count=\([0-9]*\).*/\1/p' <<<"$out"; }
# A field of an object, by jq.
field() { # path kind name
  ate get "$2" "$3" -o json | jq -r "$1"
}
# Applies an example template under another name.
template_named() { # name, example
  sed 's/name: '"$2"'$/name: '"$1"'/; s|oci:../|oci:'"$root"'/|' "examples/$2.yaml" >"$work/$1.yaml"
  run ate apply -f "$work/$1.yaml" --wait
}
# The digest of a binary that a snapshot, or the golden snapshot of a template, was made with.
binary_of() { field ".spec.assets.$1" snapshot "$2"; }
golden_of() { field .status.goldenManifest template "$1"; }
snapshot_of() { field .status.snapshot actor "$1"; }
# One line about the binary that an actor's snapshot was made with.
made_with() { # asset, actor
  local snapshot
  snapshot=$(snapshot_of "$2")
  printf '   │ %s  %s  %s %s, %.12s\n' "$2" "$(field .spec.sandboxConfig snapshot "$snapshot")" "$1" \
    "$(field ".spec.versions.$1" snapshot "$snapshot")" "$(binary_of "$1" "$snapshot")"
}
