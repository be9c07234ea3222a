//! What every control plane must do, on three members: in one process without a network, and over TCP.

mod suite;
mod support;

use support::{Cluster, Transport, patient_times};

macro_rules! on {
    ($module:ident, $transport:expr, $($case:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cluster = Cluster::start(3, $transport, patient_times()).await;
                    suite::$case(cluster.client()).await;
                }
            )*
        }
    };
}

macro_rules! conformance {
    ($($case:ident)*) => {
        on!(in_one_process, Transport::Wires, $($case)*);
        on!(over_tcp, Transport::Tcp, $($case)*);
    };
}

conformance! {
    documents_are_set_by_revision_and_keep_every_byte
    a_race_has_exactly_one_winner_each_round
    revisions_count_up_under_load_and_a_watcher_hears_the_last
    a_watch_wakes_for_its_document
    a_dropped_watch_leaves_nothing_behind
    a_watcher_notices_a_plane_that_forgot
    one_of_many_gets_a_lease
    a_lease_runs_out_and_not_before
    a_renewed_lease_goes_on
    a_lease_that_ran_out_is_not_renewed
    only_the_holder_renews_and_releases
    release_frees_at_once
    the_leases_that_are_held_are_listed
    a_write_is_refused_while_a_lease_it_names_is_held
    no_write_slips_in_while_a_lease_is_held
    after_a_start_everybody_may_hold_a_lease_for_a_while
    what_breaks_a_limit_is_refused
}
