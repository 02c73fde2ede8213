# First act of script/demo: class gvisor.
# shellcheck shell=bash

step "1. Sandbox binaries become content-addressed assets; a SandboxConfig names the default"
run ate sandbox import --class gvisor --name gvisor-2022 "runsc=$runsc/20221219/runsc"
run ate sandbox import --class gvisor --name gvisor-default --default "runsc=$runsc/20240729-bookworm/runsc"
run ate get sandboxconfigs -o wide
first_binary=$(field '.spec.assets[].runsc.sha256' sandboxconfig gvisor-default)
expect "digest of the default" "$(sha256sum <"$runsc/20240729-bookworm/runsc" | cut -d' ' -f1)" "$first_binary"
held "the digests are those of the files"

step "2. A pool of two workers; they are ready when their binaries are verified"
run ate apply -f examples/pool.yaml --wait
run ate get workers -o wide
expect "ready workers" 2 "$(field .status.readyReplicas pool default)"
run ate get assets
expect "state of the default's binary" Verified "$(field .status.phase asset "$first_binary")"
held "two workers ready, their binary verified"

step "3. A template without a word about any sandbox; its golden snapshot is made"
run cat examples/counter.yaml
run ate apply -f examples/counter.yaml --wait
run ate get templates
expect "configuration of the golden" gvisor-default@1 "$(field .status.sandboxConfig template counter)"
held "the golden snapshot is there"

step "4. Six actors on two workers"
run ate create atespace default
run ate create actor a1 a2 a3 a4 a5 a6 --template counter
say "Requests go round; whoever is asked is woken, whoever is idle makes room. Nobody suspends anything by hand."
for round in 1 2 3; do
  line=''
  for actor in a1 a2 a3 a4 a5 a6; do
    ask $actor
    expect "count of $actor in round $round" "$round" "$(count)"
    line+="  $actor=$(count) ($took ms)"
  done
  printf '   │ round %d:%s\n' "$round" "$line"
done
held "18 requests, all answered; each actor counts in its own memory"
run ate get actors
say "The same by command:"
run ate resume actor a1
run ate suspend actor a1
run ate resume actor a1
run ate pause actor a1
expect "state of a1" Paused "$(field .status.phase actor a1)"
ask a1
answered
expect "count of a1 after suspend, resume and pause" 4 "$(count)"
held "a1 went on counting"
run ate suspend actor a1
manifest=$(snapshot_of a1)
say "What the snapshot of a1 says it needs:"
command_line "ate describe snapshot ${manifest:0:12}   (the part about the sandbox)"
ate describe snapshot "${manifest:0:12}" | sed -n '/^Manifest:/,$p' | sed 1d | jq '.sandbox' | shown
in_manifest=$(ate describe snapshot "$manifest" | sed -n '/^Manifest:/,$p' | sed 1d |
  jq -r '.sandbox.assets[] | select(.name == "runsc").sha256')
expect "binary in the manifest" "$first_binary" "$in_manifest"
held "class, version, digest and configuration are in the manifest"

step "5. The default changes to another runsc; what exists stays with what it was made with"
run ate sandbox import --name gvisor-default --default "runsc=$runsc/20240729-trixie/runsc"
second_binary=$(field '.spec.assets[].runsc.sha256' sandboxconfig gvisor-default)
[ "$second_binary" != "$first_binary" ] || fail "both builds are the same file"
ask a1
answered
expect "count of a1 after the change" 5 "$(count)"
run ate suspend actor a1
expect "binary of a1" "$first_binary" "$(binary_of runsc "$(snapshot_of a1)")"
held "a1 resumed under the runsc its snapshot names, not under the new default"
template_named counter-next counter
expect "binary of the new golden" "$second_binary" "$(binary_of runsc "$(golden_of counter-next)")"
run ate create actor b1 --template counter-next
ask b1
expect "count of b1" 1 "$(count)"

say "Once more, to a much older version:"
run ate sandbox import --name gvisor-default "runsc=$runsc/20221219/runsc"
template_named counter-2022 counter
expect "binary of the old golden" "$(sha256sum <"$runsc/20221219/runsc" | cut -d' ' -f1)" "$(binary_of runsc "$(golden_of counter-2022)")"
run ate create actor c1 --template counter-2022
for actor in c1 b1 a1; do
  ask $actor
  answered
  run ate suspend actor $actor
done
run ate get snapshots
for actor in c1 b1 a1; do made_with runsc $actor; done
held "three binaries of two versions side by side, each actor under its own"

step "6. What must not work"
say "A template that tries to name its own sandbox binary:"
sed 's/name: counter$/name: evil/; s|^spec:|spec:\n  runsc: {url: "file:///tmp/evil", sha256: "00"}|' \
  examples/counter.yaml >"$work/evil.yaml"
refused 2 UNKNOWN_FIELD ate apply -f "$work/evil.yaml"

say "A template that needs what the binary cannot do (two containers in one snapshot, under the old runsc):"
sed 's|oci:../|oci:'"$root"'/|' examples/two-containers.yaml >"$work/two-containers.yaml"
refused 4 MISSING_CAPABILITY ate apply -f "$work/two-containers.yaml" --wait

say "A snapshot whose manifest was changed behind our back:"
ask a2
expect "count of a2" 4 "$(count)"
run ate suspend actor a2
manifest=$(snapshot_of a2)
uid=$(field .metadata.uid actor a2)
stored=$(ls -d "$work/data/objects/actors/$uid"/*/ | tail -n 1)manifest.json
chmod u+w "$stored"
sed -i "s/$first_binary/$(printf '0%.0s' {1..64})/" "$stored"
rm -rf "$work/data/node/snapshots/$manifest"
refused 5 MANIFEST_DIGEST_MISMATCH ate resume actor a2
say "Nobody waits for it for ever: its memory is given up only when somebody says so."
refused 5 SNAPSHOT_CORRUPT ate resume actor a2
run ate resume actor a2 --boot
ask a2
expect "count of a2 after a boot" 1 "$(count)"
held "a2 began anew; the others never noticed"

say "A binary that is not the one its digest names:"
cp "$runsc/20240729-trixie/runsc" "$work/runsc-changed"
printf 'x' >>"$work/runsc-changed"
cat >"$work/changed.yaml" <<YAML
apiVersion: ate.dev/v1alpha1
kind: SandboxConfig
metadata: {name: gvisor-changed}
spec:
  sandboxClass: gvisor
  assets:
    $(dpkg --print-architecture):
      runsc: {url: "file://$work/runsc-changed", sha256: "$(printf 'x' | sha256sum | cut -d' ' -f1)"}
YAML
refused 5 ASSET_DIGEST_MISMATCH ate apply -f "$work/changed.yaml" --wait
