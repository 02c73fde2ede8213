//! What holds in a cluster besides: a worker is a pod, and pods go and come.

use crate::{Kit, Site, eventually, user::ANSWER};

use super::phase;

pub fn whoever_is_in_a_pod_that_is_deleted_goes_on_in_another(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    let before = pods(&site);
    assert_eq!(before.len(), 1, "{before:?}");
    // It answers when the pod is gone.
    site.room().kubectl(&["delete", &before[0]]).ok();
    assert_eq!(site.count("a"), 2);
    assert_eq!(lost(&site), 0);
    let now = pods(&site);
    assert!(now.len() == 1 && now != before, "{before:?} {now:?}");
}

pub fn whoever_is_in_a_pool_that_is_scaled_to_zero_goes_on_when_it_has_workers_again(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.room().kubectl(&["scale", "workerpool/pool", "--replicas=0"]).ok();
    eventually("no pod to be left", ANSWER, || pods(&site).is_empty());
    assert_eq!(phase(&site, "a"), "Suspended");
    assert_eq!(site.request("a", "/").status, 503);
    site.room().kubectl(&["scale", "workerpool/pool", "--replicas=1"]).ok();
    site.workers_ready(1);
    assert_eq!(site.count("a"), 2);
    assert_eq!(lost(&site), 0);
}

pub fn binaries_are_not_uploaded_where_nodes_come_and_go(kit: &'static Kit) {
    let site = Site::start(kit, 0);
    let said = site.ate(&["sandbox", "import", "--class", kit.class, "--name", "mine", "any=/etc/passwd"]).refused();
    assert!(said.contains("WRONG_STATE") && said.contains("SandboxConfig"), "{said}");
    assert!(!site.ate(&["get", "sandboxconfigs", "-o", "name"]).ok().contains("mine"));
}

/// As `pod/NAME`.
fn pods(site: &Site) -> Vec<String> {
    site.room().kubectl(&["get", "pods", "-o", "name"]).ok().lines().map(str::to_owned).collect()
}

fn lost(site: &Site) -> u64 {
    site.get("actor", "a")["status"]["lostActivations"].as_u64().unwrap_or_default()
}
