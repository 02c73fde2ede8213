//! What every sandbox class promises, asked of each class by the same tests, on a node of its own each. The promises are in
//! `src/promises`; here is the list of classes and of promises.

/// Each promise as a test of each class.
macro_rules! suite {
    (classes: { $($class:ident: $kit:expr,)+ } promises: $promises:tt) => { $(suite! { @class $class $kit; $promises })+ };
    (@class $class:ident $kit:expr; { $($section:ident: { $($promise:ident,)+ })+ }) => {
        mod $class {
            $($(
                #[test]
                fn $promise() {
                    ate_e2e::promises::$section::$promise(&$kit);
                }
            )+)+
        }
    };
}

suite! {
    classes: {
        gvisor: ate_e2e::kit::GVISOR,
        microvm: ate_e2e::kit::MICROVM,
        process: ate_e2e::kit::PROCESS,
    }
    promises: {
        beginning: {
            actors_begin_from_the_golden_snapshot_of_their_template,
            the_image_says_what_runs_as_whom_and_where,
            what_a_class_does_not_report_it_refuses_before_anything_starts,
            an_actor_never_lands_on_a_pool_of_another_class,
        }
        going_on: {
            an_actor_suspended_and_paused_by_command_goes_on_where_it_was,
            ten_rounds_of_suspend_and_resume_lose_no_byte,
            an_actor_goes_on_at_another_worker,
            six_actors_share_two_workers_and_each_goes_on_counting,
            an_idle_actor_is_suspended_by_itself_and_woken_by_the_next_request,
            only_durable_directories_survive_when_the_template_says_data,
            two_containers_share_an_actor_and_survive_together,
            a_snapshot_stays_with_the_binaries_it_was_made_under,
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
        dying: {
            a_herder_that_dies_is_replaced_and_its_actor_served_again,
            a_sandbox_killed_under_its_actor_is_started_again_by_the_next_request,
            a_node_that_stops_leaves_nothing_behind_and_loses_nothing,
            a_node_killed_and_started_again_keeps_every_committed_generation,
            a_disk_that_fills_up_during_a_suspend_leaves_the_actor_running,
        }
    }
}
