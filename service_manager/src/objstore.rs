//! The objstore service: the star servers of this machine, each a process of its own.

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use serde::Deserialize;
use star_control::{ClusterState, View};
use star_core::{
    ServerId,
    message::{RequestBody, ResponseBody},
    network::{ClientOptions, TcpClient},
};

use crate::{
    error::ServiceError,
    launch::{self, Launch},
    settings::{Control, LocalServer, Settings},
};

/// What a server says of itself; what is not used here is left out.
#[derive(Debug, Deserialize)]
struct ServerStatus {
    name: String,
    id: ServerId,
    /// How long its lease still runs; 0 without one.
    lease_ms: u64,
    stars: Vec<StarStatus>,
    plane: Option<PlaneStatus>,
    cluster: Option<ClusterState>,
}

#[derive(Debug, Deserialize)]
struct PlaneStatus {
    /// What is wrong between the server and the control plane, and what to do.
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StarStatus {
    id: u16,
    serving: bool,
}

/// How to start the star servers of this machine, in the order of the configuration.
pub(crate) fn launches(settings: &Settings, control: Control) -> Result<Vec<Launch>, ServiceError> {
    let program = server_program()?;
    let launch = |server: LocalServer| {
        let mut args: Vec<OsString> = vec!["serve".into(), "--name".into(), server.name.clone().into()];
        if let Some(file) = &settings.file {
            args.extend(["--config".into(), file.into()]);
        }
        args.extend(["--set".into(), format!("control.backend={control}").into()]);
        let leaves = vec![server.store];
        let program = program.clone();
        Launch { name: server.name, addr: server.addr, program, args, configuration: None, leaves }
    };
    Ok(settings.local_servers()?.into_iter().map(launch).collect())
}

/// Removes the stores of the servers of this machine, none of which runs.
pub(crate) fn remove_stores(settings: &Settings) -> Result<(), ServiceError> {
    for server in settings.local_servers()? {
        launch::remove_unused(&server.store)?;
    }
    Ok(())
}

/// Whether a server holds a lease and serves every star that it is in, or on the way into; the error is a sentence for people.
pub(crate) async fn health(name: &str, addr: &str, limit: Duration) -> Result<String, String> {
    let options = ClientOptions { pool_size: 1, connect_timeout: limit, request_timeout: limit, ..Default::default() };
    let client = TcpClient::new(addr.to_owned(), options);
    let answer = client.call(&RequestBody::Status.into()).await.map_err(|error| error.to_string())?;
    let ResponseBody::Status(text) = answer.body else {
        return Err(format!("answers STATUS with {:?}", answer.body));
    };
    let status: ServerStatus =
        serde_json::from_str(&text).map_err(|error| format!("its status cannot be read: {error}"))?;
    if status.name != name {
        return Err(format!("another server, {}, answers at {addr}", status.name));
    }
    status.health().map_err(|why| match status.plane.and_then(|plane| plane.note) {
        Some(note) => format!("{why} ({note})"),
        None => why,
    })
}

impl ServerStatus {
    fn health(&self) -> Result<String, String> {
        let cluster = self.cluster.as_ref().ok_or("knows no cluster yet")?;
        if self.lease_ms == 0 {
            return Err("holds no lease".to_owned());
        }
        let without = cluster.stars.iter().filter(|view| view.members.is_empty()).count();
        if without > 0 || cluster.stars.is_empty() {
            return Err(format!("{without} of {} stars have no view yet", cluster.stars.len()));
        }
        // Stars take a server in one by one: it is not ready when it serves the first of them.
        let is_in = |view: &&View| view.is_member(self.id) || view.learners.contains(&self.id);
        let mine: Vec<_> = cluster.stars.iter().filter(is_in).collect();
        if mine.is_empty() {
            return Err("is a member of no star".to_owned());
        }
        let serves = |star: u16| self.stars.iter().any(|own| own.id == star && own.serving);
        let serving = mine.iter().filter(|view| serves(view.star.0)).count();
        if serving < mine.len() {
            return Err(format!("serves {serving} of its {} stars", mine.len()));
        }
        let led = mine.iter().filter(|view| view.leader == self.id).count();
        Ok(format!("serves {serving} stars, leads {led}"))
    }
}

/// The `star` program, which is built and installed beside this one.
fn server_program() -> Result<PathBuf, ServiceError> {
    let own = env::current_exe().map_err(ServiceError::io("find", "this program"))?;
    let path = own.with_file_name("star");
    if path.is_file() { Ok(path) } else { Err(ServiceError::NoServerProgram { path }) }
}

#[cfg(test)]
mod tests {
    use star_core::{Epoch, StarId};

    use super::*;

    fn view(star: u16, members: &[u16], leader: u16) -> View {
        let (members, leader) = (members.iter().copied().map(ServerId).collect(), ServerId(leader));
        View { star: StarId(star), epoch: Epoch(1), founded: Epoch(1), members, leader, ..View::default() }
    }

    fn status(lease_ms: u64, serving: &[bool], views: Option<Vec<View>>) -> Result<String, String> {
        let stars = serving.iter().zip(0..).map(|(serving, id)| StarStatus { id, serving: *serving }).collect();
        let cluster = views.map(|stars| ClusterState { stars, ..ClusterState::new("c", 0) });
        ServerStatus { name: "a".to_owned(), id: ServerId(1), lease_ms, stars, plane: None, cluster }.health()
    }

    #[test]
    fn healthy_is_who_serves_all_that_is_its_own() {
        let views = || Some(vec![view(0, &[1, 2], 1), view(1, &[1, 2], 2), view(2, &[2], 2)]);
        assert_eq!(status(500, &[true, true, false], views()), Ok("serves 2 stars, leads 1".to_owned()));
        let learns = Some(vec![view(0, &[1, 2], 2), View { learners: vec![ServerId(1)], ..view(1, &[2], 2) }]);
        for (lease_ms, serving, views, why) in [
            (500, vec![], None, "no cluster"),
            (0, vec![true, true, false], views(), "no lease"),
            (500, vec![true, false, false], views(), "serves 1 of its 2"),
            (500, vec![true, false], learns, "serves 1 of its 2"),
            (500, vec![], Some(vec![]), "have no view"),
            (500, vec![true], Some(vec![view(0, &[1], 1), View::default()]), "1 of 2 stars have no view"),
            (500, vec![false], Some(vec![view(0, &[2], 2)]), "member of no star"),
        ] {
            let error = status(lease_ms, &serving, views).expect_err(why);
            assert!(error.contains(why), "{error} instead of {why}");
        }
    }
}
