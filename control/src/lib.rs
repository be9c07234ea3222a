//! The control plane: who is in the cluster, which view each star has, and who holds a lease.
//!
//! * Pure: [`view`] and [`document`] (what is kept), [`mod@plan`] (what the next views should be), [`machine`] (the state
//!   machine of the embedded backend), [`lease`] (when a server's lease counts), [`reach`] (which servers one says it cannot
//!   reach).
//! * The trait [`ControlPlane`] in [`plane`], and its backends [`embedded`] and [`redis`].
//! * [`agent`]: the part of a server that registers it, keeps its lease, and tells it the views.

pub mod agent;
pub mod document;
pub mod embedded;
pub mod lease;
pub mod machine;
pub mod plan;
pub mod plane;
pub mod reach;
pub mod redis;
pub mod view;

pub use agent::{Agent, AgentConfig, AgentError, ControlEvent, Word};
pub use embedded::EmbeddedClient;
pub use lease::{LeaseConfig, LeaseKeeper, LeaseRequests, LeaseState, LeaseStep};
pub use machine::Machine;
pub use plan::{PlanConfig, plan};
pub use plane::{Acquired, CasOutcome, ControlPlane, Lease, Plane, PlaneError, Renewed, Revision, Versioned};
pub use reach::ReachKeeper;
pub use redis::{RedisOptions, RedisPlane};
pub use view::{Claim, ClusterState, Past, Resumed, ServerRecord, Standing, View};
