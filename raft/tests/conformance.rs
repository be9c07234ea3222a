//! What every control plane must do, on one member, and on three: in one process without a network, and over TCP.

#[macro_use]
#[path = "../../control/tests/suite/mod.rs"]
mod suite;
mod support;

use support::{Cluster, Transport, patient_times};

macro_rules! on {
    ($module:ident, $members:expr, $transport:expr, $($case:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cluster = Cluster::start($members, $transport, patient_times()).await;
                    suite::$case(cluster.client()).await;
                }
            )*
        }
    };
}

each_case! { on! one_member, 1, Transport::Tcp, }
each_case! { on! in_one_process, 3, Transport::Wires, }
each_case! { on! over_tcp, 3, Transport::Tcp, }
