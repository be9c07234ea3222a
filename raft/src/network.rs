//! Calls from this member to the others.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};
use star_control::embedded::{Carrier, CarryError, Envelope};
use star_core::message::{frame::HEADER_BYTES_MAX, from_postcard, to_postcard};

use crate::{
    rpc::{Ask, MemberCall, Told},
    store::Durable,
    types::{Group, Site, StoreId},
};

/// The most bytes of a call that surely fit a frame.
pub(crate) const CALL_BYTES_MAX: usize = HEADER_BYTES_MAX - 1024;

/// How long a member that cannot be reached is left alone.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);

type Failure<E = openraft::error::Infallible> = RPCError<StoreId, Site, RaftError<StoreId, E>>;

/// Makes the ways to other members.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) plane: u64,
    /// Of this member's log.
    pub(crate) durable: Durable,
}

impl Network {
    /// Asks the member at `addr`, whoever it is if `to` is `None`.
    pub(crate) async fn ask<G: Group>(
        &self,
        addr: &str,
        to: Option<StoreId>,
        ask: Ask<G>,
        limit: Duration,
    ) -> Result<Told, CarryError> {
        self.carry(addr, &self.call(to, ask), limit).await
    }

    fn call<G: Group>(&self, to: Option<StoreId>, ask: Ask<G>) -> Bytes {
        let (mut call, mut envelope) = (Vec::new(), Vec::new());
        to_postcard(&MemberCall { plane: self.plane, to, ask }, &mut call);
        to_postcard(&Envelope::Member(&call), &mut envelope);
        envelope.into()
    }

    async fn carry(&self, addr: &str, call: &Bytes, limit: Duration) -> Result<Told, CarryError> {
        let answer = self.carrier.exchange(addr, call.clone(), limit).await?;
        from_postcard(&answer).map_err(CarryError::NoAnswer)
    }
}

impl<G: Group> RaftNetworkFactory<G> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: StoreId, site: &Site) -> Peer {
        Peer { network: self.clone(), target, addr: site.addr.clone() }
    }
}

/// The way to one other member.
pub(crate) struct Peer {
    network: Network,
    target: StoreId,
    addr: String,
}

impl Peer {
    async fn ask<G: Group, E: std::error::Error>(&self, ask: Ask<G>, option: &RPCOption) -> Result<Told, Failure<E>> {
        self.send(&self.network.call(Some(self.target), ask), option).await
    }

    async fn send<E: std::error::Error>(&self, call: &Bytes, option: &RPCOption) -> Result<Told, Failure<E>> {
        self.network.carry(&self.addr, call, option.hard_ttl()).await.map_err(|error| match error {
            CarryError::NotSent(_) => Unreachable::new(&error).into(),
            CarryError::NoAnswer(_) => NetworkError::new(&error).into(),
        })
    }

    /// What an answer to something else means: a member that does not take part.
    fn refused<E: std::error::Error>(&self, told: Told) -> Failure<E> {
        let why = match told {
            Told::Refused(why) => why,
            other => format!("{} answers something else: {other:?}", self.addr),
        };
        Unreachable::new(&io::Error::other(why)).into()
    }
}

impl<G: Group> RaftNetwork<G> for Peer {
    async fn append_entries(
        &mut self,
        mut append: AppendEntriesRequest<G>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<StoreId>, Failure> {
        // The library counts this member's own copy as soon as it is in memory. What is not on disk here is not committed
        // for the others, or they would have applied what is in no log any more if this member lost it.
        append.leader_commit = append.leader_commit.min(self.network.durable.upto());
        let entries = append.entries.len() as u64;
        let call = self.network.call(Some(self.target), Ask::<G>::Append(append));
        if call.len() > CALL_BYTES_MAX && entries > 1 {
            return Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(entries / 2)));
        }
        match self.send(&call, &option).await? {
            Told::Append(response) => Ok(response),
            other => Err(self.refused(other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        part: InstallSnapshotRequest<G>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<StoreId>, Failure<InstallSnapshotError>> {
        match self.ask(Ask::<G>::Snapshot(part), &option).await? {
            Told::Snapshot(response) => Ok(response),
            Told::Mismatch(mismatch) => {
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
            other => Err(self.refused(other)),
        }
    }

    async fn vote(&mut self, vote: VoteRequest<StoreId>, option: RPCOption) -> Result<VoteResponse<StoreId>, Failure> {
        match self.ask(Ask::<G>::Vote(vote), &option).await? {
            Told::Vote(response) => Ok(response),
            other => Err(self.refused(other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
