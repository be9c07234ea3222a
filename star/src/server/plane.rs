//! What people should know of the control plane.

use std::time::Duration;

use star_control::{ControlEvent, Plane};
use star_core::{config::Config, protocol::Input, server::Handle};
use star_host::{ControlPlane, HostError};
use star_raft::MemberState;
use tokio::sync::watch;

use super::{
    Node,
    options::{ServerOptions, StartError},
};
use crate::protocol::{Control, PlaneRole, PlaneStatus};

/// How often it is looked whether there is news of the control plane for people.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn status(plane: &ControlPlane, trouble: Option<&str>) -> PlaneStatus {
    let Some(member) = &plane.member else {
        let backend = if matches!(plane.client, Plane::Embedded(_)) { "embedded" } else { "redis" };
        let note = trouble.map(ToOwned::to_owned);
        return PlaneStatus { backend, role: PlaneRole::Client, leader: None, note };
    };
    let (role, note) = match &*member.state().borrow() {
        MemberState::Founding { missing } => (PlaneRole::Founding, Some(founding(missing))),
        MemberState::Member => (PlaneRole::Member, None),
        MemberState::Stranger { why } => (PlaneRole::Stranger, Some(why.clone())),
        MemberState::Failed { why } => (PlaneRole::Failed, Some(failed(why))),
    };
    let note = note.or_else(|| trouble.map(ToOwned::to_owned));
    PlaneStatus { backend: "embedded", role, leader: member.leader().map(|leader| leader.name), note }
}
/// A client of the control plane that the configuration names, for programs that are none of its servers. To be used on
/// one runtime.
pub fn control_plane(config: &Config) -> Result<Plane, StartError> {
    let options = ServerOptions::from_config(config, &config.cluster.servers[0].name)?;
    Ok(options.control.client(&options.cluster, options.lease.ttl).map_err(HostError::from)?)
}

fn founding(missing: &[String]) -> String {
    if missing.is_empty() {
        return "the control plane is being founded".to_owned();
    }
    let missing = missing.join(", ");
    format!("the control plane's first start needs all of its members: start {missing}")
}

fn failed(why: &str) -> String {
    format!("this server takes no part in the control plane any more: {why}; mend that, then start the server again")
}

/// Keeps what is wrong between the agent and the control plane, for people: `None` once it can be used again. That the lease
/// is lost, say, is no end of the reason.
pub(super) fn note(trouble: &watch::Sender<Option<String>>, event: &ControlEvent) {
    match event {
        ControlEvent::Waiting(why) | ControlEvent::Unreachable(why) => drop(trouble.send_replace(Some(why.clone()))),
        ControlEvent::Answers => drop(trouble.send_replace(None)),
        ControlEvent::Awaited(why) => drop(trouble.send_replace(why.clone())),
        ControlEvent::Cluster(_) | ControlEvent::Lease { .. } | ControlEvent::LeaseLost | ControlEvent::Left => {}
    }
}

/// Tells the protocol, which answers for the server's status, what people should know of the control plane.
pub(super) async fn report(plane: ControlPlane, trouble: watch::Receiver<Option<String>>, handle: Handle<Node>) {
    let mut told = None;
    loop {
        let status = status(&plane, trouble.borrow().as_deref());
        if told.as_ref() != Some(&status) {
            handle.input(Input::Control(Control::Plane(status.clone())));
            told = Some(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
