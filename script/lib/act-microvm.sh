# Second act of script/demo: class microvm, beside the first on the same node.
# shellcheck shell=bash

act_begun=$(now_ms)

step "7. A second class beside it: virtual machines"
say "Its binaries, a QEMU, a kernel and the guest agent, are made from Debian packages."
run ate sandbox import --class microvm --name microvm-default --default --from "$microvm/10.0"
run ate get sandboxconfigs
first_vmm=$(field '.spec.assets[].vmm.sha256' sandboxconfig microvm-default)
guest_kernel=$(field .status.versions.kernel sandboxconfig microvm-default)
say "The same agent as a machine:"
command_line "diff examples/counter.yaml examples/counter-microvm.yaml   (without comments)"
out=$(diff <(grep -v '#' examples/counter.yaml) <(grep -v '#' examples/counter-microvm.yaml) || true)
shown <<<"$out"
expect "differences but for the name" "> spec: sandboxClass: microvm" "$(
  grep '^[<>]' <<<"$out" | grep -v ' name: ' | sed 's/>  */> spec: /'
)"
say "It waits for a worker of its class; those of the other are no use to it:"
refused 6 DEADLINE_EXCEEDED ate apply -f examples/counter-microvm.yaml --wait --timeout 3s
grep -q "its sandbox class is gvisor, the actor's is microvm" <<<"$out" || fail "it does not say why"
held "it says why"
run ate apply -f examples/pool-microvm.yaml --wait
run ate apply -f examples/counter-microvm.yaml --wait
run ate get pools,templates,workers
expect "class of the golden" microvm "$(field .spec.sandboxClass snapshot "$(golden_of counter-microvm)")"
held "two pools on one node; the golden snapshot of a booted machine is there"

step "8. The same commands: four actors on two machines"
run ate create actor m1 m2 m3 m4 --template counter-microvm
for round in 1 2; do
  line=''
  for actor in m1 m2 m3 m4; do
    ask $actor
    expect "count of $actor in round $round" "$round" "$(count)"
    line+="  $actor=$(count) ($took ms)"
  done
  printf '   │ round %d:%s\n' "$round" "$line"
done
run ate resume actor m1
run ate suspend actor m1
run ate resume actor m1
run ate pause actor m1
ask m1
answered
expect "count of m1 after suspend, resume and pause" 3 "$(count)"
held "m1 went on counting, in the memory of a machine"
say "Who runs them?"
ask a1 /kernel
of_gvisor=$out
ask m1 /kernel
printf '   │ %-22s%s\n' "this machine" "$(uname -r)" "a1, class gvisor" "$of_gvisor" "m1, class microvm" "$out"
expect "kernel of m1" "$guest_kernel" "$out"
[ "$of_gvisor" != "$out" ] || fail "a1 and m1 have the same kernel"
held "m1 runs under the kernel its configuration names, a1 under gVisor's"
run ate get actors

step "9. A suspended machine is what differs from its golden snapshot"
run ate suspend actor m1 a1
run ate get snapshots
golden=$(golden_of counter-microvm)
expect "base of m1's snapshot" "$golden" "$(field .spec.base snapshot "$(snapshot_of m1)")"
whole=$(field .status.size snapshot "$golden")
own=$(field .status.size snapshot "$(snapshot_of m1)")
[ $((own * 10)) -lt "$whole" ] || fail "$own bytes are not much less than $whole"
held "m1 takes $((own / 1024)) KiB, the golden snapshot it rests on $((whole / 1024)) KiB"

step "10. The default changes to another QEMU; what exists stays with what it was made with"
run ate sandbox import --class microvm --name microvm-default --default --from "$microvm/7.2"
second_vmm=$(field '.spec.assets[].vmm.sha256' sandboxconfig microvm-default)
[ "$second_vmm" != "$first_vmm" ] || fail "both are the same QEMU"
ask m1
answered
expect "count of m1 after the change" 4 "$(count)"
template_named counter-microvm-next counter-microvm
run ate create actor n1 --template counter-microvm-next
ask n1
answered
expect "count of n1" 1 "$(count)"
run ate suspend actor m1 n1
for actor in m1 n1; do made_with vmm $actor; done
expect "QEMU of m1" "$first_vmm" "$(binary_of vmm "$(snapshot_of m1)")"
expect "QEMU of the new golden" "$second_vmm" "$(binary_of vmm "$(golden_of counter-microvm-next)")"
expect "QEMU of n1" "$second_vmm" "$(binary_of vmm "$(snapshot_of n1)")"
held "two QEMUs side by side, each actor under its own"

step "11. No actor lands on a worker of the other class"
ask a1
ask m2
strangers=$(ate get actors,workers -o json | jq -r '
  (.items | map(select(.kind == "Actor")) | INDEX("default/" + .metadata.name)) as $actors
  | .items[] | select(.kind == "Worker" and .status.actor != null)
  | select($actors[.status.actor].status.sandboxClass != .spec.sandboxClass) | .metadata.name')
run ate get workers
expect "workers with an actor of another class" "" "$strangers"
say "Without a worker of their class they stay where they are, though two others are free:"
run ate suspend actor a1 a2
sed 's/replicas: 2/replicas: 0/' examples/pool-microvm.yaml >"$work/pool-microvm.yaml"
run ate apply -f "$work/pool-microvm.yaml" --wait
expect "free workers of class gvisor" 2 "$(ate get workers -o json |
  jq '[.items[] | select(.spec.sandboxClass == "gvisor" and .status.phase == "Free")] | length')"
refused 4 NO_SUITABLE_WORKER ate resume actor m1
grep -q "its sandbox class is gvisor, the actor's is microvm" <<<"$out" || fail "it does not say why"
run ate apply -f examples/pool-microvm.yaml --wait
ask m1
answered
expect "count of m1 with its pool back" 5 "$(count)"
held "m1 waited for its pool and went on"

end_step
step_begun=''
say "The second act took $(seconds $(($(now_ms) - act_begun)))."
