//! Requests with many keys. One server is asked for all of them; a part that it refuses for a passing reason, mostly since
//! it does not serve the part's star, is sent again by itself, to a server that does.

use bytes::Bytes;
use star_core::{
    ErrorCode, Failure, Key, KeyRef, RequestId, Time, Version,
    admission::PARTS_MAX,
    message::{Condition, ManyEntry, Request, RequestBody, Response, ResponseBody, SetEntry},
    store::Encoding,
};
use tokio::task::JoinSet;

use super::{ClientError, Object, StarClient, mapped::ManyRead, names, object};

impl StarClient {
    /// Several keys at once; each by itself is linearizable, together they are no snapshot. A mapped store answers
    /// what it can, much faster than key by key; a server is asked for the rest, 1024 keys at a time.
    pub async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Object>>, ClientError> {
        let keys: Vec<KeyRef<'_>> = keys.iter().map(|key| KeyRef::new(key)).collect();
        let read = self.inner.servers.read_many_mapped(&keys);
        self.read_left(&keys, read).await
    }

    /// Asks a server for what a mapped store did not answer.
    pub(super) async fn read_left(
        &self,
        keys: &[KeyRef<'_>],
        read: ManyRead,
    ) -> Result<Vec<Option<Object>>, ClientError> {
        let ManyRead { mut found, left, .. } = read;
        for places in left.chunks(PARTS_MAX) {
            let asked = places.iter().map(|place| keys[*place].to_key()).collect();
            let answered = parts(self.call(RequestBody::GetMany { keys: asked }.into()).await?)?;
            if answered.len() != places.len() {
                return Err(ClientError::unexpected("an answer of other parts than keys"));
            }
            for (place, part) in places.iter().zip(answered) {
                found[*place] = object(part)?;
            }
        }
        Ok(found)
    }

    /// Several writes at once (at most 1024); each by itself, not as a transaction. Returns their versions in order.
    pub async fn set_many(&self, objects: &[(&str, Bytes)]) -> Result<Vec<Version>, ClientError> {
        let mut value = Vec::with_capacity(objects.iter().map(|(_, value)| value.len()).sum());
        let mut entries = Vec::with_capacity(objects.len());
        for (key, bytes) in objects {
            let value_bytes = u32::try_from(bytes.len()).map_err(|_| ClientError::unexpected("a value over 4 GiB"))?;
            entries.push(SetEntry { key: Key::new(*key), encoding: Encoding::Raw, value_bytes });
            value.extend_from_slice(bytes);
        }
        let body = RequestBody::SetMany { entries, request_id: RequestId::Unnamed };
        let request = Request { body, value: value.into() };
        parts(self.call(request).await?)?
            .into_iter()
            .map(|answer| match answer.body {
                ResponseBody::Written { version } => Ok(version),
                other => Err(ClientError::unexpected(&other)),
            })
            .collect()
    }

    /// Sends the parts that were refused for a passing reason again, each by itself and under its own name. Says, too,
    /// whether one of them may have been done before its last answer.
    pub(super) async fn ask_again_for_parts(
        &self,
        request: &Request,
        refused: Response,
        deadline: Time,
    ) -> (Result<Response, ClientError>, bool) {
        let mut may_be_done = false;
        let mut answers = match split(refused) {
            Ok(answers) => answers,
            Err(error) => return (Err(error), may_be_done),
        };
        let mut again = JoinSet::new();
        for (place, single) in singles(request).enumerate() {
            let Some(code) = answers.get(place).and_then(|answer| passing(&answer.body)).map(|failure| failure.code)
            else {
                continue;
            };
            may_be_done |= code == ErrorCode::Unfinished;
            let client = self.clone();
            again.spawn(async move { (place, client.call_whole(&single, deadline).await) });
        }
        while let Some(done) = again.join_next().await {
            let (place, (answer, part_may_be_done)) = done.expect("a request does not panic, and nobody aborts it");
            may_be_done |= part_may_be_done;
            answers[place] = match answer {
                Ok(answer) => answer,
                Err(ClientError::Refused(failure)) => ResponseBody::Error(failure).into(),
                Err(error) => return (Err(error), may_be_done),
            };
        }
        (Ok(joined(answers)), may_be_done)
    }

    /// Does again what servers have refused, and so not done, because they did not know this client.
    pub(super) async fn ask_as_another(
        &self,
        request: Request,
        refused: Response,
        deadline: Time,
    ) -> Result<Response, ClientError> {
        let (RequestBody::SetMany { entries, .. }, ResponseBody::Many(mut answers)) = (&request.body, refused.body)
        else {
            return self.write_unnamed(request, deadline).await;
        };
        let (mut parts, mut places, mut value) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = request.value.clone();
        for (place, (entry, answer)) in entries.iter().zip(&answers).enumerate() {
            let bytes = rest.split_to((entry.value_bytes as usize).min(rest.len()));
            if names::is_forgotten(&answer.body) {
                parts.push(entry.clone());
                places.push(place);
                value.extend_from_slice(&bytes);
            }
        }
        let body = RequestBody::SetMany { entries: parts, request_id: RequestId::Unnamed };
        let again = self.write_unnamed(Request { body, value: value.into() }, deadline).await?;
        let ResponseBody::Many(again) = again.body else { return Err(ClientError::unexpected(&again.body)) };
        for (place, answer) in places.into_iter().zip(again) {
            answers[place] = answer;
        }
        Ok(Response { body: ResponseBody::Many(answers), value: Bytes::new() })
    }
}

/// Whether parts of an answer are refusals for a passing reason.
pub(super) fn is_refused_in_part(body: &ResponseBody) -> bool {
    matches!(body, ResponseBody::Many(entries) if passing_refusal(entries).is_some())
}

/// The first refusal for a passing reason among the parts of an answer.
pub(super) fn passing_refusal(entries: &[ManyEntry]) -> Option<Failure> {
    entries.iter().find_map(|entry| passing(&entry.body)).cloned()
}

fn passing(body: &ResponseBody) -> Option<&Failure> {
    match body {
        ResponseBody::Error(failure) if failure.code.retry() && failure.code != ErrorCode::NoSpace => Some(failure),
        _ => None,
    }
}

/// Whether these are writes named by a text: what the parts of such a request are called no request of one key may be.
pub(super) fn has_text_id(body: &RequestBody) -> bool {
    matches!(body, RequestBody::SetMany { request_id: RequestId::Text(_), .. })
}

/// The parts of a request with many keys, each as a request of its own.
fn singles(request: &Request) -> impl Iterator<Item = Request> {
    let (keys, entries, whole_id) = match &request.body {
        RequestBody::GetMany { keys } => (keys.as_slice(), &[][..], None),
        RequestBody::SetMany { entries, request_id } => (&[][..], entries.as_slice(), Some(request_id)),
        _ => (&[][..], &[][..], None),
    };
    let reads = keys.iter().map(|key| RequestBody::Get { key: key.clone() }.into());
    let mut rest = request.value.clone();
    let writes = entries.iter().zip(0..).map(move |(entry, index)| Request {
        body: RequestBody::Set {
            key: entry.key.clone(),
            encoding: entry.encoding,
            condition: Condition::Always,
            request_id: whole_id.map_or(RequestId::Unnamed, |id| id.part(index)),
        },
        value: rest.split_to((entry.value_bytes as usize).min(rest.len())),
    });
    reads.chain(writes)
}

/// The answers to the parts of a request with many keys; an error if one of them is a refusal.
fn parts(answer: Response) -> Result<Vec<Response>, ClientError> {
    let refuse = |part: Response| match part.body {
        ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
        _ => Ok(part),
    };
    split(answer)?.into_iter().map(refuse).collect()
}

/// The answers to the parts of a request with many keys.
fn split(answer: Response) -> Result<Vec<Response>, ClientError> {
    let ResponseBody::Many(entries) = answer.body else {
        return Err(ClientError::unexpected(&answer.body));
    };
    let mut rest = answer.value;
    let part = |ManyEntry { body, value_bytes }| {
        if value_bytes as usize > rest.len() {
            return Err(ClientError::unexpected("an answer whose parts are longer than it is"));
        }
        Ok(Response { body, value: rest.split_to(value_bytes as usize) })
    };
    entries.into_iter().map(part).collect()
}

/// The opposite of [`split`].
fn joined(answers: Vec<Response>) -> Response {
    let mut value = Vec::with_capacity(answers.iter().map(|answer| answer.value.len()).sum());
    let part = |Response { body, value: own }: Response| {
        value.extend_from_slice(&own);
        ManyEntry { body, value_bytes: own.len() as u32 }
    };
    let entries = answers.into_iter().map(part).collect();
    Response { body: ResponseBody::Many(entries), value: value.into() }
}
