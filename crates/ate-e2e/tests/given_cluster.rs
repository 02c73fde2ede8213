//! What is promised holds in a cluster: in the one that `KUBECONFIG` names where `ATE_E2E=1` (see `docs/kubernetes.md`), and by
//! the same way in one of the test's own. The promises are in `src/promises`; those about a machine's own processes, files and
//! binaries are not among them.

use std::{process::Stdio, time::Duration};

use ate_e2e::{Kit, cluster::Cluster, counter_image, given};

/// All promises, on a machine that is busy with other tests.
const SUITE: Duration = Duration::from_secs(900);

/// Virtual machines are emulated in software here, so what is particular to a cluster has to do.
const OF_MACHINES: [&str; 4] = [
    "actors_begin_from_the_golden_snapshot_of_their_template",
    "an_actor_suspended_and_paused_by_command_goes_on_where_it_was",
    "whoever_is_in_a_pod_that_is_deleted_goes_on_in_another",
    "whoever_is_in_a_pool_that_is_scaled_to_zero_goes_on_when_it_has_workers_again",
];

/// As somebody would do it who has a cluster: all that is known of it is a kubeconfig, a class and the names of two images.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_promises_hold_in_a_cluster_and_nothing_is_left_of_it() {
    if given::kit().is_some() {
        return; // They are tried there.
    }
    let Some(cluster) = Cluster::install(2, &["gvisor", "microvm"]).await else { return };
    for (class, promises) in [("gvisor", &["promised::"][..]), ("microvm", &OF_MACHINES)] {
        let mut suite = tokio::process::Command::new(std::env::current_exe().unwrap());
        suite.args(promises).args(["--test-threads", "3"]).stdin(Stdio::null()).kill_on_drop(true);
        suite.env("ATE_E2E", "1").env("KUBECONFIG", cluster.kubeconfig()).env("ATE_E2E_CLASS", class);
        suite.env("ATE_E2E_ATEOM_IMAGE", format!("ateom-{class}:test")).env("ATE_E2E_IMAGE", counter_image());
        let ended = tokio::time::timeout(SUITE, suite.output()).await.expect("within the time");
        let ended = ended.unwrap();
        let (said, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{class}: {said}\n{errors}\n{}", cluster.last_words());
        println!("--- {class}\n{said}");
        assert_eq!(cluster.left_of("ate-e2e-").await, Vec::<String>::new());
    }
}

fn tried(promise: fn(&'static Kit)) {
    if let Some(kit) = given::kit() {
        promise(kit);
    }
}

macro_rules! suite {
    ($($section:ident: { $($promise:ident,)+ })+) => {
        /// Nothing, where no cluster is given.
        mod promised {
            $($(
                #[test]
                fn $promise() {
                    super::tried(ate_e2e::promises::$section::$promise);
                }
            )+)+
        }
    };
}

suite! {
    beginning: {
        actors_begin_from_the_golden_snapshot_of_their_template,
    }
    going_on: {
        an_actor_suspended_and_paused_by_command_goes_on_where_it_was,
        ten_rounds_of_suspend_and_resume_lose_no_byte,
        an_actor_goes_on_at_another_worker,
        six_actors_share_two_workers_and_each_goes_on_counting,
        an_idle_actor_is_suspended_by_itself_and_woken_by_the_next_request,
        only_durable_directories_survive_when_the_template_says_data,
        two_containers_share_an_actor_and_survive_together,
    }
    waking: {
        actors_of_one_name_in_two_atespaces_are_two_actors_and_know_it,
        ten_clones_of_one_golden_draw_different_random_numbers,
        an_actor_that_wakes_knows_what_time_it_is,
    }
    telling: {
        what_an_actor_prints_can_be_read_by_its_name,
        an_actor_that_ends_is_reported_and_comes_back_from_its_last_snapshot,
    }
    pods: {
        binaries_are_not_uploaded_where_nodes_come_and_go,
        whoever_is_in_a_pod_that_is_deleted_goes_on_in_another,
        whoever_is_in_a_pool_that_is_scaled_to_zero_goes_on_when_it_has_workers_again,
    }
}
